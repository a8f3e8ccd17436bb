"""Bring LoRAs from aitk_mcp into ComfyUI's folder, the fastest way that leads there; an import outlives its call.

A model whose file is on this disk is there without moving a byte (`placing`); else its bytes go through the upload
store, so that an import goes on where it broke off, also after either server was killed.
"""

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic, time
from typing import Any
from uuid import UUID, uuid4, uuid5

import anyio
import orjson
from anyio import to_thread
from anyio.abc import TaskGroup

from comfy_mcp.imports.job import Choice, Import, ImportedBody, Wanted
from comfy_mcp.imports.local import is_here, local_bytes
from comfy_mcp.imports.peer import AitkPeer, PeerModel, SourceChanged
from comfy_mcp.imports.placing import Way, place
from comfy_mcp.loras.info import LoraInfo
from comfy_mcp.loras.loras import LoraLibrary
from comfy_mcp.loras.names import accepted_name
from comfy_mcp.loras.uploads import LoraUploads
from mcp_toolserver.errors import BackendRejected, Conflict, Internal, InvalidArguments, NotFound, ToolError
from mcp_toolserver.files import make_folder, sha256_of_file
from mcp_toolserver.retries import Patience, patiently
from mcp_toolserver.tools import Report, unheard
from mcp_toolserver.uploads.digests import DigestMismatch
from mcp_toolserver.uploads.plan import State
from mcp_toolserver.uploads.progress import StartUpload
from mcp_toolserver.uploads.store import disk_errors

log = logging.getLogger(__name__)

_NAMES = UUID("b3d7a5f0-9a61-4c0e-8a55-6f6a3f2f1c11")
_TRIES = 3
_STALE_S = 3600.0


