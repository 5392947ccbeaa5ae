"""Forwards connections from the host into the cluster's network: the part `forwarder`.

A socket stays in the network it was opened in. So this process inherits listening sockets that were opened on the host
(`host_ports`), and opens the outgoing ones in the cluster's network, where it runs.
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
"""The inherited sockets: a JSON list of [descriptor, target address, target port]."""
CHUNK = 65_536
"""Bytes read at once; a reader pauses at twice as many, a writer at as many. The kernel buffers the rest."""
CONNECT_LIMIT = 10.0
"""Seconds for a connection within one machine."""
KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 20), (socket.TCP_KEEPCNT, 3))
"""Seconds, seconds, tries: a dead peer is noticed after two minutes. Idle connections stay open."""


async def main(inherited: list[tuple[int, str, int]]) -> None:
    """Forward until the process is ended. Without a free file descriptor, connections wait in the kernel's queue."""
    async with contextlib.AsyncExitStack() as servers:
        for descriptor, address, port in inherited:
            await servers.enter_async_context(await serve(socket.socket(fileno=descriptor), address, port))
        await asyncio.Event().wait()


async def serve(listener: socket.socket, address: str, port: int) -> asyncio.Server:
    """Forward each connection that `listener` accepts."""

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Either side may end at any moment; that ends the pair and needs no log.
        with contextlib.suppress(OSError, TimeoutError):
            await forward(reader, writer, address, port)

    return await asyncio.start_server(accepted, sock=listener, limit=CHUNK)


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str, port: int) -> None:
    """Copy in both directions until both end. An error on either side resets both. Raises `OSError`."""
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
            # Flush the last data.
            for side in (writer, inner_writer):
                side.close()
                await side.wait_closed()


@contextlib.contextmanager
def resetting(writer: asyncio.StreamWriter) -> Iterator[None]:
    """Reset the connection if the block fails: partial data must not look complete."""
    try:
        yield
    except BaseException:
        connection = writer.get_extra_info("socket")
        # Closed with a linger time of 0, it is reset.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise
    finally:
        writer.transport.abort()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one direction. Its end is passed on and leaves the other direction open."""
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
