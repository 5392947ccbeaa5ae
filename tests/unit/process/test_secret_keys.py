"""A key for each purpose: whoever has one can do what it is for, and nothing else."""

from __future__ import annotations

from pathlib import Path

import jwt
import pytest

from app.core.access.agent_credentials import AgentCredentials, TokenOwner
from app.core.access.tokens import AccessTokens, Kind
from app.gateway.main import create_app
from app.process.secret_keys import Purpose, keys_for
from app.process.settings import Settings, SettingsError

MASTER = "what-all-keys-of-these-tests-are-made-of"
UUID, NOW = "abcd1234", 1_763_625_600.0


def given(*purposes: Purpose, master: str = MASTER) -> tuple[str, ...]:
    """The keys of a process that needs these, as it is given them."""
    text = ",".join(f"{purpose}={key}" for purpose in purposes for key in keys_for(purpose, [master]))
    return Settings(secret_key=text).checked().secret_keys()


def passes(keys: tuple[str, ...]) -> AccessTokens:
    return AccessTokens(keys, cookie_ttl=100.0)


def test_no_two_purposes_have_the_same_key() -> None:
    keys = [keys_for(purpose, [MASTER])[0] for purpose in Purpose]
    assert len(set(keys)) == len(Purpose)


def test_a_key_for_one_purpose_signs_what_the_master_signs() -> None:
    """So nobody is locked out where keys take its place, or it theirs."""
    assert AgentCredentials(given(Purpose.WORKSPACE)).token(UUID, 2) == AgentCredentials([MASTER]).token(UUID, 2)
    agents = AgentCredentials(given(Purpose.AGENT))
    assert agents.agent_secrets(UUID, 2) == AgentCredentials([MASTER]).agent_secrets(UUID, 2)
    for kind, purpose in ((Kind.COOKIE, Purpose.COOKIE), (Kind.TOKEN, Purpose.SESSION), (Kind.PROBE, Purpose.PROBE)):
        assert passes(given(purpose)).issue(kind, UUID, 1, NOW) == passes((MASTER,)).issue(kind, UUID, 1, NOW)


def test_who_checks_workspaces_tokens_can_make_no_pass_and_open_no_agent() -> None:
    """The gateway, which workspaces can reach."""
    keys = given(Purpose.WORKSPACE)
    with pytest.raises(SettingsError):
        AgentCredentials(keys).agent_secrets(UUID, 1)
    for kind in Kind:
        with pytest.raises(SettingsError):
            passes(keys).issue(kind, UUID, 0, NOW)
        claims = {"aud": kind, "sub": UUID, "access_epoch": 0, "iat": NOW, "exp": NOW + 100}
        forged = jwt.encode(claims, keys[0].partition("=")[2], algorithm="HS256")
        assert passes((MASTER,)).read(kind, forged, NOW) is None


def test_who_lets_visitors_in_can_make_no_workspaces_token() -> None:
    """Forward-auth, which the internet can reach; nor web, nor a delivery worker."""
    for keys in (given(Purpose.AGENT, Purpose.COOKIE, Purpose.SESSION), given(Purpose.AGENT)):
        with pytest.raises(SettingsError):
            AgentCredentials(keys).token(UUID, 1)
        assert AgentCredentials(keys).owner_of(AgentCredentials([MASTER]).token(UUID, 1)) is None
    with pytest.raises(SettingsError):
        passes(given(Purpose.AGENT, Purpose.SESSION)).issue(Kind.COOKIE, UUID, 0, NOW)


def test_of_several_keys_for_a_purpose_the_first_signs_and_all_verify() -> None:
    new, old = given(Purpose.WORKSPACE, master="n" * 32), given(Purpose.WORKSPACE)
    both = AgentCredentials(new + old)
    assert both.token(UUID, 1) == AgentCredentials(["n" * 32]).token(UUID, 1)
    assert both.owner_of(AgentCredentials([MASTER]).token(UUID, 1)) == TokenOwner(UUID, 1)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("workspase=" + "k" * 32, "SECRET_KEY: .* workspace"),
        ("k" * 32 + ",cookies=" + "k" * 32, "SECRET_KEY: .* workspace"),
        ("workspace=tooshort", "SECRET_KEY: .* 32 characters"),
        (f"{MASTER},tooshort", "SECRET_KEY: .* 32 characters"),
    ],
)
def test_a_purpose_that_is_none_and_a_short_key_are_refused_without_showing_a_key(text: str, told: str) -> None:
    """A word that is mistyped would make a key for everything of it."""
    with pytest.raises(SettingsError, match=told) as error:
        Settings(secret_key=text).checked()
    assert "kkk" not in str(error.value) and "tooshort" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", ()),
        (f"{MASTER}, {'n' * 32},", (MASTER, "n" * 32)),
        ("a" * 31 + "=", ("a" * 31 + "=",)),
        ("Ab3" * 14 + "==", ("Ab3" * 14 + "==",)),
    ],
)
def test_keys_come_from_the_setting_in_their_order(text: str, keys: tuple[str, ...]) -> None:
    """Commas separate them; blanks around them don't count. What stands before the `=` of base64 is no purpose."""
    assert Settings(secret_key=text).checked().secret_keys() == keys


def test_a_gateway_without_a_key_for_tokens_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="SECRET_KEY"):
        create_app(Settings(secret_key=",".join(given(Purpose.COOKIE)), data_dir=tmp_path))
