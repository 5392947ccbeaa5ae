"""The calls on files in a workspace: list, read, write, delete, move."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from datetime import UTC, datetime
from typing import Any

from flask import Response, request
from werkzeug.routing import BaseConverter

from app.agent.protocol import FILE_PIECE, FileFault
from app.api.answers import BYTES, OCTETS, Answer
from app.api.blueprint import Blueprint
from app.api.current import core
from app.api.file_schemas import (
    FileChangeSchema,
    FileEntrySchema,
    FileListSchema,
    ListingQuerySchema,
    WriteQuerySchema,
    etag_of,
)
from app.api.reach import ERRORS, ReachQuerySchema, held, reach_of
from app.api.security import visible_session
from app.api.tenant_limits import hold_transfer
from app.core.errors import FileRefused
from app.core.files.model import Entry, Listing, NewFile
from app.core.reach import Reach
from app.core.sessions.model import Record
from app.http.bodies import body_pieces
from app.http.problems import Problem
from app.http.query import queried

blp = Blueprint("files", __name__, description="Files in a workspace: list, read, write, delete, move.")

HERE = "/session/<session:uuid>/files"
ANY = "*"
LOOKS = 3
"""At a file that others replace all the time, until its bytes are those of the look."""

ETAG = {"ETag": {"schema": {"type": "string"}}}


class FilePath(BaseConverter):
    """The rest of a path, whatever is in it."""

    part_isolating = False
    regex = r"(?s:.+)"


@blp.route(HERE, methods=["GET"])
@blp.arguments(ListingQuerySchema, location="query")
@blp.response(200, FileListSchema)
@blp.operation("listFiles", *ERRORS, 400, rate="work")
def listing(query: dict[str, Any], uuid: str) -> Listing:
    """List a folder, by name; a session that sleeps is woken."""
    record, reach = visible_session(uuid), reach_of(query)
    with held(record):
        return core().files.listing(
            uuid, path_of(query), query["depth"], query["glob"], query["limit"], query["cursor"], reach
        )


@blp.route(f"{HERE}/<file:path>", methods=["GET"])
@blp.arguments(ReachQuerySchema, location="query")
@blp.response(200, BYTES, content_type=OCTETS, headers=ETAG, description="The file; ranges are answered with 206.")
@blp.alt_response(206, schema=BYTES, content_type=OCTETS, description="A part of the file.")
@blp.alt_response(304, description="The caller has it: its ETag is in If-None-Match.")
@blp.operation("readFile", *ERRORS, 400, 412, 416, rate="work")
def read(query: dict[str, Any], uuid: str, path: str) -> Response:
    """Read a file. One that is replaced or cut short meanwhile breaks the answer off."""
    record, at, reach = visible_session(uuid), true_path(), reach_of(query)
    for _ in range(LOOKS):
        if (response := with_bytes(record, at, reach)) is not None:
            return response
    raise FileRefused(FileFault.FILE_CHANGED, "")


@blp.route(f"{HERE}/<file:path>", methods=["PUT"])
@blp.arguments(WriteQuerySchema, location="query")
@blp.response(200, FileEntrySchema, headers=ETAG, description="It is replaced.")
@blp.alt_response(201, schema=FileEntrySchema, headers=ETAG, description="It is new.")
@blp.doc(requestBody={"required": True, "content": {OCTETS: {"schema": BYTES}}})
@blp.operation("writeFile", *ERRORS, 400, 412, 413, 507, rate="work", audit="write_file")
def write(query: dict[str, Any], uuid: str, path: str) -> Answer:
    """Write a file: all of it, or nothing. Missing folders are made. With `If-Match` only in place of that file, with
    `If-None-Match: *` only a new one."""
    record = visible_session(uuid)
    if "Content-Range" in request.headers:
        raise Problem(
            400, "invalid_request", "A part of a file can't be written: send all of it, without Content-Range."
        )
    mode = int(query["mode"], 8) if "mode" in query else None
    wanted = NewFile(path=true_path(), mode=mode, etags=matched(), new=only_new())
    with held(record), passing(record, request.content_length):
        entry, new = core().files.write(uuid, wanted, body_pieces(FILE_PIECE), reach_of(query))
    return entry, 201 if new else 200, {"ETag": etag_of(entry)}


@blp.route(f"{HERE}/<file:path>", methods=["DELETE"])
@blp.arguments(ReachQuerySchema, location="query")
@blp.response(204, description="It is deleted.")
@blp.operation("deleteFile", *ERRORS, 400, 412, rate="work", audit="delete_file")
def delete(query: dict[str, Any], uuid: str, path: str) -> Response:
    """Delete a file, a link, or a folder with all that is in it."""
    record = visible_session(uuid)
    with held(record):
        core().files.delete(uuid, true_path(), matched(), reach_of(query))
    return Response(status=204)


@blp.route(f"{HERE}/<file:path>", methods=["POST"])
@blp.arguments(ReachQuerySchema, location="query")
@blp.arguments(FileChangeSchema, example={"move_to": "src/main.py"})
@blp.response(200, FileEntrySchema, description="It is moved; or the folder is there already.")
@blp.alt_response(201, schema=FileEntrySchema, description="The folder is made.")
@blp.operation("changeFile", *ERRORS, 507, body=True, rate="work", audit="change_file")
def change(query: dict[str, Any], wanted: dict[str, Any], uuid: str, path: str) -> Answer:
    """Move a file, a link or a folder; or make a folder. Missing folders on the way are made."""
    record, reach = visible_session(uuid), reach_of(query)
    with held(record):
        if "move_to" in wanted:
            return core().files.move(uuid, true_path(), wanted["move_to"], reach), 200
        entry, new = core().files.make_folder(uuid, true_path(), reach)
    return entry, 201 if new else 200


@contextmanager
def passing(record: Record, size: int | None) -> Iterator[None]:
    """What a file of so many bytes, None for any number, holds in this process while it passes: room for the two pieces
    that are on their way, and of a long one a slot of its user."""
    long = size is None or size > FILE_PIECE
    with hold_transfer(record.user_id) if long else nullcontext(), core().budget.account() as account:
        account.take(2 * FILE_PIECE if size is None else min(size, 2 * FILE_PIECE))
        yield


def path_of(query: Mapping[str, Any]) -> str:
    """The path in this request's query, as Python names files."""
    return queried("path") or str(query["path"])


