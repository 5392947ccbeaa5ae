"""A request for a workspace, as the ingress forwards it to forward auth, and what kind of request it is.

The ingress calls forward auth for each request, with the visitor's own headers and a few of its own. The address it
calls, which no visitor chooses, says which of them to trust: each controller overwrites its own headers and passes on
those of the other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import unquote

from werkzeug.datastructures import Headers

from app.core.access.landing_path import ENTERED, PARAMETER, without_ours
from app.core.access.tokens import COOKIE, FRAME_COOKIE
from app.core.sessions.opened_ports import port_named
from app.process.settings import Settings

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

SENT_COOKIE = "__Host-workspace-sign-in"
"""Counts how often a browser was sent to sign in within the last minute; it opens nothing."""

OURS = (COOKIE, FRAME_COOKIE, SENT_COOKIE)
BLANK = r"[ \t]*"
"""No other blank: a cookie whose name begins with one (0xA0) is not ours, and a sibling workspace can set it."""

OWN_COOKIES = {name: re.compile(rf"(?:^|;){BLANK}{re.escape(name)}{BLANK}={BLANK}([^;,]*)") for name in OURS}
ANY_OF_THEIR_NAMES = re.compile(rf"(?:^|(?<=[;,]))\s*(?:{'|'.join(map(re.escape, OURS))})\s*=\s*([^;,]*)[;,]?")
"""Also within the value of another cookie, and where a server joined two headers: the workspace gets none of it."""

OTHERS_MAX = 8_192
"""Characters of other cookies that the workspace gets; of more it gets none. Sibling workspaces can set some for the
whole domain, and with 16 KiB of headers Node answers 431."""

NOWHERE = "asleep"
"""The Service behind the ingress' route of all workspaces that have none of their own; it has no pods."""

WORKSPACE = re.compile(r"(?:(?P<port>[0-9]+)--)?vs-code-(?P<uuid>[0-9a-z]{8})")
"""The first label of a workspace's host, or of one of its ports'."""

AGENT_PATH = re.compile(r"/chat/([0-9a-z]{8})(?:/|$)")
CRAWLER = re.compile(r"bot\b|crawl|spider|slurp|preview|facebookexternalhit|whatsapp|monitor|uptime|pingdom|lighthouse")
"""In the User-Agent. A crawler may carry a person's cookie, as link previews do."""
REFERER = re.compile(r"(https?://[^/?#]+)(?:[/?#]|$)")
"""A browser names at least the origin of the page that navigates, unless the page forbids it."""


class Frame(StrEnum):
    """Which page's frame a request is for, as the browser says it."""

    NONE = "none"
    """A tab of its own, or no page at all."""
    OWN = "own"
    """A frame of the workspace's own pages."""
    NAMED = "named"
    """A frame of a page that EMBED_ORIGINS names."""
    FOREIGN = "foreign"


@dataclass(frozen=True)
class Target:
    """Where a URL leads: to the workspace of `uuid`, to a `port` of it (0 for none), or (`agent`) to its agent at the
    API's host."""

    uuid: str
    agent: bool
    path: str
    query: str
    port: int = 0

    @property
    def has_link(self) -> bool:
        return any(part.startswith(PARAMETER) for part in self.query.split("&"))

    @property
    def entered(self) -> bool:
        """Whether the address says that a login link was followed."""
        return ENTERED in self.query.split("&")

    @property
    def without_link(self) -> str:
        """The path and query without our own parameters."""
        return without_ours(self.path, self.query)


