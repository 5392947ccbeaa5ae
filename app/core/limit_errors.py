"""Every limit that a caller can reach: an error for each, with its code, its words, its settings, and its pause.

All say the same sentence: whose limit, how much of what, which setting, and the way out. `to_problem` in
app/http/problems.py makes the answer of it, with `Retry-After`.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from app.core.errors import RetryableError, SessionError

SIGN_IN = "sign_in"
"""The category of sign-ins at the dashboard; the API's categories are in app/core/access/keyring.py."""


class Owner(StrEnum):
    """Whose limit it is."""

    SESSION = "session"
    SESSION_TOKEN = "session_token"
    USER = "user"
    KEY = "key"
    ADDRESS = "address"
    SERVER = "server"


class LimitReached(SessionError):
    """A limit is reached. A subclass has `what` is limited, and the setting of the limit by its owner.

    `retry_after` is in s, None where time alone does not help. `members` are for programs: extension members of the
    problem document."""

    code = "limit_reached"
    what = ""
    settings: Mapping[Owner, str] = MappingProxyType({})
    way_out = "Try again later."
    retry_after: int | None = 2
    members: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, owner: Owner, name: str = "", *, most: int | str) -> None:
        kind = owner.replace("_", " ")
        whose = f"The {kind} {name}" if name else f"This {kind}"
        setting = self.settings[owner]
        super().__init__(f"{whose} has reached its limit of {most} {self.what} ({setting}). {self.way_out}")


class RateExceeded(LimitReached):
    """Too many requests in a window. `rate` is as `100 per 1 minute`, `category` what it counts; `setting` is "" for a
    rate of the key's own."""

    code = "rate_limited"

    def __init__(
        self, owner: Owner, name: str = "", *, rate: str, category: str, setting: str, retry_after: int
    ) -> None:
        most, _, window = rate.partition(" per ")
        calls = "sign-ins" if category == SIGN_IN else f"`{category}` calls"
        self.what = f"{calls} per {window.removeprefix('1 ')}"
        self.settings = {owner: setting or "the key's `limits` in API_KEYS"}
        self.retry_after = max(1, retry_after)
        self.way_out = f"Try again in {self.retry_after} s."
        self.members = {"limit": {"category": category, "rate": rate, "of": owner, "name": name or None}}
        super().__init__(owner, name, most=most)


class TooManyAtOnce(LimitReached):
    """Too many of a kind are under way at a time in this process."""

    code = "too_many_at_once"
    settings = MappingProxyType(
        {
            Owner.SESSION: "MAX_CONCURRENT_PER_SESSION",
            Owner.USER: "MAX_CONCURRENT_PER_USER",
            Owner.KEY: "the key's `max_concurrent` in API_KEYS",
        }
    )
    retry_after = 5


class TooManyWaits(TooManyAtOnce):
    """Too many calls wait for a session."""

    code = "too_many_waits"
    what = "waiting calls at a time"
    way_out = "Ask without waiting, with `Prefer: respond-async`, or try again later."


class TooManyStreams(TooManyAtOnce):
    """Too many event streams are open."""

    code = "too_many_streams"
    what = "event streams at a time"
    way_out = "Close one, or try again later."


class TooManyAgentCalls(TooManyAtOnce):
    """Too many calls wait for an answer of an agent."""

    code = "too_many_agent_calls"
    what = "calls to its agent at a time"


class TooManyExecs(LimitReached):
    """Too many commands of callers run in a workspace."""

    code = "too_many_execs"
    what = "running commands"
    settings = MappingProxyType({Owner.SESSION: "EXECS_AT_ONCE"})
    way_out = "Wait for one to end, or end one."
    retry_after = 5


class TooManyServices(LimitReached):
    """A workspace has as many services as it may."""

    code = "too_many_services"
    what = "services"
    settings = MappingProxyType({Owner.SESSION: "SERVICES_PER_SESSION"})
    way_out = "Delete one first."
    retry_after = None


class TooManyPorts(LimitReached):
    """All opened ports of a session are public, and there are as many as there may be."""

    code = "too_many_ports"
    what = "public ports"
    settings = MappingProxyType({Owner.SESSION: "PORTS_PER_SESSION"})
    way_out = "Close one first."
    retry_after = None


