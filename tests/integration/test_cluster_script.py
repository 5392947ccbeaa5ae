"""The script that runs a real cluster: its parts by themselves, then the whole of it, up, broken, and down again.

The whole needs Linux, root and, once, the time to build Kubernetes: it has a cluster of its own, beside any
other of this machine.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.cluster import (
    certificates,
    components,
    demo,
    host,
    images,
    layout,
    processes,
    programs,
    provisioner,
    stopping,
)
from scripts.cluster.errors import ClusterError

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "cluster" / "cluster"
# The first start builds for minutes; every step of the script has a deadline of its own.
pytestmark = pytest.mark.timeout(0)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[layout.Layout]:
    """A layout in a folder of the test's own; what was started in it is ended."""
    found = layout.Layout("test", tmp_path)
    for folder in (found.pids, found.logs, found.pki, found.config):
        folder.mkdir()
    yield found
    for file in found.pids.iterdir():
        processes.stop(processes.recorded(found, file.name), 0.0)


class TestLayout:
    @pytest.mark.parametrize("name", ["a/b", "-a", "A", "a" * 21, "a b", "..", "a-"])
    def test_a_name_that_is_no_name_is_refused(self, monkeypatch, name):
        monkeypatch.setenv("CLUSTER", name)
        with pytest.raises(ClusterError, match="CLUSTER="):
            layout.from_environment()

    def test_a_folder_too_long_for_sockets_is_refused(self, monkeypatch):
        monkeypatch.setenv("CLUSTER_DIR", "/" + "x" * 70)
        with pytest.raises(ClusterError, match="CLUSTER_DIR="):
            layout.from_environment()

    def test_two_clusters_share_no_path(self, monkeypatch):
        monkeypatch.delenv("CLUSTER_DIR", raising=False)
        seen = []
        for name in ("one", "two"):
            monkeypatch.setenv("CLUSTER", name)
            found = layout.from_environment()
            seen.append({found.folder, found.network_namespace, Path(found.cgroup), Path(components.cni_name(found))})
        assert not seen[0] & seen[1]


class TestProcesses:
    def test_a_part_runs_until_it_is_stopped(self, place):
        processes.start(place, "part", [sys.executable, "-c", "import signal; signal.pause()"])
        found = processes.running(place, "part")
        assert found
        processes.stop(found, 10.0)
        assert processes.running(place, "part") is None

    def test_a_running_part_is_not_started_again(self, place):
        command = [sys.executable, "-c", "import signal; signal.pause()"]
        processes.start(place, "part", command)
        first = processes.running(place, "part")
        processes.start(place, "part", command)
        assert processes.running(place, "part") == first

    def test_a_record_whose_id_belongs_to_another_by_now_is_nobodys(self, place):
        own = processes.identity(os.getpid())
        assert own
        (place.pids / "part").write_text(json.dumps({"pid": own.pid, "started": own.started + 1}))
        assert processes.running(place, "part") is None
        # Would end this very test.
        processes.stop(processes.recorded(place, "part"), 0.0)

    @pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}'])
    def test_a_broken_record_is_no_record(self, place, content):
        (place.pids / "part").write_text(content)
        assert processes.recorded(place, "part") is None

    def test_a_deaf_and_stopped_process_is_ended_too(self, place):
        script = (
            "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
        )
        processes.start(place, "part", [sys.executable, "-c", script])
        log = place.logs / "part.log"
        processes.wait_ready(place, "part", lambda: "deaf" in log.read_text())
        found = processes.running(place, "part")
        assert found
        os.kill(found.pid, signal.SIGSTOP)
        processes.stop(found, 0.1)
        assert processes.running(place, "part") is None

    def test_a_part_that_ends_while_starting_is_quoted(self, place):
        processes.start(place, "part", ["sh", "-c", "echo the reason; exit 1"])
        with pytest.raises(ClusterError, match="the reason"):
            processes.wait_ready(place, "part", lambda: False)

    def test_a_part_sees_none_of_the_callers_settings(self, place, monkeypatch):
        monkeypatch.setenv("KUBECONFIG", "somebody's")
        processes.start(place, "part", ["sh", "-c", 'echo "<$KUBECONFIG>"; exec sleep 60'])
        log = place.logs / "part.log"
        processes.wait_ready(place, "part", lambda: ">" in log.read_text())
        assert log.read_text().strip() == "<>"


