"""The Lua scripts, each an atomic change of several keys.

The files of the folder `lua` hold a domain each. In them a line `-- script NAME` begins a script, and `-- part NAME`
functions for the scripts and parts that name it in their line `-- needs:`. The lines `-- keys:` and `-- args:` name
what a script takes, besides what its parts take; `...` ends the name of a list, which is the last. The script finds
each key in a local of its name, and each argument in `given`, as text. JSON it decodes itself.

A full Redis refuses a script only if the script's first write may take memory (6.2 and 7; 6.2 lacks the flag
`allow-oom`). So each script begins by unlinking a key that never exists. Scripts that store something new check for
room themselves (their part `room`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import redis

from app.core.redis import use_fields

EVEN_WHEN_FULL = "redis.call('UNLINK', KEYS[1] .. ':nothing')\n"

BEGIN = re.compile(r"^-- (script|part) (\w+)$", re.MULTILINE)
LABEL = re.compile(r"^-- (needs|keys|args): (.+)$", re.MULTILINE)

LIST = "..."


@dataclass(frozen=True)
class Section:
    """A script, or a part of several, as `kind` says: its text, the parts it needs, and the names of the keys and
    arguments it adds to theirs."""

    kind: str
    text: str
    needs: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    args: tuple[str, ...] = ()

    @classmethod
    def from_text(cls, kind: str, text: str) -> Section:
        labels: dict[str, tuple[str, ...]] = {}
        for label, names in LABEL.findall(text):
            labels[label] = (*labels.get(label, ()), *names.rstrip(",").split(", "))
        return cls(kind, text, **labels)


class Script:
    """A script, called with its keys and arguments by name: `Script(client, "disconnected")(session=..., uuid=...)`.
    A list is a sequence. The call raises `TypeError` for a name that is missing or unknown, and what Redis raises."""

    def __init__(self, client: redis.Redis, name: str) -> None:
        self._name = name
        self._keys, self._args = names_of(name)
        self._takes = frozenset(map(_plain, (*self._keys, *self._args)))
        self._script = client.register_script(source(name))

    def __call__(self, **given: Any) -> Any:
        if given.keys() != self._takes:
            wrong = ", ".join(sorted(given.keys() ^ self._takes))
            raise TypeError(f"The script {self._name} misses, or does not take: {wrong}.")
        return self._script(keys=list(_in_order(self._keys, given)), args=list(_in_order(self._args, given)))


@cache
def source(name: str) -> str:
    """The text of a script as it is sent to Redis."""
    return _preamble(name) + "\n".join(section.text for section in _with_parts(name))


@cache
def names_of(name: str) -> tuple[Sequence[str], Sequence[str]]:
    """The keys and the arguments of a script, in the order in which it takes them."""
    whole = _with_parts(name)
    keys = dict.fromkeys(each for section in whole for each in section.keys)
    args = dict.fromkeys(each for section in whole for each in section.args)
    return tuple(keys), tuple(args)


@cache
def sections() -> Mapping[str, Section]:
    """All scripts and parts by their names, which are unique."""
    found = {"use_fields": Section(kind="part", text=use_fields.as_lua())}
    for file in files("app.core.redis").joinpath("lua").iterdir():
        _, *cut = BEGIN.split(file.read_text())
        for kind, name, text in zip(cut[::3], cut[1::3], cut[2::3], strict=True):
            if name in found:
                raise ValueError(f"Two sections in the folder lua are named {name}; rename one.")
            found[name] = Section.from_text(kind, text)
    return found


def flatten(fields: Mapping[str, Any]) -> list[Any]:
    """Fields as a script takes them: name, value, name, value, ..."""
    return [part for pair in fields.items() for part in pair]


def pairs(flat: Sequence[str]) -> dict[str, str]:
    """The hash in a script's answer, which has the same form."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _with_parts(name: str) -> Sequence[Section]:
    """A section after the parts it needs, and those that these need, each after its own."""
    section = sections()[name]
    needed = [each for need in section.needs for each in _with_parts(need)]
    return [*dict.fromkeys(needed), section]


def _preamble(name: str) -> str:
    """The first lines of a script: a local for each key, and `given` with the arguments."""
    keys, args = names_of(name)
    names, values = ", ".join(map(_plain, keys)), ", ".join(_values("KEYS", keys))
    given = ", ".join(f"{_plain(each)} = {value}" for each, value in zip(args, _values("ARGV", args), strict=True))
    return f"{EVEN_WHEN_FULL}local {names} = {values}\nlocal given = {{{given}}}\n"


def _values(table: str, names: Sequence[str]) -> Iterator[str]:
    for place, name in enumerate(names, 1):
        yield f"{{unpack({table}, {place})}}" if name.endswith(LIST) else f"{table}[{place}]"


def _in_order(names: Sequence[str], given: Mapping[str, Any]) -> Iterator[Any]:
    for name in names:
        if name.endswith(LIST):
            yield from given[_plain(name)]
        else:
            yield given[name]


def _plain(name: str) -> str:
    return name.removesuffix(LIST)
