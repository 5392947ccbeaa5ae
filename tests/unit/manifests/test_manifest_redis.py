"""Each process of the manifests is a user of Redis of its own, and Redis' pod knows them all."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.core.redis import users
from app.process.redis_address import address
from tests.manifests import (
    PROCESSES,
    SYSTEM,
    WORKSPACES,
    Object,
    of_kind,
    pods,
    settings_of,
)
from tests.redis_users import password


def environment(overlay: tuple[Object, ...], name: str) -> dict[str, Any]:
    """What a process' variables are, or where they come from."""
    (container,) = pods(overlay)[name].containers
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


def test_each_process_is_the_user_of_its_name_and_has_no_others_password(overlay):
    """Nor that of `default` or the administrator."""
    for name in PROCESSES:
        given = environment(overlay, name)
        secret = {"secretKeyRef": {"name": "redis-users", "key": name}}
        assert (given["REDIS_USERNAME"], given["REDIS_PASSWORD"]) == (name, secret)
        others = [value for each, value in given.items() if each != "REDIS_PASSWORD" and isinstance(value, dict)]
        assert {each["secretKeyRef"]["name"] for each in others} & {"redis", "redis-users"} == set()
        assert "redis-users" not in str(pods(overlay)[name].spec["volumes"])
    assert {user.name for user in users.PROCESSES} == PROCESSES


def test_all_are_told_where_redis_is_without_a_password(overlay):
    """The ConfigMap is no place for one; user and password of each process come to it."""
    url = settings_of(overlay)["REDIS_URL"]
    whole = address({"REDIS_URL": url, "REDIS_USERNAME": "web", "REDIS_PASSWORD": "x/y"})
    assert whole == "redis://web:x%2Fy@redis.fresh-system.svc.cluster.local:6379/0"


def test_the_pod_of_redis_waits_for_every_password(overlay):
    """A Secret's key that is named and missing keeps it from starting, and it says which; not one too few."""
    (volume,) = [each for each in pods(overlay)["redis"].spec["volumes"] if each["name"] == "users"]
    names = {user.name for user in users.USERS} | {users.ADMIN}
    assert volume["secret"]["secretName"] == "redis-users"
    assert {(each["key"], each["path"]) for each in volume["secret"]["items"]} == {(name, name) for name in names}
    assert not volume["secret"].get("optional")


def start(overlay: tuple[Object, ...], folder: Path, files: Mapping[str, Mapping[str, str]]) -> int:
    """The exit code of what Redis' container does before its server starts, with these files by their folder."""
    (container,) = pods(overlay)["redis"].containers
    for name, texts in files.items():
        (folder / name).mkdir()
        for file, text in texts.items():
            (folder / name / file).write_text(text)
    script = re.sub(r"/(config|users|tmp)/", rf"{folder}/\1/", container["command"][-1])
    script = script.replace("exec redis-server", "exec echo")
    environment = {"REDISCLI_AUTH": "x", "PATH": "/usr/bin:/bin"}
    return subprocess.run([*container["command"][:-1], script], env=environment, timeout=60, check=False).returncode


def test_its_start_gives_every_user_its_password(overlay, tmp_path):
    """As its shell does it; and `default`, the user of commands in the pod, gets that of `redis-cli`."""
    config = next(each for name, each in of_kind(overlay, "ConfigMap").items() if name.startswith("redis-config-"))
    passwords = {name: password(name) for name in [*PROCESSES, "keda", users.ADMIN]}
    assert start(overlay, tmp_path, {"config": config["data"], "users": passwords, "tmp": {}}) == 0
    made = tmp_path / "tmp" / "users.acl"
    everyone = {user.name: password(user.name) for user in users.USERS}
    expected = users.access_list(everyone | {users.ADMIN: password(users.ADMIN)})
    assert made.read_text() == f"user default on >x ~* &* +@all\n{expected}"
    assert made.stat().st_mode & 0o077 == 0
    assert "aclfile /tmp/users.acl" in config["data"]["redis.conf"].splitlines()


def test_its_start_fails_without_a_password(overlay, tmp_path):
    """Rather than to let somebody in with none."""
    assert start(overlay, tmp_path, {"config": {"redis-users.acl": "web ~*\n"}, "tmp": {}}) != 0


def test_keda_is_a_user_of_its_own(overlay):
    """What stands in the workspaces' namespace opens no more than the length of queues."""
    wanted = of_kind(overlay, "TriggerAuthentication", WORKSPACES)["redis"]["spec"]["secretTargetRef"]
    assert {(each["parameter"], each["name"], each["key"]) for each in wanted} == {
        (name, "keda-redis", name) for name in ("username", "password")
    }
    assert set(of_kind(overlay, "Secret", SYSTEM)) >= {"redis", "redis-users"}
