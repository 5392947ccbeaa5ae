"""One session's workspace: the calls that are made most, without its uuid in each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workspaces.events import Event
from workspaces.models import Action, Deleted, Exec, FileEntry, FileList, Port, PortOpening, Service, Tree
from workspaces.pages import Pages
from workspaces.resources.execs import Command, Execs
from workspaces.resources.files import Content, Files
from workspaces.resources.ports import Ports
from workspaces.resources.services import Services
from workspaces.resources.sessions import Sessions
from workspaces.sse import Stream


class Workspace:
    """The workspace of the session `uuid`, which a call on commands, files, services and ports wakes. `options` are
    those of the call of the client that is named."""

    def __init__(
        self, uuid: str, sessions: Sessions, execs: Execs, files: Files, services: Services, ports: Ports
    ) -> None:
        self.uuid = uuid
        self._sessions = sessions
        self._execs = execs
        self._files = files
        self._services = services
        self._ports = ports

    def run(self, command: Command, **options: Any) -> Exec:
        """Run a command, as `execs.run`."""
        return self._execs.run(self.uuid, command, **options)

    def serve(self, name: str, command: str, **options: Any) -> Service:
        """Start a service, as `services.start`."""
        return self._services.start(self.uuid, name, command, **options)

    def preview(self, port: int, **options: Any) -> PortOpening:
        """Open a port, as `ports.open`: the answer's `url` leads a browser to what listens there."""
        return self._ports.open(self.uuid, port, **options)

    def ports(self, **options: Any) -> tuple[Port, ...]:
        """The ports, as `ports.list` has them."""
        return self._ports.list(self.uuid, **options).ports

    def write(self, path: str, content: Content, **options: Any) -> FileEntry:
        """Write a file, as `files.write`."""
        return self._files.write(self.uuid, path, content, **options)

    def read(self, path: str, **options: Any) -> bytes:
        """The bytes of a file, as `files.read`."""
        return self._files.read(self.uuid, path, **options)

    def upload_folder(self, folder: Path | str, path: str = ".", **options: Any) -> Tree:
        """Upload what is in a local folder, as `files.upload_folder`."""
        return self._files.upload_folder(self.uuid, path, folder, **options)

    def download_folder(self, folder: Path | str, path: str = ".", **options: Any) -> Path:
        """Download what is in a folder to a local one, as `files.download_folder`."""
        return self._files.download_folder(self.uuid, path, folder, **options)

    def write_tree(self, content: Content, path: str = ".", **options: Any) -> Tree:
        """Unpack an archive in a folder, as `files.write_tree`."""
        return self._files.write_tree(self.uuid, path, content, **options)

    def download_tree(self, target: Path | str, path: str = ".", **options: Any) -> Path:
        """Download what is in a folder as an archive, as `files.download_tree`."""
        return self._files.download_tree(self.uuid, path, target, **options)

    def list_files(self, path: str = ".", **options: Any) -> Pages[FileList, FileEntry]:
        """What is in a folder, as `files.list`."""
        return self._files.list(self.uuid, path, **options)

    def watch(self, path: str = ".", **options: Any) -> Stream[Event]:
        """Follow what changes at a path and below it, as `files.watch`."""
        return self._files.watch(self.uuid, path, **options)

    def sleep(self, **options: Any) -> Action:
        """Put the session to sleep, as `sessions.sleep`."""
        return self._sessions.sleep(self.uuid, **options)

    def wake(self, **options: Any) -> Action:
        """Wake the session, as `sessions.wake`."""
        return self._sessions.wake(self.uuid, **options)

    def delete(self, **options: Any) -> Deleted:
        """Delete the session, as `sessions.delete`."""
        return self._sessions.delete(self.uuid, **options)

    def __repr__(self) -> str:
        return f"Workspace({self.uuid!r})"
