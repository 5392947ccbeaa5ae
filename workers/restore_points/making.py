"""Makes restore points."""

from __future__ import annotations

import logging
import math
import os
import stat
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from app.core.errors import ArchiveError, FilesGone, RetryableError
from app.core.storage.archive_keys import SessionKeys
from app.core.storage.file_store import FileStore
from app.volume.excluded import PARTS, patterns
from app.volume.fingerprint import fingerprint
from workers.restore_points import retention
from workers.restore_points.alone import alone
from workers.restore_points.manifest import Manifest, Manifests, Stamp, manifest_of, stamp
from workers.restore_points.repository import Damaged, Head, Repository, repositories
from workers.restore_points.restic import Done, Failed, Inside, Unanswered
from workers.restore_points.sidecar import Sidecar, Sidecars
from workers.restore_points.tools import Tools, caching, mended, refuse_larger
from workers.runtime.base import Check, PointOrder, PointSummary

log = logging.getLogger(__name__)

LOCK_LEASE = 900.0
"""s after which a lock in a remote store is a dead process's: restic renews its locks every 300 s."""

STANDSTILL = 300.0
"""s in which restic reads nothing, after which it is ended: it waits for ever for a pipe that took a file's place."""

HOST = "workspace"
"""restic notes a host with each snapshot: the same for all machines and pods that a session was on."""


def make_point(
    place: Path, url: str, keys: SessionKeys, order: PointOrder, check: Check, restic: str = "restic"
) -> PointSummary:
    """Make a restore point of the volume `place`, unless nothing changed; see `Runtime.make_point`."""
    with _opened(place, order.uuid) as volume:
        return _make_point(place, volume, url, keys, order, check, restic)


def _make_point(
    place: Path, volume: int, url: str, keys: SessionKeys, order: PointOrder, check: Check, restic: str
) -> PointSummary:
    phases = Phases()
    check()
    seen: dict[bytes, Stamp] = {}
    with phases("walk"):
        found = fingerprint(place, check, lambda path, info: seen.update({path: stamp(info)}))
    if found and found == order.fingerprint and order.parent and not order.full:
        return _unchanged(order, found, phases)
    # Before restic, which reads all holes of a file of which nothing is on the disk.
    files = [size for mode, size, *_ in seen.values() if stat.S_ISREG(mode)]
    refuse_larger(len(files), sum(files), (order.max_bytes, order.max_entries))
    store = FileStore(url)
    with alone(store, order.uuid, check) as held, caching(store) as cache:
        tools = Tools(keys, check, restic, held, cache)
        # A walk that was not finished makes no manifest.
        maker = Maker(place, volume, Sidecars(store, keys), order, found, seen if found else {}, phases, tools)
        return maker.make()


@dataclass
class Phases:
    """How long each phase took, in ms."""

    ms: dict[str, int] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        """Since the first began."""
        return time.monotonic() - self.begun

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            self.ms[name] = self.ms.get(name, 0) + round(1000 * (time.monotonic() - begun))


class Reading:
    """Hears each second how far restic is with a user's files, and ends it when it stands still, and when it has read,
    or will read, more than a restore takes: a walk sees neither what grows after it nor, when it is given up, all."""

    def __init__(self, order: PointOrder) -> None:
        self._limits = (order.max_bytes, order.max_entries)
        self._done = (0, 0)
        self._moved = time.monotonic()

    def __call__(self, status: Mapping[str, Any]) -> None:
        done = files, size = status.get("files_done", 0), status.get("bytes_done", 0)
        refuse_larger(max(status.get("total_files", 0), files), max(status.get("total_bytes", 0), size), self._limits)
        now = time.monotonic()
        if done != self._done:
            self._done, self._moved = done, now
        elif now - self._moved > STANDSTILL:
            raise RetryableError(f"restic has read nothing for {STANDSTILL:.0f} s.")


