"""Requests to agents about files."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlencode

from app.agent.protocol import FILE_PIECE, FILE_STATUS, UPLOAD_ID, UPLOAD_LOST, ArchiveFormat, from_raw, to_raw
from app.core.agents.agent import Agent
from app.core.agents.answers import checked, matching, whole
from app.core.agents.requests import AgentRequests, Refusals
from app.core.errors import FileRefused, UploadLost
from app.core.files.model import (
    Changes,
    Entry,
    Listing,
    NewFile,
    Unpacked,
    Watched,
    changes_of,
    entry_of,
    file_of,
    listing_of,
)
from app.core.untrusted_json import LARGE

ABOUT = "files"

LISTING_RESPONSE = 4_194_304
"""Bytes of a page, or of changes: 256 KiB of paths, of which each byte may take three and JSON two for one, and what
stands beside them."""

REFUSALS: Refusals = {
    UPLOAD_LOST: lambda _: UploadLost(),
    **{status: partial(FileRefused, fault) for fault, status in FILE_STATUS.items()},
}
"""Why an agent refuses, by the status of its answer."""


class FileClient(AgentRequests):
    """Requests about files. Every method raises as all `AgentRequests`, and `FileRefused`; those about uploads raise
    `UploadLost` for one that the agent does not know."""

    def listing(self, agent: Agent, path: str, depth: int, glob: str, limit: int, cursor: str) -> Listing:
        """A page of a folder, so many levels deep."""
        query = _query(path, depth=depth, glob=glob, limit=limit, after=from_raw(cursor))
        said = self._json(agent, "GET", f"/files{query}", most=LISTING_RESPONSE, values=LARGE)
        return checked(agent, ABOUT, lambda: listing_of(agent.uuid, said))

    def changes(self, agent: Agent, watched: Watched, position: str, wait: float) -> Changes:
        """What changed after the position, "" for none, as soon as there is something."""
        query = _query(
            watched.path,
            depth=watched.depth,
            glob=watched.glob,
            after=position or None,
            wait=math.floor(self.bounded(wait)),
        )
        said = self._json(agent, "GET", f"/files/changes{query}", most=LISTING_RESPONSE, values=LARGE)
        return checked(agent, ABOUT, lambda: changes_of(agent.uuid, said))

    def entry(self, agent: Agent, path: str) -> Entry:
        """The file at a path, or at the end of the links there."""
        said = self._json(agent, "GET", f"/files/entry{_query(path)}")
        return checked(agent, ABOUT, lambda: file_of(agent.uuid, said))

    def read(self, agent: Agent, path: str, etag: str, offset: int, most: int) -> bytes:
        """Bytes of the file that had this etag; fewer where it ends."""
        query = _query(path, etag=etag, offset=offset, bytes=min(most, FILE_PIECE))
        return self.content(agent, f"/files/content{query}", refusals=REFUSALS, most=FILE_PIECE)

    def write(self, agent: Agent, wanted: NewFile, content: bytes) -> tuple[Entry, bool]:
        """Write a whole file, of at most `FILE_PIECE` bytes. The entry, and whether it is new."""
        return self._written(agent, self._json(agent, "PUT", f"/files/content{_wanted(wanted)}", content))

    def begin(self, agent: Agent, wanted: NewFile) -> str:
        """Begin to write a longer one; the upload's id."""
        return self._begun(agent, "upload", f"/files/uploads{_wanted(wanted)}")

    def append(self, agent: Agent, upload: str, offset: int, data: bytes) -> None:
        """The next bytes, `FILE_PIECE` at most; the last ones again change nothing."""
        self._json(agent, "PUT", f"/files/uploads/{upload}?offset={offset}", data)

    def finish(self, agent: Agent, upload: str, wanted: NewFile, size: int) -> tuple[Entry, bool]:
        """Give the upload, of so many bytes, its place; as `write`."""
        return self._written(agent, self._json(agent, "POST", f"/files/uploads/{upload}{_wanted(wanted, size=size)}"))

    def drop(self, agent: Agent, upload: str) -> None:
        """Give an upload up."""
        self._json(agent, "DELETE", f"/files/uploads/{upload}")

    def begin_tree(self, agent: Agent, path: str) -> str:
        """Begin to send an archive that is unpacked into a folder; the upload's id."""
        return self._begun(agent, "upload", f"/files/uploads{_query(path, tree='true')}")

    def unpack(self, agent: Agent, upload: str, path: str, how: ArchiveFormat, size: int) -> Unpacked | None:
        """Go on to unpack an upload of so many bytes; None if there is more to do."""
        query = _query(path, format=how, size=size)
        said = self._json(agent, "POST", f"/files/uploads/{upload}/tree{query}")
        if said.get("done") is not True:
            return None
        return checked(
            agent,
            ABOUT,
            lambda: Unpacked(
                uuid=agent.uuid, path=path, files=whole(said.get("files")), bytes=whole(said.get("bytes"))
            ),
        )

    def pack(self, agent: Agent, path: str, how: ArchiveFormat) -> str:
        """Begin to pack a folder; the archive's id."""
        return self._begun(agent, "tree", f"/files/trees{_query(path, format=how)}")

    def packed(self, agent: Agent, tree: str, offset: int) -> bytes:
        """The archive's bytes from `offset` on, `FILE_PIECE` at most; none at the end."""
        return self.content(agent, f"/files/trees/{tree}?offset={offset}", refusals=REFUSALS, most=FILE_PIECE)

    def drop_tree(self, agent: Agent, tree: str) -> None:
        """Forget an archive, or the upload of one."""
        self._json(agent, "DELETE", f"/files/trees/{tree}")

    def delete(self, agent: Agent, path: str, etags: Collection[str] | None) -> None:
        """Delete a file, a link, or a folder with all in it."""
        self._json(agent, "DELETE", f"/files/entry{_query(path, if_match=etags)}")

    def move(self, agent: Agent, path: str, target: str) -> Entry:
        """Move what is at the path; nothing is overwritten."""
        said = self._json(agent, "POST", f"/files/move{_query(path)}", {"to": to_raw(target)})
        return checked(agent, ABOUT, lambda: entry_of(agent.uuid, said))

    def make_folder(self, agent: Agent, path: str) -> tuple[Entry, bool]:
        """Make a folder; whether it is new."""
        said = self._json(agent, "POST", f"/files/folder{_query(path)}")
        return checked(agent, ABOUT, lambda: (entry_of(agent.uuid, said), said.get("new") is True))

    def _begun(self, agent: Agent, what: str, path: str) -> str:
        said = self._json(agent, "POST", path)
        return checked(agent, ABOUT, lambda: matching(said.get(what), UPLOAD_ID))

    def _json(self, agent: Agent, method: str, path: str, body: object = None, **more: Any) -> Mapping[str, Any]:
        return self.json(agent, method, path, body, refusals=REFUSALS, **more)

    def _written(self, agent: Agent, said: Mapping[str, Any]) -> tuple[Entry, bool]:
        return checked(agent, ABOUT, lambda: (file_of(agent.uuid, said), said.get("new") is True))


def _wanted(wanted: NewFile, **more: Any) -> str:
    new = "true" if wanted.new else None
    return _query(wanted.path, mode=wanted.mode, if_match=wanted.etags, new=new, **more)


def _query(path: str, **parameters: Any) -> str:
    """A query; parameters that are None are left out, and those with several values repeated."""
    given = {"path": path, **{name: value for name, value in parameters.items() if value is not None}}
    return f"?{urlencode(given, doseq=True, errors='surrogateescape')}"
