"""The LoRAs that trainings left in the outputs folder: found, described, frozen under a name, and sent.

<outputs>/<job>/<job>.safetensors                 finished
<outputs>/<job>/<job>_000000250.safetensors       a checkpoint, which AI Toolkit deletes when newer ones come
<outputs>/_exported/<name>.safetensors            a copy that no training changes any more
"""

import os
import re
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from uuid import uuid4

from anyio import to_thread

from aitk_mcp.documents import BadDocument, read_text
from aitk_mcp.models.digests import Digests, Stamp
from lora_files.describe import LoraDescription, describe_file
from lora_files.header import BadSafetensors
from mcp_toolserver.errors import Conflict, InvalidArguments, NotFound, closest
from mcp_toolserver.files import BATCH_BYTES, make_folder, publish_now, safe_relative, sha256_of_file, sync_directory
from mcp_toolserver.tools import Report, unheard

Kind = Literal["final", "checkpoint", "exported", "other"]
Stage = Literal["high_noise", "low_noise"]
EXPORTS = "_exported"
_CHECKPOINT = re.compile(r"(?P<job>.+?)(?:_(?P<step>\d{9}))?(?P<stage>_high_noise|_low_noise)?\.safetensors")
_REMEMBERED = 2000


@dataclass(frozen=True)
class Model:
    """A LoRA file; `model_path` is relative to the outputs folder, with `/`; `modified` is a Unix time in seconds, None
    where AI Toolkit does not tell it.

    `problem` says why the file cannot be described, which is so for a moment while the trainer writes it. Of Wan 2.2
    each step makes two files, one for each `stage`: `partner` is the path of the other, where it is there. `sha256` is
    the digest in hex where it was computed for this state of the file before, which `etag` (quoted) names as the answer
    of its download does; None where the file is another machine's.
    """

    model_path: str
    path: Path
    job: str | None
    kind: Kind
    step: int | None
    size_bytes: int
    modified: float | None
    description: LoraDescription | None
    problem: str | None
    stage: Stage | None = None
    partner: str | None = None
    sha256: str | None = None
    etag: str | None = None

    @property
    def finished(self) -> bool:
        """Tell whether a training ended with this file, rather than passing by."""
        return self.kind in ("final", "exported") and self.problem is None


class Models:
    """List, describe and export the LoRAs under one outputs folder; a path never leads out of it."""

    def __init__(self, outputs: Path, digests: Digests) -> None:
        self.outputs = outputs
        self._described: OrderedDict[tuple[Path, Stamp], LoraDescription | str] = OrderedDict()
        self._digests = digests

    async def all(self) -> list[Model]:
        """Return every LoRA, the newest first; the two of a pair stand together."""
        return await to_thread.run_sync(self._all)

    async def find(self, model_path: str) -> Model:
        """Return a LoRA by its path, with or without `.safetensors`, or by the name of its job.

        Raises NotFound with the closest paths, and InvalidArguments for a path that leads elsewhere.
        """
        return await to_thread.run_sync(self._find, model_path)

    async def sha256(self, model: Model, report: Report = unheard) -> str:
        """Return the digest of a LoRA in hex; it is computed once for each state of the file.

        Raises Conflict where the file is being written.
        """
        stamp = await to_thread.run_sync(Stamp.of, model.path)
        known = await to_thread.run_sync(self._digests.get, model.path, stamp)
        if known is not None:
            return known
        computed = await sha256_of_file(model.path, report)
        if await to_thread.run_sync(Stamp.of, model.path) != stamp:
            raise Conflict(
                f"`{model.model_path}` changed while its sha256 was computed: a trainer is writing it.",
                hint="Call again once it is written; get-training-status tells how far its job is.",
                details={"model_path": model.model_path},
            )
        await to_thread.run_sync(self._digests.put, model.path, stamp, computed)
        return computed

    async def read(self, model: Model) -> bytes:
        """Return the bytes of a LoRA."""
        return await to_thread.run_sync(model.path.read_bytes)

    async def training_config(self, model: Model) -> dict[str, Any] | None:
        """Return the config document that the trainer kept beside a LoRA, or None where there is none to read."""
        if model.job is None:
            return None
        return await to_thread.run_sync(_kept_config, self.outputs / model.job / "config.yaml")

    async def export(self, source: Model, name: str, *, overwrite: bool) -> Model:
        """Copy a LoRA to `_exported/<name>.safetensors`, byte for byte; the same export again answers the same.

        Raises Conflict where another file bears the name and `overwrite` is false.
        """
        await to_thread.run_sync(partial(self._export, source, name, overwrite=overwrite))
        return await self.find(f"{EXPORTS}/{name}.safetensors")

    async def delete(self, model: Model) -> None:
        """Delete a LoRA from the disk; raises NotFound where it is gone already."""

        def remove() -> None:
            try:
                model.path.unlink()
            except FileNotFoundError:
                raise NotFound(
                    f"`{model.model_path}` was deleted at this moment, probably by the trainer.",
                    hint="list-exported-models shows what is there now.",
                ) from None
            sync_directory(model.path.parent)

        await to_thread.run_sync(remove)

    def _all(self) -> list[Model]:
        models: list[Model] = []
        for path in self._files():
            try:
                models.append(self._model(path))
            except FileNotFoundError:
                # The trainer deletes its oldest checkpoint at this moment.
                continue
        return newest_first(models)

    def _files(self) -> Iterator[Path]:
        if not self.outputs.is_dir():
            return
        for folder in (self.outputs, *(path for path in self.outputs.iterdir() if path.is_dir())):
            if not folder.name.startswith("."):
                files = (path for path in folder.glob("*.safetensors") if path.is_file())
                yield from (path for path in files if not path.name.startswith("."))

    def _model(self, path: Path) -> Model:
        stamp = Stamp.of(path)
        described = self._describe(path, stamp)
        description = described if isinstance(described, LoraDescription) else None
        kind, job, step = place_in(self.outputs, path)
        stage, partner = stage_of(path)
        has_partner = partner is not None and partner.is_file()
        return Model(
            model_path=path.relative_to(self.outputs).as_posix(),
            path=path,
            job=job,
            kind=kind,
            step=step if step is not None or description is None else description.training.steps,
            size_bytes=stamp.size_bytes,
            modified=stamp.modified_ns / 1e9,
            description=description,
            problem=described if isinstance(described, str) else None,
            stage=stage,
            partner=partner.relative_to(self.outputs).as_posix() if partner is not None and has_partner else None,
            sha256=self._digests.get(path, stamp),
            etag=stamp.etag,
        )

    def _describe(self, path: Path, stamp: Stamp) -> LoraDescription | str:
        key = (path, stamp)
        if key not in self._described:
            try:
                self._described[key] = describe_file(path)
            except BadSafetensors as error:
                return str(error)
            while len(self._described) > _REMEMBERED:
                self._described.popitem(last=False)
        self._described.move_to_end(key)
        return self._described[key]

    def _find(self, model_path: str) -> Model:
        known = {path.relative_to(self.outputs).as_posix(): path for path in self._files()}
        return self._model(known[meant(model_path, self.outputs, known)])

    def _export(self, source: Model, name: str, *, overwrite: bool) -> None:
        if source.problem is not None:
            raise InvalidArguments(
                f"{source.model_path} is no complete LoRA: {source.problem}",
                hint="Wait until the trainer has written it, or export another.",
            )
        folder = self.outputs / EXPORTS
        target = folder / f"{name}.safetensors"
        make_folder(folder)
        if target.exists() and not overwrite:
            if _same_bytes(source.path, target):
                return
            raise Conflict(
                f"`{target.name}` was exported before, from other bytes.",
                hint="Send `overwrite: true` to replace it, or choose another `name`.",
                details={"model_path": f"{EXPORTS}/{target.name}"},
            )
        work = folder / f".{uuid4().hex}.part"
        try:
            _copy(source.path, work)
            publish_now(work, target, overwrite=overwrite)
        finally:
            work.unlink(missing_ok=True)


