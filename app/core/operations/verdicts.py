"""What each check of the diagnosis concludes, and what to do about it.

Pure functions: what was found goes in, a verdict comes out. app/core/operations/checks.py finds it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from app.core.redis.heartbeats import OBSERVER_SILENCE, Policies
from app.core.redis.memory import Fill
from app.core.redis.model_answers import ModelAnswer
from app.core.redis.processes import Process

NO_ARCHIVE = "archive"
"""What a worker without an ARCHIVE_KEY names beside the stores."""


class State(StrEnum):
    """`failed`: something does not work. `warning`: it works, and needs attention. `unknown`: it can't be told."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Verdict:
    """The result of a check: what was found, and what to do, "" where all is well."""

    check: str
    status: State
    found: str
    remedy: str = ""


SWEEP_SILENCE = 30.0
"""s without a sweep after which it is late: one comes each second (app/core/redis/task_queue.py)."""

WAITS: Mapping[str, float] = {"wake": 15.0, "deliver": 15.0, "lifecycle": 60.0, "sweep": 30.0, "backup": 900.0}
"""s that the oldest task of a queue may wait. Two backups run at a time, each for up to an hour."""

SKEWED, FAR_SKEWED = 1.0, 30.0
"""s between two clocks: from the first on times in answers look odd, at the second idle sessions are misjudged."""

MODEL_KNOWN = 300.0
"""s for which an answer of the model's API counts; it is asked once a minute."""

START_IT = "Start it again; its log says why it ended (locally `scripts/run`, on a cluster `kubectl get pods`)."


@dataclass(frozen=True)
class RedisFacts:
    """What Redis says about itself, "" for what it does not say."""

    fill: Fill
    version: str = ""
    policy: str = ""
    aof: str = ""
    written: str = ""


def of_redis(facts: RedisFacts) -> Verdict:
    fill = facts.fill
    used = "without a limit of memory" if fill.share is None else f"{fill.share:.0%} of its memory used"
    found = f"Redis {facts.version} answers, {used}.".replace("  ", " ")
    if fill.state == "full":
        return Verdict(
            "redis",
            State.FAILED,
            f"Redis is full ({fill.share:.0%}): new sessions and prompts are refused.",
            "Give Redis more memory (maxmemory), or delete sessions that nobody needs.",
        )
    if facts.policy not in ("", "noeviction"):
        return Verdict(
            "redis",
            State.FAILED,
            f"Redis evicts keys when it is full ({facts.policy}): sessions would vanish.",
            "Set maxmemory-policy to noeviction in Redis' configuration.",
        )
    if facts.written not in ("", "ok"):
        return Verdict(
            "redis",
            State.FAILED,
            "Redis can't write its append-only file: what changes now is lost with it.",
            "Look at Redis' disk and its log: it is full or broken.",
        )
    if facts.aof == "0":
        return Verdict(
            "redis",
            State.WARNING,
            "Redis keeps no append-only file: a crash loses the last changes.",
            "Set appendonly to yes in Redis' configuration.",
        )
    if fill.state == "filling":
        return Verdict("redis", State.WARNING, found, "Give Redis more memory (maxmemory) before it is full.")
    return Verdict("redis", State.OK, found)


def of_processes(check: str, kinds: Collection[str], processes: Sequence[Process]) -> Verdict:
    """Whether at least one process of each kind is alive."""
    alive = [each for each in processes if each.alive and each.kind in kinds]
    missing = [kind for kind in kinds if kind not in {each.kind for each in alive}]
    if missing:
        one = len(missing) == 1
        return Verdict(
            check, State.FAILED, f"{', '.join(missing)}: no process {'is' if one else 'of these is'} alive.", START_IT
        )
    return Verdict(check, State.OK, f"{len(alive)} alive: {', '.join(kinds)}.")


def of_queues(oldest: Mapping[str, float], backlog: Mapping[str, int]) -> Verdict:
    """`oldest` is how long (s) the oldest task of each queue waits."""
    late = [queue for queue, age in oldest.items() if age > WAITS.get(queue, 60.0)]
    if late:
        told = ", ".join(
            f"{queue} ({backlog.get(queue, 0)} tasks, the oldest for {oldest[queue]:.0f} s)" for queue in late
        )
        return Verdict(
            "queues",
            State.FAILED,
            f"Tasks wait too long in: {told}.",
            "See whether the workers of these queues are alive and busy; start more of them.",
        )
    return Verdict("queues", State.OK, f"{sum(backlog.values())} tasks wait, none for long.")


