"""How much may be begun and never ended. Everything here blocks."""

import time
from collections import Counter
from dataclasses import dataclass

from mcp_toolserver.errors import RateLimited
from mcp_toolserver.uploads.folder import MANIFEST, PART, Manifest, UnreadableUpload
from mcp_toolserver.uploads.store import UploadStore

_LIST_THEM = (
    "Finish or abort some of them (`list-uploads` names those of a server with that tool); the server removes those "
    "that nobody touches."
)
ACTIVE_S = 3600.0
"""An upload that got nothing for this long keeps its place, but no room on the disk for what it lacks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadLimits:
    """How many uploads may be unfinished at once, and how long in seconds nobody may touch one, with and without bytes.

    A caller is an address: all that come through one proxy, or from the server's own machine, are one caller.
    """

    most_open: int = 400
    most_open_of_one_caller: int = 200
    max_idle_s: float = 7 * 24 * 3600.0
    max_empty_idle_s: float = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class _Open:
    # None where it cannot be read: its place is taken all the same, whoever's it is.
    manifest: Manifest | None
    missing_bytes: int
    changed_s: float


class OpenUploads:
    """The unfinished uploads of a store, counted anew at each question: other processes share the store."""

    def __init__(self, store: UploadStore, limits: UploadLimits) -> None:
        self._store = store
        self._limits = limits
        self._manifests: dict[str, tuple[tuple[int, int], Manifest]] = {}

    def require_place(self, caller: str | None, total_bytes: int) -> None:
        """Raise RateLimited for too many unfinished uploads, and InsufficientStorage when the disk is spoken for."""
        found = self._all()
        if len(found) >= self._limits.most_open:
            raise _too_many(len(found), self._limits.most_open, "here")
        of_caller = Counter(each.manifest.caller for each in found if each.manifest)[caller]
        if of_caller >= self._limits.most_open_of_one_caller:
            raise _too_many(
                of_caller, self._limits.most_open_of_one_caller, f"of {caller or 'callers without address'}"
            )
        now_s = time.time()
        reserved = sum(each.missing_bytes for each in found if now_s - each.changed_s < ACTIVE_S)
        self._store.require_room(total_bytes, reserved)

    def _all(self) -> list[_Open]:
        found: list[_Open] = []
        known, self._manifests = self._manifests, {}
        for upload_id in self._store.ids():
            folder = self._store.root / upload_id
            try:
                part, written = (folder / PART).stat(), (folder / MANIFEST).stat()
            except FileNotFoundError:
                # Published, or begun this moment.
                continue
            stamp = (written.st_ino, written.st_mtime_ns)
            remembered = known.get(upload_id)
            try:
                manifest = (
                    remembered[1] if remembered and remembered[0] == stamp else self._store.look(upload_id).manifest()
                )
            except UnreadableUpload:
                found.append(_Open(None, 0, part.st_mtime))
                continue
            if manifest is not None:
                self._manifests[upload_id] = (stamp, manifest)
                found.append(_Open(manifest, max(0, manifest.total_bytes - part.st_size), part.st_mtime))
        return found


def _too_many(count: int, limit: int, whose: str) -> RateLimited:
    return RateLimited(
        f"There are {count} unfinished uploads {whose}, and {limit} are the most.",
        hint=_LIST_THEM,
        details={"unfinished_uploads": count, "limit": limit},
    )
