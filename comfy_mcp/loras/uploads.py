"""Receive LoRAs, in chunks or whole, and install them in the loras folder."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from comfy_mcp.loras.folder import supplied_path
from comfy_mcp.loras.info import LoraInfo
from comfy_mcp.loras.loras import LoraLibrary
from comfy_mcp.loras.names import accepted_name
from lora_files.header import BadSafetensors, check_opening
from mcp_toolserver.errors import Conflict, InvalidArguments, NotFound
from mcp_toolserver.files import write_file_atomically
from mcp_toolserver.tools import Report, unheard
from mcp_toolserver.uploads.folder import Manifest, Receipt
from mcp_toolserver.uploads.plan import State
from mcp_toolserver.uploads.progress import AbortedUpload, StartUpload, UploadProgress
from mcp_toolserver.uploads.store import UploadStore
from mcp_toolserver.uploads.uploads import Uploads


@dataclass(frozen=True, slots=True)
class UploadedLora:
    """A LoRA that arrived, and how."""

    lora: LoraInfo
    receipt: Receipt


class LoraUploads:
    """The uploads into one library."""

    def __init__(self, library: LoraLibrary) -> None:
        self._library = library
        self._stores: dict[Path, Uploads] = {}
        self._latest: Uploads | None = None

    async def start(self, request: StartUpload) -> UploadProgress:
        """Begin or resume an upload; raises, before any byte was sent, what installing the LoRA would raise."""
        uploads = await self.uploads()
        request = replace(request, filename=accepted_name(request.filename))
        if request.upload_id is None or await uploads.find(request.upload_id) is None:
            await self._library.accept(request.filename, overwrite=request.overwrite, size_bytes=request.total_bytes)
        return await uploads.start(request)

    async def append(self, upload_id: str, index: int, chunk: str, chunk_sha256: str | None) -> UploadProgress:
        """Take a chunk, as `Uploads.append` does."""
        return await (self._latest or await self.uploads()).append(upload_id, index, chunk, chunk_sha256)

    async def status(self, upload_id: str) -> UploadProgress:
        """Return how far an upload is; raises NotFound."""
        return await (await self.uploads()).status(upload_id)

    async def overview(self) -> list[UploadProgress]:
        """Return all uploads, the newest first."""
        return await (await self.uploads()).overview()

    async def abort(self, upload_id: str) -> AbortedUpload:
        """Drop an upload, as `Uploads.abort` does."""
        return await (await self.uploads()).abort(upload_id)

    async def finish(
        self, upload_id: str, *, sha256: str | None, verify_checksum: bool, report: Report = unheard
    ) -> UploadedLora:
        """Verify and install, as `Uploads.finish` does; raises InvalidArguments for a file that is no LoRA."""
        uploads = await self.uploads()
        installation = _Installation(self._library)
        receipt = await uploads.finish(
            upload_id, installation, sha256=sha256, verify_checksum=verify_checksum, report=report
        )
        lora = installation.lora or await self._installed(receipt)
        manifest = (await uploads.status(upload_id)).manifest
        return UploadedLora(await self._with_metadata(lora, manifest, receipt), receipt)

    async def receive_whole(self, request: StartUpload, data: bytes, report: Report = unheard) -> UploadedLora:
        """Install a LoRA that came in one piece; nothing stays behind when it is refused."""
        uploads = await self.uploads()
        name = await self._library.accept(request.filename, overwrite=request.overwrite, size_bytes=request.total_bytes)
        installation = _Installation(self._library)
        receipt = await uploads.receive_whole(replace(request, filename=name), data, installation, report)
        return UploadedLora(installation.lora or await self._installed(receipt), receipt)

    async def arrived(self, progress: UploadProgress) -> UploadProgress:
        """Install a LoRA whose bytes are all there, where its start asked for that."""
        if not progress.manifest.publish_when_complete:
            return progress
        await self.finish(progress.manifest.upload_id, sha256=None, verify_checksum=True)
        return replace(progress, state=State.PUBLISHED)

    async def uploads(self) -> Uploads:
        """Return the uploads into the folder that LoRAs are written to; raises Forbidden or NotFound without one."""
        # Where the folder is may have to be asked of ComfyUI; appending goes on in the store that was opened last.
        root = await self._library.work_folder()
        if root not in self._stores:
            self._stores[root] = Uploads(UploadStore(root), inspect=_require_lora)
        self._latest = self._stores[root]
        return self._latest

    async def _installed(self, receipt: Receipt) -> LoraInfo:
        elsewhere = await self._library.having(receipt.sha256)
        lora = elsewhere or await self._library.info(receipt.filename, hashes=False)
        lora = lora if lora.hashes else await self._library.info(receipt.filename)
        return await self._library.with_listing(lora)

    async def _with_metadata(self, lora: LoraInfo, manifest: Manifest, receipt: Receipt) -> LoraInfo:
        # The server may have died right after publishing a LoRA, before what was said of it was written beside it.
        is_same = lora.hashes is not None and lora.hashes.sha256 == receipt.sha256
        if not manifest.metadata or lora.supplied or not lora.path or not is_same:
            return lora
        written = orjson.dumps(dict(manifest.metadata), option=orjson.OPT_INDENT_2)
        await write_file_atomically(supplied_path(lora.path), written)
        return replace(await self._library.info(lora.name), listed=lora.listed, notices=lora.notices)


def _require_lora(manifest: Manifest, opening: bytes) -> None:
    try:
        check_opening(opening, manifest.total_bytes)
    except BadSafetensors as error:
        raise InvalidArguments(
            f"`{manifest.filename}` is no usable safetensors file. {error}",
            hint="Check the file where it came from (its size and sha256), and send the right one as another upload.",
            details={"filename": manifest.filename, "reason": error.reason},
        ) from None


class _Installation:
    """Install a verified part, and remember what it became."""

    def __init__(self, library: LoraLibrary) -> None:
        self._library = library
        self.lora: LoraInfo | None = None

    async def __call__(self, manifest: Manifest, part: Path, sha256: str) -> None:
        metadata: dict[str, Any] | None = dict(manifest.metadata) if manifest.metadata else None
        try:
            self.lora = await self._library.install(
                part, manifest.filename, overwrite=manifest.overwrite, metadata=metadata, sha256=sha256
            )
        except Conflict:
            # The server may have died right after publishing this very file, or somebody else sent the same one.
            there = await self._there(manifest.filename)
            if there is None or there.hashes is None or there.hashes.sha256 != sha256:
                raise
            self.lora = await self._library.with_listing(there)

    async def _there(self, name: str) -> LoraInfo | None:
        try:
            return await self._library.info(name)
        except NotFound:
            # What has the name is no LoRA.
            return None
