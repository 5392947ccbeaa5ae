"""Checks that the lock files were made for the present requirements in setup.cfg.

    python -m scripts.lib.check_lock            exit code 1 and a text if not
    python -m scripts.lib.check_lock --digest   the digest in the first line of a lock file

It needs neither network nor packages, so it can run first.
"""

from __future__ import annotations

import configparser
import hashlib
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("requirements.lock", "requirements-image.lock")


def digest(setup_cfg: str) -> str:
    """SHA-256 of the requirements in the text of a setup.cfg, whatever their order."""
    config = configparser.ConfigParser(interpolation=None)
    config.read_string(setup_cfg)
    texts = {
        "python": config["options"]["python_requires"],
        "service": config["options"]["install_requires"],
        **config["options.extras_require"],
    }
    requirements = {name: sorted(text.split()) for name, text in texts.items()}
    return hashlib.sha256(json.dumps(requirements, sort_keys=True).encode()).hexdigest()


def faults(lock: str, wanted: str) -> list[str]:
    """Faults in the text of a lock file, whose first line should contain the digest `wanted`."""
    found = []
    if wanted not in lock.split("\n", 1)[0]:
        found.append("it was not made for the present requirements")
    if re.search(r"://|^\s*--(index|extra|find|trusted)", lock, re.MULTILINE):
        found.append("it names a package index, which is up to the installing machine")
    return found


def main(arguments: list[str]) -> int:
    wanted = digest((ROOT / "setup.cfg").read_text())
    if arguments == ["--digest"]:
        print(wanted)
        return 0
    found = [f"{name}: {fault}" for name in LOCKS for fault in faults((ROOT / name).read_text(), wanted)]
    for line in found:
        print(f"{line}. Run scripts/lock.", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