class TestComponents:
    def test_every_file_a_part_is_told_to_read_is_written(self, place, monkeypatch):
        """A renamed certificate or configuration file would otherwise show at the next start only."""
        monkeypatch.setattr(programs, "target_of", lambda module: Path("/nowhere") / module.name)
        certificates.create(place)
        for file, text in components.files(place).items():
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        made_by_parts = {place.config / "keda", place.kubelet, place.folder / "etcd", place.containerd_socket}
        words: set[str] = set()
        for part in components.components(place, programs.built()).values():
            words.update(word.rpartition("=")[2] for word in [*part.command, *part.environment.values()])
        paths = {Path(word) for word in words if word.startswith(f"{place.folder}/")}
        assert len(paths) > 10
        assert [path for path in paths - made_by_parts if not path.exists()] == []

    def test_a_certificate_is_for_its_user_and_by_the_clusters_authority(self, place):
        certificates.create(place)
        check = ["openssl", "verify", "-x509_strict", "-CAfile", f"{place.pki}/ca.crt", f"{place.pki}/kubelet.crt"]
        assert subprocess.run(check, capture_output=True, timeout=30).returncode == 0
        show = ["openssl", "x509", "-in", f"{place.pki}/kubelet.crt", "-noout", "-subject"]
        text = subprocess.run(show, capture_output=True, text=True, timeout=30).stdout
        assert "system:nodes" in text and "system:node:test" in text

    def test_keys_are_for_their_owner_only(self, place):
        certificates.create(place)
        assert {file.stat().st_mode & 0o077 for file in place.pki.glob("*.key")} == {0}
        assert place.kubeconfig.stat().st_mode & 0o077 == 0