class TooManyTransfers(LimitReached):
    """Too many long files of a user are under way in this process."""

    code = "too_many_transfers"
    what = "long files under way at a time"
    settings = MappingProxyType({Owner.USER: "FILES_AT_ONCE"})
    way_out = "Wait for one to end."
    retry_after = 5


class TooManyCalls(LimitReached):
    """A workspace has too many requests at the gateway."""

    code = "too_many_calls"
    what = "requests at a time"
    settings = MappingProxyType({Owner.SESSION: "GATEWAY_CALLS_PER_SESSION"})
    way_out = "Try again in a moment."
    retry_after = 1


class InboxFull(LimitReached):
    """Too many prompts of a session wait."""

    code = "inbox_full"
    what = "prompts in its queue"
    settings = MappingProxyType({Owner.SESSION: "INBOX_LIMIT"})
    way_out = "Try again when its agent has caught up."
    retry_after = 5


class SessionPromptBytesFull(InboxFull):
    """The prompts of a session would take too many bytes."""

    what = "bytes of prompts"
    settings = MappingProxyType({Owner.SESSION: "SESSION_PROMPT_BYTES"})
    way_out = "Try again when its agent has caught up, or put long texts into files."


class UserInboxFull(InboxFull):
    """The prompts and kept answers of all sessions of the user would take too many bytes."""

    code = "user_inbox_full"
    what = "bytes of prompts and answers"
    settings = MappingProxyType({Owner.USER: "USER_PROMPT_BYTES"})
    way_out = "Try again when the agents have caught up, or delete sessions."


class TokensUsedUp(LimitReached):
    """The user's tokens of the day are used up. `renewed_at` is a time in ISO 8601."""

    code = "llm_budget_exceeded"
    what = "tokens a day"
    settings = MappingProxyType({Owner.USER: "LLM_TOKENS_PER_DAY"})

    def __init__(self, *, most: int, used: int, renewed_at: str, retry_after: int) -> None:
        self.way_out = f"{used} are used; the limit is renewed at {renewed_at}."
        self.retry_after = retry_after
        super().__init__(Owner.USER, most=most)


class QuotaExceeded(LimitReached):
    """The user has as many sessions as allowed."""

    code = "quota_exceeded"
    what = "sessions"
    settings = MappingProxyType({Owner.USER: "MAX_SESSIONS_PER_USER"})
    way_out = "Delete one first."
    retry_after = None


class BudgetExceeded(LimitReached):
    """The user, or the API key that created the session, has used up a month's budget. `budget` and `cost` are in
    dollars."""

    code = "budget_exceeded"
    what = "a calendar month in UTC"
    settings = MappingProxyType({Owner.USER: "BUDGET_PER_USER", Owner.KEY: "the key's `budget` in API_KEYS"})
    retry_after = None

    def __init__(self, owner: Owner, *, budget: Decimal, cost: Decimal) -> None:
        self.way_out = (
            f"${cost:.2f} is spent. The budget is renewed on the first of the next month; until then sleep and delete "
            "work, and files stay."
        )
        # Tenants learn of the budget, and need not know the key's name.
        super().__init__(owner, "that created the session" if owner is Owner.KEY else "", most=f"${budget:.2f}")


class ServerLimitReached(LimitReached):
    """A limit of this process is reached, whoever asks."""

    def __init__(self, most: int) -> None:
        super().__init__(Owner.SERVER, most=most)


class ServerStreamsFull(ServerLimitReached):
    """This process holds as many event streams as it may."""

    code = "too_many_streams"
    what = "event streams at a time"
    settings = MappingProxyType({Owner.SERVER: "MAX_STREAMS"})
    retry_after = 5


class NoRoom(ServerLimitReached, RetryableError):
    """The requests and responses in this process take as many bytes as they may."""

    code = "busy"
    what = "bytes of requests and responses at a time"
    settings = MappingProxyType({Owner.SERVER: "BODY_BUDGET_BYTES"})
    way_out = "Try again in a moment."
