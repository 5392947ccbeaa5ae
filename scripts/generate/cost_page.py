"""The tables of docs/cost.md, from the settings of the overlay `gke` and the manifests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from app.core.costs.prices import HOURS_PER_MONTH, Prices, quantity
from app.core.costs.usage import bill
from app.process.settings import Settings
from scripts.generate.marked import Part, table

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = ROOT / "manifests" / "base" / "system"
GKE = ROOT / "manifests" / "overlays" / "gke" / "settings.env"
SMALL = ROOT / "manifests" / "components" / "small" / "requests.yaml"

DISKS = {
    "standard-rwo": "balanced (SSD)",
    "premium-rwo": "SSD",
    "standard": "standard (hard disk)",
}
"""The kind of Google's persistent disks that GKE makes, by storage class
(cloud.google.com/kubernetes-engine/docs/concepts/persistent-volumes)."""

USERS = (100, 1_000, 10_000)
AWAKE_HOURS = (10, 40)
"""Hours a month in which a user's session is awake: a course, and half of a working time."""

SIZE, MODEL = "standard", "gpt-5-mini"
PROMPT_PER_HOUR, COMPLETION_PER_HOUR = 200_000, 10_000
"""Tokens of an awake hour: ten turns, each of which reads 20,000 and writes 1,000."""

BACKUP_MIB = 200
"""Of one backup that is kept all month."""

DAYS = {10: 5, 40: 10}
"""Days of a month on which a user of so many awake hours comes; on each the volume stays for `SESSION_TTL` after."""

POINTS_MIB = 155
"""Of the restore points of 304 MB of files after ten sleeps and an archive, as measured (docs/cost.md says how)."""

FEE = Decimal("0.10") * HOURS_PER_MONTH
"""$ a month: GKE's management fee of a cluster (cloud.google.com/kubernetes-engine/pricing, 2025)."""

BALANCER = Decimal("0.025") * HOURS_PER_MONTH
"""$ a month: a forwarding rule of the load balancer before the ingress (cloud.google.com/vpc/network-pricing, 2025);
traffic comes on top."""

CREDIT = Decimal("74.40")
"""$ a month: what a billing account is given for the fees of zonal and Autopilot clusters
(cloud.google.com/kubernetes-engine/pricing, 2025)."""

INGRESS = (2, "100m", "128Mi")
"""Replicas, CPU and memory of the ingress controller, which the manifests of the service do not bring."""

SMALL_USERS = 100
"""For how many the component `small` is."""

PEAK = 4
"""How many times the average of sessions is awake at the busiest hour."""

CARRIED = 500
"""Sessions awake at a time for which the manifests' replicas of web, forward-auth, gateway and workers are; of beat,
observer, flower and Redis there are as many for all."""

GROWING = frozenset({"web", "forward-auth", "gateway", "worker", "sweeper", "backup-worker", "delivery-worker"})


@dataclass(frozen=True)
class Process:
    """A Deployment or StatefulSet of the service: its replicas, and what each requests."""

    name: str
    replicas: int
    vcpus: Decimal
    gib: Decimal
    disk_gib: Decimal = Decimal(0)

    def dollars(self, prices: Prices, times: int = 1) -> Decimal:
        """A month of it, with so many times the replicas."""
        hourly = self.vcpus * prices.vcpu_hour + self.gib * prices.gib_hour
        return times * self.replicas * (hourly * HOURS_PER_MONTH + self.disk_gib * prices.disk_gib_month)


@dataclass(frozen=True)
class User:
    """A month of one user, in dollars, and what sleeping saved."""

    hours: int
    dollars: Mapping[str, Decimal]
    saved: Decimal

    @property
    def total(self) -> Decimal:
        return sum(self.dollars.values(), Decimal(0))


@cache
def processes() -> tuple[Process, ...]:
    """The service as the base manifests have it, and an ingress controller."""
    replicas, cpu, memory = INGRESS
    return (*sorted(_deployed(), key=lambda each: each.name), _process("ingress", replicas, [(cpu, memory)]))


