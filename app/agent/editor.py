"""Passes the manager's orders on to the editor, which only programs of the same machine or pod reach."""

from __future__ import annotations

import http.client

ORDER_PATH = "/.workspace/disconnect"
ORDER_HEADER = "X-Workspace-Order"
"""As in app/editor/guard.js."""

TIMEOUT = 4.0
"""s for connecting, and for each read: the manager waits for 5 s."""

CONFIRMATION = 64
"""Characters of a confirmation."""


class EditorDown(Exception):
    """The editor can't be reached, or refused the order; the text says which."""


def pass_order(order: str, port: int) -> str:
    """Have the editor on this port end connections; returns its confirmation, which the manager verifies. Raises
    `EditorDown`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        connection.request("POST", ORDER_PATH, headers={ORDER_HEADER: order})
        response = connection.getresponse()
        if response.status != 200:
            raise EditorDown(f"it returned status {response.status}")
        return response.read(CONFIRMATION).decode("ascii", "replace")
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise EditorDown("it can't be reached" if isinstance(error, OSError) else "it returned no HTTP") from error
    finally:
        connection.close()
