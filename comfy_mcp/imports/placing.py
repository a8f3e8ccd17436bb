"""Put a file of this machine beside the LoRAs without moving its bytes: by a shared extent or a further name.

Everything here blocks.
"""

import errno
import fcntl
import os
from pathlib import Path
from typing import Literal

from mcp_toolserver.files import etag_of

Way = Literal["reflink", "link"]

# From linux/fs.h: _IOW(0x94, 9, int). Other systems refuse it as unknown.
_FICLONE = 0x40049409
_NOT_THIS_WAY = {
    errno.EOPNOTSUPP,
    errno.ENOTTY,
    errno.ENOSYS,
    errno.EINVAL,
    errno.EXDEV,
    errno.EPERM,
    errno.EACCES,
    errno.EMLINK,
}


def place(source: Path, part: Path, etag: str, *, link_safe: bool) -> Way | None:
    """Make `part` a file with the bytes that `source` has in the state `etag`; returns how, or None where no way leads.

    None also where `source` is not here or in another state. A reflink is the first choice, since what is written into
    one file later does not show in the other; a hard link is for what nobody writes into.
    """
    try:
        # A link to a link would be one more name of the link.
        source = source.resolve(strict=True)
        reader = os.open(source, os.O_RDONLY)
    except OSError:
        return None
    try:
        if etag_of(os.fstat(reader)) != etag:
            return None
        way: Way | None = "reflink" if _clone(reader, part) else "link" if link_safe and _link(source, part) else None
        # A clone that was made while somebody wrote, or a link to what came under the name meanwhile, is another file.
        same = etag_of(os.fstat(reader) if way == "reflink" else part.stat()) == etag if way else True
    finally:
        os.close(reader)
    if not same:
        part.unlink()
        return None
    return way


def _clone(reader: int, part: Path) -> bool:
    writer = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        fcntl.ioctl(writer, _FICLONE, reader)
    except OSError as error:
        part.unlink()
        if error.errno not in _NOT_THIS_WAY:
            raise
        return False
    finally:
        os.close(writer)
    return True


def _link(source: Path, part: Path) -> bool:
    try:
        os.link(source, part)
    except OSError as error:
        if error.errno not in _NOT_THIS_WAY:
            raise
        return False
    return True
