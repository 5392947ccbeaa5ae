"""No secret is tracked, and what only looks like one is left alone."""

from __future__ import annotations

import pytest

from scripts.lib.check_secrets import MEANT, secrets

HEX = "0123456789abcdef" * 2
BASE64 = "Zm9yIHRoZSB0ZXN0cyBvbmx5LCAxMjM0NTY3ODk="


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        # In two pieces, as this file is looked at too.
        ("-----BEGIN RSA " + "PRIVATE KEY-----", "a private key"),
        ('"private_key": "-----BEGIN ' + 'PRIVATE KEY-----\\nMIIE"', "a private key"),
        ("AKIA" + "IOSFODNN7EXAMPLE", "a key of AWS"),
        ("AIza" + "x" * 35, "a key of Google"),
        ("sk-" + "proj-" + "x1" * 10, "a key of a model's provider"),
        ("sk-ant-" + "api03-" + "x_" * 15, "a key of a model's provider"),
        ("ghp_" + "x" * 36, "a token of GitHub"),
        ("glpat-" + "x" * 20, "a token of GitLab"),
        ("xoxb-" + "1234567890", "a token of Slack"),
        ("sk_live_" + "x" * 20, "a key of Stripe"),
        (".".join(["eyJ" + "x" * 10, "eyJ" + "y" * 10, "z" * 10]), "a JWT"),
    ],
)
def test_a_key_is_found_in_any_file(line, kind):
    assert list(secrets("any.py", f"first\nkey = {line}\n")) == [(2, kind)]
    assert list(secrets("any.py", f"key = {line}  # {MEANT}\n")) == []


@pytest.mark.parametrize("name", ["secret.yaml", "a/settings.env", ".env", ".env.local"])
@pytest.mark.parametrize("value", [HEX, BASE64, f'"{HEX}"', f"admin:{HEX}", f"{HEX} # a comment"])
def test_a_generated_value_is_found_in_settings(name, value):
    [(number, _)] = secrets(name, f"first: second\n  API_KEY: {value}\n")
    assert number == 2
    assert list(secrets(name, f"API_KEY={value}\nother=more\n")) == [(1, "a generated value")]


@pytest.mark.parametrize("text", [HEX, f"{HEX}\n", f"agent={HEX},cookie={HEX}\n", f"{BASE64}\n", f"admin:{HEX}"])
def test_a_file_of_nothing_but_a_generated_value_is_found(text):
    """As `make-secrets` and its like would leave them in a folder."""
    assert list(secrets("fresh-system/manager/api-key", text)) == [(1, "a generated value, and nothing else")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("any.py", 'API_KEY = "sk-key-of-the-provider-0123456789"'),
        ("any.py", f'DIGEST = "{HEX}"'),
        ("any.json", "{}"),
        ("any.yaml", "path: /spec/template/spec/containers/0/startupProbe"),
        ("any.yaml", f"image: example.org/redis@sha256:{HEX}{HEX}"),
        ("any.yaml", "name: a-name-of-more-than-thirty-two-letters-1"),
        ("any.env", "HISTORY_URL=gs://example-project-fresh-conversations"),
    ],
)
def test_what_is_no_secret_is_left_alone(name, text):
    assert list(secrets(name, f"{text}\n")) == []
