"""What the cluster's objects say about a workspace, in a few fields and in words a user understands.

Pure functions from raw objects to small ones: the watch keeps one of these for every session there is,
asleep or not, so they hold nothing that isn't asked for.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.sessions.errors import FilesGoing
from app.sessions.model import PHASES, Identity
from workers.runtime import names
from workers.runtime.base import NO_CAPACITY, Observation
from workers.runtime.cluster import refusal, timestamp
from workers.runtime.objects import generation_of, identity_of

Object = dict[str, Any]

SCHEDULING_PATIENCE = 5.0
"""s without a place before it is told: room may just be about to be made."""

BINDING_PATIENCE = 30.0
"""s before it is told that a claim has no volume, which leaves its pod without a place: a cloud's disk takes 5 to
15 s."""

MOUNT_PATIENCE = 20.0
"""s from a pod's getting its node before a warning about its volumes or its sandbox is told. The kubelet may ask for a
claim before the API server lets its node see it, and tries again after 10 to 15 s; a cloud attaches in 5 to 30."""

SETUP_PATIENCE = 5.0
"""s from a pod's getting its node in which its Secret may not have reached that yet."""

QUOTA_PATIENCE = 2.0
"""s in which a quota may be exceeded by a pod that is just going."""

NODE_PATIENCE = 5.0
"""s a pod may be called not ready with its container ready: the node's word and the cluster's cross."""

OVER = ("Failed", "Succeeded")
"""The phases of a pod whose containers have all ended, for good."""

PULL_TROUBLE = frozenset({"ErrImagePull", "ImagePullBackOff"})
IMAGE_TROUBLE = PULL_TROUBLE | {"InvalidImageName", "ErrImageNeverPull"}
NO_IMAGE = re.compile(r"not found|manifest unknown|access denied|unauthorized|authorization failed|invalid reference")
"""A registry's words for an image that it does not have, or does not give away: pulling again changes nothing."""

SETUP_TROUBLE = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
VOLUME_TROUBLE = frozenset({"FailedMount", "FailedAttachVolume", "FailedMapVolume", "VolumeResizeFailed"})
CLAIM_TROUBLE = frozenset({"ProvisioningFailed", "FailedBinding"})
UNBOUND = "unbound immediate PersistentVolumeClaims"
"""The scheduler's words for a claim that waits for its volume."""

VOLUME_WORDS = ("persistentvolumeclaim", "persistent volume", "volume node affinity")
"""By one of these a scheduler's message is about the volume; it has one reason for all there is."""

ROOM_WORDS = ("insufficient ", "too many pods")
"""By one of these it is about room all the same: the nodes that could have the volume are full."""

SANDBOX_TROUBLE = frozenset({"FailedCreatePodSandBox"})

PROGRESS_EVENTS = frozenset({"TriggeredScaleUp", "Nominated", "SuccessfulAttachVolume"})
"""Events by which a start goes on and that are no step of it: a node is being added (the cluster autoscaler's word, and
Karpenter's), a volume is attached."""

NO_PROGRESS = "The cluster did not get as far as to start the editor, and gives no reason."

WORKERS_STEP = PHASES[0]
"""The one that nothing in the cluster tells of."""

EVENT_STEPS = {"Pulling": "volume", "Pulled": "image", "Started": "started"}
"""The step of a start that is done when an event of this reason comes. Events come at once; the pod itself shows its
volumes and its container only after the kubelet's next look at them, up to a second later."""

TROUBLES: Mapping[str, str] = {
    **dict.fromkeys(VOLUME_TROUBLE, "The workspace's volume can't be mounted"),
    **dict.fromkeys(CLAIM_TROUBLE, "The workspace's volume can't be made"),
    **dict.fromkeys(SANDBOX_TROUBLE, "The machine can't start the workspace"),
}
"""What a warning event of this reason means."""

LOG_LINES, LOG_CHARS = 15, 1500
"""What of a container's last words is shown."""

ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-_])|[\x00-\x08\x0b-\x1f\x7f]")

