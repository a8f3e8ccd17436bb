"""File names that survive AI Toolkit's upload, which turns all but a-z, A-Z, 0-9, `.`, `-` and `_` into `_`. Pure.

`狗.png` and `猫.png` would both be `_.png`, and one of them lost. A stem with other characters is sent as `xn--` and
its punycode, as domain names are: the name that it had can be read from the name that it has, on any machine.
"""

import re
from pathlib import PurePosixPath

_SIGN = "xn--"
_KEPT = re.compile(r"[A-Za-z0-9._-]*")
_LONGEST = 240
# Punycode leaves ASCII as it is, so what must not stay is moved to where no letters are.
_ASIDE = 0xF000


class UnsendableName(ValueError):
    """Say why a file cannot be sent under any name that would lead back to its own."""


def sent_name(filename: str) -> str:
    """Return the name to send a file under; two names are the same only where the files' are. Raises UnsendableName."""
    path = PurePosixPath(filename)
    stem = path.stem
    if _KEPT.fullmatch(stem) and not stem.startswith(_SIGN):
        return filename
    moved = "".join(
        letter if _KEPT.fullmatch(letter) or ord(letter) > 127 else chr(_ASIDE + ord(letter)) for letter in stem
    )
    sent = _SIGN + moved.encode("punycode").decode("ascii") + path.suffix
    if len(sent) > _LONGEST:
        raise UnsendableName(f"its name has {len(sent)} characters once written in ASCII, more than {_LONGEST}")
    if shown_name(sent) != filename:
        raise UnsendableName("its name holds a character of nobody's alphabet")
    return sent


def shown_name(sent: str) -> str:
    """Return the name that a file had before it was sent; any other name as it is. Folders before it stay."""
    path = PurePosixPath(sent)
    if not path.stem.startswith(_SIGN):
        return sent
    try:
        moved = path.stem.removeprefix(_SIGN).encode("ascii").decode("punycode")
    except (UnicodeError, ValueError, OverflowError):
        return sent
    stem = "".join(chr(ord(letter) - _ASIDE) if 0 <= ord(letter) - _ASIDE < 128 else letter for letter in moved)
    if not stem or any(letter in "/\\\0" for letter in stem) or stem.startswith("."):
        return sent
    return str(path.with_name(stem + path.suffix))