def newest_first(models: Sequence[Model]) -> list[Model]:
    """Return models, the newest first; the two of a pair stand together, and what has no time last."""
    modified = {model.model_path: model.modified or 0.0 for model in models}

    def age(model: Model) -> tuple[float, int, str, bool]:
        newer = max(modified[model.model_path], modified.get(model.partner or "", 0.0))
        pair = model.model_path if model.stage is None else model.model_path.replace(f"_{model.stage}", "")
        return newer, model.step or 0, pair, model.stage == "high_noise"

    return sorted(models, key=age, reverse=True)


def place_in(outputs: Path, path: Path) -> tuple[Kind, str | None, int | None]:
    """Return what a file in the outputs folder is by its place and name: its kind, its job, and its step."""
    if path.parent == outputs:
        return "other", None, None
    if path.parent.name == EXPORTS:
        return "exported", None, None
    job = path.parent.name
    found = _CHECKPOINT.fullmatch(path.name)
    if found is None or found["job"] != job:
        return "other", job, None
    return ("checkpoint", job, int(found["step"])) if found["step"] else ("final", job, None)


def stage_of(path: Path) -> tuple[Stage | None, Path | None]:
    """Return for which of the two models of Wan 2.2 a file is, and where the other would lie."""
    stages: tuple[Stage, Stage] = ("high_noise", "low_noise")
    for stage, other in (stages, stages[::-1]):
        stem = path.stem.removesuffix(f"_{stage}")
        if stem != path.stem:
            return stage, path.with_name(f"{stem}_{other}{path.suffix}")
    return None, None


def meant(model_path: str, outputs: Path, known: Collection[str]) -> str:
    """Return which of the known paths is meant: with or without `.safetensors`, or by the name of its job.

    Raises NotFound with the closest paths, and InvalidArguments for a path that leads elsewhere.
    """
    path = Path(model_path)
    relative = path.relative_to(outputs).as_posix() if path.is_relative_to(outputs) else model_path
    wanted = safe_relative(relative, field="model_path").as_posix()
    by_name = {PurePosixPath(each).name: each for each in known}
    for candidate in (wanted, f"{wanted}.safetensors", f"{wanted}/{wanted}.safetensors"):
        if candidate in known:
            return candidate
    found = by_name.get(wanted) or by_name.get(f"{wanted}.safetensors")
    if found is not None:
        return found
    # The path is long beside what people say, the name of a job.
    spelled = {name: each for each in known for name in (each, PurePosixPath(each).name, PurePosixPath(each).stem)}
    matches = list(dict.fromkeys(spelled[name] for name in closest(wanted, spelled)))
    raise NotFound(
        f"There is no model `{model_path}` in the outputs folder.",
        hint=f"Did you mean `{matches[0]}`?" if matches else "list-exported-models shows what is there.",
        details={"field": "model_path", "value": model_path, "closest_matches": matches},
    )


def _kept_config(path: Path) -> dict[str, Any] | None:
    try:
        text = path.read_text(encoding="utf-8")
        return dict(read_text(text, is_json=False, environment=os.environ).raw)
    except (OSError, UnicodeDecodeError, BadDocument):
        return None


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reader, target.open("xb") as writer:
        while batch := reader.read(BATCH_BYTES):
            writer.write(batch)


def _same_bytes(one: Path, other: Path) -> bool:
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as first, other.open("rb") as second:
        while batch := first.read(BATCH_BYTES):
            if batch != second.read(BATCH_BYTES):
                return False
    return True