class Imports:
    """The imports from one peer into one library."""

    def __init__(
        self, peer: AitkPeer, library: LoraLibrary, uploads: LoraUploads, *, patience: Patience | None = None
    ) -> None:
        self._peer = peer
        self._library = library
        self._uploads = uploads
        self._patience = patience or Patience(retries=5)
        self._running: dict[Wanted, Import] = {}
        self._tasks: TaskGroup | None = None

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Let imports go on while the block runs; what has come by its end is kept."""
        async with self._peer.running(), anyio.create_task_group() as tasks:
            self._tasks = tasks
            try:
                yield
            finally:
                self._tasks = None
                tasks.cancel_scope.cancel()

    async def bring(
        self, wanted: Wanted, *, wait_s: float, caller: str | None = None, report: Report = unheard
    ) -> Import:
        """Begin or join an import and wait for it; one that is not over by then goes on, and the same call joins it.

        Raises what it failed with: NotFound for a model that is not there, Conflict for a name that is taken or a
        digest that differs, InvalidArguments for a name that cannot be, BackendUnavailable where the peer is silent.
        """
        if wanted.filename is not None:
            accepted_name(wanted.filename)
        job = self._running.get(wanted) or self._begun(wanted, caller)
        with anyio.move_on_after(wait_s):
            while not job.is_over:
                changed = job.changed
                total_bytes = job.model.size_bytes if job.model else None
                await report(job.received_bytes, total_bytes, f"importing {wanted.model_path}")
                await changed.wait()
        if job.error is not None:
            raise job.error
        return job

    def _begun(self, wanted: Wanted, caller: str | None) -> Import:
        if self._tasks is None:
            raise Internal("The server is stopping.", hint="Call again once it runs.")
        job = self._running[wanted] = Import(wanted, caller)
        self._tasks.start_soon(self._run, job)
        return job

    async def _run(self, job: Import) -> None:
        started_s = monotonic()
        try:
            with disk_errors():
                lora = await self._bring(job)
            job.seconds = round(monotonic() - started_s, 3)
            job.lora = lora
        except ToolError as error:
            log.warning("an import failed", extra={"model_path": job.wanted.model_path, "cause": error.message})
            job.error = error
        except Exception as error:
            log.exception("an import failed", extra={"model_path": job.wanted.model_path})
            job.error = Internal("The import failed inside the server.", hint="The server's log has the cause.")
            job.error.__cause__ = error
        finally:
            # The same call again finds it there, or goes on with what has come.
            del self._running[job.wanted]
            job.note()

    async def _bring(self, job: Import) -> LoraInfo:
        changed: SourceChanged | None = None
        for _ in range(_TRIES):
            before, job.model = job.model, await self._peer.model(job.wanted.model_path)
            model = job.model
            if changed is not None and before is not None and before.state == model.state:
                raise self._peer.contradicts(model, str(changed))
            self._require_meant(model, job.wanted.sha256)
            name = job.filename = accepted_name(job.wanted.filename or model.filename)
            self._require_own(job)
            job.note()
            there = await self._there(name, model)
            if there is not None:
                job.already_there = job.is_compared = True
                return await self._library.with_listing(there)
            await self._library.accept(name, overwrite=job.wanted.overwrite, size_bytes=model.size_bytes)
            try:
                return await self._by_its_way(job, model, name)
            except SourceChanged as error:
                changed = error
                log.info("a model changed during its import", extra={"model_path": model.model_path})
                if job.upload_id is not None:
                    await self._uploads.abort(job.upload_id)
                    job.upload_id = None
        raise Conflict(
            f"`{job.wanted.model_path}` changed each time while it was imported: a trainer is writing it.",
            hint="Import it once its training has ended, or a checkpoint, or export it by `export-model` of aitk_mcp.",
            details={"model_path": job.wanted.model_path},
        )

    def _require_meant(self, model: PeerModel, sha256: str | None) -> None:
        if sha256 not in (None, model.sha256):
            raise Conflict(
                f"`{model.model_path}` has the sha256 {model.sha256} at {self._peer.url}, and not {sha256}.",
                hint="Ask that aitk_mcp by `download-model` for its digest, or leave `sha256` out.",
                details={"field": "sha256", "value": sha256, "actual_sha256": model.sha256, "url": self._peer.url},
            )

    def _require_own(self, job: Import) -> None:
        for other in self._running.values():
            if other is not job and other.filename == job.filename:
                raise Conflict(
                    f"`{other.wanted.model_path}` is being imported as `{job.filename}`.",
                    hint="Wait for it, or choose another `filename`.",
                    details={"filename": job.filename, "model_path": other.wanted.model_path},
                )

    async def _there(self, name: str, model: PeerModel) -> LoraInfo | None:
        """Return the LoRA where it is there already, byte for byte."""
        elsewhere = await self._library.having(model.sha256)
        if elsewhere is not None:
            return elsewhere
        known = await self._library.find(name)
        if known is None:
            return None
        if known.size_bytes == model.size_bytes and known.hashes is None and known.path is not None:
            try:
                known = await self._library.info(name)
            except NotFound:  # deleted this moment
                return None
        return known if known.hashes is not None and known.hashes.sha256 == model.sha256 else None

    async def _by_its_way(self, job: Import, model: PeerModel, name: str) -> LoraInfo:
        way = job.wanted.way
        lora = await self._placed(job, model, name) if way in ("auto", "link") else None
        if lora is not None:
            return lora
        from_here = way != "pull" and await to_thread.run_sync(is_here, model)
        if way == "link" or (way == "copy" and not from_here):
            raise _no_way(model, way, is_here=from_here)
        return await self._received(job, model, name, from_here=from_here)

    async def _placed(self, job: Import, model: PeerModel, name: str) -> LoraInfo | None:
        """Install a model whose file is here without moving its bytes; None where that cannot be."""
        etag = model.etag
        if etag is None:
            return None
        work = await self._library.work_folder()
        part = work / f"{uuid4()}.import"

        def placed() -> Way | None:
            _make_ready(work)
            return place(model.path, part, etag, link_safe=model.link_safe)

        try:
            way = await to_thread.run_sync(placed)
            if way is None:
                return None
            # These are the source's own bytes: there is nothing to compare, unless the caller knows what they must be.
            sha256 = await _compared(part, job) if job.wanted.sha256 is not None else None
            if way == "link" and not await self._still_safe(model):
                return None
            job.method, job.received_bytes, job.is_compared = way, model.size_bytes, sha256 is not None
            return await self._library.install(
                part,
                name,
                overwrite=job.wanted.overwrite,
                metadata=self._said_of(model),
                sha256=sha256,
            )
        finally:
            await to_thread.run_sync(partial(part.unlink, missing_ok=True))

    async def _still_safe(self, model: PeerModel) -> bool:
        # A training that was started since may have looked for links before there was one.
        now = await self._peer.model(model.model_path, with_config=False)
        return now.link_safe and now.etag == model.etag

    async def _received(self, job: Import, model: PeerModel, name: str, *, from_here: bool) -> LoraInfo:
        """Take a model's bytes through the upload store and install it."""
        request = StartUpload(
            filename=name,
            total_bytes=model.size_bytes,
            sha256=model.sha256,
            overwrite=job.wanted.overwrite,
            metadata=self._said_of(model),
            caller=job.caller,
        )
        upload_id = await self._free_id(request)
        await self._uploads.start(replace(request, upload_id=upload_id))
        # Once it can be asked for.
        job.upload_id = upload_id
        job.method = "copy" if from_here else "pull"
        source = partial(local_bytes, model) if from_here else partial(self._peer.bytes_of, model)
        try:
            await patiently(
                partial(self._take, job, upload_id, source), self._patience, progress=lambda: job.received_bytes
            )
            done = await self._uploads.finish(upload_id, sha256=None, verify_checksum=True)
        except DigestMismatch:
            # These bytes will never be the right ones: a trainer wrote them anew, or somebody on the way did.
            if (await self._peer.model(model.model_path, with_config=False)).sha256 != model.sha256:
                raise SourceChanged("its bytes have another sha256") from None
            await self._uploads.abort(upload_id)
            raise
        except InvalidArguments:
            # They are no LoRA.
            await self._uploads.abort(upload_id)
            raise
        except BackendRejected:
            # What came before is kept; an upload that nothing came of would only stand in the list.
            if job.received_bytes == 0:
                await self._uploads.abort(upload_id)
            raise
        job.is_compared = done.receipt.checksum_verified
        return done.lora

    async def _take(self, job: Import, upload_id: str, source: Callable[[int], AsyncGenerator[bytes]]) -> None:
        uploads = await self._uploads.uploads()
        progress = await uploads.status(upload_id)
        job.received_bytes = progress.received_bytes
        if progress.state is not State.RECEIVING:
            return
        body = ImportedBody(source(progress.received_bytes), job)
        await uploads.receive(upload_id, progress.received_bytes, body.pieces())
        if body.failure is not None:
            raise body.failure
        if not (await uploads.status(upload_id)).complete:
            raise self._peer.silent("nothing more came.")

    async def _free_id(self, request: StartUpload) -> str:
        """Return the id by which this very import is known, in every run of the server, until it has ended."""
        uploads = await self._uploads.uploads()
        told = [request.filename, request.sha256, request.overwrite, request.metadata]
        spelled = orjson.dumps(told, option=orjson.OPT_SORT_KEYS).decode()
        count = 0
        while True:
            upload_id = str(uuid5(_NAMES, f"{count}:{spelled}"))
            found = await uploads.find(upload_id)
            if found is None or found.state is not State.PUBLISHED:
                return upload_id
            # It was imported before, and deleted or replaced since.
            count += 1

    def _said_of(self, model: PeerModel) -> dict[str, Any]:
        source = {"server": self._peer.url, "model_path": model.model_path}
        return {"source": source, "training_config": model.training_config}


