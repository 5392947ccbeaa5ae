"""Writes all generated files, and the generated parts of the docs, from the code that they say something of.

python -m scripts.generate
"""

from __future__ import annotations

import sys

from scripts.generate.files import files
from scripts.generate.marked import MarkersMissing
from scripts.generate.redis_rights import UnnamedKey
from scripts.generate.reference import Undocumented


def main() -> int:
    try:
        made = files()
    except (MarkersMissing, Undocumented, UnnamedKey) as error:
        print(f"generate: {error}", file=sys.stderr)
        return 1
    for path, text in made.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