def of_beat(alive: bool, swept: float | None, sweeper_alive: bool) -> Verdict:
    """`swept` is the age (s) of the last sweep, None if there was none."""
    if not alive:
        return Verdict(
            "beat", State.FAILED, "Beat is not alive: nothing falls asleep, expires or is tried again.", START_IT
        )
    if swept is None or swept > SWEEP_SILENCE:
        since = "never" if swept is None else f"{swept:.0f} s ago"
        remedy = (
            "See why the sweeper does not take tasks: its log, and the check `queues`." if sweeper_alive else START_IT
        )
        return Verdict("beat", State.FAILED, f"Beat is alive, but the last sweep was carried out {since}.", remedy)
    return Verdict("beat", State.OK, f"Beat is alive; the last sweep was {swept:.0f} s ago.")


def of_observer(age: float | None, alive: bool) -> Verdict:
    """`age` is that of the last report that it sees the workspaces (s)."""
    if age is not None and age <= OBSERVER_SILENCE:
        return Verdict("observer", State.OK, f"The observer reported {age:.0f} s ago.")
    since = "never reported" if age is None else f"reported {age:.0f} s ago"
    if alive:
        return Verdict(
            "observer",
            State.FAILED,
            f"The observer runs and {since}: it does not see the workspaces.",
            "See the check `cluster`, and the observer's log.",
        )
    return Verdict("observer", State.FAILED, f"The observer {since}: no session is seen to start or to end.", START_IT)


def of_cluster(runtime: str, age: float | None, alive: bool, waiting: int) -> Verdict:
    """By the observer: `age` as above; `waiting` are the sessions that wait for room on a machine."""
    local = runtime == "local"
    if age is None or age > OBSERVER_SILENCE:
        if not alive:
            return Verdict(
                "cluster",
                State.UNKNOWN,
                "The observer is not alive, so nobody looks at the workspaces.",
                "Start the observer first.",
            )
        what = (
            "The workspaces' processes can't be looked at"
            if local
            else "The observer runs and does not reach the API server"
        )
        remedy = (
            "See the observer's log."
            if local
            else "See the observer's log: the API server is away, or the observer's ServiceAccount lacks permissions."
        )
        return Verdict("cluster", State.FAILED, f"{what}.", remedy)
    if waiting:
        return Verdict(
            "cluster",
            State.WARNING,
            f"{waiting} sessions wait for room on a machine (`no_capacity`).",
            "Add machines or let the autoscaler add some; NODE_SELECTOR and the sizes' requests limit which fit.",
        )
    return Verdict("cluster", State.OK, "Workspaces run on this machine." if local else "The API server answers.")


def of_ingress(runtime: str, alive: bool, answers: bool | None, listens: bool | None, annotated: bool) -> Verdict:
    """Whether forward auth `answers` and the ingress `listens`: None where web can't ask, as on a cluster. `annotated`:
    INGRESS_FORWARD_AUTH is set."""
    if not alive or answers is False:
        what = "is not alive" if not alive else "does not answer at FORWARD_AUTH_PORT"
        return Verdict("ingress", State.FAILED, f"Forward auth {what}: nobody gets into a workspace.", START_IT)
    if listens is False:
        return Verdict(
            "ingress",
            State.FAILED,
            "The ingress (traefik) does not listen at WORKSPACE_PORT: no workspace opens.",
            START_IT,
        )
    if runtime == "kubernetes" and not annotated:
        return Verdict(
            "ingress",
            State.FAILED,
            "INGRESS_FORWARD_AUTH is empty: the ingress asks nobody who gets in.",
            "Include the component traefik or nginx of manifests/, which sets it.",
        )
    return Verdict("ingress", State.OK, "Forward auth is alive." if answers is None else "Forward auth answers.")


