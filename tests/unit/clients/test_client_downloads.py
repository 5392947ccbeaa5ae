"""Downloads: whole or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path

import httpx
import pytest

from tests.unit.clients.api import Api, Body, Broken, problem
from workspaces import BackupNotFound, ConnectionFailed, DownloadDamaged, InvalidAnswer, WorkspacesError

NAME = "app-k3v9x0qa-20261120-080000.zip"
CONTENT = b"PK" + bytes(range(256)) * 3_000
ETAG = f'"{hashlib.sha256(CONTENT).hexdigest()}"'


def whole(content: bytes = CONTENT, etag: str = ETAG) -> httpx.Response:
    return httpx.Response(200, stream=Body(content), headers={"ETag": etag})


def broken(*, at: int, begin: int = 0, etag: str = ETAG) -> httpx.Response:
    status = 206 if begin else 200
    return httpx.Response(status, stream=Broken(CONTENT[begin:at]), headers={"ETag": etag})


def rest(request: httpx.Request) -> httpx.Response:
    begin = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-"))
    return httpx.Response(206, stream=Body(CONTENT[begin:]), headers={"ETag": ETAG})


def files(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("to", [".", "work.zip"])
def test_a_download_goes_to_a_file_or_into_a_folder(tmp_path, to):
    found = Api(whole()).client().backups.download(NAME, tmp_path / to)
    assert found == tmp_path / (NAME if to == "." else to)
    assert found.read_bytes() == CONTENT
    assert files(tmp_path) == [found.name]


def test_a_download_that_breaks_off_goes_on_where_it_broke(tmp_path):
    api = Api(broken(at=1_000), httpx.ConnectError("refused"), broken(begin=1_000, at=5_000), rest)
    found = api.client().backups.download(NAME, tmp_path)
    assert found.read_bytes() == CONTENT
    assert [request.headers.get("Range") for request in api.requests] == [None, *["bytes=1000-"] * 2, "bytes=5000-"]
    assert api.requests[1].headers["If-Range"] == ETAG


@pytest.mark.parametrize(
    ("turns", "error"),
    [
        ([whole(CONTENT[:-1])], DownloadDamaged),
        ([whole(CONTENT[:-1] + b"x")], DownloadDamaged),
        ([whole(etag="")], InvalidAnswer),
        ([broken(at=9), whole()], WorkspacesError),
        ([broken(at=9), broken(begin=9, at=99, etag='"other"')], WorkspacesError),
        ([broken(at=9), *[httpx.ConnectError("refused")] * 9], ConnectionFailed),
        ([problem(404, "backup_not_found")], BackupNotFound),
    ],
)
def test_a_download_that_is_not_whole_leaves_nothing(tmp_path, turns, error):
    (tmp_path / NAME).write_bytes(b"from before")
    with pytest.raises(error):
        Api(*turns).client().backups.download(NAME, tmp_path)
    assert files(tmp_path) == [NAME]
    assert (tmp_path / NAME).read_bytes() == b"from before"


def test_a_name_never_leads_out_of_the_folder(tmp_path):
    found = Api(whole()).client().backups.download("../../evil.zip", tmp_path)
    assert found == tmp_path / "evil.zip"
