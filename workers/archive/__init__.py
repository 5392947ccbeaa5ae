"""The zip of a workspace: `write` streams it, `verify` reads it back, `restore` puts it in place again;
`format` holds what they must agree on. A backup is worth what its restore is worth, so they are
tested together.
"""

from workers.archive.restore import restore_backup
from workers.archive.terms import Terms
from workers.archive.write import write_backup

__all__ = ["Terms", "restore_backup", "write_backup"]
