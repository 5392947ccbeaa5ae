"""A workspace's token ends with the life it was made for: asked of the gateway, over what the workers do."""

from __future__ import annotations

import pytest
from flask import Flask

from app.core.redis import task_queue
from app.core.service import NewSession
from app.core.sessions.model import Status
from tests.unit.gateway.helpers import USER, GatewayMaker, parts_of
from tests.world import FakeTasks, World

ASKED = ("GET", "/llm/v1/models")


@pytest.fixture
def app(world: World, make_gateway: GatewayMaker) -> Flask:
    """A gateway over the world's Redis, with its key."""
    return make_gateway(secret_key=world.settings.secret_key)


class Life:
    """A session, and who holds a token of it."""

    def __init__(self, world: World, app: Flask, uuid: str = "") -> None:
        self.world, self._app = world, app
        self.uuid = uuid or world.active(USER)

    def held(self) -> str:
        """The token in the workspace now: what its agent shows, and what can be stolen from it."""
        return self.world.core.credentials.token(self.uuid, self.world.runtime.workspaces[self.uuid].epoch)

    def shown(self, token: str) -> tuple[int, str]:
        """How the gateway answers to it."""
        headers = {"Authorization": f"Bearer {token}"}
        answer = self._app.test_client().open(ASKED[1], method=ASKED[0], headers=headers, buffered=True)
        return answer.status_code, "" if answer.json is None else str(answer.json.get("error", ""))

    def good(self, token: str) -> bool:
        status, code = self.shown(token)
        assert (status, code) in ((200, ""), (401, "token_ended"), (403, "session_terminated")), (status, code)
        return status == 200

    def sent(self) -> list[str]:
        """What the gateway had the workers do."""
        tasks = parts_of(self._app).core.tasks
        assert isinstance(tasks, FakeTasks)
        names = [task for task, _ in tasks.sent]
        tasks.lose_all()
        return names

    def up(self) -> None:
        """The editor answers, and the observer sees it."""
        self.world.runtime.become_ready(self.uuid)
        self.world.look(self.uuid)
        self.world.work()
        assert self.world.get(self.uuid).status is Status.ACTIVE

    def wake(self) -> None:
        self.world.sessions.wake(self.uuid)
        self.world.work()
        self.up()

    def sleep(self) -> None:
        self.world.sessions.sleep(self.uuid)
        self.world.work()

    def revoke(self) -> None:
        self.world.sessions.revoke(self.uuid)

    def lose_redis(self) -> None:
        """Its workspace is adopted."""
        self.world.core.redis.flushall()
        self.world.sweeps.reconcile()

    def replaced(self, *ended: str) -> bool:
        """Whether these tokens are good no more, and the one in the workspace is."""
        return [self.good(each) for each in (*ended, self.held())] == [False] * len(ended) + [True]


@pytest.fixture
def life(world: World, app: Flask) -> Life:
    return Life(world, app)


def test_a_token_is_good_while_its_workspace_runs(life: Life) -> None:
    assert life.good(life.held())
    life.world.now += 3_600
    assert life.good(life.held())


def test_a_stolen_token_ends_with_a_sleep_sets_nothing_going_and_stays_so_after_the_wake(life: Life) -> None:
    """While it sleeps, nobody is there who could want another."""
    stolen = life.held()
    life.world.sessions.sleep(life.uuid)
    assert life.good(stolen), "the agent still has its conversation to hand over"
    life.world.work()
    assert not life.good(stolen)
    assert life.sent() == []
    life.wake()
    assert life.held() != stolen
    assert life.replaced(stolen)


def test_a_stolen_token_ends_with_a_revoke_at_once_and_the_agent_that_runs_gets_another(life: Life) -> None:
    stolen = life.held()
    life.revoke()
    assert not life.good(stolen)
    assert task_queue.RENEW_TOKEN in life.world.work()
    assert life.replaced(stolen)


@pytest.mark.parametrize("backup", [True, False])
def test_a_stolen_token_ends_with_a_delete(life: Life, backup: bool) -> None:
    stolen = life.held()
    life.world.sessions.delete(life.uuid, backup=backup)
    life.world.work()
    assert life.shown(stolen) == (403, "session_terminated")


def test_an_ended_token_is_refused_with_what_to_do(life: Life, app: Flask) -> None:
    """It says neither whose the session is nor what its epoch is now."""
    stolen = life.held()
    life.revoke()
    answer = app.test_client().get(ASKED[1], headers={"Authorization": f"Bearer {stolen}"})
    assert answer.status_code == 401 and answer.json is not None
    assert "token" in answer.json["detail"] and "file" in answer.json["detail"]
    assert (answer.headers["WWW-Authenticate"], answer.headers["Retry-After"]) == ("Bearer", "1")
    assert USER not in answer.text


def test_a_sleep_that_is_broken_off_ends_no_token(life: Life) -> None:
    """The same processes go on with what they have."""
    held = life.held()
    life.world.sessions.sleep(life.uuid)
    life.world.tasks.lose_all()
    life.world.sessions.wake(life.uuid)
    life.world.work()
    life.up()
    assert life.held() == held
    assert life.good(held)


