"""The agent's settings from its environment: default, unit and reason of each.

Imported before the socket is open, so only the lightest parts of the standard library are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

STATE_FOLDER = ".session"
"""The name of the conversation's folder, which is beside the workspace's: not among the user's files, and on the same
volume."""

OWN, SHARED = "own", "shared"
"""Whose the workspace's network is: its own, as in a pod, or the machine's, with all that runs there."""


class AgentSettings(NamedTuple):
    """A named tuple and not a dataclass: importing `dataclasses` takes a tenth of the time until the agent listens."""

    uuid: str
    """The session this workspace belongs to."""
    folder: Path
    """The workspace's files; tools see nothing else."""
    state_folder: Path
    """The conversation."""
    token_file: Path
    """Holds the workspace token, and on a second line the agent secret. Read at each use: either may be replaced."""
    home: Path
    """HOME of the editor and its terminals, which write activity signals there."""
    host: str = "127.0.0.1"
    port: int = 1111
    """0 takes a free one. `AGENT_PORT` of app/agent/protocol.py, which takes too long to import."""
    editor_port: int = 0
    """Where the editor listens on this machine or in this pod; 0 = there is none."""
    network: str = OWN
    """`OWN` or `SHARED`: in a shared one only what this workspace started is its own."""
    gateway_url: str = ""
    """The manager's gateway; "" = no manager and no model."""
    address: str = ""
    """Where the manager reaches this agent; "" = the pod's IP address or `host`, with the port."""
    name: str = ""
    """The pod's or the machine's name, for people."""
    cgroup: str = ""
    """The folder of this container's own control group; "" = it has none, and processes are counted."""
    program: str = ""
    """Command line of a program that works on prompts (`app.agent.program_worker`); "" = the service's own agent."""
    model: str = ""
    """The model to ask for; "" leaves it to the gateway."""
    turn_timeout: float = 900.0
    """Seconds a turn may take, which ends a model that goes in circles."""
    max_steps: int = 50
    """Model replies in one turn."""
    max_tokens: int = 1_000_000
    """Tokens of one turn as the provider counts them, each step's prompt included."""
    command_timeout: float = 120.0
    """Seconds a command may run."""
    exec_timeout: float = 3_600.0
    """Seconds a command of a caller may run."""
    execs_at_once: int = 16
    """Such commands that run; each holds a thread and a few processes."""
    exec_output_bytes: int = 16_777_216
    """Of each stream of such a command, kept in a file."""
    services_most: int = 16
    """Services of a workspace; one that runs holds a thread and a few processes."""
    context_tokens: int = 40_000
    """Estimated tokens above which a conversation is shortened for the model."""
    checkpoint_interval: float = 180.0
    """Seconds between two checkpoints while the conversation changes: a lost volume costs at most this much of it."""
    prompt_max_bytes: int = 100_000
    queue_limit: int = 100
    """Prompts accepted and not started."""
    undo_points: int = 20
    """Undo points kept, one of each prompt; 0 makes none."""
    undo_max_bytes: int = 1_073_741_824
    """Of all undo points; a larger project has none."""
    stop_grace: float = 10.0
    """Seconds from SIGTERM to SIGKILL."""

    def token(self) -> str:
        """The workspace token sent to the manager, "" if there is none yet."""
        return self._secrets()[0]

    def agent_secret(self) -> str:
        """The secret callers must send, "" if there is none yet: every call is refused then."""
        return self._secrets()[1]

    def _secrets(self) -> tuple[str, str]:
        try:
            token, _, secret = self.token_file.read_text().partition("\n")
        except (OSError, UnicodeDecodeError):
            return "", ""
        return token.strip(), secret.strip()


class BadSetting(ValueError):
    """A variable is missing or invalid; the text names it."""


def settings_from(environment: Mapping[str, str]) -> AgentSettings:
    """The settings in these variables. Raises BadSetting."""

    def number(name: str, default: float) -> float:
        text = environment.get(name, "") or str(default)
        try:
            value = float(text)
        except ValueError:
            raise BadSetting(f"{name} must be a number") from None
        if value < 0:
            raise BadSetting(f"{name} must not be negative")
        return value

    defaults = AgentSettings._field_defaults
    for name in ("WORKSPACE_UUID", "WORKSPACE_DIR", "AGENT_TOKEN_FILE"):
        if not environment.get(name):
            raise BadSetting(f"{name} is not set")
    network = environment.get("WORKSPACE_NETWORK") or defaults["network"]
    if network not in (OWN, SHARED):
        raise BadSetting(f"WORKSPACE_NETWORK must be {OWN} or {SHARED}")
    folder = Path(environment["WORKSPACE_DIR"])
    return AgentSettings(
        uuid=environment["WORKSPACE_UUID"],
        folder=folder,
        state_folder=Path(environment.get("AGENT_STATE_DIR") or folder.absolute().parent / STATE_FOLDER),
        token_file=Path(environment["AGENT_TOKEN_FILE"]),
        home=Path(environment.get("HOME") or "/"),
        host=environment.get("AGENT_HOST") or defaults["host"],
        port=int(number("AGENT_PORT", defaults["port"])),
        editor_port=int(number("EDITOR_PORT", defaults["editor_port"])),
        network=network,
        gateway_url=environment.get("GATEWAY_URL", "").rstrip("/"),
        address=environment.get("AGENT_ADDRESS", "").rstrip("/"),
        name=environment.get("POD_NAME", ""),
        cgroup=environment.get("WORKSPACE_CGROUP", ""),
        program=environment.get("AGENT_PROGRAM", ""),
        model=environment.get("LLM_MODEL", ""),
        turn_timeout=number("AGENT_TURN_TIMEOUT", defaults["turn_timeout"]),
        max_steps=int(number("AGENT_MAX_STEPS", defaults["max_steps"])),
        max_tokens=int(number("AGENT_MAX_TOKENS", defaults["max_tokens"])),
        command_timeout=number("AGENT_COMMAND_TIMEOUT", defaults["command_timeout"]),
        exec_timeout=number("EXEC_TIMEOUT", defaults["exec_timeout"]),
        execs_at_once=int(number("EXECS_AT_ONCE", defaults["execs_at_once"])),
        exec_output_bytes=int(number("EXEC_OUTPUT_BYTES", defaults["exec_output_bytes"])),
        services_most=int(number("SERVICES_PER_SESSION", defaults["services_most"])),
        context_tokens=int(number("AGENT_CONTEXT_TOKENS", defaults["context_tokens"])),
        checkpoint_interval=number("CHECKPOINT_INTERVAL", defaults["checkpoint_interval"]),
        prompt_max_bytes=int(number("PROMPT_MAX_BYTES", defaults["prompt_max_bytes"])),
        queue_limit=int(number("AGENT_QUEUE_LIMIT", defaults["queue_limit"])),
        undo_points=int(number("UNDO_POINTS", defaults["undo_points"])),
        undo_max_bytes=int(number("UNDO_MAX_BYTES", defaults["undo_max_bytes"])),
        stop_grace=number("AGENT_STOP_GRACE", defaults["stop_grace"]),
    )


def own_address(settings: AgentSettings, environment: Mapping[str, str], port: int) -> str:
    """The address to report to the manager; `port` is the one listened on."""
    if settings.address:
        return settings.address
    host = environment.get("POD_IP") or settings.host
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
