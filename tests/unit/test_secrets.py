"""A workspace's token names its session and opens no other."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from app.sessions.secrets import SessionSecrets
from app.settings import Settings, SettingsError

KEY, OTHER = "k" * 32, "o" * 32
UUID = "abcd1234"


def test_a_token_is_the_sessions_uuid_and_its_keyed_hash():
    """The form is fixed: agents and other releases make and read it too."""
    mac = hmac.new(KEY.encode(), b"workspace:abcd1234", hashlib.sha256).hexdigest()
    assert SessionSecrets([KEY]).token(UUID) == f"{UUID}.{mac}"


def test_a_token_leads_back_to_its_session():
    """Nothing is stored for it."""
    assert SessionSecrets([KEY]).uuid_of(SessionSecrets([KEY]).token(UUID)) == UUID


@pytest.mark.parametrize("keys", [[OTHER], [], [KEY + "x"]])
def test_a_token_made_with_another_key_is_none(keys):
    """Whoever doesn't know the key can't make a token, nor can one be verified where no key is set."""
    assert SessionSecrets(keys).uuid_of(SessionSecrets([KEY]).token(UUID)) is None


def test_the_token_of_one_session_does_not_open_another():
    """The hash of one session under the name of another is refused."""
    mac = SessionSecrets([KEY]).token(UUID).split(".")[1]
    assert SessionSecrets([KEY]).uuid_of(f"abcd1235.{mac}") is None


def test_every_key_verifies_and_the_first_signs():
    """A key is rotated without locking out the workspaces that run."""
    both = SessionSecrets([OTHER, KEY])
    assert both.uuid_of(SessionSecrets([KEY]).token(UUID)) == UUID
    assert both.token(UUID) == SessionSecrets([OTHER]).token(UUID)


@pytest.mark.parametrize(
    "change", [str.upper, lambda t: t + " ", lambda t: "\n" + t, lambda t: t + "0", lambda t: t[:-1]]
)
def test_a_token_must_be_whole_and_nothing_besides(change):
    """Neither case, nor blanks, nor length are guessed at."""
    secrets = SessionSecrets([KEY])
    assert secrets.uuid_of(change(secrets.token(UUID))) is None


@pytest.mark.parametrize("text", ["", ".", "abcd1234", "abcd1234.", "abcd1234.ä" + "0" * 63, "٠bcd1234." + "0" * 64])
def test_what_is_no_token_is_refused_without_an_error(text):
    """A header may hold anything."""
    assert SessionSecrets([KEY]).uuid_of(text) is None


def test_what_opens_an_agents_door_is_no_token():
    """A workspace that sees another's, because it got its address, can't call the gateway with it."""
    mac = hmac.new(KEY.encode(), b"agent:abcd1234", hashlib.sha256).hexdigest()
    secrets = SessionSecrets([KEY])
    assert secrets.doors(UUID) == (mac,)
    assert secrets.uuid_of(mac) is None
    assert secrets.uuid_of(f"{UUID}.{mac}") is None


def test_each_key_opens_the_door_of_an_agent_that_was_started_with_it():
    """The newest first, which a started agent is given."""
    both = SessionSecrets([OTHER, KEY])
    assert both.doors(UUID) == SessionSecrets([OTHER]).doors(UUID) + SessionSecrets([KEY]).doors(UUID)
    assert both.token_file(UUID) == SessionSecrets([OTHER]).token_file(UUID)


def test_the_file_holds_the_token_and_on_its_second_line_what_opens_the_door():
    """This is how an agent reads it."""
    secrets = SessionSecrets([KEY])
    assert secrets.token_file(UUID).splitlines() == [secrets.token(UUID), *secrets.doors(UUID)]


def test_what_opens_an_editor_is_of_its_session_and_good_for_nothing_else():
    """Neither a token nor what opens the agent; and no other session's."""
    mac = hmac.new(KEY.encode(), b"editor:abcd1234", hashlib.sha256).hexdigest()
    secrets = SessionSecrets([KEY])
    assert secrets.editors(UUID) == (mac,)
    assert secrets.uuid_of(f"{UUID}.{mac}") is None
    assert mac not in (*secrets.doors(UUID), *secrets.editors("abcd1235"))


@pytest.mark.parametrize(("started", "asked"), [([KEY], [OTHER, KEY]), ([OTHER, KEY], [KEY]), ([OTHER, KEY], [OTHER])])
def test_an_editor_knows_who_comes_while_a_key_is_rotated(started, asked):
    """Whether it was started before its ingress heard of the new key, or after."""
    known = SessionSecrets(started).editor_file(UUID).splitlines()
    assert set(known) & set(SessionSecrets(asked).editors(UUID))
    assert len(known) == len(started)


def test_no_key_no_token():
    """A service without a SECRET_KEY says so, rather than signing with nothing."""
    with pytest.raises(SettingsError, match="SECRET_KEY"):
        SessionSecrets([]).token(UUID)
    with pytest.raises(SettingsError, match="SECRET_KEY"):
        SessionSecrets([]).doors(UUID)
    with pytest.raises(SettingsError, match="SECRET_KEY"):
        SessionSecrets([]).editors(UUID)


def test_the_keys_are_not_in_its_text():
    """A record of it in a log gives nothing away."""
    assert KEY not in repr(SessionSecrets([KEY]))


def test_keys_come_from_the_setting_in_their_order():
    """Commas separate them; blanks around them don't count."""
    assert Settings(secret_key=f"{KEY}, {OTHER},").checked().secret_keys() == (KEY, OTHER)
    assert Settings().checked().secret_keys() == ()


def test_a_short_key_is_refused_without_being_shown():
    """One of several too."""
    with pytest.raises(SettingsError, match="SECRET_KEY") as error:
        Settings(secret_key=f"{KEY},shortkey").checked()
    assert "shortkey" not in str(error.value)
