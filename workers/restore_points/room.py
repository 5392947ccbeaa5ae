"""The room that a restored restore point takes on a disk."""

ROOM = 1.1
"""Of a point's size: blocks are larger than files."""

PER_FILE = 4_096
"""Bytes of a file's last block and of its inode, at most."""


def room_for(files: int, size: int) -> int:
    """Bytes that so many files with `size` bytes take, at most."""
    return round(size * ROOM) + files * PER_FILE
