"""The status of a workspace, derived from the cluster's objects, in words a user understands.

Pure functions from raw objects to small views: the informer keeps one for every session, asleep or not, so they hold
only what is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from app.core.errors import FilesGoing
from app.core.sessions.model import PHASES, Identity
from app.core.sessions.reason_codes import MACHINE_SILENT, ReasonCode
from workers.runtime import exits
from workers.runtime.base import Observation
from workers.runtime.kubernetes import names
from workers.runtime.kubernetes.api_server import refusal, timestamp
from workers.runtime.kubernetes.names import Object
from workers.runtime.kubernetes.objects import generation_of, identity_of

SCHEDULING_PATIENCE = 5.0
"""s a pod is without a node before that is reported: room may just be made."""

BINDING_PATIENCE = 30.0
"""s before it is reported that a claim has no volume, which leaves the pod without a node: a cloud's disk takes 5 to
15 s."""

MOUNT_PATIENCE = 20.0
"""s from a pod's getting its node before a warning about its volumes or its sandbox is reported. The kubelet may ask
for a claim before the API server lets its node see it, and tries again after 10 to 15 s; a cloud attaches in 5 to
30."""

SETUP_PATIENCE = 5.0
"""s from a pod's getting its node in which its Secret may not have reached the node yet."""

QUOTA_PATIENCE = 2.0
"""s in which a pod that is just ending may still count towards a quota."""

NODE_PATIENCE = 5.0
"""s a pod may be not ready with its container ready: the reports of node and cluster cross."""

OVER = ("Failed", "Succeeded")
"""The phases of a pod whose containers have all ended, for good."""

PULL_TROUBLE = frozenset({"ErrImagePull", "ImagePullBackOff"})
IMAGE_TROUBLE = PULL_TROUBLE | {"InvalidImageName", "ErrImageNeverPull"}
NO_IMAGE = re.compile(r"not found|manifest unknown|access denied|unauthorized|authorization failed|invalid reference")
"""A registry's messages for an image that does not exist or may not be pulled: pulling again changes nothing."""

SETUP_TROUBLE = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
VOLUME_TROUBLE = frozenset({"FailedMount", "FailedAttachVolume", "FailedMapVolume", "VolumeResizeFailed"})
CLAIM_TROUBLE = frozenset({"ProvisioningFailed", "FailedBinding"})
UNBOUND = "unbound immediate PersistentVolumeClaims"
"""The scheduler's message about a claim that waits for its volume."""

VOLUME_MESSAGES = ("persistentvolumeclaim", "persistent volume", "volume node affinity")
"""A scheduler's message with one of these is about the volume; all its messages have the same reason."""

OUT_OF_MEMORY = "OOMKilled"

ROOM_MESSAGES = ("insufficient ", "too many pods")
"""A message with one of these is about room all the same: the nodes that could mount the volume are full."""

SANDBOX_TROUBLE = frozenset({"FailedCreatePodSandBox"})

PROGRESS_EVENTS = frozenset({"TriggeredScaleUp", "Nominated", "SuccessfulAttachVolume"})
"""Events that show progress of a start but are none of its phases: a node is being added (by the cluster autoscaler, by
Karpenter), a volume is attached."""

NO_PROGRESS = "The cluster did not start the editor in time and gave no reason. Wake the session to try again."

WORKERS_STEP = PHASES[0]
"""The phase that no object of the cluster shows."""

EVENT_STEPS = {"Pulling": "volume", "Pulled": "image", "Started": "started"}
"""The phase of a start that is done when an event of this reason comes. Events come at once; the pod's own status shows
volumes and container up to a second later."""

TROUBLES: Mapping[str, str] = {
    **dict.fromkeys(VOLUME_TROUBLE, "The workspace's volume cannot be mounted"),
    **dict.fromkeys(CLAIM_TROUBLE, "The workspace's volume cannot be created"),
    **dict.fromkeys(SANDBOX_TROUBLE, "The machine cannot start the workspace"),
}
"""The meaning of a warning event with this reason."""

