"""`sessionctl decrypt`: a stored backup becomes a plain zip without the service."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from app.core.backups.store import BackupStore
from app.core.storage.archive_keys import ArchiveKeys, new_key
from app.core.storage.encrypted_file import CHUNK, HEADER_BYTES, STORED
from workspaces.cli.app import app
from workspaces.cli.context import State, run
from workspaces.encrypted_backup import CannotDecrypt, decrypt

NAME = "app-abcd1234-20260101-000000.zip"
KEY = new_key()
VECTOR: dict[str, Any] = json.loads((Path(__file__).parents[2] / "data" / "encrypted-zip.json").read_text())


def stored(folder: Path, size: int = 2 * CHUNK + 5, key: str = KEY) -> tuple[Path, bytes]:
    """A backup in the store, and its plain zip."""
    content = random.Random(size).randbytes(size)
    with BackupStore(f"file://{folder}", ArchiveKeys(key)).writing(NAME) as part:
        part.write(content)
        part.commit({"name": NAME})
    return folder / "abcd1234" / NAME, content


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["decrypt", *map(str, arguments)], obj=State(None, None))


def test_it_reads_the_files_that_are_stored(tmp_path: Path) -> None:
    """Those of this test are shared with the service's own reader."""
    path = tmp_path / VECTOR["name"]
    path.write_bytes(bytes.fromhex(VECTOR["stored"]))
    decrypt(path, tmp_path / "plain.zip", VECTOR["archive_key"])
    assert (tmp_path / "plain.zip").read_bytes() == bytes.fromhex(VECTOR["content"])


@pytest.mark.parametrize("size", [0, CHUNK - 1, CHUNK, 2 * CHUNK, 2 * CHUNK + 5])
def test_a_zip_of_any_size_becomes_plain(tmp_path: Path, size: int) -> None:
    """By one of several keys, from a file or the environment."""
    path, content = stored(tmp_path / "store", size)
    (tmp_path / "key").write_text(f"{new_key()},\n {KEY}\n")
    result = call(path, "--key-file", tmp_path / "key", "--to", tmp_path / "a.zip")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "a.zip").read_bytes() == content


def test_it_says_what_it_can_not_decrypt_and_leaves_nothing(tmp_path: Path) -> None:
    path, _ = stored(tmp_path / "store")
    whole = path.read_bytes()
    target = tmp_path / "plain.zip"
    for key, name, text in (
        (new_key(), "", ArchiveKeys(KEY).ids[0]),
        ("no key", "", "malformed"),
        (KEY, NAME.replace("2026", "2025"), "another name"),
        (KEY, "copy.zip", "no name of a backup"),
    ):
        with pytest.raises(CannotDecrypt, match=text):
            decrypt(path, target, key, name)
    for damaged in (whole[:-1], whole[: HEADER_BYTES + STORED], whole[:-9] + b"?" + whole[-8:]):
        path.write_bytes(damaged)
        with pytest.raises(CannotDecrypt, match="damaged"):
            decrypt(path, target, KEY)
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(CannotDecrypt, match="not encrypted"):
        decrypt(path, target, KEY)
    assert not target.exists() and not list(tmp_path.glob(".*.part"))


def test_the_command_refuses_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a key, without the file, and where it would replace the stored one."""
    path, _ = stored(tmp_path / "store")
    for arguments, key, text in (
        ([path], "", "There is no key"),
        ([tmp_path / "none.zip"], KEY, "No such file"),
        ([path, "--to", path], KEY, "name another file"),
    ):
        monkeypatch.setenv("ARCHIVE_KEY", key)
        monkeypatch.setattr("sys.argv", ["sessionctl", "decrypt", *map(str, arguments)])
        assert run(app) == 1
        assert text in capsys.readouterr().err.replace("\n", " ")
    assert path.read_bytes().startswith(b"\x89WSE1")
