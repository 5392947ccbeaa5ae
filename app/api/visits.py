"""A visitor's request of a workspace, as the ingress tells the door of it, and what kind of request it is.

The ingress calls for each one, with the visitor's own headers and a few of its own. Which of them to believe is
said by the address it calls, which no visitor chooses: each controller overwrites its own and passes on the other's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import unquote

from werkzeug.datastructures import Headers

from app.api.landing import ENTERED, PARAMETER, without_ours
from app.sessions.passes import COOKIE, FRAME_COOKIE
from app.settings import Settings

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

SENT_COOKIE = "__Host-workspace-sign-in"
"""How often a browser was sent to sign in lately; it opens nothing."""

OURS = (COOKIE, FRAME_COOKIE, SENT_COOKIE)
OWN_COOKIES = {name: re.compile(rf"(?:^|;)\s*{re.escape(name)}\s*=\s*([^;,]*)") for name in OURS}
ANY_OF_THEIR_NAMES = re.compile(rf"(?:^|(?<=[;,]))\s*(?:{'|'.join(map(re.escape, OURS))})\s*=\s*([^;,]*)[;,]?")
"""Also within the value of another cookie, and where a server joined two headers: none of it is for the workspace."""

AGENT_PATH = re.compile(r"/chat/([0-9a-z]{8})(?:/|$)")
CRAWLER = re.compile(r"bot\b|crawl|spider|slurp|preview|facebookexternalhit|whatsapp|monitor|uptime|pingdom|lighthouse")
"""In the name by which a program calls itself; of those that come with a person's cookie nobody is sure."""
REFERER = re.compile(r"(https?://[^/?#]+)(?:[/?#]|$)")
"""A browser names at least the origin of the page that navigates, unless the page forbids it."""


class Frame(StrEnum):
    """Whose frame a page is asked for, as the browser says it."""

    NONE = "none"
    """None: a tab of its own, or no page at all."""
    OWN = "own"
    """One within the workspace's own pages."""
    NAMED = "named"
    """One of a page that EMBED_ORIGINS names."""
    FOREIGN = "foreign"


@dataclass(frozen=True, kw_only=True)
class Visit:
    """One request. `agent` says that it is for the agent (of `uuid`), at the API's host, and not for the workspace's
    own; `socket` that it is a WebSocket's handshake; `frame` whose frame a page is for; `same_origin` that the browser
    vouches for the workspace's own page as the one that asks; `embedded` that a page of another origin asks for
    something to use within itself; `person` that somebody opens a page, `page` that the answer may be one; `sent` how
    often the browser was sent to sign in lately; `by_service` that the ingress reaches a workspace by the address of
    its Service, which leads to a new pod a moment after it is ready."""

    uuid: str
    agent: bool
    method: str
    path: str
    query: str
    origin: str
    cookie: str
    frame_cookie: str
    other_cookies: str
    sent: int
    bearer: str
    api_key: str
    socket: bool
    frame: Frame
    same_origin: bool
    embedded: bool
    person: bool
    page: bool
    by_service: bool

    @property
    def link(self) -> str:
        """The secret of the link it follows, "" for none; what a browser fetches beforehand follows none."""
        if self.agent or not self.person:
            return ""
        return next((part.removeprefix(PARAMETER) for part in self.query.split("&") if part.startswith(PARAMETER)), "")

    @property
    def entered(self) -> bool:
        """Whether it comes from a link that was followed, as its address says."""
        return self.person and not self.agent and ENTERED in self.query.split("&")

    @property
    def without_link(self) -> str:
        """Its path and query, what is ours of it aside."""
        return without_ours(self.path, self.query)

    @property
    def acts(self) -> bool:
        """Whether it could do something in the name of whoever's cookie it carries."""
        return self.socket or self.method not in SAFE_METHODS


def from_traefik(headers: Headers, settings: Settings) -> Visit | None:
    """The visit of a `forwardAuth` call; None when it is of no host of ours, or no such call."""
    host, uri = headers.get("X-Forwarded-Host", ""), headers.get("X-Forwarded-Uri", "")
    return _visit(headers, settings, host, uri, headers.get("X-Forwarded-Method", ""), by_service=False)


def from_nginx(headers: Headers, settings: Settings, server: str) -> Visit | None:
    """The visit of an `auth_request` call of ingress-nginx; None as above, and when the URL it tells is of another host
    than `server`, the name by which it chose where the request goes: with an absolute URL in its first line a
    request has two, and the one told is the other."""
    host, uri = _split(headers.get("X-Original-URL", ""))
    if _name(host) != server.lower():
        return None
    return _visit(headers, settings, host, uri, headers.get("X-Original-Method", ""), by_service=True)


def told_address(headers: Headers, settings: Settings) -> str:
    """Where a visit comes from, "" where nothing tells. The last address is what the ingress has seen itself; each of
    `TRUSTED_PROXIES`, of which it is one, has put one there, and what stands before those is the visitor's own word."""
    hops = [hop.strip() for hop in ",".join(headers.getlist("X-Forwarded-For")).split(",")]
    return hops[-min(len(hops), max(1, settings.trusted_proxies))]


@dataclass(frozen=True)
class Target:
    """Where a URL leads that nginx tells of a visitor: to the workspace, or the agent, of `uuid`."""

    uuid: str
    agent: bool
    path: str
    query: str

    @property
    def has_link(self) -> bool:
        return any(part.startswith(PARAMETER) for part in self.query.split("&"))

    @property
    def entered(self) -> bool:
        return ENTERED in self.query.split("&")

    @property
    def without_link(self) -> str:
        """Its path and query, what is ours of it aside."""
        return without_ours(self.path, self.query)


