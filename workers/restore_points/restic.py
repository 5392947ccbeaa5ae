"""Runs restic on one repository.

restic gets the password in its environment, where only its own user can read it, and nothing else of ours. It is killed
when `check` raises, when it is late, and when the thread that started it dies. Its messages name files of the user and
of this machine, so errors say only what went wrong.

restic opens a user's files by their whole paths, in which a running workspace may put a link in a folder's place. So
where it reads these, it can read them, and what it needs of the machine, and nothing else, if the kernel has Landlock.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.core.errors import NoSpace, PermanentError, RetryableError
from app.core.storage.object_stores import s3_endpoint
from app.volume import landlock
from app.volume.environment import NOWHERE, to_stores
from workers.restore_points.repository import Repository
from workers.runtime.base import Check

log = logging.getLogger(__name__)

POLL = 0.1
"""s between two looks at a running restic."""

LIMIT = 3_600.0
"""s that one call may take: 5 GB take two minutes."""

GRACE = 5.0
"""s from SIGTERM, at which restic removes its lock, to SIGKILL."""

STORE_PATIENCE = 90.0
"""s for which restic may repeat a call of the store that fails; by itself it goes on for 15 minutes."""

NICE = 10
"""restic uses all cores that nobody else wants."""

INCOMPLETE = 3
"""The status of a backup that lacks unreadable files."""

PROGRESS = "1"
"""Times a second that restic says how far it is: what is too large is soon ended, and the output stays small."""

KEPT_OUTPUT = 4_000_000
"""Characters of an output that are kept: its end."""

OF_THE_MACHINE = (
    *("/bin", "/lib", "/lib64", "/usr", "/dev/null", "/dev/urandom"),
    # Of /etc, which may hold keys: names of hosts, users and time zones, and certificates.
    *("/etc/ld.so.cache", "/etc/localtime", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/mime.types"),
    *("/etc/resolv.conf", "/etc/hosts", "/etc/host.conf", "/etc/gai.conf", "/etc/services"),
    *("/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/var/lib/ca-certificates"),
)
"""What restic, its libraries and a store's client read besides files that they are told of. Nothing of /proc: it has
restic's own environment."""

NAMED = (
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "GOOGLE_APPLICATION_CREDENTIALS", "AWS_SHARED_CREDENTIALS_FILE"),
    *("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
)
"""Variables that tell it of files. A Job's credential is in none: it is itself in variables."""

FULL = re.compile(r"no space left on device|disk quota exceeded|file too large", re.IGNORECASE)
RETRYING = re.compile(r"returned error, retrying after")
MISSING = re.compile(r"no such file or directory|does not exist|NoSuchKey|object doesn't exist", re.IGNORECASE)
NO_ANSWER = re.compile(r'^Fatal: .*\b(Get|Head|Put|Post|Delete) "https?://', re.MULTILINE)
"""What Go says of a request to which no answer came: the host is away or unknown, or cannot be trusted."""
LOCKED = re.compile(r"repository is already locked|unable to create lock", re.IGNORECASE)

REASONS = re.compile(
    r"permission denied|read-only file system|input/output error|connection (refused|reset)|i/o timeout|no such host|"
    r"access ?denied|ciphertext verification failed|wrong password|already locked|no such file or directory",
    re.IGNORECASE,
)
"""What of restic's messages an error repeats."""


class Unanswered(RetryableError):
    """The store does not answer restic, which says nothing about what it holds."""

    def __init__(self) -> None:
        super().__init__("The store of restore points does not answer.")


class Failed(RetryableError):
    """restic ended with an error. `missing` says that a file of the repository does not exist, `locked` that somebody
    else holds a lock."""

    def __init__(self, verb: str, messages: str) -> None:
        self.missing = bool(MISSING.search(messages))
        self.locked = bool(LOCKED.search(messages))
        reasons = [match[0].lower() for match in REASONS.finditer(messages)]
        why = reasons[-1] if reasons else "for a reason it does not name"
        super().__init__(f"restic failed to {verb} ({why}).")


@dataclass(frozen=True)
class Done:
    """A call that succeeded; `complete` is false for a backup without some unreadable files."""

    output: str
    messages: str
    complete: bool = True

    def documents(self) -> Iterator[dict[str, Any]]:
        """The JSON objects of the output."""
        return _documents(self.output)


