"""The name under which a caller sends a file."""

from pathlib import PurePosixPath

from mcp_toolserver.errors import InvalidArguments
from mcp_toolserver.files import safe_relative


def sent_name(filename: str) -> PurePosixPath:
    r"""Return the name of a file that is to come; raises InvalidArguments as `safe_relative` does, and for `\` too.

    On one system it parts folders and on the other it is a letter: whoever sends a file says which is meant.
    """
    path = safe_relative(filename)
    if "\\" in filename:
        raise InvalidArguments(
            f"`filename` is {filename[:120]!r}: it holds `\\`; sub-folders are written with `/`.",
            hint=f"Send `{path}`, or `{path.name}` without a folder.",
            details={"field": "filename", "value": filename[:120], "closest_matches": [path.as_posix(), path.name]},
        )
    return path