@dataclass(frozen=True, kw_only=True)
class ForwardedRequest(Target):
    """One request. `cookies` are the values of all cookies with our name, as a sibling workspace may have forged one;
    `authorization` is that header as it came, and `bearer` the token in it; `websocket`: it is a WebSocket's handshake;
    `same_origin`: the browser says that the workspace's own page asks; `embedded`: a page of another origin asks for
    something to use within itself; `by_person`: somebody opens a page; `says_why`: the browser says what it asks for;
    `wants_page`: the answer may be a page; `sign_ins`: how often the browser was sent to sign in within the last
    minute; `by_service`: the ingress reaches a workspace by the address of its Service, which leads to a new pod a
    moment after the pod is ready; `nowhere`: the ingress has no route to this workspace, or not yet, and would lead the
    request to no pod."""

    method: str
    origin: str
    cookies: tuple[str, ...]
    frame_cookies: tuple[str, ...]
    other_cookies: str
    sign_ins: int
    authorization: str
    bearer: str
    api_key: str
    websocket: bool
    frame: Frame
    same_origin: bool
    embedded: bool
    by_person: bool
    says_why: bool
    wants_page: bool
    by_service: bool
    nowhere: bool

    @property
    def link(self) -> str:
        """The secret of the login link that a person follows, "" for none. A browser's prefetch follows no link."""
        if self.agent or not self.by_person:
            return ""
        return next((part.removeprefix(PARAMETER) for part in self.query.split("&") if part.startswith(PARAMETER)), "")

    @property
    def entered(self) -> bool:
        return self.by_person and not self.agent and super().entered

    @property
    def has_effects(self) -> bool:
        """Whether the request could change something in the name of the visitor whose cookie it carries."""
        return self.websocket or self.method not in SAFE_METHODS


def from_traefik(headers: Headers, settings: Settings) -> ForwardedRequest | None:
    """The request of a `forwardAuth` call; None when it is for no host of ours, or the headers are missing."""
    host, uri = headers.get("X-Forwarded-Host", ""), headers.get("X-Forwarded-Uri", "")
    return _read(headers, settings, host, uri, headers.get("X-Forwarded-Method", ""))


def from_nginx(headers: Headers, settings: Settings, server: str, service: str = "") -> ForwardedRequest | None:
    """The request of an `auth_request` call of ingress-nginx, which leads it to `service`; None as above, and when the
    URL in its headers names another host than `server`, by which nginx chose where the request goes: a request with an
    absolute URL in its first line names two hosts, and nginx forwards the other one."""
    host, uri = _split(headers.get("X-Original-URL", ""))
    if _name(host) != server.lower():
        return None
    method = headers.get("X-Original-Method", "")
    return _read(headers, settings, host, uri, method, by_service=True, nowhere=service == NOWHERE)


def client_address(headers: Headers, settings: Settings) -> str:
    """The visitor's address, "" if unknown. The ingress added the last address, and each of `TRUSTED_PROXIES`, of which
    the ingress is one, added one more; what stands before those is the visitor's own claim."""
    hops = [hop.strip() for hop in ",".join(headers.getlist("X-Forwarded-For")).split(",")]
    return hops[-min(len(hops), max(1, settings.trusted_proxies))]


def target(url: str, settings: Settings) -> Target | None:
    """The target of an absolute URL, None for a URL that leads to no workspace or agent."""
    host, uri = _split(url)
    path, _, query = uri.partition("?")
    addressee = _addressee(_name(host), path, settings)
    if addressee is None or not path or not uri.isprintable():
        return None
    return Target(addressee.uuid, addressee.agent, path, query, addressee.port)


def port_of(host: str, settings: Settings) -> int:
    """The port of a workspace that this host is the address of, 0 for none."""
    addressee = _addressee(_name(host), "/", settings)
    return addressee.port if addressee else 0


def _split(url: str) -> tuple[str, str]:
    """Host, with port, and the rest of an absolute URL, as written. `urlsplit` would take a path that begins with two
    slashes for a host."""
    host, slash, rest = url.partition("://")[2].partition("/")
    return host, slash + rest


def _name(host: str) -> str:
    """The host without its port, in lower case."""
    return re.sub(r":\d+$", "", host).lower()


def _read(
    headers: Headers,
    settings: Settings,
    host: str,
    uri: str,
    method: str,
    *,
    by_service: bool = False,
    nowhere: bool = False,
) -> ForwardedRequest | None:
    path, _, query = uri.partition("?")
    addressee = _addressee(_name(host), path, settings)
    if addressee is None or not method or not path.startswith("/"):
        return None
    cookies, authorization = headers.get("Cookie", ""), headers.get("Authorization", "")
    scheme, _, token = authorization.partition(" ")
    frame = _frame(headers, method, settings)
    others = ANY_OF_THEIR_NAMES.sub("", cookies).strip(" ;,")
    sent = [int(each) for each in _values(cookies, SENT_COOKIE) if re.fullmatch(r"[0-9]{1,3}", each)]
    return ForwardedRequest(
        uuid=addressee.uuid,
        agent=addressee.agent,
        port=addressee.port,
        method=method,
        path=path,
        query=query,
        origin=headers.get("Origin", ""),
        cookies=_values(cookies, COOKIE),
        frame_cookies=_values(cookies, FRAME_COOKIE),
        other_cookies=others if len(others) <= OTHERS_MAX else "",
        sign_ins=max(sent, default=0),
        authorization=authorization,
        bearer=token.strip() if scheme.lower() == "bearer" else "",
        api_key=headers.get("X-API-Key", ""),
        # Traefik drops `Upgrade` from its call; every handshake has the key (RFC 6455).
        websocket="Sec-WebSocket-Key" in headers or "websocket" in headers.get("Upgrade", "").lower(),
        frame=frame,
        same_origin=headers.get("Sec-Fetch-Site") == "same-origin",
        embedded=_is_embedded(headers, frame),
        by_person=_is_person(headers, method, path, frame),
        says_why="Sec-Fetch-Mode" in headers,
        wants_page=method == "GET" and accepts_pages(headers),
        by_service=by_service,
        nowhere=nowhere,
    )


