"""Prints the part of requirements.lock that scripts/run needs: the service with its local mode and traces, without what
only the tests need. It runs before anything is installed.

    python -m scripts.lib.run_lock
"""

from __future__ import annotations

import configparser
import re
from pathlib import Path

from scripts.images.part_of_lock import part

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = ("local", "tracing")


def packages(setup_cfg: str) -> list[str]:
    """The names of the packages that the text of a setup.cfg requires for the service and for `EXTRAS`."""
    config = configparser.ConfigParser(interpolation=None)
    config.read_string(setup_cfg)
    texts = [config["options"]["install_requires"], *(config["options.extras_require"][each] for each in EXTRAS)]
    return re.findall(r"^\s*([\w.-]+)", "\n".join(texts), re.MULTILINE)


if __name__ == "__main__":
    print(part((ROOT / "requirements.lock").read_text(), packages((ROOT / "setup.cfg").read_text())), end="")