@dataclass(frozen=True)
class Maker:
    """Makes one point. `volume` is the descriptor of the folder that was at `place` when it began."""

    place: Path
    volume: int
    sidecars: Sidecars
    order: PointOrder
    fingerprint: str
    seen: Mapping[bytes, Stamp]
    phases: Phases
    tools: Tools

    def make(self) -> PointSummary:
        """Make the point, then forget those that are too many; a full look also reads all data and prunes."""
        points = self.sidecars.read()
        known = points.get(self.order.id)
        if known is not None and not self.order.full:
            # Made by a worker that died before it could say so.
            return self._summary(known)
        # One whose sidecar is lost is none any more.
        lost = set(self.order.broken) - points.keys()
        broken = set(self.order.broken) - lost | {each for each, sidecar in points.items() if sidecar is None}
        others = [sidecar for sidecar in points.values() if sidecar and sidecar.id != self.order.id]
        with self.phases("open"):
            repository, head = self._repository(others, broken)
        try:
            made = self._saved(repository, head, others)
        except Failed:
            repository.check_store()
            if not others:
                raise
            # The repository is damaged.
            broken |= self._broken(repository, others)
            repository, head = self._fresh()
            made = self._saved(repository, head, others)
        if self.order.full:
            found, sound = self._checked([*others, made], broken)
            broken |= found
            if repository.number not in sound:
                repository, head = self._fresh()
                made = self._saved(repository, head, others)
                if not self.tools.whole(repository, partial(self._check, repository)):
                    raise RetryableError("A fresh repository of restore points is damaged at once.")
                broken.discard(made.id)
        self.tools.check()
        made = replace(made, listed=bool(self.seen))
        self._write_manifest(made.id)
        self.sidecars.write(made)
        with self.phases("retention"):
            Manifests(self.sidecars).keep_only(made.id)
            forgotten = self._retain([*others, made], broken, points) | lost
        if self.order.full:
            self._prune(repository, [*others, made], forgotten)
        return self._summary(made, forgotten, broken - set(forgotten))

    def _summary(self, made: Sidecar, forgotten: Collection[str] = (), broken: Collection[str] = ()) -> PointSummary:
        return PointSummary(
            id=made.id,
            created_at=made.created_at,
            read_until=made.read_until,
            files=made.files,
            size=made.size,
            stored=made.stored,
            kept=self.sidecars.kept(),
            fingerprint=made.fingerprint,
            repository=made.repository,
            unreadable=made.unreadable,
            forgotten=tuple(sorted(forgotten)),
            broken=tuple(sorted(broken)),
            checked=self.order.full,
            ms=self.phases.ms,
        )

    # Repositories

    def _repository(self, others: list[Sidecar], broken: Collection[str]) -> tuple[Repository, Head]:
        """The current one, or a fresh one if that has broken points or cannot be mended."""
        every = repositories(self.sidecars.store, self.order.uuid)
        if not every or self.order.fresh:
            return self._fresh()
        current = every[-1]
        if any(each.repository == current.number for each in others if each.id in broken):
            return self._fresh()
        try:
            head = mended(current, others, self.tools.keys)
        except Damaged:
            return self._fresh()
        # Those of killed calls. Who restores a point in another session may hold a lock in a remote store, and renews
        # it; in a local one nobody does.
        current.unlock(math.inf if self.tools.held is not None else time.time() - LOCK_LEASE)
        return current, head

    def _fresh(self) -> tuple[Repository, Head]:
        every = repositories(self.sidecars.store, self.order.uuid)
        number = every[-1].number + 1 if every else 1
        repository, head = Repository(self.sidecars.store, self.order.uuid, number), Head.new()
        repository.make(head, self.tools.keys)
        return repository, head

    # The point

    def _saved(self, repository: Repository, head: Head, others: list[Sidecar]) -> Sidecar:
        """Back up the files. Not listed yet: the sidecar is not written."""
        parts = self._parts()
        if not parts:
            raise FilesGone(self.order.uuid)
        before = repository.size()
        arguments = ["--json", "--quiet", "--host", HOST, "--tag", self.order.id, "--exclude-caches"]
        parent = next((each.snapshot for each in others if each.repository == repository.number), "")
        if self.order.full:
            arguments.append("--force")
        elif parent:
            arguments += ["--parent", parent]
        with self.phases("backup"), tempfile.TemporaryDirectory(prefix="restic-") as temporary:
            excludes = Path(temporary, "excludes")
            excludes.write_bytes(_exclude_file(self.place))
            arguments += ["--exclude-file", str(excludes)]
            done = self._run(repository, [*arguments, *parts], Inside(self.place, parts, Path(temporary)))
        read_until = round(self.order.at + self.phases.seconds(), 3)
        if not _is(self.place, self.volume):
            # Removed meanwhile, so files may be missing. Another in its place is empty until they are restored.
            raise FilesGone(self.order.uuid)
        told = next((each for each in done.documents() if each.get("message_type") == "summary"), None)
        if told is None:
            raise RetryableError("restic did not say what it stored.")
        snapshot = next((each for each in repository.snapshots() if each.startswith(told["snapshot_id"])), "")
        files, size = int(told["total_files_processed"]), int(told["total_bytes_processed"])
        try:
            refuse_larger(files, size, (self.order.max_bytes, self.order.max_entries))
        except ArchiveError:
            repository.forget(snapshot)
            raise
        return Sidecar(
            id=self.order.id,
            uuid=self.order.uuid,
            created_at=self.order.at,
            read_until=read_until,
            trigger=self.order.trigger,
            message_id=self.order.message_id,
            files=files,
            size=size,
            stored=max(0, repository.size() - before),
            fingerprint=self.fingerprint,
            repository=repository.number,
            snapshot=snapshot,
            identity=self.order.identity,
            # The messages of very many are cut off.
            unreadable=0 if done.complete else max(1, done.messages.count('"message_type":"error"')),
            head=head,
        )

    def _run(self, repository: Repository, arguments: list[str], inside: Inside) -> Done:
        """Run `restic backup`. Only a prune locks it out, and that was another call of the session's only maker, which
        has ended."""
        restic = self.tools.restic(repository)
        try:
            return restic.run("backup", *arguments, inside=inside, told=Reading(self.order))
        except Failed as error:
            if not error.locked:
                raise
        repository.unlock()
        return restic.run("backup", *arguments, inside=inside, told=Reading(self.order))

    def _write_manifest(self, point_id: str) -> None:
        """Write what the point must give back, for the drill. A full look trusts no digest of before."""
        if not self.seen:
            return
        manifests = Manifests(self.sidecars)
        known: Manifest = {}
        with self.phases("manifest"):
            if self.order.parent and not self.order.full:
                with suppress(ArchiveError):
                    known = manifests.read(self.order.parent) or {}
            parts = tuple(f"{part}/".encode() for part in self._parts())
            seen = {path: each for path, each in self.seen.items() if path.startswith(parts)}
            manifests.write(point_id, manifest_of(self.place, seen, known, self.tools.check))

    def _parts(self) -> list[str]:
        return [part for part in PARTS if (self.place / part).is_dir() and not (self.place / part).is_symlink()]

    # Which stay

    def _retain(
        self, whole_or_not: list[Sidecar], broken: Collection[str], listed: Mapping[str, Sidecar | None]
    ) -> set[str]:
        """Remove the points that are too many; a broken one once as many newer ones are whole as are always kept."""
        whole = {each.id: each.created_at for each in whole_or_not if each.id not in broken}
        stay = retention.kept(whole, self.order.keep) | set(self.order.needed)
        enough = sorted(whole.values(), reverse=True)[: self.order.keep[0]]
        if len(enough) < self.order.keep[0]:
            stay |= set(broken)
        else:
            stay |= {each.id for each in whole_or_not if each.id in broken and each.created_at > enough[-1]}
        gone = [each for each in whole_or_not if each.id not in stay]
        nameless = [each for each, sidecar in listed.items() if sidecar is None and each not in stay]
        for point_id in [*(each.id for each in gone), *nameless]:
            self.sidecars.remove(point_id)
        store = self.sidecars.store
        for each in gone:
            Repository(store, each.uuid, each.repository).forget(each.snapshot)
        used = {each.repository for each in whole_or_not if each.id in stay}
        # A point whose sidecar is damaged may be in any of them.
        unknown = any(sidecar is None and each in stay for each, sidecar in listed.items())
        for repository in [] if unknown else repositories(store, self.order.uuid)[:-1]:
            if repository.number not in used:
                repository.delete()
        return {each.id for each in gone} | set(nameless)

    # A full look

    def _check(self, repository: Repository) -> Done:
        return self.tools.restic(repository).run("check", "--no-lock", "--read-data")

    def _checked(self, points: list[Sidecar], broken: Collection[str]) -> tuple[set[str], set[int]]:
        """Read all data back: the broken points, and the numbers of the repositories that are sound."""
        found: set[str] = set()
        sound: set[int] = set()
        with self.phases("check"):
            for repository in repositories(self.sidecars.store, self.order.uuid):
                inside = [each for each in points if each.repository == repository.number and each.id not in broken]
                if not inside:
                    continue
                if self.tools.whole(repository, partial(self._check, repository)):
                    sound.add(repository.number)
                else:
                    found |= self._broken(repository, inside)
        return found, sound

    def _broken(self, repository: Repository, points: list[Sidecar]) -> set[str]:
        """Which points of a damaged repository cannot be restored: all content of each is read."""
        restic = self.tools.restic(repository)
        try:
            mended(repository, points, self.tools.keys)
        except Damaged:
            return {each.id for each in points if each.repository == repository.number}
        self.tools.whole(repository, lambda: restic.run("rebuild-index"))

        def read(sidecar: Sidecar) -> Done:
            # dump alone passes over a folder that it cannot read.
            restic.run("ls", "--no-lock", sidecar.snapshot, quiet=True)
            return restic.run("dump", "--no-lock", sidecar.snapshot, "/", quiet=True)

        inside = [each for each in points if each.repository == repository.number]
        return {each.id for each in inside if not self.tools.whole(repository, partial(read, each))}

    def _prune(self, repository: Repository, points: list[Sidecar], forgotten: Collection[str]) -> None:
        """Remove the data that no point needs, also of killed calls. A failure is no error of the point."""
        wanted = {each.snapshot for each in points if each.id not in forgotten}
        if any(sidecar is None for sidecar in self.sidecars.read().values()):
            return
        with self.phases("prune"):
            for snapshot in repository.snapshots():
                if snapshot not in wanted:
                    repository.forget(snapshot)
            try:
                self.tools.restic(repository).run("prune", "--quiet")
            except (Failed, Unanswered) as error:
                log.warning("a repository was not pruned: %s", error, extra={"uuid": self.order.uuid})


