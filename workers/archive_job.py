"""What runs in an archive Job: one backup or restore of the volume that is mounted here, or one download.

    python -m workers.archive_job backup  --files F --url U --name N --max-bytes B --max-entries E [--partial]
                                          --identity JSON --at SECONDS
    python -m workers.archive_job restore --files F --url U --name N --max-bytes B --max-entries E
    python -m workers.archive_job serve   --url U --name N --secret-digest HEX --port P --patience SECONDS

The third hands out one backup (workers/backup_reader.py); the others talk to nobody but the store. The
outcome is one JSON object in the pod's termination message, where the worker that made the Job reads it:
`{"summary": {...}}` of a backup, `{}` of the others, `{"error": CODE, "text": ...}` of a failure, whose codes
are those of `app.sessions.errors`. SIGTERM breaks a backup or a restore off, which leaves nothing of it.
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

from app.sessions import errors
from app.sessions.backup_files import BackupFiles
from app.sessions.backups import read_identity
from app.sessions.errors import ArchiveError, BackupNotFound, PermanentError, RetryableError, SessionError
from workers import archive, backup_reader
from workers.runtime.base import BackupSummary, Check

log = logging.getLogger(__name__)

MESSAGE = Path("/dev/termination-log")
"""Where Kubernetes takes a container's last words from."""

MESSAGE_LIMIT = 4096
"""Bytes of it that are kept."""

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
"""The errors an archive raises, by the code they travel under."""


def outcome_text(outcome: Mapping[str, Any]) -> str:
    """An outcome as JSON that fits the message: of the names of changed and unreadable files as many as there is room
    for."""
    shown = json.loads(json.dumps(outcome))
    while len(text := json.dumps(shown)) > MESSAGE_LIMIT:
        summary = shown.get("summary", {})
        if names := summary.get("changed") or summary.get("unreadable"):
            names.pop()
        elif len(shown.get("text", "")) > 1:
            shown["text"] = shown["text"][: len(shown["text"]) // 2]
        else:
            raise ValueError("an outcome that can't be shortened")
    return text


def read_outcome(text: str, name: str) -> BackupSummary | None:
    """The summary in a Job's message, None when it was no backup; raises the error that is in it. A message that is
    none, as of a Job that was killed, is a `RetryableError` that shows it."""
    try:
        outcome = json.loads(text)
        if "error" not in outcome:
            summary = outcome.get("summary")
            return _read_summary(summary) if summary else None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RetryableError(f"The archive Job of {name} came to no end: {text.strip() or 'no word of it'}") from error
    kind = KINDS.get(outcome["error"], RetryableError)
    if kind is BackupNotFound:
        raise BackupNotFound(name)
    raise kind(outcome["text"])


def _read_summary(summary: Mapping[str, Any]) -> BackupSummary:
    listed = {name: tuple(summary.get(name, ())) for name in ("changed", "unreadable")}
    return BackupSummary(**{**summary, **listed})


@contextmanager
def told_to_end() -> Iterator[Check]:
    """Take SIGTERM, also one that was sent while this program was loaded (see scripts/images/archive-job), and give
    what raises after it."""
    told: list[int] = []

    def check() -> None:
        if told:
            raise RetryableError("The archive Job was told to end before it was done.")

    before = signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    try:
        yield check
    finally:
        signal.signal(signal.SIGTERM, before)


def back_up(arguments: argparse.Namespace, check: Check) -> BackupSummary:
    """Write the backup. A workspace that never started has nothing on its volume: its backup is empty. A volume
    that holds anything but the folder of files has lost it: that is an error, and no reason to delete the rest."""
    identity = read_identity(json.loads(arguments.identity))
    terms = archive.Terms(arguments.max_bytes, arguments.max_entries, arguments.partial, check)
    made = (BackupFiles(arguments.url), arguments.name, identity, arguments.at, terms)
    if arguments.files.is_dir() or not never_used(arguments.files.parent):
        return archive.write_backup(arguments.files, *made)
    with tempfile.TemporaryDirectory() as empty:
        return archive.write_backup(Path(empty), *made)


def never_used(volume: Path) -> bool:
    """Whether nothing was ever put there; a new ext4 has `lost+found`."""
    return volume.is_dir() and {each.name for each in volume.iterdir()} <= {"lost+found"}


def restore(arguments: argparse.Namespace, check: Check) -> None:
    """Put the backup's files into place."""
    limits = (arguments.max_bytes, arguments.max_entries)
    archive.restore_backup(BackupFiles(arguments.url), arguments.name, arguments.files, *limits, check)


def serve(arguments: argparse.Namespace) -> None:
    """Hand the backup out, once."""
    files = BackupFiles(arguments.url)
    backup_reader.serve(files, arguments.name, arguments.secret_digest, arguments.port, arguments.patience)


def parsed(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="workers.archive_job", allow_abbrev=False)
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
        # A worker of an earlier release gives a backup no limits.
        each.add_argument("--max-bytes", type=int, default=sys.maxsize, required=action == "restore")
        each.add_argument("--max-entries", type=int, default=sys.maxsize, required=action == "restore")
        if action == "backup":
            each.add_argument("--partial", action="store_true")
            each.add_argument("--identity", required=True)
            each.add_argument("--at", type=float, required=True)
    return parser.parse_args(arguments)


def act(order: argparse.Namespace) -> dict[str, Any]:
    """Do it; the outcome."""
    if order.action == "serve":
        serve(order)
        return {}
    with told_to_end() as check:
        if order.action == "backup":
            return {"summary": asdict(back_up(order, check))}
        restore(order, check)
        return {}


def main(arguments: list[str], message: Path = MESSAGE) -> int:
    """Do it, and leave the outcome in `message`; the exit status is 0 when it was done."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    order = parsed(arguments)
    status = 0
    try:
        outcome = act(order)
    except SessionError as error:
        log.error("%s", error)
        outcome, status = {"error": error.code, "text": str(error)}, FAILED
    message.write_text(outcome_text(outcome))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