OBJECT_NAME = re.compile(r"user-([0-9a-z]{8})(-.*)?")


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a workspace doesn't come up. It is told when it has lasted from `since` (seconds since the epoch)
    for `patience` seconds; until then it is the cluster's normal course. One that `waits` may pass by itself: it is a
    failure only when the start comes no further. `code` says it for programs, where there is one."""

    text: str
    since: float
    patience: float
    waits: bool = False
    code: str = ""

    @property
    def told_at(self) -> float:
        return self.since + self.patience


@dataclass(frozen=True, slots=True)
class DeploymentView:
    """A Deployment: what it is asked for, and why it has no pod. `identity` is None until it was noted."""

    uuid: str
    identity: Identity | None
    generation: int
    replicas: int
    going: bool
    problem: Problem | None

    @property
    def up(self) -> bool:
        return self.replicas > 0


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod that may run the editor. `gone` says that it is on its way out, `ended` that no process of it is
    left: the cluster takes a second or two longer to clear it away. `steps` are those of its start that
    are done, `placed` is when it got its node, `began` when the newest process of the editor did, 0 where that is still
    to come. `problem` is the editor's, `trouble` what is wrong with the agent alone."""

    uuid: str
    name: str
    node: str
    created: float
    ready: bool
    gone: bool
    ended: bool
    steps: frozenset[str]
    problem: Problem | None
    placed: float = 0.0
    began: float = 0.0
    trouble: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True)
class ClaimView:
    """A volume claim. `going` says that it was deleted, and lasts as long as a pod has it."""

    uuid: str
    going: bool


@dataclass(frozen=True, slots=True)
class Warned:
    """The last event about a workspace. `reason` is Kubernetes' own word."""

    uuid: str
    subject: str
    reason: str
    text: str


def uuid_of(item: Object) -> str:
    """Whose object it is, "" when nobody's."""
    return str((item["metadata"].get("labels") or {}).get(names.UUID_LABEL, ""))


def deployment_view(item: Object) -> DeploymentView:
    metadata = item["metadata"]
    going = "deletionTimestamp" in metadata
    return DeploymentView(
        uuid=uuid_of(item),
        identity=identity_of(metadata),
        generation=generation_of(metadata),
        replicas=0 if going else item["spec"].get("replicas", 1),
        going=going,
        problem=_refused(item),
    )


def claim_view(item: Object) -> ClaimView:
    return ClaimView(uuid_of(item), "deletionTimestamp" in item["metadata"])


def pod_view(item: Object) -> PodView:
    metadata, status = item["metadata"], item.get("status") or {}
    conditions = _conditions(item)
    ready = _editor_ready(item)
    return PodView(
        uuid=uuid_of(item),
        name=metadata["name"],
        node=item["spec"].get("nodeName", ""),
        created=timestamp(metadata.get("creationTimestamp")),
        ready=ready,
        gone="deletionTimestamp" in metadata or status.get("phase") in OVER,
        ended=status.get("phase") in OVER,
        steps=_steps(conditions, _container(item), ready=ready),
        problem=None if ready else pod_problem(item),
        placed=_placed(item),
        began=_began(item),
        trouble=agent_trouble(item),
        address=status.get("podIP", ""),
    )


def warned(event: Object) -> Warned | None:
    """What an Event says about a workspace; None when it is about something else."""
    about = event.get("involvedObject") or {}
    match = OBJECT_NAME.fullmatch(str(about.get("name", "")))
    reason = str(event.get("reason", ""))
    if match is None or reason not in (EVENT_STEPS.keys() | PROGRESS_EVENTS | TROUBLES.keys()):
        return None
    if reason in EVENT_STEPS and about.get("fieldPath") == f"spec.containers{{{names.AGENT}}}":
        # The steps of a start are the editor's.
        return None
    return Warned(match[1], str(about["name"]), reason, str(event.get("message", "")))


def steps_in_order(seen: Mapping[str, float]) -> dict[str, float]:
    """When each step of a start was done, by when it was seen (seconds since the epoch): at the latest when a later
    one was, as pods and events are told apart from one another."""
    steps: dict[str, float] = {}
    for number, name in enumerate(PHASES):
        later = [seen[each] for each in PHASES[number:] if each in seen]
        if later and name != WORKERS_STEP:
            steps[name] = min(later)
    return steps


def current(pods: Iterable[PodView]) -> PodView | None:
    """The pod that counts: the newest that is there to stay."""
    return max((pod for pod in pods if not pod.gone), key=lambda pod: (pod.created, pod.name), default=None)


