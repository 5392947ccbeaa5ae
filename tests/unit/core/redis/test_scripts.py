"""The Lua scripts: what they take, and what they need."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from app.core.redis import scripts
from app.core.redis.scripts import Script, Section, sections

SCRIPTS = sorted(name for name, section in sections().items() if section.kind == "script")
PARTS = sorted(name for name, section in sections().items() if section.kind == "part")
DEFINED = re.compile(r"^local (?:function )?([\w, ]+)", re.MULTILINE)
"""What a section defines for all that comes after it: its lines that begin with `local`."""

LUA = {*("ipairs", "pairs", "pcall", "tonumber", "type", "unpack"), *("and", "not", "or", "if", "in", "return")}
"""Functions of Lua, and its words that may stand before a bracket."""


def code_of(section: Section) -> str:
    """A section without its comments and quoted texts."""
    return re.sub(r"--[^\n]*|'[^'\n]*'", "", section.text)


def defined_by(section: Section) -> set[str]:
    return {name.strip() for names in DEFINED.findall(code_of(section)) for name in names.split(",")}


def used_by(section: Section) -> set[str]:
    """The functions that it calls, without those of its own, and the constants that it names."""
    code = code_of(section)
    called = set(re.findall(r"(?<![.\w])(\w+)\(|\b([A-Z_]{2,})\b", code))
    return {name for pair in called for name in pair if name} - set(re.findall(r"local function (\w+)", code))


def needed_by(name: str) -> Iterator[str]:
    for need in sections()[name].needs:
        yield need
        yield from needed_by(need)


def test_the_calls_of_a_script_name_all_it_takes_and_nothing_else(redis_client: redis.Redis) -> None:
    observed = Script(redis_client, "observed")
    assert observed(seen="seen", since="since", now="5.000", silence=10) == 1
    assert redis_client.mget("seen", "since") == ["5.000", "5.000"]
    with pytest.raises(TypeError, match=r"script observed .*: silence, till\."):
        observed(seen="seen", since="since", now="6.000", till=10)
    assert redis_client.get("seen") == "5.000"


def test_a_list_is_given_as_a_list(redis_client: redis.Redis) -> None:
    redis_client.hset("session:aaaa0000", mapping={"uuid": "aaaa0000", "status": "active"})
    count = Script(redis_client, "count")
    answer = count(record="session:aaaa0000", windows=["rate:a", "rate:b"], seconds=60, cost=2)
    assert (answer[0], answer[2], answer[4]) == (2, 2, ["uuid", "aaaa0000", "status", "active"])
    assert count(record="", windows=["rate:a"], seconds=60, cost=1)[0] == 3


@pytest.mark.parametrize("name", SCRIPTS)
def test_redis_takes_each_script_and_a_full_one_too(redis_client: redis.Redis, name: str) -> None:
    text = scripts.source(name)
    assert redis_client.script_load(text)
    assert text.startswith("redis.call('UNLINK'")


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_uses_no_argument_that_it_does_not_take(name: str) -> None:
    with_parts = "\n".join(code_of(sections()[each]) for each in {*needed_by(name), name})
    used = set(re.findall(r"\bgiven\.(\w+)", with_parts))
    assert used <= {each.removesuffix("...") for each in scripts.names_of(name)[1]}
    assert not re.search(r"KEYS|ARGV", with_parts)


@pytest.mark.parametrize("name", [*SCRIPTS, *PARTS])
def test_what_a_section_takes_is_used_by_it_or_by_those_that_need_it(name: str) -> None:
    users = [each for each in sections() if each == name or name in needed_by(each)]
    code = "\n".join(code_of(sections()[each]) for each in users)
    for key in sections()[name].keys:
        assert re.search(rf"(?<![.\w]){key.removesuffix('...')}\b", code), key
    for argument in sections()[name].args:
        assert re.search(rf"\bgiven\.{argument.removesuffix('...')}\b", code), argument


@pytest.mark.parametrize("name", [*SCRIPTS, *PARTS])
def test_a_section_needs_the_parts_whose_functions_it_calls(name: str) -> None:
    used = used_by(sections()[name]) - defined_by(sections()[name])
    used_parts = {each for each in PARTS if defined_by(sections()[each]) & used}
    assert used_parts <= set(needed_by(name))
    assert used <= {*LUA, *(each for part in used_parts for each in defined_by(sections()[part]))}
    words = set(re.findall(r"\w+", code_of(sections()[name])))
    for need in sections()[name].needs:
        parts = [sections()[each] for each in (need, *needed_by(need))]
        brought = {name for part in parts for name in (*defined_by(part), *part.keys, *part.args)}
        assert words & brought, need


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_list_takes_all_that_is_left_and_no_name_stands_for_two_things(name: str) -> None:
    keys, arguments = scripts.names_of(name)
    assert not any(each.endswith("...") for each in (*keys[:-1], *arguments[:-1]))
    whole = [sections()[each] for each in dict.fromkeys((*needed_by(name), name))]
    defined = [*(each.removesuffix("...") for each in keys), *(each for part in whole for each in defined_by(part))]
    assert sorted(defined) == sorted(set(defined))


def test_two_sections_have_two_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lua").mkdir()
    (tmp_path / "lua/one.lua").write_text("-- script begin\nreturn 1\n")
    (tmp_path / "lua/two.lua").write_text("-- part begin\nlocal function begun() end\n")
    monkeypatch.setattr(scripts, "files", lambda _: tmp_path)
    sections.cache_clear()
    try:
        with pytest.raises(ValueError, match="named begin; rename one"):
            sections()
    finally:
        sections.cache_clear()
