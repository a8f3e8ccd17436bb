"""The LoRAs on the disk of an AI Toolkit that is another machine's, through its API.

AI Toolkit tells of the files of its jobs, so that the LoRAs of a job that was deleted are not seen. It takes no files
for its outputs folder: exports are kept on this machine, where no training changes them either.
"""

import hashlib
import os
import struct
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from aitk_mcp.documents import BadDocument, TrainingDocument, read_text
from aitk_mcp.models.models import Model, Models, meant, newest_first, place_in, stage_of
from aitk_mcp.trainers.at_once import at_once
from aitk_mcp.trainers.ui_disk import RemoteState, UiDisk
from aitk_mcp.trainers.ui_files import UiFiles
from aitk_mcp.trainers.ui_http import UiHttp
from aitk_mcp.trainers.ui_jobs import UiJobs
from lora_files.describe import LoraDescription, describe_lora
from lora_files.header import BadSafetensors, check_opening, parse_header
from mcp_toolserver.errors import NotFound
from mcp_toolserver.files import make_folder, ranged_file_response
from mcp_toolserver.tools import Report, unheard

_REMEMBERED = 2000
_HEADER_BYTES = 256 * 1024
_LENGTH = struct.Struct("<Q")
_MOST_CONFIG_BYTES = 4 * 1024 * 1024


