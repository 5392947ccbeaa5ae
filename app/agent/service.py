"""The agent's parts, the order in which they start, and how they stop."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from app.agent.activity_reporter import ActivityReporter
from app.agent.checkpoints import Keeper, load
from app.agent.documents import Documents
from app.agent.events import Bus, outcome_event
from app.agent.execs.execs import FOLDER, Execs
from app.agent.execs.signals import signals
from app.agent.files.changes import Changed
from app.agent.files.trees import Trees
from app.agent.files.uploads import FOLDER as UPLOADS
from app.agent.files.writing import Files
from app.agent.gateway_client import Gateway
from app.agent.model import Model
from app.agent.model_context import system_prompt
from app.agent.model_worker import ModelWorker
from app.agent.ports.ports import Ports
from app.agent.program_worker import ProgramWorker, conversation, program_of
from app.agent.prompt_status import ProcessEnding, fetch_status
from app.agent.protocol import Event, ExecReason
from app.agent.reports import Reports
from app.agent.resources import ResourceMeter
from app.agent.retry import AnyModel, RetryingModel
from app.agent.services.services import DOCUMENT, Services
from app.agent.services.services import FOLDER as SERVICES
from app.agent.services.tools import tools_of
from app.agent.settings import SHARED, AgentSettings
from app.agent.state import State
from app.agent.steps import Steps
from app.agent.tools.command import command_environment, hidden_folder
from app.agent.tools.orphans import kill_orphans
from app.agent.tools.registry import Toolbox
from app.agent.tools.sandbox_path import Workspace
from app.agent.traces import Traces
from app.agent.turn import Worker
from app.agent.turns import Turns
from app.agent.undo.points import UndoPoints
from app.agent.undo.undoing import Undoing

log = logging.getLogger(__name__)

EXEC_SHARE, STEP_SHARE, REPORT_SHARE, CHECKPOINT_SHARE = 0.1, 0.4, 0.1, 0.3
"""Shares of the time from SIGTERM to SIGKILL: for callers' commands, for the turn's current step, whose command is
killed, for the last reports, and for the checkpoint. The rest is for the disk. A share is used up only if something
hangs. Services have all of it to end in."""

EXIT_SECONDS = 1.0
"""Seconds before SIGKILL in which this process ends, whatever a service does."""

WARM_DELAY = 2.0
"""Seconds until the model's client is imported, or the program started, unless a prompt needs it sooner: a waking
workspace needs its CPU for the editor's start and this process's first answer."""


class Agent:
    """One workspace's agent. `environment` is the process's; `model` replaces the gateway's in tests."""

    def __init__(self, settings: AgentSettings, environment: Mapping[str, str], model: AnyModel | None = None) -> None:
        self.settings = settings
        self.state = State(settings.state_folder, settings.uuid)
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self.traces = Traces()
        self._keeper = Keeper(self._gateway(), self.state, settings.checkpoint_interval)
        self._resources = ResourceMeter(settings.home, settings.state_folder.parent, settings.cgroup)
        self._activity = ActivityReporter(
            settings.home,
            self._gateway(),
            self._resources.take,
            lambda now: signals(self.execs, now),
            lambda: self.services.report(),
            lambda ports: self.services.bring_back(ports),
        )
        self._reports = Reports(self._gateway(), self.state.reported, lambda: self.turns.busy)
        self.bus = Bus(self._report)
        self.environment = command_environment(environment, settings.token(), settings.uuid)
        self.hidden = hidden_folder(settings.token_file, settings.folder)
        self.workspace = Workspace(settings.folder)
        self.execs = Execs(
            self.workspace,
            settings.state_folder.parent / FOLDER,
            self.environment,
            hidden=self.hidden,
            longest=settings.exec_timeout,
            at_once=settings.execs_at_once,
            most=settings.exec_output_bytes,
            closing=lambda: self.turns.closed,
        )
        self.services = Services(
            self.workspace,
            settings.state_folder / DOCUMENT,
            settings.state_folder.parent / SERVICES,
            self.environment,
            hidden=self.hidden,
            most=settings.services_most,
            closing=lambda: self.turns.closed,
        )
        own = {settings.port, settings.editor_port}
        self.ports = Ports(self.services, settings.uuid, own, shared=settings.network == SHARED)
        self.files = Files(self.workspace, settings.state_folder.parent / UPLOADS)
        self.trees = Trees(self.workspace, self.files)
        self.changed = Changed(self.workspace)
        self.undo = UndoPoints(settings, self.environment, self.hidden)
        steps = Steps(self.state, self.bus.publish, settings.max_steps)
        self._worker = (
            self._program(steps, environment)
            if settings.program
            else self._own(
                steps, model or Model(settings.gateway_url, settings.token, settings.model, self.traces.headers)
            )
        )
        self.turns = Turns(self.state, self._worker, steps, self.bus.publish, settings.turn_timeout, begins=self._begin)
        self._undoing = Undoing(self.state, self.turns, self.undo, self._report)

    def _own(self, steps: Steps, model: AnyModel) -> Worker:
        settings, workspace = self.settings, self.workspace
        toolbox = Toolbox(
            workspace,
            environment=self.environment,
            command_timeout=settings.command_timeout,
            hidden=self.hidden,
            more=tools_of(self.services),
        )
        return ModelWorker(
            RetryingModel(model, self.state, toolbox.schemas(), settings.context_tokens),
            toolbox,
            lambda: system_prompt(workspace),
            steps,
            settings.max_tokens,
            before_tools=self.undo.wait,
        )

    def _program(self, steps: Steps, environment: Mapping[str, str]) -> Worker:
        settings = self.settings
        return ProgramWorker(
            lambda: program_of(settings, environment),
            lambda: conversation(self.state, settings.context_tokens),
            steps,
            before_tools=self.undo.wait,
        )

    def _begin(self, id_: str) -> None:
        self.traces.begin(id_)
        self._undoing.complete(self._stopping)
        self.undo.begin(id_, untouched=not any(m.get("tool_calls") for m in self.state.turn_messages(id_)))

    def find_undo(self, id_: str) -> bool | None:
        """Whether a prompt is undone, None if it can't be (`Undoing.find`)."""
        return self._undoing.find(id_)

    def undo_prompt(self, id_: str) -> dict[str, Any]:
        """Undo a prompt and all after it (`Undoing.undo`)."""
        undone = self._undoing.undo(id_)
        self._thread("checkpoint", self._save)
        return undone

    def _save(self) -> None:
        if self.settings.gateway_url:
            self._keeper.save()

    def _gateway(self) -> Gateway:
        return Gateway(self.settings.gateway_url, self.settings.token)

    def _report(self, event: Event) -> None:
        if self.settings.gateway_url:
            self._reports.add(event)

    @property
    def stopping(self) -> bool:
        """Whether the process is shutting down."""
        return self._stopping.is_set()

    @property
    def closing(self) -> bool:
        """Whether new prompts are refused."""
        return self._stopping.is_set() or self.turns.closed

    def expect_stop(self, reason: str) -> None:
        """Note why the workspace stops soon, "" if it does not after all."""
        self.execs.stop_reason = ExecReason.SLEEP if reason == "sleep" else ExecReason.STOPPED

    def start(self) -> None:
        """Load the conversation and continue it, in the background."""
        self._thread("turns", self._load_and_work)
        self._thread("uploads", self.files.uploads.clear)
        if self.settings.gateway_url:
            self._thread("resources", lambda: self._resources.run(self._stopping))
            self._thread("activity", lambda: self._activity.run(self._stopping))
        self._thread("warm", self._warm)

    def _warm(self) -> None:
        if not self._stopping.wait(WARM_DELAY):
            self._worker.warm()

    def _load_and_work(self) -> None:
        if not kill_orphans(self.settings.uuid, and_below=True):
            log.warning("Processes of an earlier agent could not be killed")
        self.execs.open()
        self.services.open()
        if not self._load():
            return
        for id_, outcome in self.state.unreported().items():
            self._report(outcome_event(id_, outcome))
        if self.settings.gateway_url:
            self._thread("reports", self._reports.run)
            self._thread("checkpoints", lambda: self._keeper.run(self._stopping))
        self._undoing.complete(self._stopping)
        if self._confirm():
            self.turns.run()

    def _load(self) -> bool:
        while not self._stopping.is_set():
            try:
                self.state.open(self._checkpoint)
            except ProcessEnding:
                return False
            except OSError as e:
                log.error("The conversation can't be loaded (%s); retrying", e.strerror)
                self._stopping.wait(5.0)
            else:
                return True
        return False

    def _confirm(self) -> bool:
        """Drop open prompts that ended elsewhere; False if the process ends before the manager answers."""
        while self.settings.gateway_url and (ages := self.state.unconfirmed()):
            try:
                self.state.confirm(fetch_status(self._gateway(), ages, self._stopping))
            except ProcessEnding:
                return False
            except OSError as e:
                log.error("The conversation can't be written (%s); retrying", e.strerror)
                self._stopping.wait(5.0)
        return not self._stopping.is_set()

    def _checkpoint(self) -> Documents | None:
        if not self.settings.gateway_url:
            return None
        return load(self._gateway(), self._stopping)

    def _thread(self, name: str, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def push(self, seconds: float) -> dict[str, Any]:
        """Write the conversation to disk, and to the manager within `seconds`; `saved`: whether it has everything."""
        self.state.try_fold()
        saved = bool(self.settings.gateway_url) and self._keeper.save(seconds)
        return {"saved": saved, "messages": self.state.history()[1]}

    def stop(self) -> None:
        """Interrupt the running turn, report to the manager, and write everything to disk, within `stop_grace`."""
        began, grace = time.monotonic(), self.settings.stop_grace
        self._stopping.set()
        self.turns.stop()
        self.services.stop(self.execs.stop_reason)
        self.execs.stop(EXEC_SHARE * grace)
        self._threads[0].join(STEP_SHARE * grace)
        self._worker.close()
        if self.settings.gateway_url and self.state.loaded:
            self._reports.stop(REPORT_SHARE * grace)
            self._keeper.save(CHECKPOINT_SHARE * grace)
        self.bus.close()
        if self.state.loaded:
            self.state.try_fold()
        self.services.join(grace - (time.monotonic() - began) - EXIT_SECONDS)
        log.info("Ended after %.1f s", time.monotonic() - began)