OBJECT_NAME = re.compile(r"user-([0-9a-z]{8})(-.*)?")


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a workspace does not come up. It is reported once it has lasted for `patience` seconds after `since` (seconds
    since the epoch); until then it is normal. A problem that `waits` may pass by itself: it is a failure only when the
    start makes no progress. `code` is for programs, "" where there is none."""

    text: str
    since: float
    patience: float
    waits: bool = False
    code: str = ""

    @property
    def reported_at(self) -> float:
        return self.since + self.patience


@dataclass(frozen=True, slots=True)
class DeploymentView:
    """A Deployment: the replicas it asks for, and why it has no pod. `identity` is None until it is noted."""

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
    """A pod that may run the editor. `gone` says that it is being deleted or has ended, `ended` that none of its
    processes is left: the cluster deletes it a second or two later. `steps` are the phases of its start that are done,
    `placed` is when it got its node, `began` when the newest process of the editor began, both 0 before that,
    `finished` when that process ended, 0 while it runs. `problem` is the editor's, `trouble` the agent's."""

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
    finished: float = 0.0
    trouble: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True)
class ClaimView:
    """A volume claim. `going` says that it was deleted; it still exists while a pod uses it."""

    uuid: str
    going: bool


@dataclass(frozen=True, slots=True)
class Warned:
    """An event about a workspace. `reason` is Kubernetes' own."""

    uuid: str
    subject: str
    reason: str
    text: str


def uuid_of(item: Object) -> str:
    """The session's uuid in an object's labels, "" when there is none."""
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


def is_lost(claim: Object) -> bool:
    """Whether the volume behind a claim was deleted: the claim can never be used again."""
    return (claim.get("status") or {}).get("phase") == "Lost"


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
        finished=_finished(item),
        trouble=agent_trouble(item),
        address=status.get("podIP", ""),
    )


def warned(event: Object) -> Warned | None:
    """The Event as a view; None when it is not about a workspace."""
    about = event.get("involvedObject") or {}
    match = OBJECT_NAME.fullmatch(str(about.get("name", "")))
    reason = str(event.get("reason", ""))
    if match is None or reason not in (EVENT_STEPS.keys() | PROGRESS_EVENTS | TROUBLES.keys()):
        return None
    if reason in EVENT_STEPS and about.get("fieldPath") == f"spec.containers{{{names.AGENT}}}":
        # The phases of a start are the editor's.
        return None
    return Warned(match[1], str(about["name"]), reason, str(event.get("message", "")))


def steps_in_order(seen: Mapping[str, float]) -> dict[str, float]:
    """When each phase of a start was done (seconds since the epoch), by when it was seen: at the latest when a later
    phase was, as pods and events arrive independently."""
    steps: dict[str, float] = {}
    for number, name in enumerate(PHASES):
        later = [seen[each] for each in PHASES[number:] if each in seen]
        if later and name != WORKERS_STEP:
            steps[name] = min(later)
    return steps


def current(pods: Iterable[PodView]) -> PodView | None:
    """The pod that counts: the newest that is not being deleted."""
    return max((pod for pod in pods if not pod.gone), key=lambda pod: (pod.created, pod.name), default=None)


def begun(pod: PodView | None) -> bool:
    """Whether the editor's process has run: from then on only its response is awaited."""
    return pod is not None and (pod.ready or pod.began > 0)


