"""Starts the processes of a workspace on this machine, with their commands and environments.

A workspace is hostile: it gets few of the worker's variables (app/volume/environment.py). Agent and editor get their
secrets in files, because any process of the same user can read an environment.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from app.core.access.agent_credentials import AgentCredentials
from app.core.sessions.model import Identity
from app.editor.code_server import CODE_SERVER
from app.process.secret_keys import Purpose
from app.process.settings import Settings
from app.volume.environment import inherited
from workers.runtime.agent_environment import agent_environment
from workers.runtime.local import processes
from workers.runtime.local.processes import Process
from workers.runtime.local.storage import WorkspaceStorage

PROGRAM_FOLDER = Path(__file__).resolve().parents[3]
"""Where `app.agent` is imported from: the agent's working folder, since a variable would reach its commands too."""

OWN_PROGRAMS = f"{sys.prefix}/bin" if sys.prefix != sys.base_prefix else ""
"""The programs of the service's virtual environment, "" outside of one: those are the machine's."""


class Launcher:
    """Starts editors and agents. `editor` and `agent` raise `OSError` when the program cannot be run."""

    def __init__(self, settings: Settings, storage: WorkspaceStorage) -> None:
        self._settings = settings
        self._storage = storage
        self._secrets = AgentCredentials(settings.secret_keys())

    @property
    def has_agents(self) -> bool:
        """Whether workspaces get an agent: its token is signed with SECRET_KEY, so there is none without."""
        return bool(self._settings.keys_for(Purpose.WORKSPACE))

    def marks(self, uuid: str) -> dict[str, str]:
        """The variables that every process of the workspace inherits, and by which it is found."""
        return {"WORKSPACE_UUID": uuid, "DATA_DIR": str(self._storage.data_dir)}

    def editor(self, identity: Identity, port: int, agent_port: int) -> Process:
        """Start the editor on this loopback port, beside an agent on its own (0: there is none). Its secret file is
        rewritten, as a key may have been rotated; without a SECRET_KEY the file is empty and the editor lets nobody
        in."""
        uuid = identity.uuid
        self._storage.write_editor_secret(uuid, self._secrets.editor_file(uuid) if self.has_agents else "")
        program = self._settings.code_server or shutil.which(CODE_SERVER.program) or CODE_SERVER.program
        data, folder, log = self._storage.editor_data(uuid), self._storage.app(uuid), self._storage.log(uuid)
        command = [program, *CODE_SERVER.arguments(port, data, folder)]
        environment = self._environment(identity) | self._editor_settings(uuid, port, agent_port)
        return processes.spawn(command, environment=environment, folder=folder, log=log)

    def epoch(self, uuid: str) -> int:
        """The epoch of the agent's token, 0 when it has none or SECRET_KEY has changed since."""
        named = self._secrets.owner_of(self._storage.read_token(uuid))
        return named.epoch if named is not None and named.uuid == uuid else 0

    def write_token(self, uuid: str, epoch: int = 0) -> None:
        """Write the agent's secrets for this epoch, 0 for the same epoch as before. Does nothing where workspaces have
        no agent. Raises `OSError`."""
        if self.has_agents:
            text = self._secrets.token_file(uuid, epoch or self.epoch(uuid))
            self._storage.write_token(uuid, text)

    def agent(self, identity: Identity, port: int, editor_port: int, epoch: int = 0) -> Process:
        """Start the agent on this loopback port, beside the editor on its own. Its token file is rewritten, as a key
        may have been rotated."""
        uuid = identity.uuid
        self.write_token(uuid, epoch)
        environment = self._environment(identity) | self._agent_settings(uuid, port, editor_port)
        command = [sys.executable, "-m", "app.agent"]
        log = self._storage.agent_log(uuid)
        return processes.spawn(command, environment=environment, folder=PROGRAM_FOLDER, log=log)

    def _environment(self, identity: Identity) -> dict[str, str]:
        own = {"HOME": str(self._storage.home(identity.uuid)), "USER_ID": identity.user_id}
        return {"LANG": "C.UTF-8", **inherited(os.environ, OWN_PROGRAMS), **own, **self.marks(identity.uuid)}

    def _ports_settings(self, uuid: str) -> dict[str, str]:
        """How the workspace's ports are shown: all workspaces of this machine share its network."""
        return {
            "VSCODE_PROXY_URI": self._settings.workspace_url(uuid, "{{port}}") + "/",
            "WORKSPACE_NETWORK": "shared",
        }

    def _editor_settings(self, uuid: str, port: int, agent_port: int) -> dict[str, str]:
        """The variables that app/editor/guard.js and activity.js read."""
        origins = " ".join(self._settings.embedding_origins())
        embedding = {"EMBED_ORIGINS": origins} if origins else {}
        return {
            "WORKSPACE_SECRET_FILE": str(self._storage.editor_secret_file(uuid)),
            "KEEPALIVE_MAX": f"{self._settings.keepalive_max:.0f}",
            "WORKSPACE_OWN_PORTS": f"{port} {agent_port}" if agent_port else str(port),
            **self._ports_settings(uuid),
            **embedding,
        }

    def _agent_settings(self, uuid: str, port: int, editor_port: int) -> dict[str, str]:
        chosen = self._settings
        return {
            "WORKSPACE_DIR": str(self._storage.app(uuid)),
            "AGENT_STATE_DIR": str(self._storage.conversation(uuid)),
            "AGENT_TOKEN_FILE": str(self._storage.token_file(uuid)),
            "PYTHONUNBUFFERED": "1",
            **self._ports_settings(uuid),
        } | agent_environment(
            chosen, host="127.0.0.1", port=port, editor_port=editor_port, stop_grace=chosen.stop_grace
        )
