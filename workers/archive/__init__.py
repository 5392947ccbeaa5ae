"""The zip of a workspace: `write` streams it, `verify` reads it back, `restore` extracts it; `format` holds what they
share. `replace` puts restored folders in the place of others.
"""

from workers.archive.replace import clear as clear_leftovers
from workers.archive.restore import restore_backup
from workers.archive.terms import Terms
from workers.archive.write import write_backup

__all__ = ["Terms", "clear_leftovers", "restore_backup", "write_backup"]