def target(url: str, settings: Settings) -> Target | None:
    """The target of an absolute URL, None for any that is not of ours."""
    host, uri = _split(url)
    path, _, query = uri.partition("?")
    uuid, agent = _whom(_name(host), path, settings)
    return Target(uuid, agent, path, query) if uuid and path and uri.isprintable() else None


def _split(url: str) -> tuple[str, str]:
    """Host, with port, and the rest of an absolute URL, as they are written: a path may begin with two slashes, which
    would pass for a host."""
    host, slash, rest = url.partition("://")[2].partition("/")
    return host, slash + rest


def _name(host: str) -> str:
    """Without its port, in lower case."""
    return re.sub(r":\d+$", "", host).lower()


def _visit(headers: Headers, settings: Settings, host: str, uri: str, method: str, *, by_service: bool) -> Visit | None:
    path, _, query = uri.partition("?")
    uuid, agent = _whom(_name(host), path, settings)
    if not uuid or not method or not path.startswith("/"):
        return None
    cookies = headers.get("Cookie", "")
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    frame = _frame(headers, method, settings)
    person = _is_person(headers, method, path, frame)
    sent = _cookie(cookies, SENT_COOKIE)
    return Visit(
        uuid=uuid,
        agent=agent,
        method=method,
        path=path,
        query=query,
        origin=headers.get("Origin", ""),
        cookie=_cookie(cookies, COOKIE),
        frame_cookie=_cookie(cookies, FRAME_COOKIE),
        other_cookies=ANY_OF_THEIR_NAMES.sub("", cookies).strip(" ;,"),
        sent=int(sent) if re.fullmatch(r"[0-9]{1,3}", sent) else 0,
        bearer=token.strip() if scheme.lower() == "bearer" else "",
        api_key=headers.get("X-API-Key", ""),
        # Traefik takes `Upgrade` out before it asks; every handshake has the key (RFC 6455).
        socket="Sec-WebSocket-Key" in headers or "websocket" in headers.get("Upgrade", "").lower(),
        frame=frame,
        same_origin=headers.get("Sec-Fetch-Site") == "same-origin",
        embedded=_is_embedded(headers, frame),
        person=person,
        page=method == "GET" and _accepts_pages(headers),
        by_service=by_service,
    )


def _whom(host: str, path: str, settings: Settings) -> tuple[str, bool]:
    """The session whose workspace (or, True, whose agent) is there; "" for none."""
    name, _, domain = host.partition(".")
    uuid = name.removeprefix("vs-code-")
    if domain == settings.workspace_domain.lower() and name != uuid and re.fullmatch(r"[0-9a-z]{8}", uuid):
        return uuid, False
    # With `..` in it, written out or not, a path is one agent's here and may be another's for the ingress.
    if host and host == settings.agents_host().lower() and ".." not in unquote(path):
        match = AGENT_PATH.match(path)
        return (match[1], True) if match else ("", False)
    return "", False


def _cookie(cookies: str, name: str) -> str:
    """The value of the first cookie of this name, "" for none."""
    found = OWN_COOKIES[name].search(cookies)
    return found[1].strip() if found else ""


def _frame(headers: Headers, method: str, settings: Settings) -> Frame:
    """Whose frame this is for. A navigation has no Origin; its Referer no page can give in another's name. A browser
    that says nothing of frames (no Fetch Metadata) is not known to ask for one."""
    if headers.get("Sec-Fetch-Mode") != "navigate" or headers.get("Sec-Fetch-Dest", "document") == "document":
        return Frame.NONE
    if method == "GET" and headers["Sec-Fetch-Dest"] == "iframe" and settings.embed_origins:
        by = REFERER.match(headers.get("Referer", ""))
        if by and _origin(by[1]) in map(_origin, settings.embedding_origins()):
            return Frame.NAMED
    return Frame.FOREIGN if headers.get("Sec-Fetch-Site") in ("same-site", "cross-site") else Frame.OWN


def _origin(text: str) -> str:
    """As browsers write it: in lower case, without the scheme's own port."""
    lower = text.lower()
    return lower.removesuffix(":443" if lower.startswith("https:") else ":80")


def _is_person(headers: Headers, method: str, path: str, frame: Frame) -> bool:
    """Whether somebody opens a page: no socket, no script, no image, nothing fetched beforehand, no crawler.

    Browsers say so (Fetch Metadata, https://www.w3.org/TR/fetch-metadata/); of those that don't, whoever
    wants a page and isn't known for something else. Who opens a page that may hold the workspace opens that.
    """
    if method != "GET" or path == "/favicon.ico" or CRAWLER.search(headers.get("User-Agent", "").lower()):
        return False
    if "prefetch" in (headers.get("Sec-Purpose", "") + headers.get("Purpose", "") + headers.get("X-Moz", "")).lower():
        return False
    if "Sec-Fetch-Mode" in headers:
        opened = headers["Sec-Fetch-Mode"] == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
        return opened or frame is Frame.NAMED
    return _accepts_pages(headers)


def _is_embedded(headers: Headers, frame: Frame) -> bool:
    """Whether a page of another origin, that may not, asks for a script, an image, a frame: a browser adds the cookie
    for siblings."""
    if frame is Frame.NAMED:
        return False
    opened = headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
    return headers.get("Sec-Fetch-Site") in ("same-site", "cross-site") and not opened


def _accepts_pages(headers: Headers) -> bool:
    return "text/html" in headers.get("Accept", "")
