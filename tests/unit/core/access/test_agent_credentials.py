"""A workspace's token names its session and opens no other."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from app.core.access.agent_credentials import AgentCredentials, TokenOwner
from app.process.secret_keys import Purpose, keys_for
from app.process.settings import Settings, SettingsError

KEY, OTHER = "k" * 32, "o" * 32
UUID = "abcd1234"


def test_a_token_is_the_sessions_uuid_its_epoch_and_the_keyed_hash_of_both():
    """The form is fixed: processes of two releases make and read it beside each other."""
    [key] = keys_for(Purpose.WORKSPACE, [KEY])
    mac = hmac.new(key.encode(), b"abcd1234.3", hashlib.sha256).hexdigest()
    assert AgentCredentials([KEY]).token(UUID, 3) == f"{UUID}.3.{mac}"


def test_a_token_without_an_epoch_is_none():
    """Whatever it is signed with."""
    [key] = keys_for(Purpose.WORKSPACE, [KEY])
    for signed_with in (KEY, key):
        for text in (f"workspace:{UUID}", UUID):
            mac = hmac.new(signed_with.encode(), text.encode(), hashlib.sha256).hexdigest()
            assert AgentCredentials([KEY]).owner_of(f"{UUID}.{mac}") is None


def test_a_token_of_one_epoch_is_none_under_another():
    """Nobody who holds one can say that it is of another."""
    secrets = AgentCredentials([KEY])
    uuid, epoch, mac = secrets.token(UUID, 3).split(".")
    assert epoch == "3"
    for text in (f"{uuid}.4.{mac}", f"{uuid}.03.{mac}", f"{uuid}.0.{mac}", f"{uuid}.{mac}", f"{uuid}.{10**10}.{mac}"):
        assert secrets.owner_of(text) is None


def test_a_token_leads_back_to_its_session():
    """Nothing is stored for it."""
    assert AgentCredentials([KEY]).owner_of(AgentCredentials([KEY]).token(UUID, 3)) == TokenOwner(UUID, 3)


@pytest.mark.parametrize("keys", [[OTHER], [], [KEY + "x"]])
def test_a_token_made_with_another_key_is_none(keys):
    """Whoever doesn't know the key can't make a token, nor can one be verified where no key is set."""
    assert AgentCredentials(keys).owner_of(AgentCredentials([KEY]).token(UUID, 3)) is None


def test_the_token_of_one_session_does_not_open_another():
    """The hash of one session under the name of another is refused."""
    mac = AgentCredentials([KEY]).token(UUID, 3).split(".")[2]
    assert AgentCredentials([KEY]).owner_of(f"abcd1235.3.{mac}") is None


def test_every_key_verifies_and_the_first_signs():
    """A key is rotated without locking out the workspaces that run."""
    both = AgentCredentials([OTHER, KEY])
    assert both.owner_of(AgentCredentials([KEY]).token(UUID, 3)) == TokenOwner(UUID, 3)
    assert both.token(UUID, 3) == AgentCredentials([OTHER]).token(UUID, 3)


@pytest.mark.parametrize(
    "change", [str.upper, lambda t: t + " ", lambda t: "\n" + t, lambda t: t + "0", lambda t: t[:-1]]
)
def test_a_token_must_be_whole_and_nothing_besides(change):
    """Neither case, nor blanks, nor length are guessed at."""
    secrets = AgentCredentials([KEY])
    assert secrets.owner_of(change(secrets.token(UUID, 3))) is None


@pytest.mark.parametrize("text", ["", ".", "abcd1234", "abcd1234.", "abcd1234.ä" + "0" * 63, "٠bcd1234." + "0" * 64])
def test_what_is_no_token_is_refused_without_an_error(text):
    """A header may hold anything."""
    assert AgentCredentials([KEY]).owner_of(text) is None


def test_an_agents_secret_is_no_token():
    """A workspace that sees another's, because it got its address, can't call the gateway with it."""
    [key] = keys_for(Purpose.AGENT, [KEY])
    mac = hmac.new(key.encode(), b"abcd1234.3", hashlib.sha256).hexdigest()
    secrets = AgentCredentials([KEY])
    assert secrets.agent_secrets(UUID, 3)[0] == mac
    assert secrets.owner_of(mac) is None
    assert secrets.owner_of(f"{UUID}.3.{mac}") is None


def test_an_agent_that_has_not_read_its_new_file_yet_is_reached_with_what_it_knows():
    """That of the epoch before; before the first, that of a workspace whose epoch is not known."""
    secrets = AgentCredentials([KEY])
    assert secrets.agent_secrets(UUID, 3) == (secrets.agent_secrets(UUID, 3)[0], secrets.agent_secrets(UUID, 2)[0])
    assert secrets.agent_secrets(UUID, 1) == (secrets.agent_secrets(UUID, 1)[0], secrets.agent_secrets(UUID, 0)[0])
    assert len(set(secrets.agent_secrets(UUID, 3) + secrets.agent_secrets(UUID, 1))) == 4


def test_each_key_gives_the_secret_of_an_agent_that_was_started_with_it():
    """The newest first, which a started agent is given."""
    both, first, second = AgentCredentials([OTHER, KEY]), AgentCredentials([OTHER]), AgentCredentials([KEY])
    (new, new_before), (old, old_before) = first.agent_secrets(UUID, 3), second.agent_secrets(UUID, 3)
    assert both.agent_secrets(UUID, 3) == (new, old, new_before, old_before)
    assert both.token_file(UUID, 3) == AgentCredentials([OTHER]).token_file(UUID, 3)


def test_the_file_holds_the_token_and_on_its_second_line_the_agents_secret():
    """This is how an agent reads it."""
    secrets = AgentCredentials([KEY])
    assert secrets.token_file(UUID, 3).splitlines() == [secrets.token(UUID, 3), secrets.agent_secrets(UUID, 3)[0]]


def test_what_opens_an_editor_is_of_its_session_and_good_for_nothing_else():
    """Neither a token nor what opens the agent; and no other session's."""
    key = hmac.new(KEY.encode(), b"secret:editor", hashlib.sha256).hexdigest()
    mac = hmac.new(key.encode(), b"abcd1234", hashlib.sha256).hexdigest()
    secrets = AgentCredentials([KEY])
    assert secrets.editor_secrets(UUID) == (mac,)
    assert secrets.owner_of(f"{UUID}.{mac}") is None
    assert mac not in (*secrets.agent_secrets(UUID, 3), *secrets.editor_secrets("abcd1235"))