class TestHost:
    """What is outside the cluster's folder; with folders of the test's own in place of the machine's."""

    @pytest.fixture
    def shared(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr(host, "KUBELET_SYSCTLS", ())
        monkeypatch.setattr(host, "SHARED_FOLDERS", (str(tmp_path / "shared"),))
        return tmp_path / "shared"

    def test_a_folder_with_somebodys_files_is_left_alone(self, shared, tmp_path):
        one = layout.Layout("not-there", tmp_path)
        (tmp_path / "work").write_text("of years")
        with pytest.raises(ClusterError, match="not empty"):
            host.remember(one)
        with pytest.raises(ClusterError, match="not the folder of a cluster"):
            stopping.down(one)
        assert (tmp_path / "work").exists()

    def test_a_clusters_folder_goes_with_all_it_holds_but_nothing_it_points_to(self, shared, tmp_path):
        one = layout.Layout("one", tmp_path / "clusters" / "one")
        host.remember(one)
        (tmp_path / "outside").mkdir()
        one.logs.mkdir()
        (one.folder / "link").symlink_to(tmp_path / "outside")
        host.remove_folder(one)
        assert not one.folder.exists()
        assert (tmp_path / "outside").exists()

    def test_a_folder_that_was_not_there_goes_again(self, shared, tmp_path):
        one = layout.Layout("one", tmp_path / "clusters" / "one")
        host.remember(one)
        (shared / "deep").mkdir(parents=True)
        host.restore(one)
        assert not shared.exists()

    def test_a_folder_that_was_there_or_is_in_use_stays(self, shared, tmp_path):
        one = layout.Layout("one", tmp_path / "clusters" / "one")
        host.remember(one)
        shared.mkdir()
        (shared / "somebody's").touch()
        host.restore(one)
        assert shared.exists()
        two = layout.Layout("two", tmp_path / "others" / "two")
        (shared / "somebody's").unlink()
        host.remember(two)
        host.restore(two)
        assert shared.exists()

    def test_what_it_was_before_both_clusters_is_restored_by_the_last(self, shared, tmp_path):
        one, two = (layout.Layout(name, tmp_path / "clusters" / name) for name in ("one", "two"))
        host.remember(one)
        shared.mkdir()
        host.remember(two)
        host.restore(one)
        assert shared.exists(), "the second cluster still uses it"
        shutil.rmtree(one.folder)
        host.restore(two)
        assert not shared.exists()

    def test_the_last_is_told_nothing_by_a_younger_one(self, shared, tmp_path):
        one, two = (layout.Layout(name, tmp_path / "clusters" / name) for name in ("one", "two"))
        host.remember(one)
        shared.mkdir()
        host.remember(two)
        host.restore(two)
        shutil.rmtree(two.folder)
        host.restore(one)
        assert not shared.exists()

    def test_a_kernel_setting_gets_its_old_value_back(self, tmp_path, monkeypatch):
        setting = tmp_path / "setting"
        setting.write_text("0\n")
        monkeypatch.setattr(host, "KUBELET_SYSCTLS", (str(setting),))
        monkeypatch.setattr(host, "SHARED_FOLDERS", ())
        one = layout.Layout("one", tmp_path / "clusters" / "one")
        host.remember(one)
        setting.write_text("1\n")
        # A second `up` must not take what the first one did for what was there before.
        host.remember(one)
        host.restore(one)
        assert setting.read_text().strip() == "0"


CLAIM: dict[str, Any] = {
    "metadata": {"name": "data", "namespace": "ws", "uid": "u1"},
    "spec": {
        "storageClassName": provisioner.CLASS,
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
    },
    "status": {"phase": "Pending"},
}


class TestProvisioner:
    def test_only_a_waiting_claim_of_its_class_gets_a_volume(self):
        assert provisioner.wants_volume(CLAIM)
        assert not provisioner.wants_volume(CLAIM | {"status": {"phase": "Bound"}})
        assert not provisioner.wants_volume(CLAIM | {"spec": CLAIM["spec"] | {"storageClassName": "other"}})
        assert not provisioner.wants_volume(CLAIM | {"spec": CLAIM["spec"] | {"volumeName": "mine"}})
        assert not provisioner.wants_volume(CLAIM | {"metadata": CLAIM["metadata"] | {"deletionTimestamp": "now"}})

    def test_a_volume_goes_with_its_claim_unless_asked_to_stay(self, place):
        volume = provisioner.volume_for(CLAIM, place)
        assert not provisioner.is_over(volume | {"status": {"phase": "Bound"}})
        assert provisioner.is_over(volume | {"status": {"phase": "Released"}})
        kept = volume | {"spec": volume["spec"] | {"persistentVolumeReclaimPolicy": "Retain"}}
        assert not provisioner.is_over(kept | {"status": {"phase": "Released"}})

    def test_a_volume_is_bound_to_its_claim_and_lies_below_the_cluster(self, place):
        volume = provisioner.volume_for(CLAIM, place)
        assert volume["spec"]["claimRef"]["uid"] == "u1"
        assert volume["spec"]["local"] == {"path": f"{place.folder}/volumes/pvc-u1"}


class TestImages:
    @pytest.mark.parametrize(
        ("given", "full"),
        [
            ("debian", "docker.io/library/debian:latest"),
            ("debian:12", "docker.io/library/debian:12"),
            ("someone/thing", "docker.io/someone/thing:latest"),
            ("localhost/a/b:dev", "localhost/a/b:dev"),
            ("localhost:5000/a", "localhost:5000/a:latest"),
            ("example.com/a@sha256:00", "example.com/a@sha256:00"),
        ],
    )
    def test_a_name_is_completed_as_kubernetes_does(self, given, full):
        assert images.full_name(given) == full

    def test_an_archive_says_its_names_and_digests(self, tmp_path):
        annotations = {"org.opencontainers.image.ref.name": "localhost/a:1"}
        file = archive(tmp_path / "a.tar", {"manifests": [{"annotations": annotations, "digest": "sha256:00"}]})
        assert images.content_of(file) == {"localhost/a:1": "sha256:00"}

    def test_an_archive_without_a_name_is_refused(self, tmp_path):
        with pytest.raises(ClusterError, match="names no image"):
            images.content_of(archive(tmp_path / "a.tar", {"manifests": [{"digest": "sha256:00"}]}))

    def test_what_is_no_archive_is_refused(self, tmp_path):
        (tmp_path / "a.tar").write_text("no")
        with pytest.raises(ClusterError, match="no OCI archive"):
            images.content_of(tmp_path / "a.tar")


def archive(file: Path, index: dict[str, object]) -> Path:
    content = json.dumps(index).encode()
    with tarfile.open(file, "w") as tar:
        entry = tarfile.TarInfo("index.json")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return file


class TestRefusals:
    def script(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"CLUSTER": "absent", "CLUSTER_DIR": ""}
        return subprocess.run(
            [SCRIPT, *arguments], env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    def test_without_root_it_says_what_it_needs(self, tmp_path, monkeypatch):
        user = tmp_path / "id"
        user.write_text("#!/bin/sh\necho 1000\n")
        user.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        done = self.script("up")
        assert done.returncode == 1
        assert "root" in done.stderr

    @pytest.mark.parametrize("arguments", [[], ["sideways"], ["exec"], ["load"], ["up", "now"], ["up", "--port", "0"]])
    def test_what_it_does_not_know_gets_the_usage(self, arguments):
        done = self.script(*arguments)
        assert done.returncode == 2
        assert "usage:" in done.stderr

    def test_a_cluster_that_is_not_up_has_nothing_to_take_down(self):
        assert self.script("down").returncode == 0
        assert self.script("status").returncode == 3

    @pytest.mark.parametrize("arguments", [["exec", "true"], ["load", "anything"]])
    def test_what_needs_a_cluster_says_so_without_one(self, arguments):
        done = self.script(*arguments)
        assert done.returncode == 1
        assert "not up" in done.stderr


POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "probe"},
    "spec": {
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsUser": 1000, "runAsNonRoot": True, "fsGroup": 1000},
        "containers": [
            {
                "name": "main",
                "image": layout.PAUSE_IMAGE,
                "imagePullPolicy": "Never",
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }
        ],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    },
}
VOLUME_CLAIM: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "data"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}


