"""A workspace's token names its session and opens no other."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from app.core.access.agent_credentials import AgentCredentials, TokenOwner
from app.process.settings import SettingsError


def signed(text: str, key: str) -> str:
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()


KEY, OTHER = "k" * 32, "o" * 32
UUID = "abcd1234"
WORKSPACE_KEY = signed("secret:workspace", KEY)
MAC = signed(f"{UUID}.3", WORKSPACE_KEY)
TOKEN = f"{UUID}.3.{MAC}"


@pytest.fixture
def ours() -> AgentCredentials:
    return AgentCredentials([KEY])


def test_a_token_is_the_sessions_uuid_its_epoch_and_the_keyed_hash_of_both(ours: AgentCredentials) -> None:
    """The form is fixed: processes of two releases make and read it beside each other. Nothing is stored for it."""
    assert ours.token(UUID, 3) == TOKEN
    assert ours.owner_of(TOKEN) == TokenOwner(UUID, 3)


@pytest.mark.parametrize(
    "text",
    [
        # Without an epoch, whatever it is signed with.
        *(f"{UUID}.{signed(text, key)}" for key in (KEY, WORKSPACE_KEY) for text in (f"workspace:{UUID}", UUID)),
        # Of another epoch, or written in another way.
        *(f"{UUID}{epoch}.{MAC}" for epoch in (".4", ".03", ".0", "", f".{10**10}")),
        # Of another session.
        f"abcd1235.3.{MAC}",
        # Neither case, nor blanks, nor length are guessed at.
        *(TOKEN.upper(), f"{TOKEN} ", f"\n{TOKEN}", f"{TOKEN}0", TOKEN[:-1]),
        # A header may hold anything.
        *("", ".", UUID, f"{UUID}.", f"{UUID}.ä{63 * '0'}", f"٠bcd1234.{64 * '0'}"),
    ],
)
def test_what_is_no_whole_token_of_this_session_and_epoch_is_none(ours: AgentCredentials, text: str) -> None:
    assert ours.owner_of(text) is None


@pytest.mark.parametrize("keys", [[OTHER], [], [KEY + "x"]])
def test_a_token_made_with_another_key_is_none(keys: list[str]) -> None:
    """Nor can one be verified where no key is set."""
    assert AgentCredentials(keys).owner_of(TOKEN) is None


def test_every_key_verifies_and_the_first_signs() -> None:
    """A key is rotated without locking out the workspaces that run."""
    both = AgentCredentials([OTHER, KEY])
    assert both.owner_of(TOKEN) == TokenOwner(UUID, 3)
    assert both.token(UUID, 3) == AgentCredentials([OTHER]).token(UUID, 3)


def test_what_opens_an_agent_or_an_editor_is_of_its_session_and_good_for_nothing_else(ours: AgentCredentials) -> None:
    """A workspace that sees another's, because it got its address, can't call the gateway with it."""
    agent, editor = signed(f"{UUID}.3", signed("secret:agent", KEY)), signed(UUID, signed("secret:editor", KEY))
    assert ours.agent_secrets(UUID, 3)[0] == agent
    assert ours.editor_secrets(UUID) == (editor,)
    for text in (agent, f"{UUID}.3.{agent}", f"{UUID}.{editor}"):
        assert ours.owner_of(text) is None
    assert editor not in (*ours.agent_secrets(UUID, 3), *ours.editor_secrets("abcd1235"))


def test_an_agent_that_has_not_read_its_new_file_yet_is_reached_with_what_it_knows(ours: AgentCredentials) -> None:
    """That of the epoch before; before the first, that of a workspace whose epoch is not known."""
    none, first, second, third = (ours.agent_secrets(UUID, epoch)[0] for epoch in range(4))
    assert ours.agent_secrets(UUID, 3) == (third, second)
    assert ours.agent_secrets(UUID, 1) == (first, none)
    assert len({none, first, second, third}) == 4


def test_each_key_gives_the_secret_of_an_agent_that_was_started_with_it(ours: AgentCredentials) -> None:
    """The newest first, which a started agent is given."""
    both, newest = AgentCredentials([OTHER, KEY]), AgentCredentials([OTHER])
    (new, new_before), (old, old_before) = newest.agent_secrets(UUID, 3), ours.agent_secrets(UUID, 3)
    assert both.agent_secrets(UUID, 3) == (new, old, new_before, old_before)
    assert both.token_file(UUID, 3) == newest.token_file(UUID, 3)


def test_the_file_holds_the_token_and_on_its_second_line_the_agents_secret(ours: AgentCredentials) -> None:
    assert ours.token_file(UUID, 3).splitlines() == [TOKEN, ours.agent_secrets(UUID, 3)[0]]


@pytest.mark.parametrize(("started", "asked"), [([KEY], [OTHER, KEY]), ([OTHER, KEY], [KEY]), ([OTHER, KEY], [OTHER])])
def test_an_editor_knows_who_comes_while_a_key_is_rotated(started: list[str], asked: list[str]) -> None:
    """Whether it was started before its ingress heard of the new key, or after."""
    known, asking = AgentCredentials(started).editor_file(UUID).splitlines(), AgentCredentials(asked)
    assert set(known) & set(asking.editor_secrets(UUID))
    assert set(known) & {f"disconnect={secret}" for secret in asking.disconnect_secrets(UUID)}
    assert len(known) == 2 * len(started)


def test_without_a_key_for_it_nothing_is_signed() -> None:
    keyless, editors_alone = AgentCredentials([]), AgentCredentials([f"editor={KEY}"])
    for sign in (
        lambda: keyless.token(UUID, 3),
        lambda: keyless.agent_secrets(UUID, 3),
        lambda: keyless.editor_secrets(UUID),
        lambda: editors_alone.disconnect_secrets(UUID),
    ):
        with pytest.raises(SettingsError, match="SECRET_KEY"):
            sign()


def test_the_keys_are_not_in_its_text(ours: AgentCredentials) -> None:
    """A record of it in a log gives nothing away."""
    assert KEY not in repr(ours)