@cache
def small_processes() -> tuple[Process, ...]:
    """The service with the component `small`: one pod of each process that it names, and of the ingress controller."""
    disks = {each.name: each.disk_gib for each in processes()}
    _, cpu, memory = INGRESS
    named = [
        (each["metadata"]["name"], each["spec"]["template"]["spec"]["containers"])
        for each in yaml.safe_load_all(SMALL.read_text())
    ]
    pods = [replace(_process(name, 1, list(map(_requests, asked))), disk_gib=disks[name]) for name, asked in named]
    return (*sorted(pods, key=lambda each: each.name), _process("ingress", 1, [(cpu, memory)]))


def small_platform(prices: Prices) -> Decimal:
    """A month of that service without GKE's fee, which `CREDIT` covers."""
    pods = sum((each.dollars(prices) for each in small_processes()), Decimal(0))
    return pods + BALANCER


def a_user(hours: int, prices: Prices) -> User:
    """One session, awake and at work for so many hours, with its volume, a backup and restore points kept all month."""
    month = HOURS_PER_MONTH * 3_600
    made = bill(
        {
            f"c:{SIZE}": hours * 3_600_000,
            f"d:{SIZE}:{prices.volume_mib}": month,
            "b": BACKUP_MIB * 1_024 * month,
            "r": POINTS_MIB * 1_024 * month,
            f"p:{MODEL}": hours * PROMPT_PER_HOUR,
            f"t:{MODEL}": hours * COMPLETION_PER_HOUR,
        },
        prices,
    )
    return User(hours, made.dollars, made.saved)


