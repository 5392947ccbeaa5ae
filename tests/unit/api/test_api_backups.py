"""The calls on backups."""

from __future__ import annotations

import time
from threading import Barrier, Thread
from typing import Any, BinaryIO

import pytest
from flask import Flask

from app.core.backups.index import Backup
from app.core.composition import Core
from app.core.redis import task_queue
from app.core.sessions.model import Status
from tests.unit.api.helpers import (
    ADMIN_KEY,
    AppMaker,
    Client,
    add_backup,
    check_problem,
    core_of,
    keyed,
    meanwhile,
    move,
    new_session,
    terminate,
)
from tests.waiting import wait_for
from workers import rpc
from workers.job.download_server import DownloadServer, digest

UNKNOWN = "app-zzzzzzzz-20261120-080000.zip"


def path_of(backup: Backup) -> str:
    return f"/backups/{backup.name}"


def test_list_shows_the_contracts_fields_newest_first_and_what_a_backup_lacks(client: Client, core: Core) -> None:
    older, newer = add_backup(core, complete=False, unreadable=("notes/mine.txt",)), add_backup(core)
    body = client.get("/backups").json
    assert body["total"] == 2
    shown = [(each["name"], each["complete"], each["unreadable"]) for each in body["backups"]]
    assert shown == [(newer.name, True, []), (older.name, False, ["notes/mine.txt"])]
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


def test_restore_creates_a_session_for_the_backups_user_or_another(client: Client, core: Core) -> None:
    backup = add_backup(core, user_id="ada")
    for body, user_id in ({}, "ada"), ({"user_id": "bob"}, "bob"):
        answer = client.post(f"{path_of(backup)}/restore", json=body)
        assert (answer.status_code, answer.json["user_id"], answer.json["status"]) == (201, user_id, "created")
        assert core.store.get(answer.json["uuid"]).restore_from == backup.name
    check_problem(client.post(f"{path_of(backup)}/restore", json={"size": "large"}), 400, "invalid_request")


def test_download_streams_the_zip(client: Client, core: Core) -> None:
    content = bytes(range(256)) * 4096
    backup = add_backup(core, content=content)
    answer = client.get(f"{path_of(backup)}/download")
    assert answer.data == content
    assert answer.content_type == "application/zip"
    assert answer.headers["Content-Length"] == str(len(content))
    assert answer.headers["ETag"] == f'"{backup.sha256}"'
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{backup.name}"'


def test_download_answers_ranges_and_known_tags(client: Client, core: Core) -> None:
    backup = add_backup(core, content=b"0123456789")
    path = f"{path_of(backup)}/download"
    part = client.get(path, headers={"Range": "bytes=2-4"})
    assert (part.status_code, part.data, part.headers["Content-Range"]) == (206, b"234", "bytes 2-4/10")
    assert client.get(path, headers={"If-None-Match": f'"{backup.sha256}"'}).status_code == 304
    check_problem(client.get(path, headers={"Range": "bytes=20-"}), 416, "range_not_satisfiable")
    assert client.head(path).headers["Content-Length"] == "10"


class Asked:
    """The queue of an app in a cluster, played by hand: workers that hold the backups do what is asked at once."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.tasks: list[str] = []
        self.idle = False
        core.tasks.send = self.send  # type: ignore[method-assign]

    def send(self, task: str, *args: str | int, request_id: str = "") -> None:
        self.tasks.append(task)
        name, call = map(str, args)
        if self.idle:
            return
        if task == task_queue.DELETE_BACKUP:
            rpc.delete(self.core, name, call)
            return
        secret, size = "one-time", self.core.backup_store.size(name)
        stream = self.core.backup_store.open(name)
        reader = DownloadServer(("127.0.0.1", 0), stream, size, digest(secret))
        Thread(target=self._serve, args=(reader, stream), daemon=True).start()
        self.core.rpc.answer(call, {"host": "127.0.0.1", "port": reader.server_address[1], "secret": secret})

    def _serve(self, reader: DownloadServer, stream: BinaryIO) -> None:
        with reader, stream:
            reader.serve_once(30.0)


@pytest.fixture
def in_cluster(make_app: AppMaker) -> tuple[Client, Asked]:
    """A client of an app whose backups are where it can't reach them, and who reaches them for it."""
    app = make_app(runtime="kubernetes", workspace_image="workspace:1", wait_default=5.0)
    return keyed(app, ADMIN_KEY), Asked(core_of(app))