def problem_of(deployment: DeploymentView, pod: PodView | None, warning: Warned | None) -> Problem | None:
    """Why a workspace that should be up is not, None when it is up or no problem is known."""
    if pod is None:
        return deployment.problem
    if pod.ready or pod.problem is not None:
        return pod.problem
    if warning is not None and (warning.subject == pod.name or names.is_claim(warning.subject, pod.uuid)):
        text = f"{TROUBLES[warning.reason]}: {_one_line(warning.text)}"
        code = ReasonCode.MACHINE_TROUBLE if warning.reason in SANDBOX_TROUBLE else ReasonCode.VOLUME_UNAVAILABLE
        return Problem(text, pod.placed or pod.created, MOUNT_PATIENCE, waits=True, code=code)
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
    """A workspace as these objects show it at `now`. `generation` is for one without a Deployment; `agent_at` gives the
    agent's URL by the pod's address; `overdue` says that a start made no progress for `PROGRESS_TIMEOUT`."""
    known = max(deployment.generation if deployment else 0, generation)
    down = Observation(identity=identity, generation=known, created_at=created_at)
    if deployment is None or not deployment.up:
        return down
    if files_going:
        return replace(down, failure=str(FilesGoing()), code=FilesGoing.code)
    pod = current(pods)
    problem = problem_of(deployment, pod, warning)
    reported = problem if problem is not None and now >= problem.reported_at else None
    if reported is not None and not reported.waits:
        return replace(down, failure=reported.text, code=reported.code, ended=pod.finished if pod else 0.0)
    if overdue and not begun(pod) and reported is problem:
        return _stuck(down, reported)
    up = replace(down, running=True, phases=dict(phases or {}))
    if reported is not None:
        up = replace(up, waiting=reported.text, code=reported.code)
    return up if pod is None else _with_pod(up, pod, agent_at)


def _stuck(down: Observation, problem: Problem | None) -> Observation:
    """A start that failed because it made no progress."""
    text, code = (problem.text, problem.code) if problem else (NO_PROGRESS, ReasonCode.NO_PROGRESS)
    return replace(down, failure=text, waiting=text, code=code)


def _with_pod(up: Observation, pod: PodView, agent_at: Callable[[str], str]) -> Observation:
    return replace(
        up, ready=pod.ready, pod_name=pod.name, agent=agent_at(pod.address), trouble=pod.trouble, began=pod.began
    )


def pod_problem(item: Object) -> Problem | None:
    """Why a pod is not ready, as far as its own status says."""
    created = timestamp(item["metadata"].get("creationTimestamp"))
    placed = _placed(item) or created
    conditions = _conditions(item)
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        since = timestamp(scheduled.get("lastTransitionTime")) or created
        message = _one_line(scheduled.get("message", ""))
        return _unscheduled(message, since)
    container = _container(item)
    waiting = (container.get("state") or {}).get("waiting") or {}
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in IMAGE_TROUBLE:
        text = f"The workspace's image cannot be pulled: {_one_line(message or reason)}"
        waits = reason in PULL_TROUBLE and not NO_IMAGE.search(message)
        return Problem(text, placed, 0.0, waits=waits, code=ReasonCode.IMAGE_UNAVAILABLE)
    if reason == "CrashLoopBackOff":
        return Problem(ended(container), created, 0.0, code=_code_of_end(container))
    if reason in SETUP_TROUBLE:
        text = f"The workspace cannot be started: {_one_line(message or reason)}"
        return Problem(text, placed, SETUP_PATIENCE, code=ReasonCode.MACHINE_TROUBLE)
    ready = conditions.get("Ready", {})
    if container.get("ready") and ready.get("status") == "False":
        # The cluster says so because the node is silent. (If the agent were down, the editor would count as ready.)
        since = timestamp(ready.get("lastTransitionTime")) or created
        return Problem(MACHINE_SILENT, since, NODE_PATIENCE, code=ReasonCode.MACHINE_TROUBLE)
    return None


def agent_trouble(item: Object) -> str:
    """Why the pod's agent does not run, "" when it runs or has not begun. The editor works all the same."""
    container = _status(item, lambda name: name == names.AGENT)
    waiting = (container.get("state") or {}).get("waiting") or {}
    return ended(container, "agent") if waiting.get("reason") == "CrashLoopBackOff" else ""


def _last_end(container: Object) -> Object:
    """The end of a container's newest process that has ended, {} for none."""
    ends = ((container.get(each) or {}).get("terminated") for each in ("lastState", "state"))
    return next((end for end in ends if end), {})


def _code_of_end(container: Object) -> ReasonCode:
    of_memory = _last_end(container).get("reason") == OUT_OF_MEMORY
    return ReasonCode.OUT_OF_MEMORY if of_memory else ReasonCode.EDITOR_ENDED


