"""The service under random calls and faults, for as long as one wants: the fuzzer, a prompt beside a sleep, stops, a
hostile session beside quiet ones; what a hostile tenant tries at its doors; and each alert by its fault.

    python -m tests.faults --seed 1 fuzz --seconds 3600
    python -m tests.faults races --trials 500
    python -m tests.faults neighbours --rounds 3
    python -m tests.faults tour
    python -m tests.faults alerts
    scripts/cluster/cluster exec env API_URL=… API_KEY=… PYTHONPATH=$PWD \\
        python -m tests.faults --runtime cluster stops --trials 60

Ctrl-C ends it in order: a cluster gets its own settings back. The local runtime needs CODE_SERVER, as the tests do.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from tests.faults import alarm_faults, alarming, fuzz, neighbours, racing, stopping, touring
from tests.faults.places import Place, local_place
from tests.faults.troubling import Mood


def place_of(runtime: str, folder: Path, settings: Mapping[str, str]) -> AbstractContextManager[Place]:
    if runtime == "local":
        return local_place(folder, os.environ["CODE_SERVER"], **settings)
    # It needs what is only there behind `scripts/cluster/cluster exec`.
    from tests.faults.cluster_place import cluster_place

    return cluster_place(folder, **settings)


def tour(runtime: str, folder: Path) -> list[str]:
    if runtime == "local":
        host, visits = "", touring.ON_MACHINE
    else:
        from scripts.cluster import layout

        host, visits = layout.NODE_IP, touring.ON_CLUSTER
    with touring.surroundings(folder, host) as around, place_of(runtime, folder, around.settings) as place:
        return touring.run(place, around, visits)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Play with the whole service.")
    parser.add_argument("--runtime", choices=["local", "cluster"], default="local")
    parser.add_argument("--seed", type=int, help="a random one, printed, without it")
    parser.add_argument("--folder", type=Path, help="for everything; a temporary one without it")
    plays = parser.add_subparsers(dest="play", required=True)
    for name, what in (("races", "a sleep beside a prompt"), ("stops", "stop and start everything")):
        plays.add_parser(name, help=what).add_argument("--trials", type=int, default=10)
    beside = plays.add_parser("neighbours", help="a hostile session beside quiet ones")
    beside.add_argument("--rounds", type=int, default=3)
    plays.add_parser("tour", help="what a hostile tenant tries at each door")
    names = [fault.name for fault in alarm_faults.FAULTS]
    alerts = plays.add_parser("alerts", help="each alert by its real fault; over an hour for all")
    alerts.add_argument("faults", nargs="*", metavar="FAULT", help=f"all without it: {', '.join(names)}")
    fuzzer = plays.add_parser("fuzz", help="random calls and faults")
    fuzzer.add_argument("--seconds", type=float, default=600.0)
    fuzzer.add_argument("--mood", choices=[str(mood) for mood in Mood], help="only this kind of trouble")
    fuzzer.add_argument("--without", default="", help="calls to leave out, as sleep,chat; or idle")
    fuzzer.add_argument("--first", type=int, default=0, help="the number of the first round, to see that one again")
    fuzzer.add_argument("--rounds", type=int, default=sys.maxsize)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="faults-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"seed {seed}, in {folder}", flush=True)
    if options.play == "alerts":
        if unknown := set(options.faults) - set(names):
            parser.error(f"no such fault: {', '.join(unknown)}")
        chosen = [fault for fault in alarm_faults.FAULTS if not options.faults or fault.name in options.faults]
        return bool(alarming.run(folder, os.environ["CODE_SERVER"], chosen))
    if options.play == "tour":
        return bool(tour(options.runtime, folder))
    settings = neighbours.SETTINGS if options.play == "neighbours" else {}
    with place_of(options.runtime, folder, settings) as place:
        match options.play:
            case "races":
                return bool(racing.run(place, options.trials, random.Random(seed)))
            case "stops":
                return bool(stopping.run(place, options.trials, random.Random(seed), folder))
            case "neighbours":
                return bool(neighbours.run(place, options.rounds))
        mood = Mood(options.mood) if options.mood else None
        limits = {"first": options.first, "most": options.rounds}
        without = options.without.split(",")
        return bool(fuzz.run(place, folder, seed, options.seconds, mood=mood, without=without, **limits))


if __name__ == "__main__":
    sys.exit(main())