class Cluster:
    """The script, for one cluster."""

    def __init__(self, place: layout.Layout) -> None:
        self.layout = place
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.environment = os.environ | {"CLUSTER": place.name, "CLUSTER_DIR": str(place.folder)}

    def run(self, *arguments: str, text: str | None = None, code: int = 0) -> str:
        done = subprocess.run(
            [SCRIPT, *arguments], env=self.environment, input=text, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        return done.stdout

    def on_host(self, *arguments: str) -> str:
        """What kubectl prints here, with the lines that `up` prints."""
        lines = dict(line.split("=", 1) for line in self.run("up").splitlines())
        command = [lines["KUBECTL"], f"--kubeconfig={lines['KUBECONFIG']}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    def page(self) -> int:
        """The status the ingress controller answers the host with."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status
        finally:
            connection.close()

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        return self.run("exec", "kubectl", *arguments, text=text)

    def pids(self) -> dict[str, processes.Identity | None]:
        return {file.name: processes.recorded(self.layout, file.name) for file in self.layout.pids.iterdir()}

    def signal(self, name: str, number: signal.Signals) -> None:
        found = processes.running(self.layout, name)
        assert found, f"{name} does not run"
        processes.signal_process(found, number)

    def sandboxes(self) -> set[str]:
        """The ids of all its containers: what names their traces outside the cluster's folder."""
        tasks = self.layout.containerd / "state" / "io.containerd.runtime.v2.task" / "k8s.io"
        return {task.name for task in tasks.iterdir()}

    def traces(self, sandboxes: set[str]) -> list[str]:
        """Everything on the machine that names this cluster or one of its containers."""
        marks = [str(self.layout.folder), self.layout.cgroup, *sandboxes]
        found = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if marks[0] in line]
        for folder in ("/sys/fs/cgroup", "/var/lib/cni", "/run/containerd", "/run/netns", "/var/log/containers"):
            for where, folders, files in os.walk(folder):
                found += [f"{where}/{name}" for name in [*folders, *files] if any(mark in name for mark in marks)]
                found += [f"{where}/{name}" for name in folders if name == self.layout.cgroup.strip("/")]
        for process in Path("/proc").glob("[0-9]*"):
            try:
                line = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
                groups = (process / "cgroup").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if self.layout.cgroup in groups or any(marks[0] in word for word in line):
                found.append(f"{process}: {' '.join(line)}")
        found += [str(path) for path in (self.layout.folder, self.layout.network_namespace) if path.exists()]
        return found


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster of the tests' own, beside any other; gone afterwards, however they end."""
    if os.geteuid() != 0:
        pytest.skip("a cluster needs root")
    try:
        programs.find_go()
    except ClusterError as error:
        pytest.skip(str(error))
    name = f"test-{os.getpid()}"
    found = Cluster(layout.Layout(name, layout.FOLDERS / name))
    try:
        found.run("up", "--port", str(found.port))
        yield found
    finally:
        found.run("down")


@pytest.mark.root
def test_the_whole_of_it(cluster: Cluster) -> None:
    """Up, used, broken, repaired, broken again and down: one story, since every chapter costs a cluster."""
    # Up, and all of it.
    assert cluster.run("status").count(" runs (") == len(cluster.pids()) == 12
    before = cluster.pids()
    printed = cluster.run("up")
    assert printed.splitlines()[0] == f"KUBECONFIG={cluster.layout.host_kubeconfig}"
    assert cluster.pids() == before, "a second up started something"

    # A pod with a volume, as a user that is not root.
    cluster.kubectl(
        "apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": [VOLUME_CLAIM, POD]})
    )
    cluster.kubectl("wait", "pod", "probe", "--for=condition=Ready", "--timeout=120s")
    (folder,) = cluster.layout.volumes.glob("pvc-*")
    assert folder.stat().st_uid == provisioner.OWNER

    # From the host: the API server, by a valid certificate, and the ingress controller.
    assert cluster.on_host("get", "nodes", "-o", "name") == f"node/{cluster.layout.name}\n"
    assert cluster.page() == 404

    # Names and the ingress controller, from beside the cluster.
    assert layout.KUBERNETES_IP in cluster.run("exec", "getent", "hosts", "kubernetes.default")
    cluster.run("exec", "getent", "hosts", "example.com", code=2)
    for port in (80, cluster.port):
        ask = f"import http.client as h; c = h.HTTPConnection('127.0.0.1', {port}, timeout=10); c.request('GET', '/'); "
        assert cluster.run("exec", "python", "-c", f"{ask}print(c.getresponse().status)").strip() == "404"

    # Whatever dies is started again; pods don't notice.
    for name in ("kubelet", "containerd", "apiserver", "keda", "provisioner", "forwarder"):
        cluster.signal(name, signal.SIGKILL)
    processes.wait_until(lambda: not processes.running(cluster.layout, "provisioner"), 30.0)
    cluster.run("status", code=3)
    cluster.run("up")
    cluster.run("status")
    cluster.kubectl("wait", "pod", "probe", "--for=condition=Ready", "--timeout=120s")
    restarts = cluster.kubectl("get", "pod", "probe", "-o", "jsonpath={.status.containerStatuses[0].restartCount}")
    assert restarts == "0"
    assert cluster.on_host("get", "nodes", "-o", "name") == f"node/{cluster.layout.name}\n"
    assert cluster.page() == 404

    # A volume goes with its claim, one of limited size too.
    spec = VOLUME_CLAIM["spec"] | {
        "storageClassName": provisioner.LIMITED,
        "resources": {"requests": {"storage": "8Mi"}},
    }
    second = VOLUME_CLAIM | {"metadata": {"name": "second"}, "spec": spec}
    cluster.kubectl("apply", "-f", "-", text=json.dumps(second))
    cluster.kubectl("wait", "pvc", "second", "--for=jsonpath={.status.phase}=Bound", "--timeout=60s")
    (limited,) = set(cluster.layout.volumes.iterdir()) - {folder}
    assert shutil.disk_usage(limited).total == 8 << 20
    cluster.kubectl("delete", "pvc", "second", "--timeout=60s")
    assert processes.wait_until(lambda: list(cluster.layout.volumes.iterdir()) == [folder], 60.0)

    # Down from the worst state it can be in.
    sandboxes = cluster.sandboxes()
    assert sandboxes
    assert cluster.traces(sandboxes), "nothing would be found after it either"
    with subprocess.Popen([SCRIPT, "exec", "sleep", "infinity"], env=cluster.environment) as visitor:
        for name in ("containerd", "etcd"):
            cluster.signal(name, signal.SIGKILL)
        cluster.signal("apiserver", signal.SIGSTOP)
        cluster.run("down")
        visitor.wait()
    assert cluster.traces(sandboxes) == []
    with pytest.raises(ConnectionRefusedError):
        cluster.page()
    cluster.run("down")
    cluster.run("status", code=3)


@pytest.mark.root
def test_a_product_that_runs_already_learns_of_a_model_and_is_not_restarted_without_cause(cluster: Cluster) -> None:
    """Its processes read of it when they start, and a second `demo` finds them running."""

    def web() -> dict[str, str]:
        """The model that each of its pods was told of, by the pod's name; those about to go are left out."""
        in_system = ("-n", demo.NAMESPACE)
        listed = cluster.kubectl(*in_system, "get", "pods", "-l", "app.kubernetes.io/name=web", "-o", "json")
        pods = [item["metadata"] for item in json.loads(listed)["items"]]
        names = [pod["name"] for pod in pods if "deletionTimestamp" not in pod]
        ask = ("--", "sh", "-c", "echo $LLM_BASE_URL")
        return {name: cluster.kubectl(*in_system, "exec", name, *ask).strip() for name in names}

    def web_after_demo(model: str) -> dict[str, str]:
        cluster.environment |= {"LLM_BASE_URL": model}
        cluster.run("demo", "--port", str(cluster.port))
        return web()

    assert set(web_after_demo("").values()) == {""}
    model = f"http://{layout.NODE_IP}:9000/v1"
    told = web_after_demo(model)
    assert set(told.values()) == {model}
    assert web_after_demo(model) == told
