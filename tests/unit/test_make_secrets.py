"""manifests/make-secrets fills what is empty and changes nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

from app.sessions.redis_users import ADMIN, USERS
from tests.manifests import MANIFESTS, SYSTEM, WORKSPACES

FAKE_KUBECTL = """#!/usr/bin/env python3
import base64, json, pathlib, sys
store = pathlib.Path(__file__).parent / "secrets.json"
held = json.loads(store.read_text())
words = [each for each in sys.argv[1:] if not each.startswith(("--request-timeout", "--ignore-not-found"))]
if words[0] == "apply":
    given = json.load(sys.stdin)
    held.setdefault(given["metadata"]["namespace"] + "/" + given["metadata"]["name"], {}).update(given["stringData"])
    store.write_text(json.dumps(held))
else:
    name, output = words[1] + "/" + words[4], words[words.index("-o") + 1]
    if output == "name":
        print("secret/" + words[4] if name in held else "")
    else:
        key = output.removeprefix("jsonpath={.data['").removesuffix("']}")
        print(base64.b64encode(held.get(name, {}).get(key, "").encode()).decode(), end="")
"""


def fill_secrets(folder: Path, held: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """What manifests/make-secrets makes of the Secrets of a cluster that holds these."""
    kubectl, store = folder / "kubectl", folder / "secrets.json"
    kubectl.write_text(FAKE_KUBECTL)
    kubectl.chmod(0o755)
    store.write_text(json.dumps(held))
    subprocess.run(
        [MANIFESTS / "make-secrets"], env=os.environ | {"KUBECTL": str(kubectl)}, timeout=60, check=True, text=True
    )
    return dict(json.loads(store.read_text()))


def test_make_secrets_fills_what_is_empty(tmp_path):
    """Random values that fit where they are used, a password for each user of Redis; KEDA gets that of its own."""
    empty: dict[str, dict[str, str]] = {
        f"{SYSTEM}/{name}": {} for name in ("manager", "redis", "redis-users", "flower")
    }

    filled = fill_secrets(tmp_path, empty | {f"{WORKSPACES}/keda-redis": {}})

    password = filled[f"{SYSTEM}/redis"]["password"]
    assert re.fullmatch(r"[0-9a-f]{32}", password)
    assert re.fullmatch(r"[0-9a-f]{32}", filled[f"{SYSTEM}/manager"]["api-key"])
    assert re.fullmatch(r"[0-9a-f]{64}", filled[f"{SYSTEM}/manager"]["secret-key"])
    assert re.fullmatch(r"admin:[0-9a-f]{32}", filled[f"{SYSTEM}/flower"]["basic-auth"])
    users = filled[f"{SYSTEM}/redis-users"]
    assert set(users) == {user.name for user in USERS} | {ADMIN}
    assert all(re.fullmatch(r"[0-9a-f]{32}", each) for each in users.values())
    assert filled[f"{WORKSPACES}/keda-redis"] == {"username": "keda", "password": users["keda"]}
    key, flower = filled[f"{SYSTEM}/manager"]["api-key"], filled[f"{SYSTEM}/flower"]["basic-auth"][6:]
    assert len({password, key, flower, *users.values()}) == 3 + len(users)


def test_make_secrets_changes_nothing_that_has_a_value(tmp_path):
    """It may run at any time; a password made anew would shut the manager out of its Redis."""
    held = {
        f"{SYSTEM}/manager": {"api-key": "mine", "api-keys": "[]", "secret-key": "also mine"},
        f"{SYSTEM}/redis": {"password": "secret"},
        f"{SYSTEM}/redis-users": {user: f"that of {user}" for user in [*(each.name for each in USERS), ADMIN]},
        f"{WORKSPACES}/keda-redis": {"username": "keda", "password": "old"},
        f"{SYSTEM}/flower": {"basic-auth": "me:secret"},
    }

    assert fill_secrets(tmp_path, held) == held


def test_make_secrets_adds_what_a_new_release_wants(tmp_path):
    """Before its manifests are there: nothing that exists is changed but KEDA's copy, which was that of `default`."""
    old = {
        f"{SYSTEM}/manager": {"api-key": "mine", "secret-key": "also mine"},
        f"{SYSTEM}/redis": {"password": "secret"},
        f"{SYSTEM}/flower": {"basic-auth": "me:secret"},
        f"{WORKSPACES}/keda-redis": {"password": "secret"},
    }

    filled = fill_secrets(tmp_path, old)

    users = filled.pop(f"{SYSTEM}/redis-users")
    assert "secret" not in users.values()
    assert filled.pop(f"{WORKSPACES}/keda-redis") == {"username": "keda", "password": users["keda"]}
    assert filled == {name: held for name, held in old.items() if name != f"{WORKSPACES}/keda-redis"}