def times(users: int, hours: int) -> int:
    """How many times the manifests' replicas carry these users."""
    at_once = users * hours * PEAK / HOURS_PER_MONTH
    return max(1, -(-int(at_once) // CARRIED))


def platform(users: int, hours: int, prices: Prices) -> Decimal:
    """A month of the service itself, for so many users."""
    grown = times(users, hours)
    pods = sum((each.dollars(prices, grown if each.name in GROWING else 1) for each in processes()), Decimal(0))
    return pods + FEE + BALANCER


def gke(storage_class: str = "") -> Settings:
    """The settings by which the overlay `gke` prices disks, with another storage class if one is named."""
    lines = [line.partition("=") for line in GKE.read_text().splitlines() if not line.startswith("#")]
    told = {name: value for name, _, value in lines}
    return replace(
        Settings(),
        storage_class=storage_class or told["STORAGE_CLASS"],
        prices=told["PRICES"],
    )


def tables() -> str:
    """All that the page computes."""
    prices = Prices.of(gke())
    parts = (_users(prices), _service(prices), _small(prices), _all(prices), _archived(prices), _disks())
    return "\n\n".join("\n".join(part) for part in parts)


def _users(prices: Prices) -> Iterator[str]:
    yield "### A user"
    yield ""
    hour, gib = prices.compute_hour(SIZE), Decimal(prices.volume_mib) / 1_024
    tokens = prices.of_model(MODEL)
    of_tokens = (PROMPT_PER_HOUR * tokens.prompt + COMPLETION_PER_HOUR * tokens.completion) / 1_000_000
    vcpus, memory = prices.vcpus[SIZE], prices.memory_gib[SIZE]
    yield (
        f"- Compute: a pod of the size `{SIZE}` requests {vcpus} vCPU and {memory} GiB with its agent; an hour is "
        f"{vcpus} × ${prices.vcpu_hour} + {memory} × ${prices.gib_hour} = ${hour:.6f}."
    )
    disk = gib * prices.disk_gib_month
    yield f"- Disk: {gib:.0f} GiB × ${prices.disk_gib_month} = ${disk:.2f}, awake or asleep, while there is a volume."
    yield (
        f"- Backups: {BACKUP_MIB} MiB × ${prices.backup_gib_month} a GiB = "
        f"${Decimal(BACKUP_MIB) / 1_024 * prices.backup_gib_month:.4f}."
    )
    yield (
        f"- Restore points: {POINTS_MIB} MiB × ${prices.backup_gib_month} a GiB = "
        f"${Decimal(POINTS_MIB) / 1_024 * prices.backup_gib_month:.4f}."
    )
    yield (
        f"- Tokens of an awake hour, by `{MODEL}`: {PROMPT_PER_HOUR:,} read × ${tokens.prompt} and "
        f"{COMPLETION_PER_HOUR:,} written × ${tokens.completion} a million = ${of_tokens:.4f}."
    )
    yield ""
    yield table(
        ("Awake a month", "Compute", "Disk", "Backups", "Points", "Tokens", "In all", "Saved by sleeping"),
        [
            (f"{each.hours} h", *(_money(value) for value in (*each.dollars.values(), each.total, each.saved)))
            for each in (a_user(hours, prices) for hours in AWAKE_HOURS)
        ],
    )


def _service(prices: Prices) -> Iterator[str]:
    yield "### The service"
    yield ""
    more = {"GKE's fee": FEE, "load balancer": BALANCER, "**in all**": platform(1, 1, prices)}
    yield from _pods(processes(), prices, more)


def _small(prices: Prices) -> Iterator[str]:
    alone, usual = small_platform(prices), platform(SMALL_USERS, 1, prices)
    yield f"### The service for up to {SMALL_USERS} users"
    yield ""
    yield "With the component `small`, as in the overlay `small`: one pod of each process, and no Flower."
    yield ""
    more = {"load balancer": BALANCER, "**in all, without GKE's fee**": alone}
    yield from _pods(small_processes(), prices, more)
    yield ""
    yield f"GKE's fee, {_money(FEE)}, is not among them: Google credits {_money(CREDIT)} a month to a billing account,"
    yield f"for one zonal or Autopilot cluster. Where another has used that up, it is {_money(alone + FEE)} in all."
    shares = (_money(each / SMALL_USERS) for each in (alone, alone + FEE, usual))
    yield "For {} users that is {} a user, {} with the fee; without the component {}, with the fee.".format(
        SMALL_USERS, *shares
    )


def _pods(pods: Sequence[Process], prices: Prices, more: Mapping[str, Decimal]) -> Iterator[str]:
    rows = [
        (f"`{each.name}`", str(each.replicas), f"{each.vcpus}", f"{each.gib:.3f}", _money(each.dollars(prices)))
        for each in pods
    ]
    rows += [(name, "", "", "", _money(dollars)) for name, dollars in more.items()]
    yield table(("Process", "Replicas", "vCPU each", "GiB each", "A month"), rows)


def _all(prices: Prices) -> Iterator[str]:
    yield "### 100, 1,000 and 10,000 users"
    yield ""
    rows = []
    for hours in AWAKE_HOURS:
        user = a_user(hours, prices)
        for users in USERS:
            shared = platform(users, hours, prices)
            each, always = user.total + shared / users, user.total + user.saved
            rows.append(
                (
                    *(f"{users:,}", f"{hours} h", f"× {times(users, hours)}", _money(shared)),
                    *(_money(shared / users), _money(user.total), f"**{_money(each)}**", _money(each * users)),
                    _money(always + shared / users),
                )
            )
    yield table(
        (
            *("Users", "Awake a month", "Replicas", "The service", "Its share", "Sessions and tokens"),
            *("A user costs", "All users", "A user, never asleep"),
        ),
        rows,
    )


def kept_hours(hours: int) -> int:
    """Hours of a month in which a user's volume exists: those awake, and `SESSION_TTL` after each day of use."""
    if not hours:
        return 0
    asleep = DAYS[hours] * Settings().session_ttl / 3_600
    return min(HOURS_PER_MONTH, round(hours + asleep))


def with_archive(hours: int, prices: Prices) -> tuple[Decimal, Decimal, Decimal]:
    """A month of one user without tokens, in dollars: compute, the volume while it exists, and what is stored."""
    month = HOURS_PER_MONTH * 3_600
    made = bill(
        {
            f"c:{SIZE}": hours * 3_600_000,
            f"d:{SIZE}:{prices.volume_mib}": kept_hours(hours) * 3_600,
            "b": BACKUP_MIB * 1_024 * month,
            "r": POINTS_MIB * 1_024 * month,
        },
        prices,
    )
    return made.dollars["compute"], made.dollars["disk"], made.dollars["backups"] + made.dollars["points"]


def _archived(prices: Prices) -> Iterator[str]:
    yield "### With the archive, without tokens"
    yield ""
    stored, days = with_archive(0, prices)[2], " or ".join(map(str, DAYS.values()))
    yield f"An archived session has no volume: {POINTS_MIB} MiB of restore points (of 304 MB of files) and the backup"
    yield f"cost ${stored:.4f} a month. A user comes on {days} days of the month, and the volume stays for a"
    yield "`SESSION_TTL` of 24 h after each."
    yield ""
    rows = []
    for hours in (0, *AWAKE_HOURS):
        compute, disk, stored = with_archive(hours, prices)
        alone = compute + disk + stored
        shares = [alone + platform(users, max(hours, 1), prices) / users for users in USERS[1:]]
        named = f"{hours} h on {DAYS[hours]} days" if hours else "archived all month"
        kept = f"{kept_hours(hours)} h" if hours else "none"
        rows.append((named, kept, *(_money(each) for each in (compute, disk, stored)), *(map(_bold, shares))))
    heads = ("Awake a month", "Volume", "Compute", "Disk", "Stored")
    yield table((*heads, *(f"A user of {users:,}" for users in USERS[1:])), rows)


def _disks() -> Iterator[str]:
    yield "### Storage classes"
    yield ""
    users, hours = USERS[-1], AWAKE_HOURS[-1]
    rows = []
    for name, kind in DISKS.items():
        prices = Prices.of(gke(name))
        volume = Decimal(prices.volume_mib) / 1_024 * prices.disk_gib_month
        archived = sum(with_archive(hours, prices)) + platform(users, hours, prices) / users
        rows.append((f"`{name}`", kind, f"${prices.disk_gib_month}", _money(volume), _bold(archived)))
    yield table(
        (
            *("Storage class", "Disk", "A GiB and month", "A volume, all month"),
            f"A user of {users:,}, {hours} h on {DAYS[hours]} days, with the archive, without tokens",
        ),
        rows,
    )


def _bold(dollars: Decimal) -> str:
    return f"**{_money(dollars)}**"


def _money(dollars: Decimal) -> str:
    return f"${dollars:,.2f}"


def _deployed() -> Iterator[Process]:
    found = [each for path in sorted(SYSTEM.glob("*.yaml")) for each in yaml.safe_load_all(path.read_text())]
    objects = [each for each in found if isinstance(each, dict)]
    scaled = {
        each["spec"]["scaleTargetRef"]["name"]: each["spec"]["minReplicas"]
        for each in objects
        if each["kind"] == "HorizontalPodAutoscaler"
    }
    for each in objects:
        if each["kind"] in ("Deployment", "StatefulSet"):
            name, spec = each["metadata"]["name"], each["spec"]
            asked = [_requests(container) for container in spec["template"]["spec"]["containers"]]
            claims = spec.get("volumeClaimTemplates", ())
            disks = [claim["spec"]["resources"]["requests"]["storage"] for claim in claims]
            yield _process(name, scaled.get(name) or spec["replicas"], asked, disks)


def _requests(container: Mapping[str, Any]) -> tuple[str, str]:
    asked = container["resources"]["requests"]
    return str(asked["cpu"]), str(asked["memory"])


def _process(name: str, replicas: int, asked: Sequence[tuple[str, str]], disks: Sequence[str] = ()) -> Process:
    gib = 1_024**3
    return Process(
        name,
        replicas,
        sum((quantity(cpu, name) for cpu, _ in asked), Decimal(0)),
        sum((quantity(memory, name) for _, memory in asked), Decimal(0)) / gib,
        sum((quantity(disk, name) for disk in disks), Decimal(0)) / gib,
    )


PART = Part("cost.md", "costs", tables)
