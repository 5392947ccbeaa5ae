"""A program for the tests of the supervisor: it tells what it has, or ends in some way."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path


def tell() -> None:
    """Print what this process has, and live on."""
    handlers = [number for number in signal.valid_signals() if callable(signal.getsignal(number))]
    files = [int(each) for each in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{each}")]
    print(
        json.dumps(
            {
                "argv": sys.argv[1:],
                "name": Path("/proc/self/comm").read_text().strip(),
                "given": os.environ.get("GIVEN"),
                "session": os.getsid(0),
                "files": sorted(files),
                "handlers": [number for number in handlers if number != signal.SIGINT],
                "blocked": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())],
                "imported": "celery.apps.worker" in sys.modules,
            }
        )
    )
    time.sleep(60)


def late() -> None:
    time.sleep(0.5)
    print("the thread's end")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["tell", *_]:
            tell()
        case ["raise"]:
            1 / 0  # noqa: B018 - the error
        case ["thread"]:
            threading.Thread(target=late).start()
        case ["end", code]:
            sys.exit(int(code) if code.isdecimal() else code)