class _Addressee(NamedTuple):
    uuid: str
    port: int = 0
    agent: bool = False


def _addressee(host: str, path: str, settings: Settings) -> _Addressee | None:
    """The workspace, port or agent that this address leads to; None for none."""
    name, _, domain = host.partition(".")
    if domain == settings.workspace_domain.lower() and (match := WORKSPACE.fullmatch(name)):
        if match["port"] is None:
            return _Addressee(match["uuid"])
        port = port_named(match["port"])
        return _Addressee(match["uuid"], port) if port else None
    # A path with `..`, encoded or not, may lead to one agent here and to another one in the ingress.
    if host and host == settings.agents_host().lower() and ".." not in unquote(path):
        match = AGENT_PATH.match(path)
        return _Addressee(match[1], agent=True) if match else None
    return None


def _values(cookies: str, name: str) -> tuple[str, ...]:
    """The values of all cookies of this name."""
    return tuple(value.strip(" \t") for value in OWN_COOKIES[name].findall(cookies))


def _frame(headers: Headers, method: str, settings: Settings) -> Frame:
    """Which page's frame this is for. A navigation has no Origin; its Referer can't be forged by a page. A browser
    without Fetch Metadata is taken to ask for a tab."""
    if headers.get("Sec-Fetch-Mode") != "navigate" or headers.get("Sec-Fetch-Dest", "document") == "document":
        return Frame.NONE
    if method == "GET" and headers["Sec-Fetch-Dest"] == "iframe" and settings.embed_origins:
        by = REFERER.match(headers.get("Referer", ""))
        if by and _origin(by[1]) in map(_origin, settings.embedding_origins()):
            return Frame.NAMED
    return Frame.FOREIGN if headers.get("Sec-Fetch-Site") in ("same-site", "cross-site") else Frame.OWN


def _origin(text: str) -> str:
    """An origin as browsers write it: in lower case, without the scheme's default port."""
    lower = text.lower()
    return lower.removesuffix(":443" if lower.startswith("https:") else ":80")


def _is_person(headers: Headers, method: str, path: str, frame: Frame) -> bool:
    """Whether somebody opens a page: no WebSocket, script, image, prefetch or crawler.

    Browsers say so (Fetch Metadata, https://www.w3.org/TR/fetch-metadata/). Without that, a request that accepts HTML
    counts as one. Opening a page that EMBED_ORIGINS names opens the workspace in its frame.
    """
    if method != "GET" or path == "/favicon.ico" or CRAWLER.search(headers.get("User-Agent", "").lower()):
        return False
    if "prefetch" in (headers.get("Sec-Purpose", "") + headers.get("Purpose", "") + headers.get("X-Moz", "")).lower():
        return False
    if "Sec-Fetch-Mode" in headers:
        opened = headers["Sec-Fetch-Mode"] == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
        return opened or frame is Frame.NAMED
    return accepts_pages(headers)


def _is_embedded(headers: Headers, frame: Frame) -> bool:
    """Whether a page of an origin that EMBED_ORIGINS does not name asks for a script, image or frame: a browser adds
    the cookie for sibling hosts."""
    if frame is Frame.NAMED:
        return False
    opened = headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
    return headers.get("Sec-Fetch-Site") in ("same-site", "cross-site") and not opened


def accepts_pages(headers: Headers) -> bool:
    """Whether the answer may be a page, where the method is GET."""
    return "text/html" in headers.get("Accept", "")