@pytest.mark.parametrize(("started", "asked"), [([KEY], [OTHER, KEY]), ([OTHER, KEY], [KEY]), ([OTHER, KEY], [OTHER])])
def test_an_editor_knows_who_comes_while_a_key_is_rotated(started, asked):
    """Whether it was started before its ingress heard of the new key, or after."""
    known, asking = AgentCredentials(started).editor_file(UUID).splitlines(), AgentCredentials(asked)
    assert set(known) & set(asking.editor_secrets(UUID))
    assert set(known) & {f"disconnect={secret}" for secret in asking.disconnect_secrets(UUID)}
    assert len(known) == 2 * len(started)


def test_no_key_no_token():
    """A service without a SECRET_KEY says so, rather than signing with nothing."""
    with pytest.raises(SettingsError, match="SECRET_KEY"):
        AgentCredentials([]).token(UUID, 3)
    with pytest.raises(SettingsError, match="SECRET_KEY"):
        AgentCredentials([]).agent_secrets(UUID, 3)
    with pytest.raises(SettingsError, match="SECRET_KEY"):
        AgentCredentials([]).editor_secrets(UUID)
    with pytest.raises(SettingsError, match="SECRET_KEY"):
        AgentCredentials([f"editor={KEY}"]).disconnect_secrets(UUID)


def test_the_keys_are_not_in_its_text():
    """A record of it in a log gives nothing away."""
    assert KEY not in repr(AgentCredentials([KEY]))


def test_keys_come_from_the_setting_in_their_order():
    """Commas separate them; blanks around them don't count."""
    assert Settings(secret_key=f"{KEY}, {OTHER},").checked().secret_keys() == (KEY, OTHER)
    assert Settings().checked().secret_keys() == ()


def test_a_short_key_is_refused_without_being_shown():
    """One of several too."""
    with pytest.raises(SettingsError, match="SECRET_KEY") as error:
        Settings(secret_key=f"{KEY},shortkey").checked()
    assert "shortkey" not in str(error.value)
