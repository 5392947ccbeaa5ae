"""What things cost, from the settings.

Compute is priced by what a pod of a size requests, the editor's container and the agent's, as GKE Autopilot bills.
Disks are priced by the volume's size and storage class, backups by their bytes, tokens by the model.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from app.core.sessions.model import SIZES
from app.process.settings import Settings, SettingsError

HOURS_PER_MONTH = 730
"""Hours in a month of the price lists: 365 days / 12."""

AGENT_REQUESTS = ("20m", "64Mi")
"""What the agent's container of a pod requests: CPU and memory, as in workers/runtime/kubernetes/objects.py."""

OTHER = "other"
"""The model of tokens whose model has no price of its own, so that a workspace can't make up names without end."""

ANY = "*"
"""The entry of `million_tokens` for models without one, and of `disk_gib_month` for storage classes without one."""

MOST = 1_000_000
"""$: no price is as high."""

SINGLE = ("vcpu_hour", "gib_hour", "backup_gib_month")
"""The prices that are one number each."""

MODEL_NAME = re.compile(r"[A-Za-z0-9._:/@-]{1,64}")

UNITS: Mapping[str, Decimal] = {
    "": Decimal(1),
    "m": Decimal(1) / 1000,
    **{letter: Decimal(1000) ** power for power, letter in enumerate(("k", "M", "G", "T"), 1)},
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate(("K", "M", "G", "T"), 1)},
}
"""Suffixes of Kubernetes' quantities."""

QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|[kMGT]|[KMGT]i)?")


@dataclass(frozen=True)
class TokenPrice:
    """Dollars of a million tokens that a model reads, and of a million that it writes."""

    prompt: Decimal
    completion: Decimal


@dataclass(frozen=True)
class Prices:
    """All prices in dollars. `vcpus` and `memory_gib` are what a pod requests, by size; `volume_mib` is a new volume's
    size, and `disk_gib_month` the price of its storage class; `tokens` are by model, with one for `OTHER`."""

    vcpu_hour: Decimal
    gib_hour: Decimal
    disk_gib_month: Decimal
    backup_gib_month: Decimal
    tokens: Mapping[str, TokenPrice]
    vcpus: Mapping[str, Decimal]
    memory_gib: Mapping[str, Decimal]
    volume_mib: int

    @classmethod
    def of(cls, settings: Settings) -> Prices:
        """The prices of the settings; raises `SettingsError` for malformed ones."""
        vcpus, memory = _requests(settings.workspace_sizes)
        given = settings.family("prices", Decimal)
        for name in SINGLE:
            if not 0 <= given[name] < MOST:
                raise SettingsError(f"PRICES: {name} must be 0 or more, and below {MOST}.")
        return cls(
            **{name: given[name] for name in SINGLE},
            disk_gib_month=_disk_price(given["disk_gib_month"], settings.storage_class),
            tokens=_token_prices(given["million_tokens"]),
            vcpus=vcpus,
            memory_gib=memory,
            volume_mib=math.ceil(quantity(settings.volume_size, "VOLUME_SIZE") / 1024**2),
        )

    def compute_hour(self, size: str) -> Decimal:
        """An hour of a pod; of an unknown size, that of the largest."""
        known = size if size in self.vcpus else SIZES[-1]
        return self.vcpus[known] * self.vcpu_hour + self.memory_gib[known] * self.gib_hour

    def model_name(self, model: str) -> str:
        """The name under which a model's tokens are booked."""
        return model if model in self.tokens else OTHER

    def has_price(self, model: str) -> bool:
        """Whether this model has a price of its own."""
        return self.model_name(model) != OTHER

    def of_model(self, model: str) -> TokenPrice:
        """A model's prices."""
        return self.tokens.get(model, self.tokens[OTHER])

    def to_json(self) -> dict[str, Any]:
        """As answers show them."""
        return {
            "vcpu_hour": float(self.vcpu_hour),
            "gib_hour": float(self.gib_hour),
            "compute_hour": {size: float(self.compute_hour(size)) for size in SIZES},
            "disk_gib_month": float(self.disk_gib_month),
            "backup_gib_month": float(self.backup_gib_month),
            "million_tokens": {
                model: {"prompt": float(each.prompt), "completion": float(each.completion)}
                for model, each in self.tokens.items()
            },
        }


def quantity(text: str, where: str) -> Decimal:
    """A quantity of Kubernetes (`250m`, `5Gi`) as a number; raises `SettingsError` that names the setting."""
    match = QUANTITY.fullmatch(text.strip())
    if match is None:
        raise SettingsError(f"{where}: {text!r} is no quantity, such as 250m, 1, 512Mi or 5Gi.")
    return Decimal(match[1]) * UNITS[match[2] or ""]


def _requests(sizes: str) -> tuple[dict[str, Decimal], dict[str, Decimal]]:
    """The vCPUs and GiB that pods request, by size."""
    try:
        read = {size: tuple(map(str, json.loads(sizes)[size])) for size in SIZES}
        if any(len(each) != 4 for each in read.values()):
            raise ValueError
    except (ValueError, TypeError, KeyError) as error:
        raise SettingsError(
            f"WORKSPACE_SIZES must be a JSON object of {', '.join(SIZES)}, each with CPU request and limit, memory "
            "request and limit."
        ) from error
    cpu, memory = (quantity(each, "the agent's requests") for each in AGENT_REQUESTS)
    vcpus = {size: quantity(each[0], "WORKSPACE_SIZES") + cpu for size, each in read.items()}
    gib = {size: (quantity(each[2], "WORKSPACE_SIZES") + memory) / 1024**3 for size, each in read.items()}
    return vcpus, gib


def _disk_price(entries: Mapping[str, Any], storage_class: str) -> Decimal:
    """That of a storage class."""
    try:
        prices = {name: Decimal(price) for name, price in entries.items()}
        if not prices or any(not 0 <= price < MOST for price in prices.values()):
            raise ValueError
    except (ValueError, TypeError, InvalidOperation) as error:
        raise SettingsError(
            "PRICES: disk_gib_month must be a JSON object of dollars a GiB and month by storage class, such as "
            '{"standard-rwo": 0.1, "*": 0.17}, with "*" for all others.'
        ) from error
    price = prices.get(storage_class, prices.get(ANY))
    if price is None:
        raise SettingsError(
            f"PRICES: disk_gib_month has no price for the storage class {storage_class!r} of STORAGE_CLASS: add one, "
            'or one for "*", all others.'
        )
    return price


def _token_prices(entries: Mapping[str, Any]) -> dict[str, TokenPrice]:
    wrong = SettingsError(
        "PRICES: million_tokens must be a JSON object of [prompt, completion] in dollars a million tokens by model, "
        'with "*" for all others.'
    )
    try:
        prices = {str(model): TokenPrice(Decimal(prompt), Decimal(done)) for model, (prompt, done) in entries.items()}
        if any(not 0 <= each < MOST for price in prices.values() for each in (price.prompt, price.completion)):
            raise ValueError
    except (ValueError, TypeError, InvalidOperation) as error:
        raise wrong from error
    if ANY not in prices or any(not MODEL_NAME.fullmatch(name) for name in prices if name != ANY):
        raise wrong
    prices[OTHER] = prices.pop(ANY)
    return prices