def _unchanged(order: PointOrder, found: str, phases: Phases) -> PointSummary:
    return PointSummary(
        id=order.parent,
        created_at=order.at,
        files=0,
        size=0,
        stored=0,
        fingerprint=found,
        repository=0,
        unchanged=True,
        ms=phases.ms,
    )


@contextmanager
def _opened(place: Path, uuid: str) -> Iterator[int]:
    """Hold the folder open: another that takes its place does not get its inode number. Raises `FilesGone`."""
    try:
        volume = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise FilesGone(uuid) from error
    try:
        yield volume
    finally:
        os.close(volume)


def _is(place: Path, volume: int) -> bool:
    try:
        return os.path.samestat(place.stat(), os.fstat(volume))
    except FileNotFoundError:
        return False


def _exclude_file(place: Path) -> bytes:
    """The patterns as restic reads them from a file: below the volume's own path, variables and brackets escaped."""
    root = _escaped(str(place.absolute()))
    lines = []
    for pattern in patterns(place):
        back = "!" if pattern.startswith("!") else ""
        lines.append(f"{back}{root}/{_escaped(pattern.removeprefix('!'), wild=True)}\n")
    return os.fsencode("".join(lines))


def _escaped(text: str, *, wild: bool = False) -> str:
    special = "\\[" if wild else "\\[*?"
    return "".join(f"\\{each}" if each in special else each for each in text).replace("$", "$$")