def test_a_sleep_that_is_broken_off_after_all_had_ended_leaves_what_the_next_start_needs(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is killed between the end of the processes and everything after it."""
    stolen = life.held()

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    life.world.sessions.sleep(life.uuid)
    with monkeypatch.context() as patch:
        patch.setattr(life.world.runtime, "renew", die)
        with pytest.raises(Killed):
            life.world.work()
    life.wake()
    assert life.replaced(stolen)


def test_a_start_without_the_manager_finds_a_token_that_is_good(life: Life) -> None:
    """KEDA scales it up by itself: what is there for its agent was left by the sleep."""
    stolen = life.held()
    life.sleep()
    by_keda = life.held()
    assert life.replaced(stolen)
    workspace = life.world.runtime.workspaces[life.uuid]
    workspace.running = workspace.ready = True
    life.world.look(life.uuid)
    life.world.work()
    life.up()
    assert life.held() == by_keda
    assert life.good(by_keda)


def test_a_crash_ends_no_token(life: Life) -> None:
    """Whoever starts the process again gives it what it had."""
    held = life.held()
    life.world.runtime.crash(life.uuid, "killed")
    life.world.look(life.uuid)
    assert life.world.get(life.uuid).status is Status.FAILED
    assert life.good(held)
    life.wake()
    assert life.good(life.held())


def test_what_somebody_else_stopped_has_a_token_that_ends(life: Life) -> None:
    """By hand, or KEDA after its cooldown: the session sleeps, as after a sleep of ours."""
    stolen = life.held()
    workspace = life.world.runtime.workspaces[life.uuid]
    workspace.running = workspace.ready = False
    life.world.look(life.uuid)
    assert life.world.get(life.uuid).status is Status.SLEEPING
    assert not life.good(stolen)
    life.world.work()
    assert life.good(life.held()), "for whoever starts it next"


def test_a_workspace_that_is_adopted_keeps_its_token(life: Life) -> None:
    """Redis has lost everything; what runs goes on."""
    life.revoke()
    life.world.work()
    stolen, held = life.world.core.credentials.token(life.uuid, 1), life.held()
    life.lose_redis()
    life.world.work()
    life.up()
    assert life.held() == held
    assert life.replaced(stolen)


def test_a_sleeping_workspace_that_is_adopted_has_the_token_of_its_next_start(life: Life) -> None:
    stolen = life.held()
    life.sleep()
    life.lose_redis()
    assert life.replaced(stolen)
    life.wake()
    assert life.replaced(stolen)


@pytest.mark.parametrize("asleep", [False, True])
def test_a_workspace_of_unknown_epoch_that_is_adopted_gets_a_token(life: Life, asleep: bool) -> None:
    """Redis was lost before anybody told the workspace its epoch."""
    if asleep:
        life.sleep()
    life.world.runtime.workspaces[life.uuid].epoch = 0
    stolen = life.held()
    life.lose_redis()
    assert not life.good(stolen)
    life.wake()
    assert life.replaced(stolen)


def test_a_revoke_while_it_goes_to_sleep_leaves_two_ended_tokens(life: Life) -> None:
    """The one from before the revoke, and the one that the agent was given for its last words."""
    first = life.held()
    life.world.sessions.sleep(life.uuid)
    sleep = life.world.tasks.sent.pop()
    life.revoke()
    life.world.work()
    second = life.held()
    assert life.replaced(first)
    life.world.tasks.sent.append(sleep)
    life.world.work()
    assert life.world.get(life.uuid).settled == life.world.get(life.uuid).generation
    assert life.replaced(first, second)


def test_a_revoke_of_a_sleeping_session_leaves_what_its_next_start_is_given(world: World, app: Flask) -> None:
    """Nobody has had that yet, so it need not be taken back, and a start by KEDA finds it good."""
    life = Life(world, app, world.asleep())
    next_one = life.held()
    world.sessions.revoke(life.uuid)
    world.work()
    assert life.held() == next_one
    assert life.good(next_one)


def test_a_restored_session_has_a_token_of_its_own(life: Life) -> None:
    stolen = life.held()
    life.world.sessions.delete(life.uuid)
    life.world.work()
    copy = life.world.sessions.restore(life.world.get(life.uuid).backup).uuid
    life.world.work()
    restored = Life(life.world, life._app, copy)
    restored.up()
    assert restored.good(restored.held())
    assert life.shown(stolen) == (403, "session_terminated")


def test_an_agent_whose_renewal_was_lost_gets_its_token_by_calling(life: Life) -> None:
    """A message that is lost is made up for by the next call; many calls make one."""
    life.revoke()
    life.world.tasks.lose_all()
    assert not life.good(life.held())
    assert not life.good(life.held())
    assert life.sent() == [task_queue.TOKEN_ENDED]
    life.world.tasks.send(task_queue.TOKEN_ENDED, life.uuid)
    assert life.world.work() == [task_queue.TOKEN_ENDED, task_queue.RENEW_TOKEN]
    assert life.good(life.held())


def test_whoever_shows_an_ended_token_takes_no_place_of_the_agents(world: World, make_gateway: GatewayMaker) -> None:
    """Refusals may be held back for a while; the agent's own calls go on beside them."""
    app = make_gateway(secret_key=world.settings.secret_key, gateway_calls_per_session=1)
    life = Life(world, app)
    stolen = life.held()
    world.sessions.revoke(life.uuid)
    world.work()
    held_back = app.test_client().open(ASKED[1], headers={"Authorization": f"Bearer {stolen}"}, buffered=False)
    assert held_back.status_code == 401
    assert life.good(life.held())
    held_back.close()
    assert life.good(life.held())


def test_the_last_epoch_counts_where_two_renew_at_once(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """Access is revoked again while a token is written."""
    runtime, renewed = life.world.runtime, life.world.runtime.renew

    def while_another_comes(uuid: str, epoch: int) -> None:
        monkeypatch.setattr(runtime, "renew", renewed)
        life.world.sessions.revoke(uuid)
        life.world.tasks.lose_all()
        renewed(uuid, epoch)

    life.revoke()
    monkeypatch.setattr(runtime, "renew", while_another_comes)
    life.world.work()
    assert life.good(life.held())


def test_a_session_begins_with_an_epoch(world: World) -> None:
    assert world.get(world.sessions.create(NewSession(user_id="ada")).uuid).epoch == 1