def test_in_a_cluster_a_download_comes_through_a_reader(in_cluster: tuple[Client, Asked]) -> None:
    """The same answer as on one machine, whole and in part."""
    client, asked = in_cluster
    content = bytes(range(256)) * 4096
    backup = add_backup(asked.core, content=content)
    path = f"{path_of(backup)}/download"
    answer = client.get(path)
    assert (answer.status_code, answer.data) == (200, content)
    assert answer.headers["Content-Length"] == str(len(content))
    assert answer.headers["ETag"] == f'"{backup.sha256}"'
    part = client.get(path, headers={"Range": "bytes=-4"})
    assert (part.status_code, part.data) == (206, content[-4:])
    assert part.headers["Content-Range"] == f"bytes {len(content) - 4}-{len(content) - 1}/{len(content)}"
    assert asked.tasks == [task_queue.READ_BACKUP] * 2


def test_no_reader_is_started_for_an_answer_without_a_body(in_cluster: tuple[Client, Asked]) -> None:
    """It would cost a pod."""
    client, asked = in_cluster
    backup = add_backup(asked.core)
    path = f"{path_of(backup)}/download"
    assert client.head(path).headers["Content-Length"] == str(backup.size)
    assert client.get(path, headers={"If-None-Match": f'"{backup.sha256}"'}).status_code == 304
    check_problem(client.get(path, headers={"Range": "bytes=99-"}), 416, "range_not_satisfiable")
    check_problem(client.get(f"/backups/{UNKNOWN}/download"), 404, "backup_not_found")
    assert asked.tasks == []


@pytest.mark.slow
def test_without_a_reader_in_time_the_caller_may_try_again(make_app: AppMaker) -> None:
    """And is told so; so is one who wants to delete while nobody can."""
    app = make_app(runtime="kubernetes", workspace_image="workspace:1", wait_default=0.2)
    client, asked = keyed(app, ADMIN_KEY), Asked(core_of(app))
    asked.idle = True
    backup = add_backup(asked.core)
    for answer in (client.get(f"{path_of(backup)}/download"), client.delete(path_of(backup))):
        check_problem(answer, 503, "temporarily_unavailable")
        assert int(answer.headers["Retry-After"]) > 0
    assert asked.core.backups.get(backup.name) == backup


def test_delete_takes_the_files_and_the_entry_before_it_is_answered(
    client: Client, core: Core, in_cluster: tuple[Client, Asked]
) -> None:
    """On one machine, and in a cluster."""
    for caller, at in ((client, core), (in_cluster[0], in_cluster[1].core)):
        backup = add_backup(at)
        answer = caller.delete(path_of(backup))
        assert (answer.status_code, answer.data) == (204, b"")
        assert (at.backup_store.exists(backup.name), at.backups.count()) == (False, 0)
        assert caller.get("/backups").json["total"] == 0


def end(core: Core, uuid: str, number: int, error: str = "") -> None:
    """What a worker notes of an attempt at the first `number` requests for a backup."""
    wait_for(lambda: core.store.get(uuid).backup_asked >= number, "the request", interval=0.01)
    told = ("backup", {"status": "failed", "reason": error} if error else {"status": "done", "name": UNKNOWN})
    core.store.change(
        uuid, time.time(), backup="" if error else UNKNOWN, backup_ended=number, backup_error=error, event=told
    )


def asked_and_ended(client: Client, core: Core, uuid: str, *ends: tuple[int, str]) -> Any:
    """The answer to a call that waits, while attempts at backups end."""

    def end_all() -> None:
        for each in ends:
            end(core, uuid, *each)

    meanwhile(lambda: True, end_all)
    return client.post(f"/session/{uuid}/backup", headers={"Prefer": "wait=60"})


@pytest.fixture
def active(core: Core, uuid: str) -> str:
    core.store.change(uuid, time.time(), provisioned=True)
    return uuid


