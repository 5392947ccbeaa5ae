"""What the agent is told by its environment, each value once: default, unit, and why.

It is imported before the socket is open, so it needs nothing but the standard library's lightest parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

STATE_FOLDER = ".session"
"""Inside the workspace's folder: the conversation. Backups take it along, tools may not write to it."""


class AgentSettings(NamedTuple):
    """A named tuple and not a dataclass: importing those costs a tenth of the time there is to listen."""

    uuid: str
    """The session this workspace belongs to."""
    folder: Path
    """The workspace's files; tools see nothing else."""
    token_file: Path
    """Holds the session's token, and on a second line what callers must show. Read anew each time: it may be
    replaced."""
    home: Path
    """HOME of the editor and its terminals; they leave signs of use there."""
    host: str = "127.0.0.1"
    port: int = 1111
    """0 takes a free one."""
    gateway_url: str = ""
    """The manager's gateway; "" = nobody to call, and no model."""
    address: str = ""
    """Where the manager reaches this agent; "" = the pod's address or `host`, with the port."""
    name: str = ""
    """The pod's or the machine's name, for people."""
    model: str = ""
    """The model to ask for; "" leaves it to the gateway."""
    turn_timeout: float = 900.0
    """Seconds a turn may take: a model that goes in circles ends."""
    max_steps: int = 50
    """Answers of the model in one turn."""
    max_tokens: int = 1_000_000
    """Tokens of one turn as the provider counts them, each step's prompt included."""
    command_timeout: float = 120.0
    """Seconds a command may run."""
    context_tokens: int = 40_000
    """Estimated tokens of a conversation above which it is shortened for the model."""
    checkpoint_interval: float = 180.0
    """Seconds between two checkpoints while something changes: what a lost volume costs at most."""
    message_max_bytes: int = 100_000
    queue_limit: int = 100
    """Prompts accepted and not begun."""
    stop_grace: float = 10.0
    """Seconds from the SIGTERM that ends this process to the SIGKILL."""

    @property
    def state_folder(self) -> Path:
        """Where the conversation is kept."""
        return self.folder / STATE_FOLDER

    def token(self) -> str:
        """What is shown to the manager, "" when there is none (yet)."""
        return self._secrets()[0]

    def door(self) -> str:
        """What callers must show, "" when there is none (yet) and so nobody is let in."""
        return self._secrets()[1]

    def _secrets(self) -> tuple[str, str]:
        try:
            token, _, door = self.token_file.read_text().partition("\n")
        except (OSError, UnicodeDecodeError):
            return "", ""
        return token.strip(), door.strip()


class BadSetting(ValueError):
    """A variable is missing or can't be read; the text names it."""


def settings_from(environment: Mapping[str, str]) -> AgentSettings:
    """The settings in these variables. BadSetting when one is missing or isn't of its kind."""

    def number(name: str, default: float) -> float:
        text = environment.get(name, "") or str(default)
        try:
            value = float(text)
        except ValueError:
            raise BadSetting(f"{name} is not a number") from None
        if value < 0:
            raise BadSetting(f"{name} is negative")
        return value

    defaults = AgentSettings._field_defaults
    for name in ("WORKSPACE_UUID", "WORKSPACE_DIR", "AGENT_TOKEN_FILE"):
        if not environment.get(name):
            raise BadSetting(f"{name} is not set")
    return AgentSettings(
        uuid=environment["WORKSPACE_UUID"],
        folder=Path(environment["WORKSPACE_DIR"]),
        token_file=Path(environment["AGENT_TOKEN_FILE"]),
        home=Path(environment.get("HOME") or "/"),
        host=environment.get("AGENT_HOST") or defaults["host"],
        port=int(number("USER_POD_PORT", defaults["port"])),
        gateway_url=environment.get("GATEWAY_URL", "").rstrip("/"),
        address=environment.get("AGENT_ADDRESS", "").rstrip("/"),
        name=environment.get("POD_NAME", ""),
        model=environment.get("LLM_MODEL", ""),
        turn_timeout=number("AGENT_TURN_TIMEOUT", defaults["turn_timeout"]),
        max_steps=int(number("AGENT_MAX_STEPS", defaults["max_steps"])),
        max_tokens=int(number("AGENT_MAX_TOKENS", defaults["max_tokens"])),
        command_timeout=number("AGENT_COMMAND_TIMEOUT", defaults["command_timeout"]),
        context_tokens=int(number("AGENT_CONTEXT_TOKENS", defaults["context_tokens"])),
        checkpoint_interval=number("CHECKPOINT_INTERVAL", defaults["checkpoint_interval"]),
        message_max_bytes=int(number("MESSAGE_MAX_BYTES", defaults["message_max_bytes"])),
        queue_limit=int(number("AGENT_QUEUE_LIMIT", defaults["queue_limit"])),
        stop_grace=number("AGENT_STOP_GRACE", defaults["stop_grace"]),
    )


def own_address(settings: AgentSettings, environment: Mapping[str, str], port: int) -> str:
    """The address to call home with; `port` is the one listened on."""
    if settings.address:
        return settings.address
    host = environment.get("POD_IP") or settings.host
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
