"""manifests/make-secrets fills what is empty and changes nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from app.core.redis.users import ADMIN, USERS
from app.core.storage.archive_keys import ArchiveKeys
from app.process.secret_keys import Purpose
from app.process.settings import Settings
from tests.manifests import MANIFESTS, SYSTEM, WORKSPACES

FAKE_KUBECTL = """#!/bin/sh
# As far as make-secrets needs it: each value is a file; what is applied is also added to a log.
cd "$(dirname "$0")/held" || exit 1
shift # --request-timeout
if [ "$1" = apply ]; then
    read -r line
    echo "$line" >>../applied
    namespace=${line#*'"namespace": "'} name=${line#*'"name": "'} pair=${line#*'"stringData": {"'}
    value=${pair#*'": "'}
    mkdir -p "${namespace%%'"'*}/${name%%'"'*}"
    printf %s "${value%'"}}'}" >"${namespace%%'"'*}/${name%%'"'*}/${pair%%'"'*}"
else
    secret=$2/$5
    while [ "$1" != -o ]; do shift; done
    key=${2#"jsonpath={.data['"}
    if [ "$2" = name ]; then
        [ ! -d "$secret" ] || echo "secret/${secret#*/}"
    elif [ -f "$secret/${key%"']}"}" ]; then
        base64 -w 0 "$secret/${key%"']}"}"
    fi
fi
"""
"""A shell script: make-secrets runs it some fifty times."""


def fill_secrets(
    folder: Path, held: dict[str, dict[str, str]], program: Path = MANIFESTS / "make-secrets"
) -> dict[str, dict[str, str]]:
    """What manifests/make-secrets makes of the Secrets of a cluster that holds these."""
    kubectl, applied = folder / "kubectl", folder / "applied"
    kubectl.write_text(FAKE_KUBECTL)
    kubectl.chmod(0o755)
    applied.write_text("")
    shutil.rmtree(folder / "held", ignore_errors=True)
    (folder / "held").mkdir()
    for name, values in held.items():
        (folder / "held" / name).mkdir(parents=True)
        for key, value in values.items():
            (folder / "held" / name / key).write_text(value)
    subprocess.run([program], env=os.environ | {"KUBECTL": str(kubectl)}, timeout=60, check=True)
    filled = {name: dict(values) for name, values in held.items()}
    for line in applied.read_text().splitlines():
        given = json.loads(line)
        name = f"{given['metadata']['namespace']}/{given['metadata']['name']}"
        filled.setdefault(name, {}).update(given["stringData"])
    return filled


@pytest.mark.slow
def test_make_secrets_fills_what_is_empty(tmp_path):
    """Random values that fit where they are used, a password for each user of Redis; KEDA gets that of its own."""
    empty: dict[str, dict[str, str]] = {
        f"{SYSTEM}/{name}": {} for name in ("manager", "redis", "redis-users", "flower")
    }

    filled = fill_secrets(tmp_path, empty | {f"{WORKSPACES}/keda-redis": {}})

    manager, flower = filled[f"{SYSTEM}/manager"], filled[f"{SYSTEM}/flower"]["basic-auth"]
    password = filled[f"{SYSTEM}/redis"]["password"]
    assert re.fullmatch(r"[0-9a-f]{32}", password)
    assert re.fullmatch(r"[0-9a-f]{32}", manager["api-key"])
    assert re.fullmatch(r"[0-9a-f]{64}", manager["secret-key"])
    assert len(ArchiveKeys(manager["archive-key"]).ids) == 1
    assert re.fullmatch(r"admin:[0-9a-f]{32}", flower)
    users = filled[f"{SYSTEM}/redis-users"]
    assert set(users) == {user.name for user in USERS} | {ADMIN}
    assert all(re.fullmatch(r"[0-9a-f]{32}", each) for each in users.values())
    assert filled[f"{WORKSPACES}/keda-redis"] == {"username": "keda", "password": users["keda"]}
    assert len({password, manager["api-key"], flower[6:], *users.values()}) == 3 + len(users)


def a_cluster(secret_key: str = "s" * 32) -> dict[str, dict[str, str]]:
    """Secrets with values of their owner's."""
    return {
        f"{SYSTEM}/manager": {"api-key": "mine", "api-keys": "[]", "secret-key": secret_key, "archive-key": "own"},
        f"{SYSTEM}/redis": {"password": "secret"},
        f"{SYSTEM}/redis-users": {user: f"that of {user}" for user in [*(each.name for each in USERS), ADMIN]},
        f"{WORKSPACES}/keda-redis": {"username": "keda", "password": "old"},
        f"{SYSTEM}/flower": {"basic-auth": "me:secret"},
    }


@pytest.mark.slow
def test_make_secrets_changes_nothing_that_has_a_value(tmp_path):
    """It may run at any time; a password made anew would shut the manager out of its Redis."""
    held = a_cluster()

    filled = fill_secrets(tmp_path, held)

    for name, values in held.items():
        assert values.items() <= filled[name].items()
    assert {name for name in filled[f"{SYSTEM}/manager"] if name not in held[f"{SYSTEM}/manager"]} == set(PROCESSES)
    assert fill_secrets(tmp_path, filled) == filled


PROCESSES = {
    "keys-web": {Purpose.AGENT, Purpose.SESSION},
    "keys-forward-auth": {Purpose.AGENT, Purpose.COOKIE, Purpose.EDITOR, Purpose.SESSION},
    "keys-gateway": {Purpose.WORKSPACE},
    "keys-delivery-worker": {Purpose.AGENT, Purpose.DISCONNECT},
    "keys-worker": {Purpose.WORKSPACE, Purpose.AGENT, Purpose.EDITOR, Purpose.DISCONNECT},
}
"""What each process, or kind of process, may sign and verify."""


def keys_of(made: dict[str, dict[str, str]], process: str) -> Settings:
    """The settings of a process with these keys; they are good ones."""
    return Settings(secret_key=made[f"{SYSTEM}/manager"][process]).checked()


@pytest.mark.slow
def test_each_process_gets_the_keys_of_its_purposes_and_no_other(tmp_path):
    """As the service makes them itself where it has what they are made of; that is in none of them."""
    master = Settings(secret_key="s" * 32)

    filled = fill_secrets(tmp_path, a_cluster())

    for process, purposes in PROCESSES.items():
        made = keys_of(filled, process)
        wanted = {each: master.keys_for(each) if each in purposes else () for each in Purpose}
        assert {each: made.keys_for(each) for each in Purpose} == wanted, process
        assert "s" * 32 not in made.secret_key


@pytest.mark.slow
def test_while_a_key_is_rotated_each_process_has_both(tmp_path):
    """In their order: the first signs. Without the old one it is the new one alone."""
    new, old = "n" * 32, "o" * 32
    both = Settings(secret_key=f"{new},{old}")
    filled = fill_secrets(tmp_path, a_cluster(f"{new}, {old}"))

    for process, purposes in PROCESSES.items():
        for purpose in purposes:
            assert keys_of(filled, process).keys_for(purpose) == both.keys_for(purpose)

    filled[f"{SYSTEM}/manager"]["secret-key"] = new
    after = keys_of(fill_secrets(tmp_path, filled), "keys-gateway")
    assert after.keys_for(Purpose.WORKSPACE) == Settings(secret_key=new).keys_for(Purpose.WORKSPACE)


@pytest.mark.slow
def test_make_secrets_adds_what_a_new_release_wants(tmp_path):
    """Before its manifests are there: nothing that exists is changed."""
    old = {
        f"{SYSTEM}/manager": {"api-key": "mine", "secret-key": "s" * 32},
        f"{SYSTEM}/redis": {"password": "secret"},
        f"{SYSTEM}/flower": {"basic-auth": "me:secret"},
        f"{WORKSPACES}/keda-redis": {},
    }

    filled = fill_secrets(tmp_path, old)

    users = filled.pop(f"{SYSTEM}/redis-users")
    assert "secret" not in users.values()
    assert filled.pop(f"{WORKSPACES}/keda-redis") == {"username": "keda", "password": users["keda"]}
    assert set(filled[f"{SYSTEM}/manager"]) == {"api-key", "secret-key", "archive-key", *PROCESSES}
    for name, held in old.items():
        if name in filled:
            assert held.items() <= filled[name].items()


@pytest.mark.slow
def test_prometheus_gets_a_key_and_web_its_digest_where_there_is_a_secret_for_it(tmp_path):
    """Web's entry has the role that reads the metrics alone. A key that nobody uses would only be one more to lose."""
    filled = fill_secrets(tmp_path, {f"{SYSTEM}/scrape-key": {}})
    without = fill_secrets(tmp_path, {f"{SYSTEM}/manager": {}})

    key = filled[f"{SYSTEM}/scrape-key"]["key"]
    [entry] = json.loads(filled[f"{SYSTEM}/manager"]["api-keys"])
    assert re.fullmatch(r"[0-9a-f]{64}", key)
    assert entry == {"name": "prometheus", "sha256": hashlib.sha256(key.encode()).hexdigest(), "role": "metrics"}
    assert f"{SYSTEM}/scrape-key" not in without
    assert "api-keys" not in without[f"{SYSTEM}/manager"]


@pytest.mark.slow
def test_the_operators_own_keys_are_not_changed_for_prometheus(tmp_path, capfd):
    """The entry to add is printed, until it is there."""
    held = {f"{SYSTEM}/manager": {"api-keys": "[{}]"}, f"{SYSTEM}/scrape-key": {"key": "k" * 64}}
    digest = hashlib.sha256(b"k" * 64).hexdigest()

    assert fill_secrets(tmp_path, held)[f"{SYSTEM}/manager"]["api-keys"] == "[{}]"
    assert f'{{"name": "prometheus", "sha256": "{digest}", "role": "metrics"}}' in capfd.readouterr().out
    held[f"{SYSTEM}/manager"]["api-keys"] = f'[{{"sha256": "{digest}"}}]'
    fill_secrets(tmp_path, held)
    assert "add this entry" not in capfd.readouterr().out


@pytest.mark.slow
def test_a_value_that_was_public_is_named_and_fails(tmp_path, capfd):
    """All else is filled. It is not replaced, as what uses it must be restarted with it."""
    program = tmp_path / "make-secrets"
    shutil.copy(MANIFESTS / "make-secrets", program)
    public = (hashlib.sha256(each).hexdigest() for each in (b"p" * 32, b"admin:known"))
    (tmp_path / "known-secrets").write_text("\n".join(["# SHA-256", *public, ""]))
    held = a_cluster(f"{'n' * 32}, {'p' * 32}") | {f"{SYSTEM}/flower": {"basic-auth": "admin:known"}}
    del held[f"{SYSTEM}/redis"]["password"]

    with pytest.raises(subprocess.CalledProcessError):
        fill_secrets(tmp_path, held, program=program)

    told = "anyone may know them: fresh-system/manager:secret-key fresh-system/flower:basic-auth\n"
    assert told in capfd.readouterr().err
    filled = (tmp_path / "applied").read_text()
    assert '"password"' in filled and "basic-auth" not in filled and '"secret-key"' not in filled


def test_the_list_of_public_values_has_digests_only():
    """Another line would match nothing."""
    lines = (MANIFESTS / "known-secrets").read_text().splitlines()
    assert all(re.fullmatch(r"#.*|[0-9a-f]{64}", line) for line in lines)
