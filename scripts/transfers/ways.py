"""The ways in which the bytes of a LoRA can go.

link      comfy_mcp takes the file where it lies: a reflink, a hard link where that is safe, or a copy on this machine
pull      comfy_mcp fetches it from aitk_mcp
tus       it streams through this process by tus
chunked   it streams through this process by the chunk tools
direct    this process does what comfy_mcp would, where there is none
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from anyio import to_thread

from comfy_mcp.imports.peer import PeerModel, SourceChanged
from mcp_toolserver.errors import BackendRejected, Conflict, NotFound, ToolError, UnknownTool
from mcp_toolserver.terminal import Teller
from mcp_toolserver.uploads.sender import Pieces, Progress, SenderMemory, UploadSender
from transfers.attempts import Attempts
from transfers.destination import Destination
from transfers.options import Method, NoWay, TransferOptions, WrongBytes
from transfers.trainer import Trainer

# Short, so that progress is seen; the import itself does not end with the wait.
_IMPORT_WAIT_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """A LoRA that is in ComfyUI now: under which name, what was done for it, and whether digests were compared.

    `was_there`: somebody else had brought it since this transfer looked, or under another name.
    """

    name: str
    was_there: bool
    how: str | None
    checksum_verified: bool
    listed: bool | None
    resumed_at_bytes: int
    warnings: tuple[str, ...]


def brought_by_another(name: str) -> Arrived:
    """Return what is known of a LoRA that was looked at, and is there with the right digest."""
    return Arrived(
        name=name, was_there=True, how=None, checksum_verified=True, listed=None, resumed_at_bytes=0, warnings=()
    )


class Ways:
    """Move one model to one name, by a way that the caller chooses; each raises NoWay where it leads nowhere."""

    def __init__(
        self,
        options: TransferOptions,
        destination: Destination,
        trainer: Trainer,
        memory: SenderMemory,
        attempts: Attempts,
        teller: Teller,
    ) -> None:
        self._options = options
        self._destination = destination
        self._trainer = trainer
        self._memory = memory
        self._attempts = attempts
        self._teller = teller
        self._sender = UploadSender(attempts.calling(destination.call), "upload-lora-chunked", memory)

    async def go(self, way: Method, model: PeerModel, name: str) -> Arrived:
        """Move it; raises NoWay, SourceChanged, WrongBytes, and ToolError for what no other way would cure."""
        goes: Mapping[Method, Callable[[], Awaitable[Arrived]]] = {
            "link": partial(self._imported, "link", ("link", "copy"), model, name),
            "pull": partial(self._imported, "pull", ("pull",), model, name),
            "direct": partial(self._imported, "direct", ("auto",), model, name),
            "tus": partial(self._sent, "tus", model, name),
            "chunked": partial(self._sent, "chunked", model, name),
        }
        return await goes[way]()

    async def drop_unfinished(self) -> None:
        """Drop what an earlier run began to send and another way has made needless."""
        upload_id = await to_thread.run_sync(self._memory.upload_id)
        if upload_id is None:
            return
        try:
            await self._sender.abort(upload_id)
        except (Conflict, NotFound):
            # It was published, or swept since.
            return

    async def _imported(self, way: Method, methods: tuple[str, ...], model: PeerModel, name: str) -> Arrived:
        for method in methods[:-1]:
            try:
                return await self._import(way, method, model, name)
            except NoWay as no_way:
                if no_way.whole_peer:
                    raise
        return await self._import(way, methods[-1], model, name)

    async def _import(self, way: Method, method: str, model: PeerModel, name: str) -> Arrived:
        arguments = {
            "model_path": model.model_path,
            "filename": name,
            "sha256": model.sha256,
            "overwrite": self._options.overwrite,
            "method": method,
            "wait_s": _IMPORT_WAIT_S,
        }
        how: str | None = None
        received_bytes = 0
        while True:
            try:
                told = await self._call_import(way, arguments)
            except Conflict as refusal:
                await self._explain(refusal, way, model)
                raise
            how = told["method"] or how
            if told["status"] == "completed":
                break
            received_bytes = told["received_bytes"]
            self._teller.progress(way, received_bytes, model.size_bytes)
        if received_bytes:
            self._teller.progress(way, model.size_bytes, model.size_bytes)
        return Arrived(
            name=told["filename"],
            # An import that ended between two looks is found there by the second.
            was_there=told["already_there"] and how is None,
            how=how,
            checksum_verified=told["checksum_verified"],
            listed=told["listed"],
            resumed_at_bytes=0,
            warnings=tuple(told["warnings"]),
        )

    async def _call_import(self, way: Method, arguments: Mapping[str, Any]) -> dict[str, Any]:
        async def once() -> dict[str, Any]:
            try:
                return await self._destination.call("import-lora", arguments)
            except ToolError as error:
                if _is_about_peer(error):
                    raise NoWay(way, error, whole_peer=True) from error
                if isinstance(error, Conflict) and error.details.get("field") == "method":
                    raise NoWay(way, error) from error
                raise

        return await self._attempts.at(once)

    async def _explain(self, refusal: Conflict, way: Method, model: PeerModel) -> None:
        """Raise what a refused import means, where it means that the bytes differ."""
        if "actual_sha256" not in refusal.details:
            return
        if (await self._trainer.told(model.model_path)).sha256 != model.sha256:
            raise SourceChanged from refusal
        if refusal.details.get("field") == "sha256":
            # The model of that path at comfy_mcp's aitk_mcp is another one: it is another server.
            raise NoWay(way, refusal, whole_peer=True) from refusal
        raise WrongBytes(f"{refusal.message} Run again to start anew.") from refusal

    async def _sent(self, way: Method, model: PeerModel, name: str) -> Arrived:
        for _ in range(self._options.retries):
            try:
                return await self._send(way, model, name)
            except NotFound as gone:
                if "upload_id" not in gone.details:
                    raise
                # Somebody aborted it.
                self._teller.say("retry", f"{gone.message} Beginning anew.", error=gone.as_dict(), wait_s=0.0)
        return await self._send(way, model, name)

    async def _send(self, way: Method, model: PeerModel, name: str) -> Arrived:
        sender, size_bytes = self._sender, model.size_bytes
        started = await sender.start(
            {
                "filename": name,
                "total_size": size_bytes,
                "chunk_size": self._options.chunk_bytes,
                "sha256": model.sha256,
                "overwrite": self._options.overwrite,
                "metadata": {
                    "source": {"server": self._options.aitk_url, "model_path": model.model_path},
                    "training_config": model.training_config,
                },
            }
        )
        upload_id, resumed_at_bytes = started["upload_id"], started["received_bytes"]
        if resumed_at_bytes:
            text = f"{resumed_at_bytes / 1e6:.1f} MB are there already."
            self._teller.say("resumed", text, received_bytes=resumed_at_bytes)
        sent = float(resumed_at_bytes)

        def progress(sent_bytes: int) -> None:
            nonlocal sent
            sent = max(sent, sent_bytes)
            self._teller.progress(way, sent_bytes, size_bytes)

        pieces = partial(self._trainer.pieces, model)
        if way == "tus":
            once = partial(self._by_tus, upload_id, pieces, progress)
        else:
            once = partial(sender.by_chunks, upload_id, pieces, progress)
        try:
            await self._attempts.at(once, lambda: sent)
            done = await sender.finish(upload_id, model.sha256)
        except SourceChanged:
            await self._drop(upload_id)
            raise
        except ToolError as refusal:
            if "actual_sha256" in refusal.details:
                # These bytes will never do: to keep them would be to fail in the same way again.
                await self._drop(upload_id)
                raise WrongBytes(f"{refusal.message} Run again to start anew.") from refusal
            if refusal.code == "invalid_arguments":
                await self._drop(upload_id)
            raise
        return Arrived(
            name=done["lora"]["name"],
            was_there=False,
            how=None,
            checksum_verified=done["checksum_verified"],
            listed=done["listed"],
            resumed_at_bytes=resumed_at_bytes,
            warnings=tuple(done["warnings"]),
        )

    async def _by_tus(self, upload_id: str, pieces: Pieces, progress: Progress) -> None:
        assert self._destination.served is not None
        try:
            await self._sender.by_tus(self._destination.served, upload_id, pieces, progress)
        except BackendRejected as error:
            # The answer to HEAD has no body that would say so: raises NotFound where the upload is gone.
            await self._sender.status(upload_id)
            # Something between here and the server takes no such requests, or none of such a length.
            raise NoWay("tus", error) from error

    async def _drop(self, upload_id: str) -> None:
        await self._sender.abort(upload_id)
        await to_thread.run_sync(self._memory.forget)


def _is_about_peer(error: ToolError) -> bool:
    """Tell whether comfy_mcp knows no import, has no way to its aitk_mcp, or not to the one that is meant."""
    return (
        isinstance(error, UnknownTool | BackendRejected)
        or str(error.details.get("setting", "")).startswith("COMFY_MCP_AITK")
        or (isinstance(error, NotFound) and error.details.get("field") == "model_path")
    )
