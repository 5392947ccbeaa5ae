"""The calls on files: list, watch, read, write, delete, move. Paths are raw (`to_raw`) but in queries, whose encoding
does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs

from flask import Blueprint, Response, current_app, jsonify, request

from app.agent.files import reading
from app.agent.files.changes import Changed
from app.agent.files.faults import FileError
from app.agent.files.trees import Trees
from app.agent.files.uploads import Unknown
from app.agent.files.writing import Files, Wanted
from app.agent.protocol import CHANGES_POSITION, FILE_PIECE, FILE_STATUS, UPLOAD_LOST, ArchiveFormat, from_raw, to_raw
from app.agent.requests import Problem, awaited, json_object, natural, problem_response, writing
from app.agent.tools.sandbox_path import DEPTH, Workspace

FILES, TREES, CHANGED, WORKSPACE = "files", "trees", "changed", "workspace"
"""The keys in `Flask.extensions`: of what changes files, of archives, of what was changed, and of the folder."""

LISTED_MOST = 1_000
MODE_MOST = 0o777
ETAG = re.compile(r"[0-9a-f]{1,16}-[0-9a-f]{1,16}-[0-9a-f]{1,24}")

files = Blueprint("files", __name__, url_prefix="/files")


@files.errorhandler(FileError)
def refuse(error: FileError) -> Response:
    """The problem document of its fault."""
    return problem_response(Problem(FILE_STATUS[error.fault], error.fault, f"{error}."))


@files.errorhandler(Unknown)
def say_lost(_: Unknown) -> Response:
    """The problem document of a transfer that was dropped, or is not as far as the caller says."""
    return problem_response(Problem(UPLOAD_LOST, "upload_lost", "There is no such transfer, or not as far as that."))


@files.get("")
def listing() -> Response:
    """A page of what is in a folder: `depth` levels, names like `glob`, after the path `after`."""
    page = reading.listing(
        _workspace(),
        _path(),
        min(natural("depth", 1), DEPTH),
        _text("glob"),
        min(natural("limit", LISTED_MOST), LISTED_MOST),
        _text("after"),
    )
    following = to_raw(page.after) if page.after else None
    return jsonify({"path": to_raw(page.path), "entries": [each.told() for each in page.entries], "after": following})


@files.get("/changes")
def changes() -> Response:
    """What changed after the position `after`, if given, `depth` levels deep at names like `glob`; as soon as there is
    something, or after `wait` seconds."""
    after = _text("after")
    if after and not CHANGES_POSITION.fullmatch(after):
        raise Problem(400, "bad_request", "`after` is none.")
    with awaited(natural("wait", 0)) as left:
        found = _changed().since(after, _path(), min(natural("depth", 1), DEPTH), _text("glob"), left())
    return jsonify(
        {
            "path": to_raw(found.path),
            "position": found.position,
            "complete": found.complete,
            "anew": found.anew,
            "entries": [each.told() for each in found.entries],
            "gone": [to_raw(each) for each in found.gone],
        }
    )


@files.get("/entry")
def entry() -> Response:
    """The file at a path."""
    return jsonify(reading.entry(_workspace(), _path()).told())


@files.get("/content")
def read() -> Response:
    """Bytes of the file that had this `etag`, from `offset` on, at most `bytes`."""
    etag = _text("etag")
    if not ETAG.fullmatch(etag):
        raise Problem(400, "bad_request", "`etag` is none.")
    most = min(natural("bytes", FILE_PIECE), FILE_PIECE)
    data = reading.read(_workspace(), _path(), etag, natural("offset", 0), most)
    return Response(data, mimetype="application/octet-stream")


@files.put("/content")
def write() -> Response:
    """Write a whole file, of at most `FILE_PIECE` bytes."""
    with writing():
        return _written(*_files().write(_path(), _piece(), _wanted()))


@files.post("/uploads")
def begin() -> Response:
    """Begin to write a file of any size, or an archive that is to be unpacked (`tree`)."""
    if _text("tree") == "true":
        _trees().check(_path())
    else:
        _files().check(_path(), _wanted())
    with writing():
        return jsonify({"upload": _files().uploads.begin()})


@files.put("/uploads/<id_>")
def append(id_: str) -> Response:
    """The next bytes of a file, from `offset` on."""
    with writing():
        _files().uploads.append(id_, natural("offset", 0), _piece())
    return jsonify({})


@files.post("/uploads/<id_>")
def finish(id_: str) -> Response:
    """Give a file of `size` bytes its place."""
    with writing():
        return _written(*_files().finish(id_, _path(), natural("size", 0), _wanted()))


@files.delete("/uploads/<id_>")
def drop(id_: str) -> Response:
    """Give up."""
    _files().uploads.drop(id_)
    return jsonify({})


@files.post("/uploads/<id_>/tree")
def unpack(id_: str) -> Response:
    """Go on to unpack an upload of `size` bytes into a folder; repeated until it is `done`."""
    with writing():
        return jsonify(_trees().unpack(id_, _path(), _format(), natural("size", 0))._asdict())


@files.post("/trees")
def pack() -> Response:
    """Begin to pack a folder."""
    return jsonify({"tree": _trees().begin(_path(), _format())})


@files.get("/trees/<id_>")
def packed(id_: str) -> Response:
    """The next bytes of an archive, from `offset` on; none at its end."""
    return Response(_trees().read(id_, natural("offset", 0)), mimetype="application/octet-stream")


@files.delete("/trees/<id_>")
def drop_tree(id_: str) -> Response:
    """Forget an archive, or an upload that was being unpacked."""
    _trees().drop(id_)
    return jsonify({})


@files.delete("/entry")
def delete() -> Response:
    """Delete a file, a link, or a folder with all in it."""
    with writing():
        _files().delete(_path(), _etags())
    return jsonify({})


@files.post("/move")
def move() -> Response:
    """Move what is at the path to `to`, which is raw too."""
    target = json_object().get("to")
    if not isinstance(target, str):
        raise Problem(400, "bad_request", "`to` must be a string.")
    with writing():
        return jsonify(_files().move(_path(), from_raw(target)).told())


@files.post("/folder")
def make_folder() -> Response:
    """Make a folder."""
    with writing():
        return _written(*_files().make_folder(_path()))


def _workspace() -> Workspace:
    workspace: Workspace = current_app.extensions[WORKSPACE]
    return workspace


def _files() -> Files:
    files: Files = current_app.extensions[FILES]
    return files


def _changed() -> Changed:
    changed: Changed = current_app.extensions[CHANGED]
    return changed


def _trees() -> Trees:
    trees: Trees = current_app.extensions[TREES]
    return trees


def _format() -> ArchiveFormat:
    try:
        return ArchiveFormat(_text("format"))
    except ValueError:
        raise Problem(400, "bad_request", "`format` is none.") from None


def _written(written: Any, new: bool) -> Response:
    return jsonify({**written.told(), "new": new})


def _query(name: str) -> Sequence[str]:
    """The values of a parameter. Flask would replace what is no UTF-8."""
    query = request.query_string.decode("latin-1")
    return parse_qs(query, keep_blank_values=True, errors="surrogateescape").get(name, [])


def _path() -> str:
    given = _query("path")
    if not given:
        raise Problem(400, "bad_request", "`path` is missing.")
    return given[0]


def _text(name: str) -> str:
    return next(iter(_query(name)), "")


def _etags() -> Sequence[str] | None:
    return _query("if_match") or None


def _wanted() -> Wanted:
    mode = natural("mode", 0) if "mode" in request.args else None
    if mode is not None and mode > MODE_MOST:
        raise Problem(400, "bad_request", "`mode` has bits that a caller may not set.")
    return Wanted(mode, _etags(), _text("new") == "true")


def _piece() -> bytes:
    request.max_content_length = FILE_PIECE
    # In one read, unlike `get_data`.
    piece = request.stream.read(FILE_PIECE)
    if len(piece) != request.content_length:
        raise Problem(400, "bad_request", "The body is not as long as it says.")
    return piece
