"""The address of Redis: one URL with its credentials, made of all REDIS_* settings.

redis-py takes the URL as it is, other clients (Celery, Traefik, KEDA) parts of it. The certificate of a `rediss://` is
always verified, against the URL's `ssl_ca_certs` if it has that.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

NAMES = (
    "REDIS_URL",
    "REDIS_HOST",
    "REDIS_PORT",
    "REDIS_DB",
    "REDIS_USERNAME",
    "REDIS_PASSWORD",
    "REDIS_CA_FILE",
)
"""The variables with the address of Redis. If any is set, the service does not start its own Redis."""

HOST, PORT, DATABASE = "127.0.0.1", "6379", "0"
"""The defaults."""

CA = "ssl_ca_certs"
"""The URL's parameter with the file of CA certificates, by its name in redis-py."""

ENCODE = "A password with other characters than letters and digits is given as REDIS_PASSWORD, as it is."


class AddressError(ValueError):
    """The settings are invalid or contradict each other; the text says what to do and holds no password."""


def is_named(environ: Mapping[str, str]) -> bool:
    """Whether an environment has an address of Redis."""
    return any(environ.get(name) for name in NAMES)


def address(given: Mapping[str, str]) -> str:
    """The URL made of the variables `NAMES`; "" counts as not set. Raises `AddressError`."""
    said = {name: given.get(name, "") for name in NAMES}
    parts = _parts_of(said["REDIS_URL"])
    ca_file = _joined("REDIS_CA_FILE", said["REDIS_CA_FILE"], parts.pop(CA, ""))
    scheme = parts.pop("scheme", "") or ("rediss" if ca_file else "redis")
    host, port, database, username, password = (
        _joined(name, said[name], parts.get(name, ""))
        for name in ("REDIS_HOST", "REDIS_PORT", "REDIS_DB", "REDIS_USERNAME", "REDIS_PASSWORD")
    )
    _checked(port, database, username, password)
    if ca_file:
        _check_ca(scheme, ca_file)
    host = (host or HOST).strip("[]")
    who = quote(username, safe="") + (f":{quote(password, safe='')}" if password else "")
    where = f"[{host}]" if ":" in host else host
    query = f"?{urlencode({CA: ca_file})}" if ca_file else ""
    return f"{scheme}://{who}{'@' if who else ''}{where}:{port or PORT}/{database or DATABASE}{query}"


def tls(url: str) -> dict[str, Any]:
    """TLS options for clients that take no URL, by redis-py's names; empty without TLS."""
    parts = urlsplit(url)
    if parts.scheme != "rediss":
        return {}
    ca_file = dict(parse_qsl(parts.query)).get(CA)
    return {
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
        "ssl_check_hostname": True,
        **({CA: ca_file} if ca_file else {}),
    }


def celery_broker(url: str) -> dict[str, Any]:
    """Celery's settings for this URL. Celery and Flower take TLS options only apart from the URL."""
    return {"broker_url": urlsplit(url)._replace(query="").geturl(), "broker_use_ssl": tls(url) or False}


def _parts_of(url: str) -> dict[str, str]:
    """The parts of a URL, by the variables of the same meaning; empty for no URL."""
    if not url:
        return {}
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", str(parts.port or "")
    except ValueError:
        raise AddressError(f"The port of REDIS_URL must be a number from 0 to 65535. {ENCODE}") from None
    if parts.scheme not in ("redis", "rediss"):
        raise AddressError("REDIS_URL must begin with redis://, or with rediss:// for TLS.")
    if parts.fragment:
        raise AddressError(f"REDIS_URL must not have a #. {ENCODE}")
    return {
        "scheme": parts.scheme,
        "REDIS_HOST": unquote(host),
        "REDIS_PORT": port,
        "REDIS_DB": parts.path.strip("/"),
        "REDIS_USERNAME": unquote(parts.username or ""),
        "REDIS_PASSWORD": unquote(parts.password or ""),
        CA: _ca_of(dict(parse_qsl(parts.query, keep_blank_values=True))),
    }


def _ca_of(query: dict[str, str]) -> str:
    """The CA file in a URL's parameters; other parameters may only repeat what always holds."""
    ca_file = query.pop(CA, "")
    harmless = {"ssl_cert_reqs": ("required", "CERT_REQUIRED"), "ssl_check_hostname": ("true", "True", "1")}
    wrong = [name for name, value in query.items() if value not in harmless.get(name, ())]
    if wrong:
        raise AddressError(
            f"REDIS_URL must not have {', '.join(wrong)}: Redis' certificate is always verified, against REDIS_CA_FILE "
            "where it is not signed by a public authority, and other parameters are settings of their own."
        )
    return ca_file


def _joined(name: str, given: str, in_url: str) -> str:
    """The value of a variable or of the URL; raises `AddressError` if they differ."""
    if given and in_url and given != in_url:
        raise AddressError(f"{name} says something else than REDIS_URL. Set one of the two, or both to the same.")
    return given or in_url


def _checked(port: str, database: str, username: str, password: str) -> None:
    if port and not (port.isdecimal() and 0 < int(port) < 65_536):
        raise AddressError(
            "REDIS_PORT must be a number from 1 to 65535. In a pod beside a Service called redis Kubernetes sets it to "
            "an address: set enableServiceLinks to false there."
        )
    if database and not database.isdecimal():
        raise AddressError(f"REDIS_DB, and what follows the host in REDIS_URL, must be a number. {ENCODE}")
    if username and not password:
        raise AddressError("REDIS_USERNAME needs the user's password: set REDIS_PASSWORD.")


def _check_ca(scheme: str, ca_file: str) -> None:
    if scheme != "rediss":
        raise AddressError("REDIS_CA_FILE is set, but redis:// does not encrypt: REDIS_URL must begin with rediss://.")
    try:
        ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise AddressError(
            f"REDIS_CA_FILE ({ca_file}) must be a file with certificates in PEM: {error.strerror or error}."
        ) from None
