"""The agent's process: `python -m app.agent`.

A waking workspace is ready once this process listens and the manager knows its address. So the socket is opened
first, then a thread calls the manager, both with the standard library alone. Connections wait in the socket's queue
while Flask and the rest are imported, the model's client last.
"""

from __future__ import annotations

import os
import socket
import sys
import threading

from app.agent.settings import AgentSettings, BadSetting, own_address, settings_from

BACKLOG = 256
THREADS = 32
BODY_BYTES = 4 * 1024 * 1024
"""Of a request or an answer; held in memory, as pieces of files pass."""

RECEIVED_BYTES = 256 * 1024
"""Read from a connection at a time."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. OSError if the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(BACKLOG)
    return listener


def say_hello(settings: AgentSettings, port: int, stopping: threading.Event) -> None:
    """Report this process's address to the manager, and again at intervals: the manager may have lost its records."""
    from app.agent.gateway_client import Gateway, call_home

    hello = {
        "address": own_address(settings, os.environ, port),
        "name": settings.name or socket.gethostname(),
        "boot": os.urandom(8).hex(),
    }
    gateway = Gateway(settings.gateway_url, settings.token)
    while not stopping.is_set():
        call_home(gateway, hello, stopping)
        # The manager closes idle connections long before the next report.
        gateway.close()
        stopping.wait(settings.checkpoint_interval)


def serve(settings: AgentSettings, listener: socket.socket, stopping: threading.Event) -> None:
    """Serve until SIGTERM or SIGINT, then shut down."""
    import logging
    import signal

    ended, end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(ended, True)
    signal.set_wakeup_fd(end)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    # It logs each request that waits for a thread.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    for chatty in ("httpx2", "httpcore2", "httpx", "openai"):
        logging.getLogger(chatty).setLevel(logging.WARNING)

    import waitress.server

    from app.agent.server import create_app
    from app.agent.service import Agent

    agent = Agent(settings, os.environ)
    agent.start()
    server = waitress.server.create_server(
        create_app(agent),
        sockets=[listener],
        threads=THREADS,
        max_request_body_size=BODY_BYTES,
        inbuf_overflow=BODY_BYTES,
        outbuf_overflow=BODY_BYTES,
        recv_bytes=RECEIVED_BYTES,
        asyncore_use_poll=True,
        ident=None,
    )
    threading.Thread(target=server.run, name="http", daemon=True).start()
    os.read(ended, 1)
    stopping.set()
    agent.stop()


def main() -> int:
    """Run the agent; the exit status."""
    try:
        settings = settings_from(os.environ)
        listener = listen(settings.host, settings.port)
    except (BadSetting, OSError) as e:
        print(f"The agent can't start: {e}", file=sys.stderr)
        return 1
    stopping = threading.Event()
    if settings.gateway_url:
        port = listener.getsockname()[1]
        threading.Thread(target=say_hello, args=(settings, port, stopping), name="hello", daemon=True).start()
    serve(settings, listener, stopping)
    sys.stderr.flush()
    # A normal exit would wait for threads that wait for a provider.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
