"""What the processes of a workspace on this machine are started as: their commands and all their environment says.

A workspace is hostile, so nothing of the worker's environment is passed on but a fixed list; and agent and editor get
their secrets in files, since an environment is shown to whoever may look at the process.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from app.sessions.secrets import SessionSecrets
from app.settings import Settings
from workers.runtime import processes
from workers.runtime.folders import Folders
from workers.runtime.processes import Process

PASSED_ON = ("PATH", "LANG", "SHELL", "TERM", "USER")
"""All a workspace gets of the worker's environment: nothing there may be a secret."""

PROGRAM_FOLDER = Path(__file__).resolve().parents[2]
"""Where `app.agent` is imported from: the agent's working folder, since a variable would reach its commands too."""


class Launcher:
    """Starts editors and agents. Every method that starts one raises `OSError` when it can't be run."""

    def __init__(self, settings: Settings, folders: Folders) -> None:
        self._settings = settings
        self._folders = folders
        self._secrets = SessionSecrets(settings.secret_keys())

    @property
    def has_agents(self) -> bool:
        """Whether workspaces get an agent: not without a SECRET_KEY, by which it would be known."""
        return bool(self._settings.secret_keys())

    def marks(self, uuid: str) -> dict[str, str]:
        """What every process of the workspace inherits, and is found by."""
        return {"WORKSPACE_UUID": uuid, "DATA_DIR": str(self._folders.data_dir)}

    def editor(self, uuid: str, port: int) -> Process:
        """Start the editor on this loopback port, its secret file written anew: a key may have been rotated. Without a
        key there is nothing to open it with, and nobody gets in."""
        self._folders.write_editor_secret(uuid, self._secrets.editor_file(uuid) if self.has_agents else "")
        program = self._settings.code_server or shutil.which("code-server") or "code-server"
        data = self._folders.editor_data(uuid)
        command = [
            program,
            *("--bind-addr", f"127.0.0.1:{port}"),
            *("--auth", "none"),
            # Without this it makes a file with a password for itself.
            *("--config", "/dev/null"),
            *("--user-data-dir", str(data)),
            *("--extensions-dir", str(data / "extensions")),
            "--disable-telemetry",
            "--disable-update-check",
            "--disable-workspace-trust",
            str(self._folders.app(uuid)),
        ]
        log, folder = self._folders.log(uuid), self._folders.app(uuid)
        environment = self._environment(uuid) | self._editor_settings(uuid)
        return processes.spawn(command, environment=environment, folder=folder, log=log)

    def agent(self, uuid: str, port: int) -> Process:
        """Start the agent on this loopback port, its token file written anew: a key may have been rotated."""
        self._folders.write_token(uuid, self._secrets.token_file(uuid))
        environment = self._environment(uuid) | self._agent_settings(uuid, port)
        command = [sys.executable, "-m", "app.agent"]
        log = self._folders.agent_log(uuid)
        return processes.spawn(command, environment=environment, folder=PROGRAM_FOLDER, log=log)

    def _environment(self, uuid: str) -> dict[str, str]:
        passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        return {"LANG": "C.UTF-8", **passed_on, "HOME": str(self._folders.home(uuid)), **self.marks(uuid)}

    def _editor_settings(self, uuid: str) -> dict[str, str]:
        """By the names that scripts/editor/guard.js reads."""
        origins = " ".join(self._settings.embedding_origins())
        embedding = {"EMBED_ORIGINS": origins} if origins else {}
        return {"WORKSPACE_SECRET_FILE": str(self._folders.editor_secret_file(uuid)), **embedding}

    def _agent_settings(self, uuid: str, port: int) -> dict[str, str]:
        chosen = self._settings
        return {
            "WORKSPACE_DIR": str(self._folders.app(uuid)),
            "AGENT_TOKEN_FILE": str(self._folders.token_file(uuid)),
            "AGENT_HOST": "127.0.0.1",
            "USER_POD_PORT": str(port),
            "GATEWAY_URL": chosen.gateway_location(),
            "AGENT_TURN_TIMEOUT": str(chosen.agent_turn_timeout),
            "AGENT_MAX_STEPS": str(chosen.agent_max_steps),
            "AGENT_MAX_TOKENS": str(chosen.agent_max_tokens),
            "AGENT_COMMAND_TIMEOUT": str(chosen.agent_command_timeout),
            "AGENT_STOP_GRACE": str(chosen.stop_grace),
            "CHECKPOINT_INTERVAL": str(chosen.checkpoint_interval),
            "MESSAGE_MAX_BYTES": str(chosen.message_max_bytes),
            "PYTHONUNBUFFERED": "1",
        }
