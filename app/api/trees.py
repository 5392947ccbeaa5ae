"""The calls on folders of a workspace as archives: one out, one in."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from flask import Response, request

from app.agent.protocol import FILE_PIECE, ArchiveFormat
from app.api.answers import BYTES, OCTETS
from app.api.blueprint import Blueprint
from app.api.current import core
from app.api.file_schemas import TreeQuerySchema, TreeSchema
from app.api.files import passing, path_of
from app.api.reach import ERRORS, held, reach_of
from app.api.security import visible_session
from app.core.files.model import Unpacked
from app.http.bodies import body_pieces

blp = Blueprint("trees", __name__, description="Folders of a workspace as archives.")

HERE = "/session/<session:uuid>/tree"
MEDIA: Mapping[ArchiveFormat, str] = {ArchiveFormat.TAR_GZ: "application/gzip", ArchiveFormat.ZIP: "application/zip"}


@blp.route(HERE, methods=["GET"])
@blp.arguments(TreeQuerySchema, location="query")
@blp.response(200, BYTES, content_type=MEDIA[ArchiveFormat.TAR_GZ], description="The archive.")
@blp.doc(responses={200: {"content": {MEDIA[ArchiveFormat.ZIP]: {"schema": BYTES}}}})
@blp.operation("readTree", *ERRORS, 400, rate="work")
def read(query: dict[str, Any], uuid: str) -> Response:
    """Read a folder as an archive, which is made on the way. An answer that breaks off is not whole."""
    record, how = visible_session(uuid), query["format"]
    with ExitStack() as slot:
        slot.enter_context(held(record))
        slot.enter_context(passing(record, None))
        pieces = slot.enter_context(core().trees.packed(uuid, path_of(query), how, reach_of(query)))
        response = Response(pieces, mimetype=MEDIA[how])
        response.headers["Content-Disposition"] = f'attachment; filename="{uuid}.{how}"'
        response.call_on_close(slot.pop_all().close)
        return response


@blp.route(HERE, methods=["PUT"])
@blp.arguments(TreeQuerySchema, location="query")
@blp.response(200, TreeSchema, description="It is unpacked.")
@blp.doc(requestBody={"required": True, "content": {OCTETS: {"schema": BYTES}}})
@blp.operation("writeTree", *ERRORS, 400, 413, 422, 507, rate="work", audit="write_tree")
def write(query: dict[str, Any], uuid: str) -> Unpacked:
    """Unpack an archive into a folder, which is made if missing: all of it, or nothing. What has the same names is
    replaced, all else stays."""
    record = visible_session(uuid)
    with held(record), passing(record, request.content_length):
        return core().trees.unpack(uuid, path_of(query), query["format"], body_pieces(FILE_PIECE), reach_of(query))
