"""Send parts of files to a socket without their bytes passing through this process.

The event loop's own `sendfile` waits for the disk in the event loop; here that is done in threads.
"""

import asyncio
import os

from anyio import to_thread

_MOST_BYTES = 8 * 1024 * 1024
"""How much one call takes at most; it ends earlier, where the socket's buffer is full."""

can_send_files = hasattr(os, "sendfile")
"""Whether the system has such a call."""


async def send_file(socket: int, file: int, offset: int, count: int) -> None:
    """Send `count` bytes of a file from `offset` on; both are file descriptors, and the socket does not block.

    Nothing else may be written to the socket meanwhile. Raises ConnectionError where the other side is gone, and
    EOFError where the file ends before.
    """
    loop = asyncio.get_running_loop()
    # The event loop waits for the socket itself by the original: one of our own can be waited for beside that.
    own, end = os.dup(socket), offset + count
    try:
        while offset < end:
            wanted = min(end - offset, _MOST_BYTES)
            try:
                sent = await to_thread.run_sync(os.sendfile, own, file, offset, wanted)
                if sent == 0:
                    raise EOFError("the file became shorter while it was sent")
            except BlockingIOError:
                sent = 0
            offset += sent
            if sent < wanted:
                await _writable(loop, own)
    finally:
        os.close(own)


async def _writable(loop: asyncio.AbstractEventLoop, socket: int) -> None:
    ready = loop.create_future()
    loop.add_writer(socket, lambda: ready.done() or ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_writer(socket)
