"""The service under random calls and faults, for as long as one wants: the fuzzer, a prompt beside a sleep, stops, a
hostile session, or a store that hangs, beside quiet ones; what a hostile tenant tries at its doors; and each alert by
its fault.

    python -m tests.faults --seed 1 fuzz --seconds 3600
    python -m tests.faults races --trials 500
    python -m tests.faults neighbours --rounds 3 --store
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
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from tests.faults import alarm_faults, alarming, fuzz, neighbours, racing, stopping, touring
from tests.faults.places import Place, local_place
from tests.faults.troubling import Mood
from tests.integration import minio


def place_of(runtime: str, folder: Path, settings: Mapping[str, str]) -> AbstractContextManager[Place]:
    if runtime == "local":
        return local_place(folder, os.environ["CODE_SERVER"], **settings)
    # It needs what is only there behind `scripts/cluster/cluster exec`.
    from tests.faults.cluster_place import cluster_place

    return cluster_place(folder, **settings)


def host_of(runtime: str) -> str:
    """The address of this machine by which a cluster's pods reach it; "" without a cluster."""
    if runtime == "local":
        return ""
    from scripts.cluster import layout

    return layout.NODE_IP


def tour(runtime: str, folder: Path) -> list[str]:
    host = host_of(runtime)
    visits = touring.ON_CLUSTER if host else touring.ON_MACHINE
    with touring.surroundings(folder, host) as around, place_of(runtime, folder, around.settings) as place:
        return touring.run(place, around, visits)


def beside_others(runtime: str, folder: Path, rounds: int, *, store: bool) -> list[str]:
    host, settings = host_of(runtime), dict(neighbours.SETTINGS)
    with ExitStack() as opened:
        if store:
            url = opened.enter_context(minio.running(folder, host or "127.0.0.1"))
            settings |= minio.settings(url) | {"BACKUP_ROLE": minio.ROLE if host else ""}
        place = opened.enter_context(place_of(runtime, folder, settings))
        return neighbours.run(place, rounds, store=store)


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
    beside.add_argument("--store", action="store_true", help="beside a store that hangs, too")
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
    if options.play == "neighbours":
        return bool(beside_others(options.runtime, folder, options.rounds, store=options.store))
    with place_of(options.runtime, folder, {}) as place:
        match options.play:
            case "races":
                return bool(racing.run(place, options.trials, random.Random(seed)))
            case "stops":
                return bool(stopping.run(place, options.trials, random.Random(seed), folder))
        mood = Mood(options.mood) if options.mood else None
        limits = {"first": options.first, "most": options.rounds}
        without = options.without.split(",")
        return bool(fuzz.run(place, folder, seed, options.seconds, mood=mood, without=without, **limits))


if __name__ == "__main__":
    sys.exit(main())
