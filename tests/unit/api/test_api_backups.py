"""The calls on backups."""

from __future__ import annotations

import pytest

from app.sessions.core import Core
from tests.unit.api.helpers import Client, add_backup, check_problem, new_session

UNKNOWN = "app-zzzzzzzz-20261120-080000.zip"


def test_list_shows_the_contracts_fields_newest_first(client: Client, core: Core) -> None:
    older, newer = add_backup(core), add_backup(core)
    body = client.get("/backups").json
    assert body["total"] == 2
    assert [shown["name"] for shown in body["backups"]] == [newer.name, older.name]
    contract = {"name", "uuid", "user_id", "size", "files", "sha256", "created_at", "verified"}
    assert contract <= body["backups"][0].keys()
    assert body["backups"][0]["created_at"] == "2023-11-14T22:13:21.000Z"


def test_list_filters_and_pages(client: Client, core: Core) -> None:
    own = [add_backup(core, user_id="ada", uuid="aaaaaaaa") for _ in range(3)]
    add_backup(core, user_id="bob", uuid="bbbbbbbb")
    for query in ("user_id=ada", "uuid=aaaaaaaa", "user_id=ada&uuid=aaaaaaaa"):
        page = client.get(f"/backups?limit=2&{query}").json
        rest = client.get(f"/backups?limit=2&{query}&cursor={page['next_cursor']}").json
        names = [backup["name"] for backup in page["backups"] + rest["backups"]]
        assert sorted(names) == sorted(backup.name for backup in own)
        assert (page["total"], rest["next_cursor"]) == (3, None)


def test_a_sessions_backups_outlive_it(client: Client, core: Core) -> None:
    backup = add_backup(core, uuid="gonegone")
    assert [shown["name"] for shown in client.get("/session/gonegone/backups").json["backups"]] == [backup.name]
    uuid = new_session(client)
    assert client.get(f"/session/{uuid}/backups").json == {"total": 0, "backups": [], "next_cursor": None}


def test_restore_creates_a_session_for_the_backups_user(client: Client, core: Core) -> None:
    backup = add_backup(core, user_id="ada")
    answer = client.post(f"/backups/{backup.name}/restore")
    assert (answer.status_code, answer.json["user_id"], answer.json["status"]) == (201, "ada", "created")
    assert core.store.get(answer.json["uuid"]).restore_from == backup.name


def test_restore_may_name_another_user(client: Client, core: Core) -> None:
    answer = client.post(f"/backups/{add_backup(core).name}/restore", json={"user_id": "bob"})
    assert answer.json["user_id"] == "bob"


def test_restore_refuses_what_it_does_not_know(client: Client, core: Core) -> None:
    answer = client.post(f"/backups/{add_backup(core).name}/restore", json={"size": "large"})
    check_problem(answer, 400, "invalid_request")


def test_download_streams_the_zip(client: Client, core: Core) -> None:
    content = bytes(range(256)) * 4096
    backup = add_backup(core, content=content)
    answer = client.get(f"/backups/{backup.name}/download")
    assert answer.data == content
    assert answer.content_type == "application/zip"
    assert answer.headers["Content-Length"] == str(len(content))
    assert answer.headers["ETag"] == f'"{backup.sha256}"'
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{backup.name}"'


def test_download_answers_ranges_and_known_tags(client: Client, core: Core) -> None:
    backup = add_backup(core, content=b"0123456789")
    path = f"/backups/{backup.name}/download"
    part = client.get(path, headers={"Range": "bytes=2-4"})
    assert (part.status_code, part.data, part.headers["Content-Range"]) == (206, b"234", "bytes 2-4/10")
    assert client.get(path, headers={"If-None-Match": f'"{backup.sha256}"'}).status_code == 304
    check_problem(client.get(path, headers={"Range": "bytes=20-"}), 416, "range_not_satisfiable")
    assert client.head(path).headers["Content-Length"] == "10"


def test_delete_takes_the_files_and_the_entry(client: Client, core: Core) -> None:
    backup = add_backup(core)
    answer = client.delete(f"/backups/{backup.name}")
    assert (answer.status_code, answer.data) == (204, b"")
    assert not core.files.exists(backup.name)
    assert client.get("/backups").json["total"] == 0


def test_a_backup_that_is_being_restored_from_stays(client: Client, core: Core) -> None:
    backup = add_backup(core)
    new_session(client, restore_from=backup.name)
    check_problem(client.delete(f"/backups/{backup.name}"), 409, "backup_in_use")
    assert core.files.exists(backup.name)


@pytest.mark.parametrize("name", [UNKNOWN, "x", "..%2Fetc%2Fpasswd", "app-%00"])
@pytest.mark.parametrize(("method", "path"), [("GET", "/download"), ("POST", "/restore"), ("DELETE", "")])
def test_a_backup_that_does_not_exist_is_404(client: Client, name: str, method: str, path: str) -> None:
    answer = client.open(f"/backups/{name}{path}", method=method)
    assert answer.status_code == 404
    assert answer.json["error"] in ("backup_not_found", "not_found")