def of_policies(runtime: str, policies: Policies) -> Verdict:
    if runtime != "kubernetes":
        return Verdict("policies", State.OK, "One machine has no network policies.")
    if policies is Policies.NOT_ENFORCED:
        return Verdict(
            "policies",
            State.WARNING,
            "The cluster enforces no network policies: workspaces reach every address.",
            "Install a network plugin that enforces them.",
        )
    if policies is Policies.UNKNOWN:
        return Verdict(
            "policies",
            State.UNKNOWN,
            "No delivery worker has tested the network policies lately.",
            "See the checks `workers` and `beat`: a test comes each minute.",
        )
    return Verdict("policies", State.OK, "The cluster enforces its network policies.")


def of_storage(troubles: Mapping[str, str] | None) -> Verdict:
    """`troubles` by store, "" for none; None if no worker answered."""
    if troubles is None:
        return Verdict(
            "storage",
            State.UNKNOWN,
            "No backup worker tried the stores in time.",
            "See the checks `workers` and `queues`: all of them may be busy with backups; ask again.",
        )
    keyless = NO_ARCHIVE in troubles
    troubles = {store: why for store, why in troubles.items() if store != NO_ARCHIVE}
    bad = {store: why for store, why in troubles.items() if why}
    if bad:
        told = " ".join(f"{store}: {why}" for store, why in bad.items())
        return Verdict(
            "storage",
            State.FAILED,
            told,
            "Check BACKUP_URL and HISTORY_URL, the store's credentials, and whether its disk has room.",
        )
    tried = f"A file was written, read and deleted in: {', '.join(troubles)}."
    if keyless:
        unarchived = "Without an ARCHIVE_KEY there are no restore points, and no sleeping session is archived."
        return Verdict("storage", State.WARNING, f"{tried} {unarchived}", "Set ARCHIVE_KEY, and keep a copy of it.")
    return Verdict("storage", State.OK, tried)


def of_model(configured: bool, facts: ModelAnswer | None) -> Verdict:
    """`facts` are None before the gateway has asked."""
    if not configured:
        return Verdict(
            "model",
            State.WARNING,
            "No model is configured: agents can't chat.",
            "Set LLM_BASE_URL, LLM_API_KEY and LLM_MODEL.",
        )
    if facts is None or facts.age > MODEL_KNOWN:
        return Verdict(
            "model",
            State.UNKNOWN,
            "The gateway has not asked the model's API lately.",
            "See the check `gateway`; it asks once a minute.",
        )
    ago = f"{facts.age:.0f} s ago"
    if facts.error:
        return Verdict(
            "model",
            State.FAILED,
            f"The model's API could not be reached {ago} ({facts.error}).",
            "Check LLM_BASE_URL, and whether the gateway's network leads there.",
        )
    if facts.status in (401, 403):
        return Verdict(
            "model",
            State.FAILED,
            f"The model's API refused the key {ago} ({facts.status}).",
            "Set LLM_API_KEY to a valid key.",
        )
    if facts.status >= 500:
        return Verdict(
            "model",
            State.FAILED,
            f"The model's API failed {ago} ({facts.status}).",
            "See the status page of its provider; LLM_BASE_URL may lead elsewhere.",
        )
    if facts.status == 429:
        return Verdict(
            "model",
            State.WARNING,
            f"The model's API limited the service {ago} (429).",
            "Raise the limit or the credit at its provider.",
        )
    return Verdict("model", State.OK, f"The model's API answered {ago}, in {facts.ms} ms.")


def of_dead_letters(count: int) -> Verdict:
    if count:
        what = "1 task was" if count == 1 else f"{count} tasks were"
        return Verdict(
            "dead_letters",
            State.WARNING,
            f"{what} given up.",
            "GET /dead-letters says why. Remove the cause, then retry or drop each.",
        )
    return Verdict("dead_letters", State.OK, "No task was given up.")


def of_clocks(processes: Sequence[Process]) -> Verdict:
    skewed = [each for each in processes if each.alive and abs(each.skew) > SKEWED]
    if not skewed:
        return Verdict("clocks", State.OK, "The clocks of all processes agree.")
    worst = max(skewed, key=lambda each: abs(each.skew))
    found = f"The clock of {worst.name} is {abs(worst.skew):.1f} s {'ahead of' if worst.skew > 0 else 'behind'} Redis'."
    status = State.FAILED if abs(worst.skew) > FAR_SKEWED else State.WARNING
    return Verdict("clocks", status, found, "Let all machines take their time from NTP.")
