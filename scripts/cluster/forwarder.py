"""The way from the host into the cluster's network: the part `forwarder`.

A socket stays in the network it was made in, whatever its process does. So the listening sockets come from the
host, inherited (`doors` makes them), and this process runs in the cluster's network, where it makes the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
import sys
from collections.abc import Iterator

VARIABLE = "FORWARD"
"""What was inherited: a JSON list of [descriptor, address, port]; the last two are where its connections lead."""
CHUNK = 65_536
"""Bytes read at once; a reader stops at twice as many, a writer waits at as many. The rest is the kernel's."""
CONNECT_LIMIT = 10.0
"""Seconds for a connection within one machine."""
KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 20), (socket.TCP_KEEPCNT, 3))
"""Seconds, seconds, tries: a silent peer that is gone is noticed after two minutes. One that is idle may stay."""


async def main(inherited: list[tuple[int, str, int]]) -> None:
    """Forward until the process is ended. What comes after its last file descriptor waits in the kernel's queue."""
    async with contextlib.AsyncExitStack() as servers:
        for descriptor, address, port in inherited:
            await servers.enter_async_context(await serve(socket.socket(fileno=descriptor), address, port))
        await asyncio.Event().wait()


async def serve(listener: socket.socket, address: str, port: int) -> asyncio.Server:
    """Forward what `listener` accepts, each connection to one of its own."""

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Either may be gone at any moment: that ends the pair, and nobody needs to read of it.
        with contextlib.suppress(OSError, TimeoutError):
            await forward(reader, writer, address, port)

    return await asyncio.start_server(accepted, sock=listener, limit=CHUNK)


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str, port: int) -> None:
    """Copy both ways until both ends are reached. An error on either side resets both. Raises `OSError`."""
    with resetting(writer):
        async with asyncio.timeout(CONNECT_LIMIT):
            inner_reader, inner_writer = await asyncio.open_connection(address, port, limit=CHUNK)
        with resetting(inner_writer):
            keep_alive(writer)
            keep_alive(inner_writer)
            ways = [asyncio.create_task(copy(reader, inner_writer)), asyncio.create_task(copy(inner_reader, writer))]
            try:
                await asyncio.gather(*ways)
            finally:
                for way in ways:
                    way.cancel()
            # What was written last is still on its way.
            for side in (writer, inner_writer):
                side.close()
                await side.wait_closed()


@contextlib.contextmanager
def resetting(writer: asyncio.StreamWriter) -> Iterator[None]:
    """End the connection by a reset if the block fails: a half of something must not look like all of it."""
    try:
        yield
    except BaseException:
        connection = writer.get_extra_info("socket")
        # Closed with no time to linger, it is reset.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise
    finally:
        writer.transport.abort()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction. Its end is passed on and leaves the other direction open."""
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


def keep_alive(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE:
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(json.loads(os.environ[VARIABLE]))))
