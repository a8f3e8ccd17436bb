"""A checksum that travels with a body: named by its caller, computed while the body arrives."""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Any

from mcp_toolserver.errors import Conflict, InvalidArguments, did_you_mean

ALGORITHMS = ("sha256", "sha1", "sha512")


class ChecksumMismatch(Conflict):
    """Refuse a body that is not what its checksum says; it was discarded. Source of the status: tus 1.0, checksum."""

    status = 460
    retryable = True


class UnreadableChecksum(InvalidArguments):
    """Refuse an algorithm that is not offered, or what is no digest. Source of the status: tus 1.0, checksum."""

    status = 400


class Checksum:
    """What a body must have, and what it has so far."""

    def __init__(self, header: str) -> None:
        """Read a header such as `sha256 BASE64`; raises UnreadableChecksum."""
        self.algorithm, _, encoded = header.strip().partition(" ")
        if self.algorithm not in ALGORITHMS:
            raise UnreadableChecksum(
                f"`Upload-Checksum` names {self.algorithm[:40]!r}.{did_you_mean(self.algorithm, ALGORITHMS)}",
                hint=f"Use one of {', '.join(ALGORITHMS)}.",
                details={"field": "Upload-Checksum", "algorithms": list(ALGORITHMS)},
            )
        self._digest: Any = hashlib.new(self.algorithm, usedforsecurity=False)
        try:
            self._expected = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            self._expected = b""
        if len(self._expected) != self._digest.digest_size:
            raise UnreadableChecksum(
                f"`Upload-Checksum` holds no {self.algorithm} digest.",
                hint=f"Send `{self.algorithm} ` and the {self._digest.digest_size} bytes of the digest as base64.",
                details={"field": "Upload-Checksum", "value": header[:200]},
            )

    def update(self, pieces: Sequence[bytes]) -> None:
        """Count in what has arrived; blocks."""
        for piece in pieces:
            self._digest.update(piece)

    def require(self) -> None:
        """Raise ChecksumMismatch when what has arrived is something else."""
        if self._digest.digest() != self._expected:
            raise ChecksumMismatch(
                f"The body does not match its {self.algorithm} checksum: it was damaged or cut on its way.",
                hint="Nothing of it was kept: send the same bytes again from the same offset.",
                details={"algorithm": self.algorithm},
            )
