"""Random calls that work in workspaces: commands, terminals, files, folders, services, ports."""

from __future__ import annotations

import io
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from functools import partial

import requests

from tests.faults.caller import ASYNC, Caller, code_of
from tests.faults.chronicle import Deed
from tests.faults.scene import BACK, Subject, Written
from tests.faults.work import RAN, Command, Moved, Terminal

MOST_COMMANDS = 12
"""New ones that a client begins in a session in a round."""

REPEATED = 10
"""Of the newest commands one is brought again: older ones may be forgotten."""

PORTS = (8_001, 8_002)
SERVICES = ("web", "job")
SHARED = ("s0", "s1", "s2")
PUBLIC, PRIVATE = "public", "private"
TRIES = 3
PIECES = 6
LOOKS = 20
"""For a terminal's program to begin."""

SIZES = (0, 10, 10_000, 500_000, 3_000_000)


class Working:
    """The calls of one client."""

    def __init__(self, caller: Caller) -> None:
        self.caller, self.chance, self.scene = caller, caller.chance, caller.scene
        self._begun: dict[str, int] = {}

    def acts(self) -> list[tuple[Callable[[Subject], None], int]]:
        """What it may do with a session, and how often it does."""
        return [
            (self.run, 10), (self.run_again, 5), (self.show_run, 3), (self.end_run, 3), (self.terminal, 2),
            (self.upload, 8), (self.claim, 3), (self.change, 5), (self.unfile, 2), (self.move, 2), (self.fetch, 4),
            (self.unpack, 2), (self.pack, 1), (self.serve, 4), (self.unserve, 2), (self.open_port, 2),
            (self.close_port, 1),
        ]  # fmt: skip

    # Commands

    def run(self, subject: Subject) -> None:
        """A new command, whose caller waits for it, or goes away, or follows it for a while."""
        if self._begun.setdefault(subject.uuid, 0) >= MOST_COMMANDS:
            return
        self._begun[subject.uuid] += 1
        id_ = f"x{self.scene.number()}"
        seconds = self.chance.choice([0, 0, 0.05, 0.3, 1.5])
        line = f"sleep {seconds}; echo {id_} >> {RAN}; echo {id_}"
        body = {"command": line, "id": id_, "detach": self.chance.random() < 0.3}
        command = subject.work.commands[id_] = Command(id_, body)
        self._bring(subject, command, "run")

    def run_again(self, subject: Subject) -> None:
        """A command that came before."""
        if subject.work.commands:
            self._bring(subject, self._one_of_newest(subject), "run again")

    def _bring(self, subject: Subject, command: Command, what: str) -> None:
        path, chance = f"/session/{subject.uuid}/exec", self.chance.random()
        if chance < 0.15:
            what, path = "run if awake", f"{path}?wake=false"
        if 0.15 <= chance < 0.3:
            self.caller.follow(
                subject, what, path, command.body,
                about=command.id, timeout=5, most=self.chance.choice([1, 100]), noting=command.brought.append,
            )  # fmt: skip
            return
        timeout = self.chance.choice([0.02, 0.1, 0.5]) if chance > 0.85 else 30.0
        headers = self.caller.patience() if chance < 0.6 else {}
        deed, answer = self.caller.do(
            subject, what, "POST", path, command.body, headers,
            about=command.id, timeout=timeout, noting=command.brought.append,
        )  # fmt: skip
        self._told(command, deed, answer)

    def _told(self, command: Command, deed: Deed, answer: requests.Response | None) -> None:
        if deed.accepted and answer is not None and (told := answer.json())["state"] == "exited":
            command.ends.append({name: told[name] for name in ("exit_code", "signal", "reason")})

    def _one_of_newest(self, subject: Subject) -> Command:
        return self.chance.choice(list(subject.work.commands.values())[-REPEATED:])

    def show_run(self, subject: Subject) -> None:
        if subject.work.commands:
            command = self._one_of_newest(subject)
            self._told(command, *self._show(subject, command.id))

    def _show(self, subject: Subject, id_: str) -> tuple[Deed, requests.Response | None]:
        return self.caller.do(subject, "show run", "GET", f"/session/{subject.uuid}/exec/{id_}", None, {}, about=id_)

    def end_run(self, subject: Subject) -> None:
        if subject.work.commands:
            self._end(subject, self._one_of_newest(subject).id)

    def _end(self, subject: Subject, id_: str) -> None:
        path = f"/session/{subject.uuid}/exec/{id_}"
        self.caller.do(subject, "end run", "DELETE", path, None, self.caller.patience(), about=id_)

    def terminal(self, subject: Subject) -> None:
        """Type something, piece by piece, into a program that writes down what it is told."""
        id_ = f"y{self.scene.number()}"
        terminal = Terminal(id_, f"typed-{id_}")
        line = f"stty raw -echo; echo ready; exec cat > {terminal.name}"
        body = {"command": line, "id": id_, "tty": {"rows": 24, "columns": 80}}
        subject.work.terminals.append(terminal)
        path = f"/session/{subject.uuid}/exec"
        deed, _ = self.caller.do(subject, "terminal", "POST", path, body, ASYNC, about=id_)
        if deed.accepted and self._is_ready(subject, id_):
            at = 0
            for number in range(PIECES):
                piece = f"{number} {self.chance.randbytes(self.chance.choice([1, 50])).hex()}\n"
                terminal.pieces.append(piece)
                if not self._type(subject, id_, at, piece.encode()):
                    break
                at += len(piece)
        if deed.possible:
            self._end(subject, id_)

    def _is_ready(self, subject: Subject, id_: str) -> bool:
        for _ in range(LOOKS):
            deed, answer = self._show(subject, id_)
            if deed.accepted and answer is not None and "ready" in answer.json()["stdout"]:
                return True
            if not deed.possible or self.caller.over.wait(0.1):
                break
        return False

    def _type(self, subject: Subject, id_: str, at: int, piece: bytes) -> bool:
        """Type this, again where there was no answer; whether all of it was."""
        path = f"/session/{subject.uuid}/exec/{id_}/input?at={at}"
        for _ in range(TRIES):
            deed, answer = self.caller.do(subject, "type", "PUT", path, piece, {}, about=id_)
            if deed.accepted and answer is not None:
                return bool(answer.json()["input_bytes"] == at + len(piece))
            if answer is not None and code_of(answer) == "input_moved":
                self.scene.trouble("typed by nobody else, and moved", subject.uuid, f"{id_} at {at}: {answer.text}")
            if not deed.possible:
                break
        return False

    # Files

    def upload(self, subject: Subject) -> None:
        """A new file, again where there was no answer."""
        name = f"f{self.scene.number()}"
        content = self.chance.randbytes(self.chance.choice(SIZES))
        subject.work.send(name, content)
        for _ in range(TRIES):
            deed = self._put(subject, "upload", name, content)
            if deed.accepted:
                subject.written.append(Written.of({name: content}, deed))
            if deed.accepted or not deed.possible or self.chance.random() < 0.5:
                return

    def claim(self, subject: Subject) -> None:
        """A file that is there once, whoever else writes one of this name."""
        known = list(subject.work.claims)[-3:]
        name = self.chance.choice(known) if known and self.chance.random() < 0.6 else f"c{self.scene.number()}"
        content = self.chance.randbytes(100)
        crc = subject.work.send(name, content)
        self._put(
            subject, "claim", name, content,
            {"If-None-Match": "*"}, lambda deed: subject.work.claims[name].append((deed, crc)),
        )  # fmt: skip

    def change(self, subject: Subject) -> None:
        """A file that others write too."""
        name = self.chance.choice(SHARED)
        content = self.chance.randbytes(self.chance.choice(SIZES))
        crc = subject.work.send(name, content)
        self._put(subject, "change", name, content, {}, lambda deed: subject.work.shared[name].set(deed, crc))

    def unfile(self, subject: Subject) -> None:
        name = self.chance.choice(SHARED)
        noting = partial(subject.work.shared[name].set, value=None)
        self.caller.do(subject, "unfile", "DELETE", self._file(subject, name), None, {}, about=name, noting=noting)

    def move(self, subject: Subject) -> None:
        """A new file, which then gets another name."""
        source = f"m{self.scene.number()}"
        target, content = f"{source}.moved", self.chance.randbytes(1_000)
        crc = subject.work.send(source, content)
        subject.work.send(target, content)
        if self._put(subject, "upload", source, content).accepted:
            self.caller.do(
                subject, "move", "POST", self._file(subject, source), {"move_to": target}, {},
                about=source, noting=lambda deed: subject.work.moved.append(Moved(source, target, crc, deed)),
            )  # fmt: skip

    def fetch(self, subject: Subject) -> None:
        """A file that some call has written."""
        if not subject.work.sent:
            return
        name = self.chance.choice(list(subject.work.sent))
        deed, answer = self.caller.do(subject, "fetch", "GET", self._file(subject, name), None, {}, about=name)
        if not deed.accepted or answer is None:
            return
        if zlib.crc32(answer.content) not in subject.work.sent[name]:
            self.scene.trouble("wrong bytes", subject.uuid, f"{name}: {len(answer.content)} of them")

    def _put(
        self,
        subject: Subject,
        what: str,
        name: str,
        content: bytes,
        headers: Mapping[str, str] | None = None,
        noting: Callable[[Deed], object] = lambda _: None,
    ) -> Deed:
        path, sent = self._file(subject, name), {"Content-Type": "application/octet-stream", **(headers or {})}
        timeout = self.chance.choice([0.02, 0.2, 30, 30, 30])
        return self.caller.do(subject, what, "PUT", path, content, sent, about=name, timeout=timeout, noting=noting)[0]

    def _file(self, subject: Subject, name: str) -> str:
        return f"/session/{subject.uuid}/files/{name}"

    # Folders

    def unpack(self, subject: Subject) -> None:
        """A folder of files, as an archive."""
        folder, kind = f"t{self.scene.number()}", self.chance.choice(["zip", "tar.gz"])
        files = {f"{number}": self.chance.randbytes(self.chance.choice([0, 100, 50_000])) for number in range(20)}
        written = {f"{folder}/{name}": content for name, content in files.items()}
        for name, content in written.items():
            subject.work.send(name, content)
        path = f"/session/{subject.uuid}/tree?path={folder}&format={kind}"
        packed = {"zip": _zip, "tar.gz": _tar}[kind](files)
        deed, _ = self.caller.do(subject, "unpack", "PUT", path, packed, {}, about=folder, timeout=30)
        if deed.accepted:
            subject.written.append(Written.of(written, deed))

    def pack(self, subject: Subject) -> None:
        """All files, as an archive, which has each that was there when it was asked for."""
        path = f"/session/{subject.uuid}/tree?format=zip"
        deed, answer = self.caller.do(subject, "pack", "GET", path, None, {}, timeout=60)
        if not deed.accepted or answer is None:
            return
        try:
            with zipfile.ZipFile(io.BytesIO(answer.content)) as zipped:
                broken = zipped.testzip()
                found = {each.filename: each.CRC for each in zipped.infolist() if not each.is_dir()}
        except zipfile.BadZipFile as error:
            broken, found = str(error), {}
        lost = [name for name, crc in subject.certain(deed.begun).items() if found.get(name) != crc]
        if broken or (lost and not subject.possible(*BACK, "delete", "delete unsaved")):
            self.scene.trouble("tree is not whole", subject.uuid, f"broken: {broken}, {len(lost)} lost: {lost[:5]}")

    # Services and ports

    def serve(self, subject: Subject) -> None:
        """A service, new or in the place of another."""
        name = self.chance.choice(SERVICES)
        command = f"exec sleep 77{self.scene.number():05d}"
        restart = self.chance.choice(["never", "on_failure", "always"])
        body = {"name": name, "command": command, "restart": restart, "autostart": self.chance.random() < 0.5}
        noting = partial(subject.work.services[name].set, value=command)
        path = f"/session/{subject.uuid}/services"
        self.caller.do(subject, "serve", "POST", path, body, self.caller.patience(), about=name, noting=noting)

    def unserve(self, subject: Subject) -> None:
        name = self.chance.choice(SERVICES)
        noting = partial(subject.work.services[name].set, value=None)
        path = f"/session/{subject.uuid}/services/{name}"
        self.caller.do(subject, "unserve", "DELETE", path, None, {}, about=name, noting=noting)

    def open_port(self, subject: Subject) -> None:
        port, value = self.chance.choice(PORTS), self.chance.choice([PUBLIC, PRIVATE])
        body = {"public_until": int(time.time()) + 3_600} if value == PUBLIC else None
        noting = partial(subject.work.ports[port].set, value=value)
        path = f"/session/{subject.uuid}/ports/{port}/open"
        self.caller.do(subject, "open port", "POST", path, body, ASYNC, about=str(port), noting=noting)

    def close_port(self, subject: Subject) -> None:
        port = self.chance.choice(PORTS)
        noting = partial(subject.work.ports[port].set, value=None)
        path = f"/session/{subject.uuid}/ports/{port}"
        self.caller.do(subject, "close port", "DELETE", path, None, {}, about=str(port), noting=noting)


def _zip(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def _tar(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()