def true_path() -> str:
    """The path in this request's URL, as Python names files. Flask's has lost the bytes that are no UTF-8."""
    path: str = request.environ["PATH_INFO"]
    return path.split("/files/", 1)[1].encode("latin-1").decode("utf-8", "surrogateescape")


def with_bytes(record: Record, path: str, reach: Reach) -> Response | None:
    """The answer with a file, of which the first bytes are there; None if another file took its place between the look
    at it and these."""
    with ExitStack() as slot:
        slot.enter_context(held(record))
        found = core().files.entry(record.uuid, path, reach)
        slot.enter_context(passing(record, found.size))
        response = of_file(found)
        if response.status_code in (200, 206) and request.method != "HEAD":
            part = response.content_range
            start, stop = part.start or 0, part.stop or found.size or 0
            try:
                response.response = core().files.read(record.uuid, path, found, start, stop)
            except FileRefused as refused:
                if refused.code == FileFault.FILE_CHANGED:
                    return None
                raise
        response.call_on_close(slot.pop_all().close)
        return response


def of_file(found: Entry) -> Response:
    """The answer with a file, still without its bytes, as the conditions and the range of this request want it."""
    response = Response(mimetype=OCTETS)
    response.set_etag(found.etag)
    response.last_modified = datetime.fromtimestamp(found.modified_at, UTC)
    response.content_length = found.size or 0
    response.make_conditional(request, accept_ranges=True, complete_length=found.size)
    if response.status_code == 412:
        raise FileRefused(FileFault.FILE_CHANGED, "")
    return response


def matched() -> Collection[str] | None:
    """The etags of `If-Match`, None without it. Raises `FileRefused` for one that no file can have, as a weak one."""
    given = request.if_match
    if "If-Match" not in request.headers:
        return None
    etags = [ANY] if given.star_tag else sorted(given.as_set())
    if not etags:
        raise FileRefused(FileFault.FILE_CHANGED, "")
    return etags


def only_new() -> bool:
    """Whether `If-None-Match` is `*`; raises a 400 for anything else, which no writer needs."""
    given = request.headers.get("If-None-Match")
    if given not in (None, ANY):
        raise Problem(400, "invalid_request", "If-None-Match must be `*` here: write only a new file.")
    return given is not None
