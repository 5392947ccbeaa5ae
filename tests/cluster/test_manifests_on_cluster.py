"""The manifests before a real API server: every object accepted, and the accounts' rights as it sees them.

In namespaces of the test's own, so that an installation in the same cluster is left alone.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
from collections.abc import Iterator

import pytest
import yaml  # type: ignore[import-untyped]

from tests.manifests import ALLOWED, MANIFESTS, OVERLAYS, SYSTEM, WORKSPACES, Object, render, with_components

LIMIT = 60
"""s for one kubectl."""

RIGHTS = re.compile(r"^(\S+?)(?:\.\S+)?\s+\[\]\s+\[\]\s+\[(.*)\]$", re.MULTILINE)
"""A line of `auth can-i --list` about resources, without its API group; what anyone may is no resource of ours."""

ANYONE = {"selfsubjectreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews"}


def kubectl(*arguments: str, text: str = "") -> tuple[str, str]:
    """What a kubectl prints and warns of; fails the test when it fails."""
    command = [os.environ.get("KUBECTL") or "kubectl", f"--request-timeout={LIMIT}s", *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=2 * LIMIT, check=False)
    assert done.returncode == 0, f"{arguments[0]}: {done.stderr}"
    return done.stdout, done.stderr


class Place:
    """Namespaces that stand for the manifests' own."""

    def __init__(self) -> None:
        self.suffix = secrets.token_hex(4)

    def moved(self, objects: tuple[Object, ...]) -> list[Object]:
        """The same objects in these namespaces; what belongs to no namespace gets another name too."""
        text = yaml.safe_dump_all(objects)
        for name in (SYSTEM, WORKSPACES, "fresh-node", "fresh-backups", "fresh-conversations"):
            text = re.sub(rf"\b{name}\b", f"{name}-{self.suffix}", text)
        return list(yaml.safe_load_all(text))

    def namespaces(self) -> list[str]:
        """Of the manager, of the workspaces, and the one `dev` has besides."""
        return [f"{name}-{self.suffix}" for name in (SYSTEM, WORKSPACES, "fresh-node")]


def sent(objects: list[Object], *options: str) -> str:
    """What the API server warned of when it got these."""
    return kubectl("apply", "--server-side", *options, "-f", "-", text=yaml.safe_dump_all(objects))[1]


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """The namespaces and all that says who may do what in them, until the last test is done."""
    found = Place()
    kinds = {"Namespace", "ServiceAccount", "Role", "RoleBinding"}
    rights = [each for each in found.moved(render(MANIFESTS / "overlays" / "dev")) if each["kind"] in kinds]
    try:
        sent([each for each in rights if each["kind"] == "Namespace"])
        sent([each for each in rights if each["kind"] != "Namespace"])
        yield found
    finally:
        kubectl("delete", "namespace", "--wait=false", "--ignore-not-found", *found.namespaces())


@pytest.mark.parametrize("overlay", [*OVERLAYS, "small"])
def test_every_object_is_accepted(place, overlay):
    """Without a warning, which is how Pod Security speaks of a Deployment whose pods it would refuse."""
    objects = place.moved(render(MANIFESTS / "overlays" / overlay))

    assert len(objects) > 40
    assert sent(objects, "--dry-run=server") == ""


@pytest.mark.parametrize("components", [("nginx", "gvisor", "monitoring"), ("traefik", "monitoring/plain")])
def test_every_object_of_components_in_no_overlay_is_accepted(place, components, tmp_path):
    objects = place.moved(with_components(tmp_path, *components))

    assert len(objects) > 40
    assert sent(objects, "--dry-run=server") == ""


@pytest.mark.parametrize(
    "account", ["web", "worker", "sweeper", "backup-worker", "observer", "beat", "flower", "redis"]
)
def test_an_account_may_do_what_the_table_says_and_nothing_more(place, account):
    """In the workspaces' namespace, as the API server itself counts it."""
    system, workspaces, _ = place.namespaces()
    listed, _ = kubectl("-n", workspaces, "auth", "can-i", "--list", f"--as=system:serviceaccount:{system}:{account}")

    rights = {name: set(verbs.split()) for name, verbs in RIGHTS.findall(listed) if name not in ANYONE}

    assert rights == ALLOWED.get(account, {})


@pytest.mark.parametrize(
    "account", ["web", "worker", "sweeper", "backup-worker", "observer", "beat", "flower", "redis"]
)
def test_an_account_may_do_nothing_where_the_manager_is(place, account):
    """Its Secrets above all: they lie there, and pods get theirs from the kubelet."""
    system, *_ = place.namespaces()
    listed, _ = kubectl("-n", system, "auth", "can-i", "--list", f"--as=system:serviceaccount:{system}:{account}")

    assert {name for name, _ in RIGHTS.findall(listed)} == ANYONE


@pytest.mark.parametrize("account", ["archive", "default"])
def test_what_runs_beside_workspaces_may_do_nothing(place, account):
    """The accounts of the workspaces' namespace have no rights at all, should a token of one ever leak."""
    _, workspaces, _ = place.namespaces()
    user = f"--as=system:serviceaccount:{workspaces}:{account}"
    listed, _ = kubectl("-n", workspaces, "auth", "can-i", "--list", user)

    assert {name for name, _ in RIGHTS.findall(listed)} == ANYONE
