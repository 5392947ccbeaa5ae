"""What is promised, and the alerts on how fast its error budget is used up.

Multi-window, multi-burn-rate alerts: Google, The Site Reliability Workbook (2018), chapter 5, table 5-8. A burn rate of
1 uses up the budget of 30 days in 30 days.
"""

from __future__ import annotations

from dataclasses import dataclass

WINDOWS = ("5m", "30m", "1h", "6h", "3d")
"""Of the recording rules: those that the burn rates below look at."""

FAST = (("1h", "5m", 14.4), ("6h", "30m", 6.0))
"""Long window, short window, burn rate: 2 % of the budget in an hour, 5 % in six. Somebody is woken."""

SLOW = (("3d", "6h", 1.0),)
"""10 % of the budget in three days. Somebody looks at it on a working day."""

HOURS = {"1h": 1, "6h": 6, "3d": 72}


@dataclass(frozen=True)
class Objective:
    """`all` and `bad` are rates a second by namespace, with `$window` for the window; `target` is the good share.

    `least`: how many bad ones there must be in the long window, so that one in a quiet night wakes nobody (the same
    chapter, "Low-Traffic Services").
    """

    name: str
    target: float
    all: str
    bad: str
    least: int

    def recorded(self, what: str, window: str) -> str:
        """The name of a recording rule, `what` being all or bad."""
        return f"{self.name}:{what}:rate{window}"

    def ratio(self, window: str) -> str:
        """The bad share in a window."""
        return f"{self.recorded('bad', window)} / {self.recorded('all', window)}"

    def burns(self, windows: tuple[tuple[str, str, float], ...]) -> str:
        """The expression of an alert: the budget burns this fast in a long window, and still does in its short one."""
        budget = 1 - self.target
        return "\nor\n".join(
            f"(\n  {self.ratio(long)} > {factor:g} * {budget:.3g}\n"
            f"  and {self.ratio(short)} > {factor:g} * {budget:.3g}\n"
            f"  and {self.recorded('bad', long)} * {HOURS[long] * 3600} >= {self.least}\n)"
            for long, short, factor in windows
        )


# Probes and this scrape are no requests of users; /health and /readyz answer 503 on purpose.
_CALLS = 'process="web",endpoint!~"probes[.].+|system[.].+"'
_REQUESTS = f"sum by (namespace) (rate(http_requests_total{{{_CALLS}}}[$window]))"
_ERRORS = f'sum by (namespace) (rate(http_requests_total{{{_CALLS},status=~"5.."}}[$window]))'

API = Objective(name="sessions_api", target=0.999, all=_REQUESTS, bad=f"{_ERRORS}\nor 0 * {_REQUESTS}", least=10)
"""Calls of the API that were answered with no error of the server."""

# Every web replica reads the same counters in Redis: their largest, not their sum. The metric of Redis is there as long
# as any figure is; 0 times it stands for "none yet".
_NONE = "0 * max by (namespace) (sessions_redis_used_bytes)"
_READY = 'kind="wake",phase="ready"'
_WOKEN = f"(max by (namespace) (rate(sessions_start_seconds_count{{{_READY}}}[$window])) or {_NONE})"
_SOON = f'(max by (namespace) (rate(sessions_start_seconds_bucket{{{_READY},le="5.0"}}[$window])) or {_NONE})'
_FAILED = f'(max by (namespace) (rate(sessions_action_failures_total{{action="wake"}}[$window])) or {_NONE})'

WAKE = Objective(
    name="sessions_wake",
    target=0.99,
    all=f"{_WOKEN}\n+ {_FAILED}",
    bad=f"{_WOKEN}\n- {_SOON}\n+ {_FAILED}",
    least=3,
)
"""Wakes that were ready within 5 s. 99 %: one in a hundred may wait for a new machine, for minutes."""

OBJECTIVES = (API, WAKE)
