"""Sign in by OpenID Connect: the authorization code flow with PKCE, by authlib.

The provider says who a person is; the values of one claim say what that person may do here (`OIDC_ADMINS`,
`OIDC_READERS`). Whoever has none of them is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Mapping
from typing import Any, cast

import requests
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.flask_client import OAuth
from flask import Blueprint, Flask, current_app, session
from flask_limiter import RateLimitExceeded
from joserfc.errors import JoseError
from werkzeug.wrappers import Response

from app.core.access.keyring import ADMIN, OF_PROVIDER, READ, Principal
from app.process.secret_keys import Purpose
from app.process.settings import Settings, SettingsError
from app.web.sign_in import entered, refused, too_many, wanted

log = logging.getLogger(__name__)

blp = Blueprint("web_oidc", __name__)

CLIENT, SETTINGS = "dashboard_oidc", "dashboard_settings"
COOKIE = "__Host-dashboard-oidc"
"""Holds the state of a sign-in under way, signed, for this browser."""

TIMEOUT = 10
"""s of each request to the provider."""

FAILED = "The sign-in did not succeed. Try again; if it fails again, tell the people who run this service."
NO_ROLE = "You are signed in at your organisation, but have no role here. Ask the people who run this service for one."


def register_oidc(app: Flask, settings: Settings) -> None:
    """Let people sign in by the provider of the settings, which is asked for its addresses at the first sign-in. Raises
    `SettingsError` without a key to sign with."""
    signing = settings.keys_for(Purpose.SESSION)
    if not signing:
        # Not among the checks of all processes: others have no key for sessions.
        raise SettingsError("OIDC_ISSUER: SECRET_KEY must be set too: it signs the cookie of a sign-in under way.")
    app.secret_key = hmac.new(signing[0].encode(), b"dashboard:oidc", hashlib.sha256).digest()
    app.config.update(
        SESSION_COOKIE_NAME=COOKIE,
        SESSION_COOKIE_SECURE=True,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
    )
    app.extensions[SETTINGS] = settings
    app.extensions[CLIENT] = OAuth(app).register(
        "provider",
        client_id=settings.oidc_client_id,
        client_secret=settings.oidc_client_secret or None,
        server_metadata_url=f"{settings.oidc_issuer.rstrip('/')}/.well-known/openid-configuration",
        client_kwargs={
            "scope": settings.oidc_scopes,
            "code_challenge_method": "S256",
            "default_timeout": TIMEOUT,
            **({} if settings.oidc_client_secret else {"token_endpoint_auth_method": "none"}),
        },
    )
    app.register_blueprint(blp)


@blp.get("/sign-in/oidc")
def begin() -> Response | tuple[str, int]:
    """Send the browser to the provider."""
    settings = _settings()
    session["next"] = wanted()
    try:
        to = f"{settings.dashboard_location()}/sign-in/back"
        return cast(Response, current_app.extensions[CLIENT].authorize_redirect(to))
    except (AuthlibBaseError, requests.RequestException, ValueError) as error:
        log.warning("the OIDC provider can't be reached: %s", type(error).__name__)
        return _refused(FAILED, 502)


@blp.get("/sign-in/back")
def back() -> Response | tuple[str, int]:
    """The browser comes back from the provider."""
    settings = _settings()
    try:
        token = current_app.extensions[CLIENT].authorize_access_token()
        claims: Mapping[str, Any] = token["userinfo"]
    except (AuthlibBaseError, JoseError, requests.RequestException, ValueError, KeyError) as error:
        # Its text may quote the answer; its kind says enough.
        log.warning("a sign-in by OIDC failed: %s", type(error).__name__)
        return _refused(FAILED, 403)
    path = session.pop("next", "/")
    session.clear()
    role = role_of(claims, settings)
    if not role:
        return _refused(NO_ROLE, 403)
    subject = f"{settings.oidc_issuer} {claims['sub']}"
    digest = hashlib.sha256(subject.encode()).hexdigest()
    return entered(Principal(name=name_of(claims, settings), digest=digest, role=role), by_key=False, path=path)


def name_of(claims: Mapping[str, Any], settings: Settings) -> str:
    """The person's name, which no API key has: `oidc:` and the claim's value. It is the `sub` for want of that claim,
    and for an email that the provider says it has not verified (some say it as text): anyone could have typed that."""
    claim = settings.oidc_name_claim
    unverified = claim == "email" and str(claims.get("email_verified")).lower() == "false"
    chosen = None if unverified else claims.get(claim)
    return f"{OF_PROVIDER}{chosen or claims['sub']}"[:200]


def role_of(claims: Mapping[str, Any], settings: Settings) -> str:
    """The role that the claims give a person, "" for none. An email that the provider has not verified gives none:
    anyone could have typed it."""
    if settings.oidc_role_claim == "email" and claims.get("email_verified") is not True:
        return ""
    found = claims.get(settings.oidc_role_claim)
    values = {str(each) for each in (found if isinstance(found, list) else [found]) if each}
    if values & _values(settings.oidc_admins):
        return ADMIN
    return READ if values & _values(settings.oidc_readers) else ""


blp.register_error_handler(RateLimitExceeded, too_many)


def _values(text: str) -> set[str]:
    return {part for each in text.split(",") if (part := each.strip())}


def _refused(text: str, status: int) -> tuple[str, int]:
    session.clear()
    return refused(text, status)


def _settings() -> Settings:
    return cast(Settings, current_app.extensions[SETTINGS])
