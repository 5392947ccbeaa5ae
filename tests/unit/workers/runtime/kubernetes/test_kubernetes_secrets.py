"""A session's Secret, which the manager writes and never reads."""

from __future__ import annotations

import pytest

from app.core.access.agent_credentials import AgentCredentials
from app.core.errors import RetryableError
from tests.unit.fake_api import LONG_AGO, FakeApi, Object
from tests.unit.workers.runtime.kubernetes.samples import ADA, NAME, SECRET_KEY, A, replicas, started
from workers.runtime.kubernetes import objects
from workers.runtime.kubernetes.api_server import Conflict, NotFound
from workers.runtime.kubernetes.driver import KubernetesRuntime


def there(api: FakeApi) -> Object:
    return api.get("secrets", NAME)


def wanted(api: FakeApi) -> Object:
    secrets = AgentCredentials([SECRET_KEY])
    return objects.secret(ADA, api.get("deployments", NAME), secrets.token_file(A, 0), secrets.editor_file(A))


def is_whole(api: FakeApi) -> bool:
    """Whether the Secret is all that it should be, and nothing is left of what it was."""
    made = dict(there(api))
    given = {name: made["metadata"][name] for name in ("uid", "creationTimestamp", "resourceVersion")}
    body = wanted(api)
    return made == {**body, "metadata": {**body["metadata"], **given}}


def asked(api: FakeApi, before: int) -> list[str]:
    return [each.removesuffix(" secrets") for each in api.requests[before:] if each.endswith(" secrets")]


def test_nobody_reads_a_secret_in_all_of_a_sessions_life(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """A patch would answer with the whole content, whatever it changes."""
    started(runtime)
    runtime.start(A, 2)
    runtime.stop(A, 3)
    runtime.renew(A, 2)
    runtime.start(A, 4, 2)
    runtime.renew(A, 3)
    api.drop("deployments", NAME)
    runtime.start(A, 5)
    runtime.remove(A, 6)
    assert {each for each in api.requests if each.endswith(" secrets")} == {"PUT secrets", "POST secrets"}


def test_an_ordinary_start_asks_once_and_writes_nothing(runtime: KubernetesRuntime, api: FakeApi) -> None:
    runtime.provision(ADA, 1)
    before, version = len(api.requests), there(api)["metadata"]["resourceVersion"]
    runtime.start(A, 2)
    assert asked(api, before) == ["PUT"]
    assert there(api)["metadata"]["resourceVersion"] == version


def test_one_that_another_worker_makes_at_the_same_time_is_put_right(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """Between the look for it and its making."""
    runtime.provision(ADA, 1)
    api.drop("secrets", NAME)
    before = len(api.requests)
    api.before["POST secrets"] = lambda: api.put("secrets", {"metadata": {"name": NAME}, "data": {"token": "b2xk"}})
    runtime.start(A, 2)
    assert asked(api, before) == ["PUT", "POST", "PUT"]
    assert there(api)["data"] == wanted(api)["data"]


def test_one_of_a_deployment_that_was_made_anew_gets_its_new_owner(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """And keeps nothing of before: the garbage collector would take it for its old owner's."""
    started(runtime)
    old = there(api)
    old_uid = old["metadata"]["ownerReferences"][0]["uid"]
    api.drop("deployments", NAME)
    api.put("secrets", {**old, "data": {**old["data"], "more": "b2xk"}})
    runtime.start(A, 3)
    owners = there(api)["metadata"]["ownerReferences"]
    assert [each["uid"] for each in owners] == [api.get("deployments", NAME)["metadata"]["uid"]] != [old_uid]
    assert there(api)["metadata"]["uid"] == old["metadata"]["uid"]
    assert is_whole(api)


def test_one_that_is_being_deleted_is_made_anew(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """Its finalizers aside, which a PUT takes away, nothing keeps it: it is gone with the answer."""
    runtime.provision(ADA, 1)
    old = there(api)
    going = {"deletionTimestamp": LONG_AGO, "finalizers": ["foregroundDeletion"]}
    api.put("secrets", {**old, "metadata": {**old["metadata"], **going}})
    before = len(api.requests)
    runtime.start(A, 2)
    assert asked(api, before) == ["PUT", "PUT", "POST"]
    assert "deletionTimestamp" not in there(api)["metadata"]
    assert is_whole(api)
    assert replicas(api) == 1


def test_one_that_goes_right_after_a_start_had_it_is_made_by_the_next(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """By the garbage collector, which had decided so before it heard of the new owner. No start waits for it."""
    started(runtime)
    api.drop("deployments", NAME)
    # The first makes the Deployment again, the second starts it.
    api.before["PATCH deployments"] = lambda: api.before.update(
        {"PATCH deployments": lambda: api.drop("secrets", NAME)}
    )
    runtime.start(A, 3)
    assert ("secrets", NAME) not in api.names()
    runtime.start(A, 4)
    assert is_whole(api)


@pytest.mark.parametrize(
    ("answers", "kinds"),
    [
        ({"PUT secrets": (404, "not found"), "POST secrets": (409, "already exists")}, {"PUT", "POST"}),
        ({"PUT secrets": (409, "conflict with another request")}, {"PUT"}),
    ],
)
def test_one_that_others_make_and_delete_all_the_time_is_given_up(
    runtime: KubernetesRuntime, api: FakeApi, answers: dict[str, tuple[int, str]], kinds: set[str]
) -> None:
    """With an error that has the task tried again later; nothing is scaled up that could not begin."""
    runtime.provision(ADA, 1)
    api.answers |= answers
    before = len(api.requests)
    with pytest.raises(RetryableError):
        runtime.start(A, 2)
    assert set(asked(api, before)) == kinds
    assert replicas(api) == 0


def test_one_that_the_cluster_keeps_for_all_its_deletion_is_given_up(
    runtime: KubernetesRuntime, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something in the cluster may put the finalizers in again that a PUT left out."""
    runtime.provision(ADA, 1)
    old = there(api)
    kept: Object = {**old, "metadata": {**old["metadata"], "deletionTimestamp": LONG_AGO, "finalizers": ["a/b"]}}
    monkeypatch.setattr(api, "_put", lambda *_: (200, kept))
    with pytest.raises(RetryableError):
        runtime.start(A, 2)
    assert replicas(api) == 0


def test_an_object_is_put_in_the_place_of_another_or_not_at_all(api: FakeApi) -> None:
    cluster = api.cluster()
    one: Object = {"metadata": {"name": "one"}, "data": {"a": "b"}}
    with pytest.raises(NotFound):
        cluster.replace("secrets", one)
    made = cluster.create("secrets", one)
    assert cluster.replace("secrets", one) == made
    other = cluster.replace("secrets", {**one, "data": {"c": "d"}})
    assert other["data"] == {"c": "d"}
    first, second = made["metadata"], other["metadata"]
    assert [second[name] for name in ("uid", "creationTimestamp")] == [first["uid"], first["creationTimestamp"]]
    assert int(second["resourceVersion"]) > int(first["resourceVersion"])
    with pytest.raises(Conflict):
        cluster.replace("secrets", {**one, "metadata": first})
