"""Which sessions a person looks at, as the address of the list says it: a tab, a search, labels, a user, a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from werkzeug.datastructures import MultiDict

from app.core.sessions.model import Status, Tier

TABS: Mapping[str, tuple[Status | None, ...]] = {
    "all": (None,),
    "active": (Status.ACTIVE,),
    "starting": (Status.CREATED, Status.WAKING),
    "sleeping": (Status.SLEEPING,),
    "archived": (None,),
    "failed": (Status.FAILED,),
    "terminated": (Status.TERMINATING, Status.TERMINATED),
}
"""The states of each tab; None stands for all but terminated ones, as the API lists them."""

TIERS: Mapping[str, Tier] = {"archived": Tier.ARCHIVED}
"""The tier of a tab that shows only one. Archived sessions sleep, so they are in that tab too."""

TRAIL = 20
"""Pages to go back to one by one; before them comes the first page. An address may have 4 KB."""

BETWEEN, SPENT = "~", "-"
"""In a tab's cursor: between the cursors of its states, and for a state without another page."""


@dataclass(frozen=True)
class Filters:
    """What an address asks for. `cursor` is the page's, `trail` are those of the pages before it, the first one
    without; `first` counts the rows before this page."""

    tab: str = "all"
    search: str = ""
    user_id: str = ""
    labels: tuple[str, ...] = ()
    cursor: str = ""
    trail: tuple[str, ...] = ()
    first: int = 0

    @classmethod
    def of(cls, args: MultiDict[str, str]) -> Filters:
        """The filters in a query string; what is not understood is left out."""
        tab = args.get("status", "")
        first = args.get("first", "")
        return cls(
            tab=tab if tab in TABS else "all",
            search=args.get("q", "").strip(),
            user_id=args.get("user_id", "").strip(),
            labels=tuple(dict.fromkeys(each for each in args.getlist("label") if each)),
            cursor=args.get("cursor", ""),
            trail=tuple(args.getlist("trail"))[-TRAIL:],
            first=int(first) if first.isdecimal() and len(first) < 8 else 0,
        )

    @property
    def narrowed(self) -> bool:
        """Whether less is asked for than a tab of all sessions, or of all of a user's."""
        return bool(self.search or self.labels)

    @property
    def query(self) -> dict[str, Any]:
        """The parameters that the API takes for these."""
        tier = TIERS.get(self.tab)
        return {"q": self.search or None, "user_id": self.user_id or None, "tier": tier, "label": list(self.labels)}

    @property
    def cursors(self) -> list[str | None]:
        """For each state of the tab where its page begins: "" at its newest, None when it has no more."""
        known = self.cursor.split(BETWEEN) if self.cursor else []
        states = len(TABS[self.tab])
        if len(known) != states:
            return [""] * states
        return [None if each == SPENT else each for each in known]

    def url(self, **changes: Any) -> str:
        """The address with some filters changed; another page only if it is among the changes."""
        page: dict[str, Any] = {"cursor": "", "trail": (), "first": 0}
        wanted = replace(self, **(page | changes))
        given: list[tuple[str, object]] = [
            ("status", "" if wanted.tab == "all" else wanted.tab),
            ("q", wanted.search),
            ("user_id", wanted.user_id),
            *(("label", each) for each in wanted.labels),
            ("cursor", wanted.cursor),
            *(("trail", each) for each in wanted.trail),
            ("first", wanted.first or ""),
        ]
        text = urlencode([(name, value) for name, value in given if value])
        return f"/?{text}" if text else "/"

    @property
    def here(self) -> str:
        """The address of this page."""
        return self.url(cursor=self.cursor, trail=self.trail, first=self.first)

    @property
    def counts(self) -> str:
        """The address of the tabs' counts."""
        return "/sessions/counts" + self.url().removeprefix("/")

    @property
    def new_ones(self) -> str:
        """The address of the number of sessions that are newer than the one whose uuid is its parameter `since`."""
        return "/sessions/new-ones" + self.url().removeprefix("/")

    def with_label(self, label: str) -> str:
        """The address with another label."""
        return self.url(labels=(*(each for each in self.labels if each != label), label))

    def without_label(self, label: str) -> str:
        """The address without a label."""
        return self.url(labels=tuple(each for each in self.labels if each != label))

    def older(self, cursor: str, shown: int) -> str:
        """The address of the next page, which begins after `shown` rows of this one."""
        trail = (*self.trail, self.cursor)[-TRAIL:] if self.cursor else ()
        return self.url(cursor=cursor, trail=trail, first=self.first + shown)

    def newer(self, most: int) -> str:
        """The address of the page before, of `most` rows; the first page once the trail ends."""
        if not self.trail:
            return self.url()
        return self.url(cursor=self.trail[-1], trail=self.trail[:-1], first=max(0, self.first - most))


def joined(cursors: Sequence[str | None]) -> str:
    """A tab's cursor of those of its states; "" when none has another page."""
    return BETWEEN.join(each or SPENT for each in cursors) if any(cursors) else ""
