"""What was read from LoRA files, on this disk and on ComfyUI's: remembered while they do not change. Blocks."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from threading import Lock

from comfy_mcp.loras import folder as lora_folder
from comfy_mcp.loras.cache import LoraCache, Remembered
from comfy_mcp.loras.folder import LoraFile


class LoraRecords:
    """Remember what files said, by where they lie and the stamp that they had then."""

    def __init__(self, cache_file: Path | None) -> None:
        self._cache = LoraCache(cache_file) if cache_file else None
        self._known: dict[str, Remembered] | None = None
        # Scans run in threads, several at once.
        self._lock = Lock()

    def scan(self, folders: Sequence[Path]) -> list[tuple[LoraFile, Remembered]]:
        """Return every LoRA in folders of this disk, in the order of names; what changed is read, what is gone
        forgotten.
        """
        with self._lock:
            known = self._all()
            files = lora_folder.scan(folders).values()
            pairs: list[tuple[LoraFile, Remembered]] = []
            changed: list[tuple[str, Remembered]] = []
            for file in files:
                remembered = known.get(file.where)
                if remembered is None or remembered.stamp != file.stamp:
                    remembered = known[file.where] = Remembered(file.stamp, lora_folder.examine(file))
                    changed.append((file.where, remembered))
                pairs.append((file, remembered))
            gone = _gone(known, {file.where for file in files}) if len(known) > len(files) else []
            for at in gone:
                del known[at]
            self._store(changed, gone)
            return pairs

    def recall_all(self, files: Iterable[LoraFile]) -> dict[str, Remembered]:
        """Return what is remembered of files as they are now, by where they lie; others are left out."""
        with self._lock:
            known = self._all()
            return {
                file.where: known[file.where]
                for file in files
                # Without a stamp, nobody can tell whether a file is still the same.
                if file.stamp and file.where in known and known[file.where].stamp == file.stamp
            }

    def read(self, file: LoraFile) -> Remembered:
        """Return what a file on this disk says, from memory where it has not changed."""
        remembered = self.recall_all([file]).get(file.where)
        if remembered is None:
            remembered = Remembered(file.stamp, lora_folder.examine(file))
            self.remember({file.where: remembered})
        return remembered

    def remember(self, read: Mapping[str, Remembered]) -> None:
        """Keep what was read, by where the files lie."""
        with self._lock:
            self._all().update(read)
            self._store(list(read.items()))

    def _store(self, changed: Sequence[tuple[str, Remembered]], gone: Sequence[str] = ()) -> None:
        if self._cache is not None:
            self._cache.store(changed, gone)

    def _all(self) -> dict[str, Remembered]:
        if self._known is None:
            self._known = self._cache.load() if self._cache is not None else {}
        return self._known


def _gone(known: Iterable[str], there: set[str]) -> list[str]:
    # What lies on another machine begins with no slash, and is no business of a scan.
    return [at for at in known if at not in there and Path(at).is_absolute()]