def test_a_backup_is_asked_for_and_not_waited_for(client: Client, core: Core) -> None:
    uuid = new_session(client)
    check_problem(client.post(f"/session/{uuid}/backup"), 409, "illegal_state")
    move(core, uuid, Status.ACTIVE, provisioned=True)
    answer = client.post(f"/session/{uuid}/backup")
    assert answer.status_code == 202
    assert answer.json == {"uuid": uuid, "action": "backup", "status": "queued"}


def test_a_caller_may_wait_for_a_backup(client: Client, core: Core, active: str) -> None:
    answer = asked_and_ended(client, core, active, (1, ""))
    assert answer.status_code == 200
    assert answer.json == {"uuid": active, "action": "backup", "status": "done", "backup": UNKNOWN}
    assert answer.headers["Preference-Applied"] == "wait=60"


def test_a_caller_that_waits_is_told_why_its_backup_failed(client: Client, core: Core, active: str) -> None:
    reason = "The store is full."
    answer = asked_and_ended(client, core, active, (1, reason))
    assert check_problem(answer, 409, "backup_failed")["detail"] == reason


def test_a_backup_begun_before_the_call_ends_no_wait_for_it(client: Client, core: Core, active: str) -> None:
    """Its files are older than the request."""
    client.post(f"/session/{active}/backup")
    answer = asked_and_ended(client, core, active, (1, "It was too early."), (2, ""))
    assert (answer.status_code, answer.json["status"]) == (200, "done")


def test_a_wait_for_a_backup_ends_with_the_session(client: Client, core: Core, active: str) -> None:
    meanwhile(lambda: core.store.get(active).backup_asked, lambda: core.sessions.delete(active))
    answer = client.post(f"/session/{active}/backup", headers={"Prefer": "wait=60"})
    assert (answer.status_code, answer.json["status"]) == (202, "queued")


def test_a_backup_that_is_being_restored_from_stays(client: Client, core: Core) -> None:
    backup = add_backup(core)
    new_session(client, restore_from=backup.name)
    check_problem(client.delete(path_of(backup)), 409, "backup_in_use")
    assert core.backup_store.exists(backup.name)


def test_a_restore_asked_for_in_the_middle_of_a_deletion_gets_none_of_it(client: Client, core: Core) -> None:
    """The deletion has asked whether the backup is in use. One of the two succeeds, never both."""
    backup = add_backup(core)
    answers = []
    delete = core.backup_access.delete

    def restored_first(name: str) -> None:
        answers.append(client.post(f"/backups/{name}/restore"))
        delete(name)

    core.backup_access.delete = restored_first  # type: ignore[method-assign]
    check_problem(client.delete(path_of(backup)), 409, "backup_in_use")
    assert [answer.status_code for answer in answers] == [201]
    assert core.backup_store.exists(backup.name)


def test_a_deletion_asked_for_in_the_middle_of_a_restore_wins_or_is_refused(client: Client, core: Core) -> None:
    """The restore has seen the backup, and is about to write its session's record."""
    backup = add_backup(core)
    answers = []
    create = core.store.create

    def deleted_first(*args: Any, **more: Any) -> str:
        answers.append(client.delete(path_of(backup)))
        return create(*args, **more)

    core.store.create = deleted_first  # type: ignore[method-assign]
    check_problem(client.post(f"{path_of(backup)}/restore"), 404, "backup_not_found")
    assert [answer.status_code for answer in answers] == [204]
    assert core.store.counts()[Status.CREATED] == 0


@pytest.mark.slow
def test_of_a_deletion_and_a_restore_at_once_exactly_one_wins(app: Flask, core: Core) -> None:
    """Whatever way they fall into one another."""
    for number in range(25):
        backup = add_backup(core, uuid=f"{number:08d}")
        together = Barrier(2)
        answers: dict[str, int] = {}

        def call(method: str, path: str, together: Barrier = together, answers: dict[str, int] = answers) -> None:
            client = keyed(app, ADMIN_KEY)
            together.wait(30.0)
            answers[method] = client.open(path, method=method).status_code

        path = path_of(backup)
        threads = [Thread(target=call, args=each) for each in (("DELETE", path), ("POST", path + "/restore"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (answers["DELETE"], answers["POST"]) in ((204, 404), (409, 201))
        assert core.backup_store.exists(backup.name) is (answers["POST"] == 201)
        for uuid in core.store.uuids([Status.CREATED]):
            terminate(core, uuid)
