"""The program of backup Jobs: one backup or restore of the mounted volume, or one download.

    archive-job backup  --files F --url U --name N --max-bytes B --max-entries E --identity J --at SECONDS [--partial]
    archive-job restore --files F --url U --name N --max-bytes B --max-entries E --user-id USER [--newer-than SECONDS]
    archive-job point   --files F --url U --name N --order JSON
    archive-job drill   --scratch F --url U --name N --order JSON
    archive-job serve   --url U --name N --secret-digest HEX --port P --patience SECONDS

workers/job/entry.py starts it. Each takes `--keys-file FILE`, the archive's keys of the session whose backup or
restore point that is, and `--credential-file FILE`, a short-lived credential for its part of the store, without which
it uses no remote one. `point` makes a restore point of the volume around F; `drill` proves one in the folder F;
`restore` restores one too, by its reference. `serve` serves one backup (workers/job/download_server.py); the others
talk only to the store.

The outcome is one JSON object in the pod's termination message (`--message FILE`), which the worker that created the
Job reads: `{"summary": {...}}` of a backup, `{"point": {...}}` of a restore point, `{"proof": {...}}` of a drill,
`{"restored": {...}}` of a restored one, `{}` of the others, `{"error": CODE, "text": ...}` of a failure, with a code of
`app.core.errors`. SIGTERM cancels all but a download, which leaves nothing of the work.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.core import errors
from app.core.backups.index import read_identity
from app.core.backups.store import BackupStore
from app.core.errors import ArchiveError, BackupNotFound, PermanentError, RetryableError, SessionError
from app.core.restore_points import names
from app.core.storage.archive_keys import NO_KEYS, SessionKeys, UnknownKey
from app.core.storage.credential import Credential
from app.core.storage.object_stores import is_remote
from app.process.private_text import private, without_private
from workers import archive, restore_points
from workers.job import download_server
from workers.runtime.base import BackupSummary, Check, PointOrder, PointSummary, Proof, ProofOrder, RestoredPoint

log = logging.getLogger(__name__)

MESSAGE = Path("/dev/termination-log")
"""The file from which Kubernetes reads a container's termination message."""

MESSAGE_LIMIT = 4096
"""Bytes of the message that Kubernetes keeps."""

FAILED = 1
"""The exit status when the outcome is an error."""

KINDS: Mapping[str, type[SessionError]] = {
    UnknownKey.code: ArchiveError,
    **{
        kind.code: kind
        for kind in (
            RetryableError,
            PermanentError,
            ArchiveError,
            errors.BackupIncomplete,
            errors.NoSpace,
            errors.PointsBroken,
            BackupNotFound,
        )
    },
}
"""The errors of backups and restores, by their code in an outcome."""