def begun(pod: PodView | None) -> bool:
    """Whether the editor's process ran: from then on it is a matter of its answering."""
    return pod is not None and (pod.ready or pod.began > 0)


def problem_of(deployment: DeploymentView, pod: PodView | None, warning: Warned | None) -> Problem | None:
    """Why a workspace that should be up is not, None when it is or nothing is known against it."""
    if pod is None:
        return deployment.problem
    if pod.ready or pod.problem is not None:
        return pod.problem
    if warning is not None and warning.subject in (pod.name, names.workspace(pod.uuid)):
        text = f"{TROUBLES[warning.reason]}: {_words(warning.text)}"
        return Problem(text, pod.placed or pod.created, MOUNT_PATIENCE, waits=True)
    return None


def observation(
    identity: Identity,
    deployment: DeploymentView | None,
    pods: Sequence[PodView],
    warning: Warned | None,
    now: float,
    *,
    generation: int = 0,
    created_at: float = 0.0,
    phases: Mapping[str, float] | None = None,
    files_going: bool = False,
    agent_at: Callable[[str], str] = lambda address: "",
    overdue: bool = False,
) -> Observation:
    """A workspace as these objects show it at `now`. `generation` is for one without a Deployment, `agent_at` gives
    the agent's URL by the pod's address. `overdue` says that it came no further for as long as a start may."""
    known = max(deployment.generation if deployment else 0, generation)
    down = Observation(identity=identity, generation=known, created_at=created_at)
    if deployment is None or not deployment.up:
        return down
    if files_going:
        return Observation(identity=identity, generation=known, failure=str(FilesGoing()), created_at=created_at)
    pod = current(pods)
    problem = problem_of(deployment, pod, warning)
    told = problem if problem is not None and now >= problem.told_at else None
    if told is not None and not told.waits:
        return Observation(identity=identity, generation=known, failure=told.text, created_at=created_at)
    if overdue and not begun(pod) and told is problem:
        text, code = (told.text, told.code) if told else (NO_PROGRESS, "")
        return replace(down, failure=text, waiting=text, code=code)
    return Observation(
        identity=identity,
        generation=known,
        running=True,
        ready=pod is not None and pod.ready,
        pod_name=pod.name if pod else "",
        agent=agent_at(pod.address) if pod else "",
        trouble=pod.trouble if pod else "",
        waiting=told.text if told else "",
        code=told.code if told else "",
        created_at=created_at,
        phases=dict(phases or {}),
        began=pod.began if pod else 0.0,
    )


def pod_problem(item: Object) -> Problem | None:
    """Why a pod that is not ready isn't, as far as the pod itself knows."""
    created = timestamp(item["metadata"].get("creationTimestamp"))
    placed = _placed(item) or created
    conditions = _conditions(item)
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        since = timestamp(scheduled.get("lastTransitionTime")) or created
        message = _words(scheduled.get("message", ""))
        return _unscheduled(message, since)
    container = _container(item)
    waiting = (container.get("state") or {}).get("waiting") or {}
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in IMAGE_TROUBLE:
        text = f"The workspace's image can't be fetched: {_words(message or reason)}"
        return Problem(text, placed, 0.0, waits=reason in PULL_TROUBLE and not NO_IMAGE.search(message))
    if reason == "CrashLoopBackOff":
        return Problem(ended(container), created, 0.0)
    if reason in SETUP_TROUBLE:
        return Problem(f"The workspace can't be started: {_words(message or reason)}", placed, SETUP_PATIENCE)
    ready = conditions.get("Ready", {})
    if container.get("ready") and ready.get("status") == "False":
        # Only the cluster says so: the node itself has gone silent. (Were it the agent, the editor would be ready.)
        since = timestamp(ready.get("lastTransitionTime")) or created
        return Problem("The machine the workspace runs on does not answer.", since, NODE_PATIENCE)
    return None


def agent_trouble(item: Object) -> str:
    """Why the pod's agent does not run for now, "" when it does or has not begun. Its editor works all the same."""
    container = _status(item, lambda name: name == names.AGENT)
    waiting = (container.get("state") or {}).get("waiting") or {}
    return ended(container, "agent") if waiting.get("reason") == "CrashLoopBackOff" else ""