async def _compared(part: Path, job: Import) -> str:
    """Return the sha256 of what is to be installed; raises DigestMismatch where the caller gave another."""

    async def read(done: float, /, total: float | None = None, message: str | None = None) -> None:
        job.received_bytes = int(done)
        job.note()

    actual = await sha256_of_file(part, read)
    if actual != job.wanted.sha256:
        raise DigestMismatch(
            f"`{job.wanted.model_path}` has another sha256 than the caller gave, and than aitk_mcp says.",
            hint="The file was written over: train or export it anew, or look into the log of aitk_mcp.",
            details={"expected_sha256": job.wanted.sha256, "actual_sha256": actual},
        )
    return actual


def _no_way(model: PeerModel, way: Choice, *, is_here: bool) -> Conflict:
    why = (
        "its trainer may write into it yet, or the disk is another"
        if is_here
        else "it is not on a disk of this machine"
    )
    return Conflict(
        f"`{model.model_path}` cannot come by `{way}`: {why}.",
        hint="Leave `method` out, and the fastest way that leads there is taken.",
        details={"field": "method", "value": way, "model_path": model.model_path},
    )


def _make_ready(work: Path) -> None:
    make_folder(work)
    for path in work.glob("*.import"):
        # The time of its entry, for that of its bytes is the source's.
        if time() - path.stat().st_ctime > _STALE_S:
            path.unlink(missing_ok=True)