def outcome_text(outcome: Mapping[str, Any]) -> str:
    """An outcome as JSON that fits into the message, with as many names of changed and unreadable files as fit."""
    shown = json.loads(json.dumps(outcome))
    while len(text := json.dumps(shown)) > MESSAGE_LIMIT:
        summary = shown.get("summary", {})
        if listed := shown.get("proof", {}).get("differences") or summary.get("changed") or summary.get("unreadable"):
            listed.pop()
        elif len(shown.get("text", "")) > 1:
            shown["text"] = shown["text"][: len(shown["text"]) // 2]
        else:
            raise ValueError("The outcome cannot be shortened.")
    return text


Result = BackupSummary | PointSummary | Proof | RestoredPoint | None
"""Of a Job."""


def read_outcome(text: str, name: str) -> Result:
    """The result in a Job's message, None when it has none. Raises the error in the message; an invalid message, as of
    a killed Job, is a `RetryableError` that quotes it."""
    try:
        outcome = json.loads(text)
        if "error" not in outcome:
            return _read_result(outcome)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        left = private(text.strip()) if text.strip() else "it left no message"
        raise RetryableError(f"The Job of {name} did not finish: {left}") from error
    kind = KINDS.get(outcome["error"], RetryableError)
    if kind is BackupNotFound:
        raise BackupNotFound(name)
    raise kind(outcome["text"])


def _read_result(outcome: Mapping[str, Any]) -> Result:
    if point := outcome.get("point"):
        return PointSummary(**{**point, **{name: tuple(point[name]) for name in ("forgotten", "broken")}})
    if proof := outcome.get("proof"):
        return Proof(**{**proof, "differences": tuple(proof["differences"])})
    if restored := outcome.get("restored"):
        return RestoredPoint(**restored)
    if not (summary := outcome.get("summary")):
        return None
    listed = {name: tuple(summary[name]) for name in ("changed", "unreadable")}
    return BackupSummary(**{**summary, **listed})


@contextmanager
def cancelled_by_sigterm() -> Iterator[Check]:
    """Handle SIGTERM, also one sent while this program was loading (see scripts/images/archive-job). Yields a `Check`
    that raises after it."""
    received: list[int] = []

    def check() -> None:
        if received:
            raise RetryableError("The Job was cancelled before it was done.")

    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    try:
        yield check
    finally:
        signal.signal(signal.SIGTERM, before)


def back_up(arguments: argparse.Namespace, check: Check) -> BackupSummary:
    """Write the backup. The volume of a workspace that never started is empty, and so is its backup. A volume with
    other content but without the folder of files has lost that folder, which is an error."""
    identity = read_identity(json.loads(arguments.identity))
    terms = archive.Terms(arguments.max_bytes, arguments.max_entries, arguments.partial, check)
    made = (_store(arguments), arguments.name, identity, arguments.at, terms)
    if arguments.files.is_dir() or not never_used(arguments.files.parent):
        return archive.write_backup(arguments.files, *made)
    with tempfile.TemporaryDirectory() as empty:
        (project := Path(empty, "app")).mkdir()
        return archive.write_backup(project, *made)


def _store(arguments: argparse.Namespace) -> BackupStore:
    """The backup store, with the keys of the session that this Job works for."""
    return BackupStore(arguments.url, _keys(arguments) if arguments.keys_file else NO_KEYS)


def _keys(arguments: argparse.Namespace) -> SessionKeys:
    return SessionKeys.from_text(arguments.keys_file.read_text())


def never_used(volume: Path) -> bool:
    """Whether nothing was ever written to the volume; a new ext4 has `lost+found`."""
    return volume.is_dir() and {each.name for each in volume.iterdir()} <= {"lost+found"}


def make_point(arguments: argparse.Namespace, check: Check) -> PointSummary:
    """Make the restore point. That of a workspace that never started is empty, as its volume."""
    told = json.loads(arguments.order)
    lists = {name: tuple(told[name]) for name in ("keep", "broken", "needed")}
    order = PointOrder(**{**told, **lists}).begun(time.time())
    made = (arguments.url, _keys(arguments), order, check)
    if not never_used(arguments.files.parent):
        return restore_points.make_point(arguments.files.parent, *made)
    with tempfile.TemporaryDirectory() as empty:
        Path(empty, "app").mkdir()
        return restore_points.make_point(Path(empty), *made)


def prove_point(arguments: argparse.Namespace, check: Check) -> Proof:
    """Prove the restore point."""
    order = ProofOrder(**json.loads(arguments.order))
    return restore_points.prove_point(arguments.scratch, arguments.url, _keys(arguments), order, check)


def restore(arguments: argparse.Namespace, check: Check) -> RestoredPoint | None:
    """Restore the files of the backup or the restore point."""
    limits = (arguments.max_bytes, arguments.max_entries)
    if point := names.parse(arguments.name):
        volume, url, keys = arguments.files.parent, arguments.url, _keys(arguments)
        return restore_points.restore_point(
            volume,
            url,
            keys,
            point[1],
            limits,
            check,
            user_id=arguments.user_id,
            newer_than=arguments.newer_than,
            going_back=arguments.going_back,
        )
    store, name = _store(arguments), arguments.name
    archive.restore_backup(store, name, arguments.files, *limits, check, user_id=arguments.user_id)
    return None


def serve(arguments: argparse.Namespace) -> None:
    """Serve the backup, once."""
    files = _store(arguments)
    download_server.serve(files, arguments.name, arguments.secret_digest, arguments.port, arguments.patience)


def parsed(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="archive-job", allow_abbrev=False)
    actions = parser.add_subparsers(dest="action", required=True)
    for action in ("backup", "restore", "point", "drill", "serve"):
        each = actions.add_parser(action, allow_abbrev=False)
        each.add_argument("--url", required=True)
        each.add_argument("--name", required=True)
        each.add_argument("--keys-file", type=Path)
        each.add_argument("--credential-file", type=Path)
        each.add_argument("--message", type=Path, default=MESSAGE)
        if action == "serve":
            each.add_argument("--secret-digest", required=True)
            each.add_argument("--port", type=int, required=True)
            each.add_argument("--patience", type=float, required=True)
            continue
        if action == "drill":
            each.add_argument("--scratch", type=Path, required=True)
            each.add_argument("--order", required=True)
            continue
        each.add_argument("--files", type=Path, required=True)
        if action == "point":
            each.add_argument("--order", required=True)
            continue
        each.add_argument("--max-bytes", type=int, required=True)
        each.add_argument("--max-entries", type=int, required=True)
        if action == "restore":
            each.add_argument("--user-id", required=True)
            each.add_argument("--newer-than", type=float, default=0.0)
            each.add_argument("--going-back", action="store_true")
        if action == "backup":
            each.add_argument("--partial", action="store_true")
            each.add_argument("--identity", required=True)
            each.add_argument("--at", type=float, required=True)
    return parser.parse_args(arguments)


@contextmanager
def given_credential(order: argparse.Namespace) -> Iterator[None]:
    """Let the store's clients within the block use the given credential, if any. A failure after its expiry is a
    `RetryableError` that says so: the next Job has a new one. A remote store needs one: its clients would look for
    another, and a Job has none. That is a `PermanentError`."""
    if not order.credential_file:
        if is_remote(order.url):
            raise PermanentError("The Job was given no credential for the backup store: set BACKUP_ROLE.")
        yield
        return
    credential = Credential.from_text(order.credential_file.read_text())
    credential.use()
    try:
        yield
    except (RetryableError, ArchiveError) as error:
        if isinstance(error, errors.NoSpace) or time.time() < credential.expires_at:
            raise
        raise RetryableError(
            "The Job took longer than its credential for the backup store is good for. It is tried again with a new "
            f"one; if that happens each time, raise BACKUP_ROLE_LIMIT. What it met: {error}"
        ) from error


def act(order: argparse.Namespace) -> dict[str, Any]:
    """Run the action; returns the outcome."""
    if order.action == "serve":
        serve(order)
        return {}
    with cancelled_by_sigterm() as check:
        if order.action == "backup":
            return {"summary": asdict(back_up(order, check))}
        if order.action == "point":
            return {"point": asdict(make_point(order, check))}
        if order.action == "drill":
            return {"proof": asdict(prove_point(order, check))}
        restored = restore(order, check)
        return {"restored": asdict(restored)} if restored else {}


def main(arguments: list[str]) -> int:
    """Run the action and write the outcome; returns the exit status, 0 for success."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    order = parsed(arguments)
    status = 0
    try:
        with given_credential(order):
            outcome = act(order)
    except SessionError as error:
        log.error("%s", without_private(str(error)))
        outcome, status = {"error": error.code, "text": str(error)}, FAILED
    order.message.write_text(outcome_text(outcome))
    return status