def _documents(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects of a text, one on a line."""
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            document = json.loads(line)
            if isinstance(document, dict):
                yield document


Told = Callable[[Mapping[str, Any]], None]
"""Gets what restic says while it runs, each JSON object of its output; it may raise to end it."""


@dataclass(frozen=True)
class Inside:
    """A user's files, which restic is to read: the folders `parts` of the folder `place`, where it runs. `temporary` is
    a folder of ours, for what it is told and for its temporary files."""

    place: Path
    parts: Sequence[str]
    temporary: Path


@dataclass(frozen=True)
class Restic:
    """restic for one repository. `program` is its path, `held` the descriptor of a lock that it inherits, so that an
    orphan of it keeps others out."""

    repository: Repository
    password: str
    check: Check
    program: str = "restic"
    held: int | None = None
    cache: Path | None = None

    def run(
        self, verb: str, *arguments: str, inside: Inside | None = None, told: Told | None = None, quiet: bool = False
    ) -> Done:
        """Run `restic VERB ARGUMENTS…`, `inside` a user's files if it reads these. With `quiet` its output is not kept.
        Raises `NoSpace`, `Failed`, `Unanswered`, `PermanentError` where restic is not installed, and what `check` and
        `told` raise."""
        command = ["setpriv", "--pdeathsig", "KILL", "nice", "-n", str(NICE)]
        program = shutil.which(self.program) or self.program
        command += [*(self._reading_only(inside, program) if inside else []), program]
        command += ["--repo", location(self.repository), "-o", "local.layout=default"]
        command += ["--cache-dir", str(self.cache)] if self.cache else ["--no-cache"]
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as messages:
            try:
                process = subprocess.Popen(
                    [*command, verb, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL if quiet else output,
                    stderr=messages,
                    cwd=inside.place if inside else None,
                    env=_environment(self.password, inside),
                    pass_fds=[self.held] if self.held is not None else [],
                    start_new_session=True,
                )
            except OSError as error:
                raise PermanentError(f"setpriv and nice cannot be run: {error.strerror}.") from error
            try:
                status = self._wait(process, verb, messages.fileno(), output.fileno(), told)
            finally:
                _end(process)
            texts = _tail(output.fileno()), _tail(messages.fileno())
        if status in (0, INCOMPLETE):
            return Done(*texts, complete=status == 0)
        raise self._error(verb, status, texts[1])

    def _reading_only(self, inside: Inside, program: str) -> list[str]:
        """The command that runs the program so that it can read nothing else; none where the kernel can't do that."""
        if landlock.version() < landlock.OLDEST:
            _warn_of_readable_machine()
            return []
        named = [each for name in NAMED for each in os.environ.get(name, "").split(os.pathsep)]
        ours = [*OF_THE_MACHINE, *named, program, self.cache]
        ours += [self.repository.folder] if self.repository.store.is_local else []
        # A link in a user's files is not followed, and one of the machine's is.
        paths = [*(os.path.realpath(each) for each in ours if each), str(inside.temporary)]
        paths += [str(inside.place.absolute() / part) for part in inside.parts]
        return [sys.executable, "-I", "-S", landlock.__file__, *paths, "--"]

    def _wait(self, process: subprocess.Popen[bytes], verb: str, messages: int, output: int, told: Told | None) -> int:
        begun, seen, heard, first = time.monotonic(), 0, 0, 0.0
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(POLL)
            self.check()
            if told:
                new, heard = _lines(output, heard)
                for document in _documents(new):
                    told(document)
            now = time.monotonic()
            if now - begun > LIMIT:
                raise RetryableError(f"restic did not {verb} within {LIMIT:.0f} s.")
            if (size := os.fstat(messages).st_size) > seen:
                new, seen = os.pread(messages, size - seen, seen).decode(errors="replace"), size
                if not first and RETRYING.search(new):
                    first = now
                if RETRYING.search(new) and MISSING.search(new):
                    # It would look for the file again and again, for 43 s.
                    raise Failed(verb, new)
            if first and now - first > STORE_PATIENCE:
                raise Unanswered

    def _error(self, verb: str, status: int, messages: str) -> Exception:
        if status in (126, 127):
            return PermanentError("restic cannot be run: install it (Debian: restic), or set RESTIC to its path.")
        if FULL.search(messages):
            return NoSpace("The disk is full: the restore point could not be made or restored. Nothing was replaced.")
        if NO_ANSWER.search(messages):
            # Google's client repeats no request that finds nobody, not for a moment.
            return Unanswered()
        return Failed(verb, messages)


def location(repository: Repository) -> str:
    """A repository's place in restic's words. Raises `PermanentError` for a store that restic does not know."""
    protocol, path = repository.store.protocol, repository.folder
    if protocol in ("file", "local"):
        return path
    bucket, _, rest = path.partition("/")
    if protocol in ("gs", "gcs"):
        return f"gs:{bucket}:/{rest}"
    if protocol in ("s3", "s3a"):
        endpoint = s3_endpoint() or "https://s3.amazonaws.com"
        return f"s3:{endpoint.rstrip('/')}/{bucket}/{rest}"
    raise PermanentError(f"Restore points can't be stored at a {protocol}:// URL; use file, s3 or gs.")


@functools.cache
def _warn_of_readable_machine() -> None:
    """Warn once in a process."""
    log.warning(
        "A workspace that runs can have restic read files of this process: the kernel or the container runtime has no "
        "Landlock"
    )


def _environment(password: str, inside: Inside | None) -> Mapping[str, str]:
    own = {"RESTIC_PASSWORD": password, "RESTIC_PROGRESS_FPS": PROGRESS, "HOME": NOWHERE, "GOGC": "50"}
    if inside:
        own["TMPDIR"] = str(inside.temporary)
    return to_stores(os.environ) | own


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it, with all that it started, if it runs."""
    for number, patience in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
        if process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)


def _lines(descriptor: int, begin: int) -> tuple[str, int]:
    """The whole lines of a file from there on, and where they end."""
    new = os.pread(descriptor, os.fstat(descriptor).st_size - begin, begin)
    end = new.rfind(b"\n") + 1
    return new[:end].decode(errors="replace"), begin + end


def _tail(descriptor: int) -> str:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, KEPT_OUTPUT, max(0, size - KEPT_OUTPUT)).decode(errors="replace")