def ended(container: Object, what: str = "editor") -> str:
    """How a container came to its end, with its last words."""
    last = (container.get("lastState") or {}).get("terminated") or (container.get("state") or {}).get("terminated")
    if not last:
        return f"The {what} ended unexpectedly."
    if last.get("reason") == "OOMKilled":
        how = "it needed more memory than a workspace of its size has"
    elif last.get("exitCode", 0) > 128:
        how = f"killed by {_signal(last['exitCode'] - 128)}"
    else:
        how = f"status {last.get('exitCode')}"
    tail = log_tail(str(last.get("message") or ""))
    return f"The {what} ended unexpectedly ({how})." + (f" Last lines of its log:\n{tail}" if tail else "")


def log_tail(text: str) -> str:
    """The end of a log, fit to be shown: no terminal escapes, at most `LOG_CHARS` characters."""
    lines = [line.rstrip() for line in ESCAPES.sub("", text).splitlines() if line.strip()]
    return "\n".join(lines[-LOG_LINES:])[-LOG_CHARS:]


def _refused(item: Object) -> Problem | None:
    failure = _conditions(item).get("ReplicaFailure", {})
    if failure.get("status") != "True":
        return None
    message = str(failure.get("message", ""))
    return Problem(refusal(_words(message)), timestamp(failure.get("lastTransitionTime")), QUOTA_PATIENCE)


def _unscheduled(message: str, since: float) -> Problem:
    """Why the scheduler found no node, by its own words. None of them is for good: a node may be added that no label or
    taint of today's tells of."""
    about, lacks = (any(each in message.lower() for each in words) for words in (VOLUME_WORDS, ROOM_WORDS))
    if about and not lacks:
        patience = BINDING_PATIENCE if UNBOUND in message else SCHEDULING_PATIENCE
        return Problem(f"The workspace's volume is not there: {message}", since, patience, waits=True)
    text = f"No machine of the cluster has room for the workspace: {message}"
    return Problem(text, since, SCHEDULING_PATIENCE, waits=True, code=NO_CAPACITY)


def _placed(item: Object) -> float:
    """When the pod got its node, 0 while it has none."""
    if not item["spec"].get("nodeName"):
        return 0.0
    at = _conditions(item).get("PodScheduled", {}).get("lastTransitionTime")
    return timestamp(at or item["metadata"].get("creationTimestamp"))


def _began(item: Object) -> float:
    """When the newest process of the editor began, also one that has ended since; 0 when there was none."""
    container = _container(item)
    lives = [
        (container.get(each) or {}).get(kind) for each in ("state", "lastState") for kind in ("running", "terminated")
    ]
    life = next((each for each in lives if each is not None), None)
    if life is None:
        return 0.0
    return timestamp(life.get("startedAt") or item["metadata"].get("creationTimestamp"))


def _steps(conditions: Mapping[str, Object], container: Object, *, ready: bool) -> frozenset[str]:
    steps = set()
    if conditions.get("PodScheduled", {}).get("status") == "True":
        steps.add("scheduled")
    if conditions.get("PodReadyToStartContainers", {}).get("status") == "True":
        steps.add("volume")
    if "running" in (container.get("state") or {}):
        steps.add("started")
    if ready:
        steps.add("ready")
    return frozenset(steps)


def _conditions(item: Object) -> dict[str, Object]:
    return {each["type"]: each for each in (item.get("status") or {}).get("conditions") or []}


def _editor_ready(item: Object) -> bool:
    """Whether the editor answers, as far as the cluster knows. A pod whose agent is down isn't ready, but its editor
    may be; a pod that isn't though all its containers are is on a node that went silent."""
    conditions = _conditions(item)
    if conditions.get("Ready", {}).get("status") == "True":
        return True
    one_is_not = conditions.get("ContainersReady", {}).get("status") == "False"
    return one_is_not and _container(item).get("ready") is True


def _container(item: Object) -> Object:
    """What is known of the editor's container, or of the only one that an archive Job has."""
    return _status(item, lambda name: name != names.AGENT)


def _status(item: Object, wanted: Callable[[str], bool]) -> Object:
    statuses = (item.get("status") or {}).get("containerStatuses") or []
    return next((dict(each) for each in statuses if wanted(each.get("name", ""))), {})


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _words(text: str) -> str:
    """One line of a message, not too long."""
    line = " ".join(ESCAPES.sub("", text).split())
    return line if len(line) <= 500 else line[:500] + "…"
