"""The Celery application of the workers and of beat."""

from __future__ import annotations

import logging
import time
from typing import Any

from celery import Celery, signals
from celery.app.control import Control
from celery.schedules import schedule
from kombu import Queue

from app.core.errors import StateUnavailable
from app.core.redis import task_queue
from app.core.redis.connections import connect
from app.core.redis.heartbeats import Heartbeats
from app.core.redis.processes import Reporter
from app.process import logs, threads
from app.process.redis_address import celery_broker
from app.process.settings import Settings, SettingsError
from workers import worker_metrics
from workers.celery import admission, broker, liveness, process_reports
from workers.heartbeat_file import Heartbeat


class NoControl(Control):
    """Celery's remote control, switched off: it sends no command to any worker.

    By it anybody who may publish to one channel of Redis could end workers, take back their tasks and have them take
    others'. So workers listen to none (`worker_enable_remote_control`), nobody may publish there
    (app/core/redis/users.py), and nothing is sent: Flower, which would ask each worker about itself, shows what the
    workers' events say."""

    def broadcast(self, *args: Any, **options: Any) -> list[dict[str, Any]]:
        """The answers of no workers. An empty list would mean to Flower that asking failed."""
        return [{}]


log = logging.getLogger(__name__)

BROKER_TIMEOUT = 30.0
"""s for a worker's Redis commands; longer than the broker's blocking reads."""

BEAT = "beat"

settings = Settings.from_env()
client = connect(settings.redis_url)
heartbeats = Heartbeats(client)

heartbeat = Heartbeat(settings.heartbeat_file)
broker.register(heartbeat.beat, admission.admit)
app = Celery(
    "workers",
    include=["workers.tasks"],
    task_cls="workers.celery.base_task:SafeTask",
    control="workers.celery.app:NoControl",
)
app.heartbeat = heartbeat
app.reporter = Reporter(client, BEAT)
process_reports.register(client)
worker_metrics.register(settings)
app.steps["worker"].add(liveness.HeartbeatStep)
app.conf.update(
    **celery_broker(settings.redis_url),
    task_queues=[Queue(name) for name in task_queue.QUEUES],
    task_routes={task: {"queue": name} for task, name in task_queue.ROUTES.items()},
    task_create_missing_queues=False,
    # No task goes there without a route. Flower counts the tasks of the default queue too, so it must be one of ours.
    task_default_queue=task_queue.QUEUES[0],
    task_default_exchange="celery",
    task_default_routing_key="celery",
    # Results in Redis halve the throughput, and the session's record holds the outcome.
    task_ignore_result=True,
    # A killed worker's task goes back to the queue; tasks are idempotent.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    # Flower needs these events.
    worker_send_task_events=True,
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options=task_queue.transport_options(task_queue.visibility_timeout(settings), BROKER_TIMEOUT),
    result_backend_transport_options={"visibility_timeout": task_queue.visibility_timeout(settings)},
    beat_scheduler=liveness.Scheduler,
    beat_schedule_filename=str(settings.data_dir / "beat-schedule"),
    beat_schedule={
        task: {
            "task": task,
            "schedule": schedule(seconds, nowfun=liveness.now),
            # A sweep that waited longer than its interval is replaced by the next one.
            "options": {"expires": max(seconds, 1.0)},
        }
        for task, interval in task_queue.SWEEPS.items()
        if (seconds := interval(settings)) is not None
    },
)


class NotSweeps(logging.Filter):
    """Drops Celery's log lines about each sweep: several a second, and a sweep that acts logs that itself."""

    def filter(self, record: logging.LogRecord) -> bool:
        fields = record.args if isinstance(record.args, dict) else getattr(record, "data", {})
        return record.levelno > logging.INFO or fields.get("name") not in task_queue.SWEEPS


@signals.setup_logging.connect
def _set_up_logging(**_: Any) -> None:
    logs.configure(settings.log_level)
    threads.end_process_when_one_dies()
    logging.getLogger("celery.beat").setLevel(logging.WARNING)
    for name in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).addFilter(NotSweeps())


@signals.worker_init.connect
def _check_archive_keys(sender: Any, **_: Any) -> None:
    """Refuse to start a worker that uses a store without the archive keys of what it holds."""
    # Beat and Flower import this module too, and use no store.
    from app.core.composition import check_keys

    queues = set(sender.app.amqp.queues.consume_from)
    if queues.isdisjoint(task_queue.USING_STORES):
        return
    try:
        check_keys(settings, backups=task_queue.BACKUP_QUEUE in queues)
    except SettingsError as error:
        # Celery only logs other exceptions of a signal's receiver.
        raise SystemExit(str(error)) from error


@signals.task_prerun.connect
def _note_request(task: Any = None, **_: Any) -> None:
    """Put the id of the request behind a task on every line that the task logs; a sweep has none."""
    logs.request_id.set(task.request.get("request_id") or "")


@signals.worker_ready.connect
@signals.heartbeat_sent.connect
def _report_alive(sender: Any = None, **_: Any) -> None:
    """Report to `/health` that this worker is alive; runs in the worker's main process."""
    name = sender.hostname if hasattr(sender, "hostname") else sender.eventer.hostname
    try:
        heartbeats.worker_alive(name, time.time())
    except StateUnavailable as error:
        log.warning("heartbeat not sent: %s", error)