def ended(container: Object, what: str = "editor") -> str:
    """How a container ended, with the last lines of its log."""
    last = _last_end(container)
    if not last:
        return f"The {what} ended unexpectedly."
    if last.get("reason") == OUT_OF_MEMORY:
        how = "it needed more memory than the session's size allows"
    elif last.get("exitCode", 0) > 128:
        how = f"killed by {exits.signal_name(last['exitCode'] - 128)}"
    else:
        how = f"status {last.get('exitCode')}"
    tail = exits.log_tail(str(last.get("message") or ""))
    return exits.with_log_tail(f"The {what} ended unexpectedly ({how}).", tail)


def _refused(item: Object) -> Problem | None:
    failure = _conditions(item).get("ReplicaFailure", {})
    if failure.get("status") != "True":
        return None
    message = str(failure.get("message", ""))
    since = timestamp(failure.get("lastTransitionTime"))
    return Problem(refusal(_one_line(message)), since, QUOTA_PATIENCE, code=ReasonCode.REJECTED)


def _unscheduled(message: str, since: float) -> Problem:
    """Why the scheduler found no node, by its message. No reason is permanent: a suitable node may be added."""
    about, lacks = (any(each in message.lower() for each in words) for words in (VOLUME_MESSAGES, ROOM_MESSAGES))
    if about and not lacks:
        patience = BINDING_PATIENCE if UNBOUND in message else SCHEDULING_PATIENCE
        return Problem(
            f"The workspace's volume is not available: {message}",
            since,
            patience,
            waits=True,
            code=ReasonCode.VOLUME_UNAVAILABLE,
        )
    text = f"No machine of the cluster has room for the workspace: {message}"
    return Problem(text, since, SCHEDULING_PATIENCE, waits=True, code=ReasonCode.NO_CAPACITY)


def _placed(item: Object) -> float:
    """When the pod got its node, 0 before that."""
    if not item["spec"].get("nodeName"):
        return 0.0
    at = _conditions(item).get("PodScheduled", {}).get("lastTransitionTime")
    return timestamp(at or item["metadata"].get("creationTimestamp"))


def _began(item: Object) -> float:
    """When the newest process of the editor began, even if it has ended since; 0 when there was none."""
    container = _container(item)
    lives = [
        (container.get(each) or {}).get(kind) for each in ("state", "lastState") for kind in ("running", "terminated")
    ]
    life = next((each for each in lives if each is not None), None)
    if life is None:
        return 0.0
    return timestamp(life.get("startedAt") or item["metadata"].get("creationTimestamp"))


def _finished(item: Object) -> float:
    """When the newest process of the editor ended, 0 while it runs."""
    container = _container(item)
    if "running" in (container.get("state") or {}):
        return 0.0
    ends = [(container.get(each) or {}).get("terminated") or {} for each in ("state", "lastState")]
    return next((timestamp(end["finishedAt"]) for end in ends if end.get("finishedAt")), 0.0)


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
    """Whether the editor answers, as far as the cluster knows. A pod with a dead agent is not ready, but its editor may
    be; a pod that is not ready although all its containers are is on a silent node."""
    conditions = _conditions(item)
    if conditions.get("Ready", {}).get("status") == "True":
        return True
    one_is_not = conditions.get("ContainersReady", {}).get("status") == "False"
    return one_is_not and _container(item).get("ready") is True


def _container(item: Object) -> Object:
    """The status of the editor's container, or of a backup Job's only one."""
    return _status(item, lambda name: name != names.AGENT)


def _status(item: Object, wanted: Callable[[str], bool]) -> Object:
    statuses = (item.get("status") or {}).get("containerStatuses") or []
    return next((dict(each) for each in statuses if wanted(each.get("name", ""))), {})


def _one_line(text: str) -> str:
    """A message as one line of at most 500 characters."""
    line = " ".join(exits.ESCAPES.sub("", text).split())
    return line if len(line) <= 500 else line[:500] + "…"
