"""Reports files of the project that hold a secret: a private key, a provider's key, or a generated value.

What is tracked is public for good. A value that is meant to be there, as tests have it, says so on its line:
`pragma: allowlist secret`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from scripts.lib.check_tree import texts

MEANT = "pragma: allowlist secret"

KEYS = {
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a key of AWS": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a key of Google": r"\bAIza[\w-]{35}",
    "a key of a model's provider": r"\bsk-(?:ant-[\w-]{30}|[\w-]*[A-Za-z0-9]{20})",
    "a token of GitHub": r"\b(?:gh[oprsu]_[A-Za-z0-9]{36}|github_pat_\w{40})",
    "a token of GitLab": r"\bglpat-[\w-]{20}",
    "a token of Slack": r"\bxox[abeoprs]-[\w-]{10}",
    "a key of Stripe": r"\b[rs]k_live_[A-Za-z0-9]{20}",
    "a JWT": r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}",
}
"""What providers' keys look like, in any file."""

MADE = r"(?:[0-9a-f]{32,}|(?!/[a-z]+/)(?=[\w+/-]*[A-Z])(?=[\w+/-]*[a-z])(?=[\w+/-]*[0-9])[\w+/-]{32,}={0,2})"
"""A value that a program made: 32 or more hexadecimal digits, or as much base64 with letters of both kinds and digits.
A path that begins with a / is none."""
SETTING = re.compile(rf"""\s*(?:-\s+|export\s+)?["']?[\w.-]+["']?\s*[:=]\s*["']?(?:\w+:)?{MADE}["']?\s*(?:\#.*)?""")
"""A line of a Kubernetes Secret, a ConfigMap or settings that has such a value."""
NOTHING_ELSE = re.compile(rf"(?:(?:\w+[:=])?{MADE}(?:[,\s]+|\Z))+")
"""A file that holds such values and nothing else, as secrets are mounted."""


def secrets(name: str, text: str) -> Iterator[tuple[int, str]]:
    """The lines of a file that hold a secret, each with its kind."""
    settings = Path(name).suffix in (".yaml", ".yml", ".env") or Path(name).name.startswith(".env")
    if NOTHING_ELSE.fullmatch(text):
        yield 1, "a generated value, and nothing else"
    for number, line in enumerate(text.splitlines(), 1):
        if MEANT in line:
            continue
        for kind, pattern in KEYS.items():
            if re.search(pattern, line):
                yield number, kind
        if settings and SETTING.fullmatch(line):
            yield number, "a generated value"


def main() -> int:
    found = [f"{name}:{number}: holds {kind}" for name, text in texts() for number, kind in secrets(name, text)]
    for line in found:
        print(f"{line}. Take it out, and replace it where it is used; or mark its line: {MEANT}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
