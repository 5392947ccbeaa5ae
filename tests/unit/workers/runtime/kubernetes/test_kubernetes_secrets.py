"""A session's Secret, which the manager writes and never reads, and the epoch of the token in it, which is noted on the
claim: that outlives everything else."""

from __future__ import annotations

import pytest

from app.core.access.agent_credentials import AgentCredentials
from app.core.errors import RetryableError
from tests.unit.fake_api import LONG_AGO, FakeApi, Object
from tests.unit.workers.runtime.kubernetes.samples import (
    ADA,
    GOING,
    NAME,
    READY,
    SECRET_KEY,
    A,
    MakeRuntime,
    observed,
    pod,
    replicas,
    secret_of,
    started,
)
from workers.runtime.kubernetes import names, objects
from workers.runtime.kubernetes.api_server import Conflict, NotFound
from workers.runtime.kubernetes.driver import KubernetesRuntime

SECRETS = AgentCredentials([SECRET_KEY])


def there(api: FakeApi) -> Object:
    return api.get("secrets", NAME)


def check_whole(api: FakeApi) -> None:
    """The Secret is all that it should be, and nothing is left of what it was."""
    made = there(api)
    given = {name: made["metadata"][name] for name in ("uid", "creationTimestamp", "resourceVersion")}
    body = objects.secret(ADA, api.get("deployments", NAME), SECRETS.token_file(A, 0), SECRETS.editor_file(A))
    assert made == {**body, "metadata": {**body["metadata"], **given}}


def asked(api: FakeApi) -> list[str]:
    """The requests for Secrets."""
    return [each.removesuffix(" secrets") for each in api.requests if each.endswith(" secrets")]


def noted(api: FakeApi) -> str | None:
    annotations: dict[str, str] = api.get("persistentvolumeclaims", NAME)["metadata"]["annotations"]
    return annotations.get(names.EPOCH)


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
    assert set(asked(api)) == {"PUT", "POST"}


def test_the_secret_follows_from_the_key_and_an_ordinary_start_asks_once_and_writes_nothing(
    runtime: KubernetesRuntime, api: FakeApi
) -> None:
    """Nothing of it is random, so it is the same after anything that may happen."""
    runtime.provision(ADA, 1)
    version = there(api)["metadata"]["resourceVersion"]
    for generation in (2, 3):
        api.requests.clear()
        runtime.start(A, generation)
        assert asked(api) == ["PUT"]
        assert there(api)["metadata"]["resourceVersion"] == version
    check_whole(api)
    assert (secret_of(api), secret_of(api, "editor")) == (SECRETS.token_file(A, 0), SECRETS.editor_file(A))


def test_with_another_key_a_start_writes_another_secret(
    runtime: KubernetesRuntime, make_runtime: MakeRuntime, api: FakeApi
) -> None:
    started(runtime)
    rotated = ("another-secret-key-of-these-tests", SECRET_KEY)
    make_runtime(secret_key=",".join(rotated)).start(A, 4)
    assert secret_of(api) == AgentCredentials(rotated).token_file(A, 0)
    assert secret_of(api, "editor") == AgentCredentials(rotated).editor_file(A)


# Others who make and delete it


