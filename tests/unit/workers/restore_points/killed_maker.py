"""A process that makes, restores or proves a point, for a test to kill. Arguments: `make VOLUME URL ORDER`, `restore
VOLUME URL ID` or `prove SCRATCH URL ORDER`; the session's keys come on standard input. It prints a line when it begins,
and one when it is done."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from app.core.storage.archive_keys import SessionKeys
from tests.unit.workers.restore_points.conftest import LIMITS
from workers.restore_points import make_point, prove_point, restore_point
from workers.runtime.base import PointOrder, ProofOrder, never


def main() -> None:
    action, volume, url, what = sys.argv[1:]
    keys = SessionKeys.from_text(sys.stdin.readline())
    print("begun", flush=True)
    if action == "make":
        order = json.loads(what)
        make_point(Path(volume), url, keys, PointOrder(**{**order, "keep": tuple(order["keep"])}), never)
    elif action == "prove":
        proof = prove_point(Path(volume), url, keys, ProofOrder(**json.loads(what)), never)
        assert proof.proven, proof
    else:
        restore_point(Path(volume), url, keys, what, LIMITS, never, user_id="ada@example.com")
    print("done", flush=True)


if __name__ == "__main__":
    main()
