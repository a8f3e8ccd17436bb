"""Read what AI Toolkit's server tells of a job's files: its log, losses, checkpoints and samples."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

import anyio

from aitk_mcp.loss_log import LOSS_KEY, RATE_KEY, LossPoint
from aitk_mcp.trainers.port import Checkpoint, Sample
from aitk_mcp.trainers.ui_disk import UiDisk
from aitk_mcp.trainers.ui_http import UiHttp, UiRefused
from aitk_mcp.trainers.ui_rows import Row
from lora_files.header import BadSafetensors, parse_header

_SAMPLE = re.compile(r"^\d+__(?P<step>\d+)_(?P<index>\d+)\.(?:jpe?g|png|webp|mp4)$", re.IGNORECASE)
_STEP = re.compile(r'"step": ?(?P<step>\d+)')
# The most that one answer holds; the names of AI Toolkit's own constant do not matter to us.
_LOSSES_AT_ONCE = 20_000
_LOOKS_AT_MOVING_FILES = 4
_LOOK_AGAIN_S = 0.1
_HEADER_BYTES = 256 * 1024
_LENGTH_BYTES = 8


@dataclass(frozen=True, slots=True)
class LogText:
    """What the server sent of a log: where in bytes it ends, and whether it begins at the log's beginning."""

    text: str
    end: int
    is_whole: bool


class UiFiles:
    """Ask one server for the files of its jobs."""

    def __init__(self, http: UiHttp) -> None:
        self._http = http
        self._disk = UiDisk(http)

    async def log(self, job_id: str, offset: int | None) -> LogText:
        """Return the log from a byte on, or its last megabytes; all of it again where it has become shorter."""
        path = f"/api/jobs/{job_id}/log"
        # Offsets count bytes, not characters, and an offset of 0 is the whole log, however large.
        found = await self._http.get(path, {"offset": offset} if offset else None)
        try:
            text, end, reset = str(found["log"]), int(found["offset"]), bool(found["reset"])
        except (TypeError, KeyError, ValueError):
            raise self._http.strange(path, "it holds no log") from None
        return LogText(text, end, is_whole=reset and len(text.encode()) >= end)

    async def losses(self, job_id: str) -> list[LossPoint]:
        """Return the loss and learning rate of every recorded step."""
        losses = await self._points(job_id, LOSS_KEY)
        if not losses:
            return []
        rates = {step: rate for step, (rate, _) in (await self._points(job_id, RATE_KEY)).items()}
        return [LossPoint(step, value, rates.get(step), time) for step, (value, time) in sorted(losses.items())]

    async def saved(self, job_id: str) -> list[tuple[str, int]]:
        """Return path and size in bytes of every file that a job has saved."""
        path = f"/api/jobs/{job_id}/files"
        try:
            return [(str(entry["path"]), int(entry["size"])) for entry in await self._listed(path)]
        except (KeyError, TypeError, ValueError):
            raise self._http.strange(path, "it lists a file without its path and size") from None

    async def _listed(self, path: str) -> Sequence[Mapping[str, Any]]:
        for _ in range(_LOOKS_AT_MOVING_FILES - 1):
            try:
                return await self._list(path, "files")
            except UiRefused as refusal:
                # The server lists the files and then looks at each: where the trainer has deleted an old checkpoint in
                # between, it answers 500.
                if refusal.answer_status != 500:
                    raise
                await anyio.sleep(_LOOK_AGAIN_S)
        return await self._list(path, "files")

    async def checkpoints(self, row: Row) -> list[Checkpoint]:
        """Return the saved LoRAs, oldest step first."""
        pattern = re.compile(re.escape(row.name) + r"(?:_(?P<step>\d{9}))?(?:_(?:high|low)_noise)?\.safetensors")
        found: list[Checkpoint] = []
        for path, size_bytes in await self.saved(row.job_id):
            match = pattern.fullmatch(PurePosixPath(path).name)
            if match is None:
                continue
            step = int(match["step"]) if match["step"] else await self._final_step(row, path, size_bytes)
            found.append(Checkpoint(Path(path), step, size_bytes, final=match["step"] is None))
        return sorted(
            found, key=lambda entry: (math.inf if entry.step is None else entry.step, entry.final, entry.path.name)
        )

    async def samples(self, job_id: str) -> list[Sample]:
        """Return the pictures, oldest first."""
        path = f"/api/jobs/{job_id}/samples"
        found = await self._http.get(path)
        if not isinstance(found, Mapping) or not isinstance(cast(Mapping[str, Any], found).get("samples"), list):
            raise self._http.strange(path, "it lists no samples")
        names = [str(name) for name in cast(Mapping[str, list[Any]], found)["samples"]]
        matched = ((name, _SAMPLE.match(PurePosixPath(name).name)) for name in names)
        samples = [Sample(Path(name), int(match["step"]), int(match["index"])) for name, match in matched if match]
        return sorted(samples, key=lambda sample: (sample.step, sample.prompt_index, sample.path.name))

    async def _points(self, job_id: str, key: str) -> dict[int, tuple[float, float]]:
        """Return value and Unix time by step."""
        points: dict[int, tuple[float, float]] = {}
        since = -1
        while True:
            # Never without the key: the server's default is one that no trainer writes.
            params: dict[str, str | int] = {"key": key, "limit": _LOSSES_AT_ONCE}
            if since >= 0:
                params["since_step"] = since
            page = await self._list(f"/api/jobs/{job_id}/loss", "points", params)
            for point in page:
                # The trainer's database has no NaN and keeps NULL in its place.
                value = math.nan if point.get("value") is None else float(point["value"])
                points[int(point["step"])] = (value, float(point["wall_time"]))
            if len(page) < _LOSSES_AT_ONCE or int(page[-1]["step"]) <= since:
                return points
            since = int(page[-1]["step"])

    async def _final_step(self, row: Row, path: str, size_bytes: int) -> int | None:
        if row.status == "completed":
            return row.step
        try:
            start, _ = await self._disk.beginning(path, _HEADER_BYTES)
            end = _LENGTH_BYTES + int.from_bytes(start[:_LENGTH_BYTES], "little")
            if end > size_bytes:
                return None
            if end > len(start):
                start, _ = await self._disk.beginning(path, end)
        except FileNotFoundError:
            return None
        try:
            metadata = parse_header(start[_LENGTH_BYTES:end], size_bytes - end).metadata
        except BadSafetensors:
            return None
        step = _STEP.search(metadata.get("training_info", ""))
        return int(step["step"]) if step else None

    async def _list(
        self, path: str, name: str, params: Mapping[str, str | int] | None = None
    ) -> Sequence[Mapping[str, Any]]:
        found = await self._http.get(path, params)
        entries: Any = cast(Mapping[str, Any], found).get(name) if isinstance(found, Mapping) else None
        if not isinstance(entries, list):
            raise self._http.strange(path, f"it lists no {name}")
        return [cast(Mapping[str, Any], entry) for entry in cast(list[Any], entries) if isinstance(entry, Mapping)]