class RemoteModels:
    """The LoRAs of one AI Toolkit server, and the exports of them in a folder of this machine."""

    def __init__(self, http: UiHttp, outputs: Path, exports: Models) -> None:
        """Take the outputs folder on AI Toolkit's machine, and where exports are kept."""
        self.outputs = outputs
        self._exports = exports
        self._disk = UiDisk(http)
        self._jobs, self._files = UiJobs(http), UiFiles(http)
        self._described: OrderedDict[tuple[str, str], LoraDescription] = OrderedDict()
        self._digests: dict[tuple[str, str], str] = {}

    async def all(self) -> list[Model]:
        """Return every LoRA, the newest first; the two of a pair stand together."""
        paths = await self._paths()
        found = await at_once(lambda path: self._model(path, paths), list(paths.values()))
        return newest_first([*(model for model in found if model is not None), *await self._exports.all()])

    async def find(self, model_path: str) -> Model:
        """Return a LoRA by its path, with or without `.safetensors`, or by the name of its job."""
        paths = await self._paths()
        exported = {model.model_path: model for model in await self._exports.all()}
        wanted = meant(model_path, self.outputs, [*paths, *exported])
        model = exported[wanted] if wanted in exported else await self._model(paths[wanted], paths)
        if model is None:
            raise _gone(wanted)
        return model

    async def sha256(self, model: Model, report: Report = unheard) -> str:
        """Return the digest of a LoRA in hex, for which its bytes have to pass through here once."""
        if self._is_export(model):
            return await self._exports.sha256(model, report)
        if model.sha256 is not None:
            return model.sha256
        state = await self._state(model)
        digest = hashlib.sha256()
        done = 0
        try:
            async for batch in self._disk.batches(str(model.path), 0, state.size_bytes, state.tag):
                await to_thread.run_sync(digest.update, batch)
                done += len(batch)
                await report(done, state.size_bytes, "computing sha256")
        except FileNotFoundError:
            raise _gone(model.model_path) from None
        if state.tag is not None:
            self._digests[str(model.path), state.tag] = digest.hexdigest()
        return digest.hexdigest()

    async def read(self, model: Model) -> bytes:
        """Return the bytes of a LoRA."""
        if self._is_export(model):
            return await self._exports.read(model)
        try:
            return await self._disk.read(str(model.path), most_bytes=model.size_bytes)
        except FileNotFoundError:
            raise _gone(model.model_path) from None

    async def training_config(self, model: Model) -> dict[str, Any] | None:
        """Return the config document that the trainer kept beside a LoRA, or None where there is none to read."""
        if model.job is None:
            return None
        path = f"{self.outputs}/{model.job}/config.yaml"
        try:
            text = (await self._disk.read(path, most_bytes=_MOST_CONFIG_BYTES)).decode()
            return dict((await to_thread.run_sync(_document, text)).raw)
        except (FileNotFoundError, UnicodeDecodeError, BadDocument):
            return None

    async def export(self, source: Model, name: str, *, overwrite: bool) -> Model:
        """Keep a copy of a LoRA on this machine as `_exported/<name>.safetensors`."""
        if self._is_export(source):
            return await self._exports.export(source, name, overwrite=overwrite)
        await to_thread.run_sync(make_folder, self._exports.outputs)
        work = self._exports.outputs / f".{uuid4().hex}.part"
        try:
            await self._disk.copy(str(source.path), work)
            return await self._exports.export(replace(source, path=work), name, overwrite=overwrite)
        except FileNotFoundError:
            raise _gone(source.model_path) from None
        finally:
            await to_thread.run_sync(lambda: work.unlink(missing_ok=True))

    async def delete(self, model: Model) -> None:
        """Delete a LoRA from the disk that it lies on; raises NotFound where it is gone already."""
        if self._is_export(model):
            await self._exports.delete(model)
            return
        await self._state(model)
        await self._disk.delete(str(model.path), below=str(self.outputs))

    async def answer(self, model: Model, request: Request) -> Response:
        """Answer GET or HEAD for a LoRA, with ranges."""
        if self._is_export(model):
            return await ranged_file_response(model.path, request, sha256=model.sha256)
        return await self._disk.answer(str(model.path), request, filename=model.path.name, sha256=model.sha256)

    def _is_export(self, model: Model) -> bool:
        return model.path.is_relative_to(self._exports.outputs)

    async def _paths(self) -> dict[str, Path]:
        """Return where the LoRAs of all jobs lie, by their paths within the outputs folder."""
        saved = await at_once(self._files.saved, [row.job_id for row in await self._jobs.all()])
        paths = [Path(name) for files in saved for name, _ in files]
        return {
            path.relative_to(self.outputs).as_posix(): path
            for path in paths
            if path.is_relative_to(self.outputs) and path.suffix == ".safetensors"
        }

    async def _model(self, path: Path, known: Mapping[str, Path]) -> Model | None:
        try:
            state = await self._disk.state(str(path))
            described = await self._describe(path, state)
        except FileNotFoundError:
            # The trainer deletes its oldest checkpoint at this moment.
            return None
        description = described if isinstance(described, LoraDescription) else None
        kind, job, step = place_in(self.outputs, path)
        stage, partner = stage_of(path)
        other = partner.relative_to(self.outputs).as_posix() if partner is not None else None
        return Model(
            model_path=path.relative_to(self.outputs).as_posix(),
            path=path,
            job=job,
            kind=kind,
            step=step if step is not None or description is None else description.training.steps,
            size_bytes=state.size_bytes,
            modified=state.modified,
            description=description,
            problem=described if isinstance(described, str) else None,
            stage=stage,
            partner=other if other in known else None,
            sha256=self._digests.get((str(path), state.tag or "")),
        )

    async def _describe(self, path: Path, state: RemoteState) -> LoraDescription | str:
        key = (str(path), state.tag or "")
        if state.tag is None or key not in self._described:
            try:
                described = await self._read_description(str(path), state.size_bytes)
            except BadSafetensors as error:
                return str(error)
            if state.tag is None:
                return described
            self._described[key] = described
            while len(self._described) > _REMEMBERED:
                self._described.popitem(last=False)
        self._described.move_to_end(key)
        return self._described[key]

    async def _read_description(self, path: str, size_bytes: int) -> LoraDescription:
        start, _ = await self._disk.beginning(path, _HEADER_BYTES)
        check_opening(start, size_bytes)
        end = _LENGTH.size + _LENGTH.unpack(start[: _LENGTH.size])[0]
        if end > len(start):
            start, _ = await self._disk.beginning(path, end)
        return await to_thread.run_sync(
            lambda: describe_lora(parse_header(start[_LENGTH.size : end], size_bytes - end))
        )

    async def _state(self, model: Model) -> RemoteState:
        try:
            return await self._disk.state(str(model.path))
        except FileNotFoundError:
            raise _gone(model.model_path) from None


def _document(text: str) -> TrainingDocument:
    return read_text(text, is_json=False, environment=os.environ)


def _gone(model_path: str) -> NotFound:
    return NotFound(
        f"`{model_path}` was deleted at this moment, probably by the trainer.",
        hint="list-exported-models shows what is there now.",
    )
