"""Read a model that lies on a disk of this machine."""

import os
from collections.abc import AsyncGenerator

from anyio import to_thread

from comfy_mcp.imports.peer import PeerModel, SourceChanged
from mcp_toolserver.files import BATCH_BYTES, etag_of


def is_here(model: PeerModel) -> bool:
    """Tell whether the very file that the peer speaks of can be read here; blocks."""
    try:
        return etag_of(model.path.stat()) == model.etag and os.access(model.path, os.R_OK)
    except OSError:
        return False


async def local_bytes(model: PeerModel, offset: int) -> AsyncGenerator[bytes]:
    """Yield a model's bytes from `offset` on; raises SourceChanged where they are others by now."""
    try:
        handle = await to_thread.run_sync(os.open, model.path, os.O_RDONLY)
    except OSError:
        raise SourceChanged("its file cannot be read any more") from None
    try:
        while offset < model.size_bytes:
            if etag_of(os.fstat(handle)) != model.etag:
                raise SourceChanged("its file is in another state")
            batch = await to_thread.run_sync(os.pread, handle, BATCH_BYTES, offset)
            if not batch:
                raise SourceChanged("its file became shorter")
            offset += len(batch)
            yield batch
    finally:
        os.close(handle)
