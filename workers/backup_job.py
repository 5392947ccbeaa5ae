"""The program of backup Jobs: one backup or restore of the mounted volume, or one download.

    python -m workers.backup_job backup  --files F --url U --name N --max-bytes B --max-entries E [--partial]
                                          --identity JSON --at SECONDS
    python -m workers.backup_job restore --files F --url U --name N --max-bytes B --max-entries E
    python -m workers.backup_job serve   --url U --name N --secret-digest HEX --port P --patience SECONDS

`serve` serves one backup (workers/download_server.py); the others talk only to the store. The outcome is one JSON
object in the pod's termination message, which the worker that created the Job reads: `{"summary": {...}}` of a backup,
`{}` of the others, `{"error": CODE, "text": ...}` of a failure, with a code of `app.core.errors`. SIGTERM cancels a
backup or a restore, which leaves nothing of it.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.core import errors
from app.core.backups.index import read_identity
from app.core.backups.store import BackupStore
from app.core.errors import ArchiveError, BackupNotFound, PermanentError, RetryableError, SessionError
from app.private_text import private, without_private
from workers import archive, download_server
from workers.runtime.base import BackupSummary, Check

log = logging.getLogger(__name__)

MESSAGE = Path("/dev/termination-log")
"""The file from which Kubernetes reads a container's termination message."""

MESSAGE_LIMIT = 4096
"""Bytes of the message that Kubernetes keeps."""

FAILED = 1
"""The exit status when the outcome is an error."""

KINDS: Mapping[str, type[SessionError]] = {
    kind.code: kind
    for kind in (
        RetryableError,
        PermanentError,
        ArchiveError,
        errors.BackupIncomplete,
        errors.NoSpace,
        BackupNotFound,
    )
}
"""The errors of backups and restores, by their code in an outcome."""


def outcome_text(outcome: Mapping[str, Any]) -> str:
    """An outcome as JSON that fits into the message, with as many names of changed and unreadable files as fit."""
    shown = json.loads(json.dumps(outcome))
    while len(text := json.dumps(shown)) > MESSAGE_LIMIT:
        summary = shown.get("summary", {})
        if names := summary.get("changed") or summary.get("unreadable"):
            names.pop()
        elif len(shown.get("text", "")) > 1:
            shown["text"] = shown["text"][: len(shown["text"]) // 2]
        else:
            raise ValueError("The outcome cannot be shortened.")
    return text


def read_outcome(text: str, name: str) -> BackupSummary | None:
    """The summary in a Job's message, None when it was not a backup. Raises the error in the message; an invalid
    message, as of a killed Job, is a `RetryableError` that quotes it."""
    try:
        outcome = json.loads(text)
        if "error" not in outcome:
            summary = outcome.get("summary")
            return _read_summary(summary) if summary else None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        left = private(text.strip()) if text.strip() else "it left no message"
        raise RetryableError(f"The Job of {name} did not finish: {left}") from error
    kind = KINDS.get(outcome["error"], RetryableError)
    if kind is BackupNotFound:
        raise BackupNotFound(name)
    raise kind(outcome["text"])


def _read_summary(summary: Mapping[str, Any]) -> BackupSummary:
    listed = {name: tuple(summary.get(name, ())) for name in ("changed", "unreadable")}
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
    made = (BackupStore(arguments.url), arguments.name, identity, arguments.at, terms)
    if arguments.files.is_dir() or not never_used(arguments.files.parent):
        return archive.write_backup(arguments.files, *made)
    with tempfile.TemporaryDirectory() as empty:
        return archive.write_backup(Path(empty), *made)


def never_used(volume: Path) -> bool:
    """Whether nothing was ever written to the volume; a new ext4 has `lost+found`."""
    return volume.is_dir() and {each.name for each in volume.iterdir()} <= {"lost+found"}


def restore(arguments: argparse.Namespace, check: Check) -> None:
    """Restore the backup's files."""
    limits = (arguments.max_bytes, arguments.max_entries)
    archive.restore_backup(BackupStore(arguments.url), arguments.name, arguments.files, *limits, check)


def serve(arguments: argparse.Namespace) -> None:
    """Serve the backup, once."""
    files = BackupStore(arguments.url)
    download_server.serve(files, arguments.name, arguments.secret_digest, arguments.port, arguments.patience)


def parsed(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="workers.backup_job", allow_abbrev=False)
    actions = parser.add_subparsers(dest="action", required=True)
    for action in ("backup", "restore", "serve"):
        each = actions.add_parser(action, allow_abbrev=False)
        each.add_argument("--url", required=True)
        each.add_argument("--name", required=True)
        if action == "serve":
            each.add_argument("--secret-digest", required=True)
            each.add_argument("--port", type=int, required=True)
            each.add_argument("--patience", type=float, required=True)
            continue
        each.add_argument("--files", type=Path, required=True)
        # A worker of an earlier release passes no limits for a backup.
        each.add_argument("--max-bytes", type=int, default=sys.maxsize, required=action == "restore")
        each.add_argument("--max-entries", type=int, default=sys.maxsize, required=action == "restore")
        if action == "backup":
            each.add_argument("--partial", action="store_true")
            each.add_argument("--identity", required=True)
            each.add_argument("--at", type=float, required=True)
    return parser.parse_args(arguments)


def act(order: argparse.Namespace) -> dict[str, Any]:
    """Run the action; returns the outcome."""
    if order.action == "serve":
        serve(order)
        return {}
    with cancelled_by_sigterm() as check:
        if order.action == "backup":
            return {"summary": asdict(back_up(order, check))}
        restore(order, check)
        return {}


def main(arguments: list[str], message: Path = MESSAGE) -> int:
    """Run the action and write the outcome to `message`; returns the exit status, 0 for success."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    order = parsed(arguments)
    status = 0
    try:
        outcome = act(order)
    except SessionError as error:
        log.error("%s", without_private(str(error)))
        outcome, status = {"error": error.code, "text": str(error)}, FAILED
    message.write_text(outcome_text(outcome))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
