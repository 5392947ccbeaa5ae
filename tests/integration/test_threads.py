"""A thread that dies takes its process along; each case in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from app.process import threads
from tests.conftest import ROOT

LIMIT = 60
"""s for a process that is to end at once."""

BEGIN = """
import logging, queue, threading, time
from app.process import threads
logging.basicConfig()
threads.end_process_when_one_dies()
"""

FEED = """
from types import SimpleNamespace
from workers.runtime.kubernetes.informer import Informer

def no_list(kind, selector):
    return ([{"metadata": {}}], "1")

cluster = SimpleNamespace(list=no_list, version=lambda kind: "1")
for seen in Informer(cluster, str, 180.0).run(threading.Event()):
    pass
"""
"""A watch whose lists hold something that no view understands: the main thread would wait for them for a minute."""

RENEWER = """
from types import SimpleNamespace
from app.core.redis import leases

leases._Lease = lambda *args, **options: SimpleNamespace(name="lease", acquire=lambda: True, reacquire=lambda: 1 / 0)
with leases.Leases(None, 0.01).hold("lease"):
    time.sleep(30)
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BEGIN + code], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False
    )


@pytest.mark.parametrize(
    ("code", "name"),
    [(FEED, "feed-"), (RENEWER, "renew lease"), ("threading.Thread(target=lambda: 1 / 0).start(); time.sleep(30)", "")],
)
def test_a_dead_thread_ends_its_process(code: str, name: str) -> None:
    """With a line that says which, and why."""
    done = run(code)
    assert done.returncode == threads.STATUS
    assert f"thread {name}" in done.stderr
    assert "Error" in done.stderr


def test_a_thread_that_ends_in_order_ends_nothing_else() -> None:
    done = run("import sys; thread = threading.Thread(target=sys.exit); thread.start(); thread.join(); print('here')")
    assert (done.returncode, done.stdout) == (0, "here\n")


def test_a_forked_process_ends_too() -> None:
    """As those of a worker's pool do, which are replaced."""
    done = run(
        "import os\nchild = os.fork()\nif not child:\n    threading.Thread(target=lambda: 1 / 0).start()\n"
        "    time.sleep(30)\nprint(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    assert (done.returncode, done.stdout) == (0, f"{threads.STATUS}\n")


@pytest.mark.parametrize(
    "installed",
    ["workers/observer.py", "workers/celery/app.py", "app/http/gunicorn_hooks.py"],
)
def test_every_process_with_threads_says_so(installed: str) -> None:
    assert "end_process_when_one_dies()" in (ROOT / installed).read_text()


@pytest.mark.parametrize("served", ["app/gunicorn.conf.py", "app/forward_auth.conf.py", "app/gateway/gunicorn.conf.py"])
def test_every_gunicorn_does_what_its_processes_have_in_common(served: str) -> None:
    assert "gunicorn_hooks.serving(worker, " in (ROOT / served).read_text()