def test_one_that_another_worker_makes_at_the_same_time_is_put_right(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """Between the look for it and its making."""
    runtime.provision(ADA, 1)
    wanted = there(api)["data"]
    api.drop("secrets", NAME)
    api.requests.clear()
    api.before["POST secrets"] = lambda: api.put("secrets", {"metadata": {"name": NAME}, "data": {"token": "b2xk"}})
    runtime.start(A, 2)
    assert asked(api) == ["PUT", "POST", "PUT"]
    assert there(api)["data"] == wanted


def test_one_of_a_deployment_that_was_made_anew_gets_its_new_owner(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """And keeps nothing of before: the garbage collector would take it for its old owner's."""
    started(runtime)
    old = there(api)
    old_uid = old["metadata"]["ownerReferences"][0]["uid"]
    api.drop("deployments", NAME)
    api.change("secrets", NAME, {"data": {"more": "b2xk"}})
    runtime.start(A, 3)
    owners = there(api)["metadata"]["ownerReferences"]
    assert [each["uid"] for each in owners] == [api.get("deployments", NAME)["metadata"]["uid"]] != [old_uid]
    assert there(api)["metadata"]["uid"] == old["metadata"]["uid"]
    check_whole(api)


def test_one_that_is_being_deleted_is_made_anew(runtime: KubernetesRuntime, api: FakeApi) -> None:
    """Its finalizers aside, which a PUT takes away, nothing keeps it: it is gone with the answer."""
    runtime.provision(ADA, 1)
    going = {"deletionTimestamp": LONG_AGO, "finalizers": ["foregroundDeletion"]}
    api.change("secrets", NAME, {"metadata": going})
    api.requests.clear()
    runtime.start(A, 2)
    assert asked(api) == ["PUT", "PUT", "POST"]
    assert "deletionTimestamp" not in there(api)["metadata"]
    check_whole(api)
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
    check_whole(api)


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
    api.requests.clear()
    with pytest.raises(RetryableError):
        runtime.start(A, 2)
    assert set(asked(api)) == kinds
    assert replicas(api) == 0


def test_one_that_the_cluster_keeps_for_all_its_deletion_is_given_up(
    runtime: KubernetesRuntime, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something in the cluster may put the finalizers in again that a PUT left out."""
    runtime.provision(ADA, 1)
    kept = api.change("secrets", NAME, {"metadata": {"deletionTimestamp": LONG_AGO, "finalizers": ["a/b"]}})
    monkeypatch.setattr(api, "_put", lambda *_: (200, kept))
    with pytest.raises(RetryableError):
        runtime.start(A, 2)
    assert replicas(api) == 0


def test_an_object_is_put_in_the_place_of_another_or_not_at_all_and_made_only_where_there_is_none(
    api: FakeApi,
) -> None:
    cluster = api.cluster()
    one: Object = {"metadata": {"name": "one"}, "data": {"a": "b"}}
    with pytest.raises(NotFound):
        cluster.replace("secrets", one)
    made = cluster.create("secrets", one)
    with pytest.raises(Conflict):
        cluster.create("secrets", one)
    assert cluster.replace("secrets", one) == made
    other = cluster.replace("secrets", {**one, "data": {"c": "d"}})
    assert other["data"] == {"c": "d"}
    first, second = made["metadata"], other["metadata"]
    assert [second[name] for name in ("uid", "creationTimestamp")] == [first["uid"], first["creationTimestamp"]]
    assert int(second["resourceVersion"]) > int(first["resourceVersion"])
    with pytest.raises(Conflict):
        cluster.replace("secrets", {**one, "metadata": first})


# The epoch of its token


def test_a_start_writes_the_token_of_its_epoch_and_notes_that_in_the_same_request(
    runtime: KubernetesRuntime, api: FakeApi
) -> None:
    """A wake pays nothing for it."""
    runtime.provision(ADA, 1)
    api.requests.clear()
    runtime.start(A, 2)
    without = api.changes()
    runtime.stop(A, 3)
    runtime.renew(A, 3)
    api.requests.clear()
    runtime.start(A, 4, 3)
    assert set(api.changes()) <= set(without)
    assert api.requests.count("PATCH persistentvolumeclaims") == 1
    assert (secret_of(api), noted(api)) == (SECRETS.token_file(A, 3), "3")


def test_a_sleep_leaves_the_token_of_the_next_start_for_whoever_makes_it(
    runtime: KubernetesRuntime, api: FakeApi
) -> None:
    """KEDA patches the replicas and nothing else."""
    started(runtime)
    runtime.stop(A, 3)
    runtime.renew(A, 2)
    assert (secret_of(api), noted(api)) == (SECRETS.token_file(A, 2), "2")
    api.requests.clear()
    version = api.version
    runtime.renew(A, 2)
    assert api.changes() == ["PUT secrets"]
    assert api.version == version


def test_a_renewal_is_of_no_intent_and_a_kubelet_is_told_to_hand_a_pod_that_runs_its_new_token(
    runtime: KubernetesRuntime, api: FakeApi
) -> None:
    """Changed Secrets it looks at once a minute; a changed pod at once. It neither scales, nor makes an older intent
    pass, nor a newer one look carried out."""
    started(runtime)
    api.put("pods", pod({"podIP": "10.1.2.3", **READY}))
    runtime.renew(A, 2)
    assert secret_of(api) == SECRETS.token_file(A, 2)
    annotations = api.get("pods", "pod-1")["metadata"]["annotations"]
    assert names.LOOK_AGAIN in annotations
    assert names.GENERATION not in annotations
    seen = observed(runtime)
    assert (seen.generation, seen.running, seen.epoch) == (2, True, 2)


def test_a_workspace_that_is_being_deleted_is_left_alone(runtime: KubernetesRuntime, api: FakeApi) -> None:
    started(runtime)
    api.change("deployments", NAME, GOING)
    secret = secret_of(api)
    runtime.renew(A, 2)
    assert (secret_of(api), noted(api)) == (secret, None)


def test_a_deployment_that_is_made_again_has_the_token_of_the_noted_epoch(
    runtime: KubernetesRuntime, api: FakeApi
) -> None:
    """Someone deleted it, and the Secret with it; whoever starts it again may not know the epoch."""
    runtime.provision(ADA, 1)
    runtime.start(A, 2, 4)
    api.drop("deployments", NAME)
    api.drop("secrets", NAME)
    runtime.start(A, 3)
    assert secret_of(api) == SECRETS.token_file(A, 4)


def test_the_epoch_comes_back_from_the_claim(
    runtime: KubernetesRuntime, make_runtime: MakeRuntime, api: FakeApi
) -> None:
    """Redis may have lost it; nobody reads a Secret for it."""
    runtime.provision(ADA, 1)
    runtime.start(A, 2, 4)
    api.requests.clear()
    assert [each.epoch for each in make_runtime().observe_all()] == [4]
    assert asked(api) == []
