"""The check of the tests' own source finds what fails by the weather, and nothing else."""

from __future__ import annotations

import pytest

from scripts.lib import check_tests


def found(text: str, name: str = "tests/unit/test_x.py") -> list[int]:
    """The lines with a fault."""
    return [line for line, _ in check_tests.faults(text, name)]


@pytest.mark.parametrize(
    "line",
    [
        "time.sleep(0.1)",
        "requests.get(url, timeout=10)",
        "subprocess.run(command, timeout=5.0)",
        "process.wait(20)",
        "process.communicate(b'', 5)",
        "thread.join(1)",
        "wait_for(done, 'it', str, 29)",
        "wait_for(done, 'it', seconds=SHORT)",
        "assert threading.active_count() == 1",
        "assert len(threading.enumerate()) == 1",
        "assert answer.json['detail'] == 'It is gone.'",
        "assert 'is gone' in problem['title']",
    ],
)
def test_what_fails_by_the_weather_is_found(line: str) -> None:
    assert found(f"SHORT = 5\n{line}\n") == [2]
    assert found(f"SHORT = 5\n{line}  # meant: for a reason\n") == []


@pytest.mark.parametrize(
    "line",
    [
        "requests.get(url, timeout=PATIENCE)",
        "requests.get(url, timeout=60)",
        "api.cluster(timeout=0.1)",
        "', '.join(names)",
        "sessions.wait(uuid, reached, 0.1)",
        "wait_for(done, 'it', interval=0.2)",
        "assert answer.json['detail'] == reason",
        "assert 'REDIS_URL' in answer.json['detail']",
        "command = 'import time; time.sleep(60)'",
    ],
)
def test_what_does_not_is_not(line: str) -> None:
    assert found(f"PATIENCE = 60.0\n{line}\n") == []


def test_only_the_module_for_it_sleeps() -> None:
    assert found("time.sleep(pause)", check_tests.SLEEPS_HERE) == []


def test_modules_that_tests_import_are_looked_at_too() -> None:
    names = {str(path.relative_to(check_tests.ROOT)) for path in check_tests.sources()}
    assert {"tests/e2e/test_workspace.py", "tests/service.py", "tests/waiting.py", "tests/conftest.py"} <= names
    assert "tests/integration/test_hung.py" not in names
