"""Leaves data in this checkout, as scripts/run does, but under an archive key that nobody has.

A test that builds a part of the service on the checkout's data, instead of data of its own, fails then: without the key
the service refuses to start.
"""

from __future__ import annotations

import sys

from app.core.composition import check_keys
from app.core.storage.file_store import FileStore
from app.core.storage.key_list import KeyList
from app.process.settings import Settings, SettingsError

NOBODYS = "0" * 16


def main() -> int:
    settings = Settings()
    for location in (settings.backups_location(), settings.history_location()):
        KeyList(FileStore(location)).note(NOBODYS)
    try:
        check_keys(settings)
    except SettingsError:
        return 0
    print("used_checkout: the service starts beside data whose archive key it lacks.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
