"""File names that survive AI Toolkit's upload, which turns all but a-z, A-Z, 0-9, `.`, `-` and `_` into `_`. Pure.

`狗.png` and `猫.png` would both be `_.png`, and one of them lost. A stem with other characters is sent as `xn--` and
its punycode, as domain names are: the name that it had can be read from the name that it has, on any machine.
"""

import re
import unicodedata
from pathlib import PurePosixPath

_SIGN = "xn--"
_KEPT = re.compile(r"[A-Za-z0-9._-]*")
_LONGEST = 240
# Punycode leaves ASCII as it is, so what must not stay is moved to where no letters are.
_ASIDE = 0xF000
_NEVER = ("Cc", "Cf", "Cs")


class UnsendableName(ValueError):
    """Say why a file cannot be sent under any name that would lead back to its own."""


def sent_name(filename: str) -> str:
    """Return the name to send a file under; two names are the same only where the files' are. Raises UnsendableName."""
    path = PurePosixPath(filename)
    if _KEPT.fullmatch(path.stem) and not path.stem.startswith(_SIGN):
        return filename
    sent = _encoded(path.stem) + path.suffix
    if len(sent) > _LONGEST:
        raise UnsendableName(f"its name has {len(sent)} characters once written in ASCII, more than {_LONGEST}")
    if shown_name(sent) != filename:
        raise UnsendableName("its name holds a character that is in no alphabet")
    return sent


def shown_name(sent: str) -> str:
    """Return the name that a file had before it was sent; any other name as it is. Folders before it stay."""
    path = PurePosixPath(sent)
    stem = _decoded(path.stem)
    # A name that is not the one we would give is somebody else's.
    return str(path.with_name(stem + path.suffix)) if stem and _encoded(stem) == path.stem else sent


def _encoded(stem: str) -> str:
    moved = (letter if _KEPT.fullmatch(letter) or ord(letter) > 127 else chr(_ASIDE + ord(letter)) for letter in stem)
    return _SIGN + "".join(moved).encode("punycode").decode("ascii")


def _decoded(stem: str) -> str | None:
    if not stem.startswith(_SIGN):
        return None
    try:
        moved = stem.removeprefix(_SIGN).encode("ascii").decode("punycode")
    except (UnicodeError, ValueError, OverflowError):
        return None
    found = "".join(chr(ord(letter) - _ASIDE) if 0 <= ord(letter) - _ASIDE < 128 else letter for letter in moved)
    is_name = not found.startswith(".") and not any(
        letter in "/\\" or unicodedata.category(letter) in _NEVER for letter in found
    )
    return found if is_name else None
