"""The tools that bring LoRAs in: whole as base64, or in chunks that survive interruptions."""

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from anyio import to_thread
from pydantic import AfterValidator, AliasChoices, Field

from comfy_mcp.loras.uploads import LoraUploads, UploadedLora
from comfy_mcp.tools.loras import LoraDetails, details_of
from mcp_toolserver.arguments import Arguments
from mcp_toolserver.base64_content import decode_base64
from mcp_toolserver.tools import AnyTool, Call, Effect, Result, Tool
from mcp_toolserver.uploads.progress import DEFAULT_CHUNK_BYTES, StartUpload, UploadProgress
from mcp_toolserver.uploads.steps import MAX_CHUNK_BYTES

MAX_WHOLE_BYTES = 64 * 1024 * 1024
_LARGEST_SIZE = 2**53 - 1  # the largest integer that every JSON reader keeps exact


def _digest(value: str) -> str:
    if len(value) != 64 or any(letter not in "0123456789abcdefABCDEF" for letter in value):
        raise ValueError("a sha256 is written as 64 hexadecimal digits")
    return value.lower()


Sha256 = Annotated[str, AfterValidator(_digest)]

_UPLOAD_ID = Field(description="UUID of the upload, as its start answered it.")
_FILENAME = Field(description="Name in ComfyUI's loras folder, ending in .safetensors; sub-folders with `/`.")
_METADATA = Field(None, description="Anything worth keeping beside the LoRA; `get-lora-info` answers with it.")
_OVERWRITE = Field(False, description="Replace a LoRA of the same name.")


class UploadLora(Arguments):
    """Upload a small LoRA in one call, as base64. For more than a few MB use `upload-lora-chunked-start`."""

    classic_mistakes: ClassVar[Mapping[str, str]] = {
        "file": "the bytes are in `content`, as base64.",
        "lora_name": "the argument is `filename`.",
    }

    filename: str = _FILENAME
    content: str = Field(
        validation_alias=AliasChoices("content", "data"), description="The file's bytes as base64 (standard alphabet)."
    )
    metadata: dict[str, Any] | None = _METADATA
    overwrite: bool = _OVERWRITE
    sha256: Sha256 | None = Field(None, description="Digest of the file in hex; compared before it is installed.")


class StartChunkedUpload(Arguments):
    """Begin the upload of a LoRA of any size in chunks, or resume it: the same start again answers with what has
    arrived, also after the server or the caller was killed. Then append chunk 0, 1, 2, … and finish."""

    classic_mistakes: ClassVar[Mapping[str, str]] = {
        "total_chunks": "the argument is `total_size`: the size of the file in bytes, not a number of chunks.",
        "file_size": "the argument is `total_size`, in bytes.",
        "size": "the argument is `total_size`, in bytes.",
        "lora_name": "the argument is `filename`.",
    }

    filename: str = _FILENAME
    total_size: int = Field(ge=1, le=_LARGEST_SIZE, description="Size of the whole file in bytes.")
    upload_id: str | None = Field(None, description="A UUID of the caller's, to resume by; made here when left out.")
    chunk_size: int | None = Field(
        None,
        ge=1,
        le=MAX_CHUNK_BYTES,
        description=f"Bytes in each chunk before base64, but the last; {DEFAULT_CHUNK_BYTES} when left out.",
    )
    sha256: Sha256 | None = Field(None, description="Digest of the whole file in hex; compared at the finish.")
    metadata: dict[str, Any] | None = _METADATA
    overwrite: bool = _OVERWRITE


class AppendChunk(Arguments):
    """Send one chunk of a chunked upload. A chunk that was sent before is acknowledged again; a gap is refused with
    the index that is expected. What is acknowledged is safe on disk."""

    classic_mistakes: ClassVar[Mapping[str, str]] = {
        "chunk_data": "the argument is `chunk`: the chunk's bytes as base64.",
        "data": "the argument is `chunk`: the chunk's bytes as base64.",
        "content": "the argument is `chunk`: the chunk's bytes as base64.",
        "index": "the argument is `chunk_index`, which begins at 0.",
        "chunk_number": "the argument is `chunk_index`, which begins at 0.",
    }

    upload_id: str = _UPLOAD_ID
    chunk: str = Field(description="The chunk's bytes as base64 (standard alphabet).")
    chunk_index: int = Field(ge=0, le=_LARGEST_SIZE, description="Which chunk it is; the first is 0.")
    chunk_sha256: Sha256 | None = Field(None, description="Digest of the chunk's bytes in hex, compared at once.")


class GetUploadStatus(Arguments):
    """Tell how far a chunked upload is, and which chunk comes next."""

    upload_id: str = _UPLOAD_ID


class AbortChunkedUpload(Arguments):
    """Drop a chunked upload and the bytes that have arrived."""

    upload_id: str = _UPLOAD_ID


class FinishChunkedUpload(Arguments):
    """Verify a chunked upload and install the LoRA; ComfyUI sees it whole or not at all. Finishing again answers the
    same."""

    classic_mistakes: ClassVar[Mapping[str, str]] = {
        "checksum": "the argument is `sha256`.",
        "verify": "the argument is `verify_checksum`.",
    }

    upload_id: str = _UPLOAD_ID
    verify_checksum: bool = Field(True, description="Compare with the digest that the start or this call gives.")
    sha256: Sha256 | None = Field(None, description="Digest of the whole file in hex, if the start did not give it.")


class ListUploads(Arguments):
    """List the chunked uploads: those under way, and those published within the last days."""


class UploadState(Result):
    """How far a chunked upload is."""

    upload_id: str = Field(description="UUID of the upload.")
    filename: str = Field(description="Name that the LoRA will have.")
    status: Literal["receiving", "complete", "published"] = Field(
        description="`receiving` chunks, `complete` and waiting for the finish, or `published`."
    )
    total_size: int = Field(description="Size of the whole file in bytes.")
    chunk_size: int = Field(description="Bytes in each chunk but the last.")
    total_chunks: int = Field(description="How many chunks there are.")
    received_bytes: int = Field(description="How many bytes are safe on disk.")
    next_chunk_index: int = Field(description="The chunk to send next; `total_chunks` when all are there.")
    started: datetime = Field(description="When the upload began, in UTC.")


class ChunkReceived(Result):
    """A chunk is safe on disk."""

    received_bytes: int = Field(description="How many bytes are safe on disk.")
    next_chunk_index: int = Field(description="The chunk to send next.")
    complete: bool = Field(description="Whether all bytes are there, so that the upload can be finished.")


class UploadAborted(Result):
    """A chunked upload that is no more."""

    upload_id: str = Field(description="UUID of the upload.")
    filename: str | None = Field(
        description="Name that the LoRA would have had; null where nothing could be read of it any more."
    )
    dropped_bytes: int = Field(description="How many bytes had arrived.")


class UploadList(Result):
    """The chunked uploads."""

    uploads: list[UploadState] = Field(description="The uploads, the newest first.")


class LoraInstalled(Result):
    """A LoRA that arrived and was installed."""

    lora: LoraDetails = Field(description="The LoRA, as `get-lora-info` describes it.")
    sha256: str = Field(description="Digest of the file that arrived, in hex.")
    checksum_verified: bool = Field(description="Whether a digest that the caller gave was compared, and was the same.")
    seconds: float = Field(description="From the start of the upload to its end.")
    listed: bool | None = Field(
        description="Whether ComfyUI lists it now, so that workflows can use it; null where ComfyUI did not answer."
    )
    warnings: list[str] = Field(description="What to do where it is not listed, or ComfyUI may use older weights.")


def upload_tools(uploads: LoraUploads) -> list[AnyTool]:
    """Return the tools that bring LoRAs in."""

    async def upload(args: UploadLora, call: Call) -> LoraInstalled:
        decode = partial(
            decode_base64,
            args.content,
            field="content",
            max_bytes=MAX_WHOLE_BYTES,
            past_limit="Use `upload-lora-chunked-start`, which takes files of any size.",
        )
        data = await to_thread.run_sync(decode)
        request = StartUpload(
            filename=args.filename,
            total_bytes=len(data),
            sha256=args.sha256,
            overwrite=args.overwrite,
            metadata=args.metadata,
            caller=call.caller,
        )
        return _installed(await uploads.receive_whole(request, data, call.report))

    async def start(args: StartChunkedUpload, call: Call) -> UploadState:
        request = StartUpload(
            filename=args.filename,
            total_bytes=args.total_size,
            upload_id=args.upload_id,
            chunk_bytes=args.chunk_size,
            sha256=args.sha256,
            overwrite=args.overwrite,
            metadata=args.metadata,
            caller=call.caller,
        )
        return _state(await uploads.start(request))

    async def append(args: AppendChunk, call: Call) -> ChunkReceived:
        progress = await uploads.append(args.upload_id, args.chunk_index, args.chunk, args.chunk_sha256)
        return ChunkReceived(
            received_bytes=progress.received_bytes,
            next_chunk_index=progress.next_chunk_index,
            complete=progress.complete,
        )

    async def status(args: GetUploadStatus, call: Call) -> UploadState:
        return _state(await uploads.status(args.upload_id))

    async def abort(args: AbortChunkedUpload, call: Call) -> UploadAborted:
        dropped = await uploads.abort(args.upload_id)
        return UploadAborted(
            upload_id=dropped.upload_id, filename=dropped.filename, dropped_bytes=dropped.received_bytes
        )

    async def finish(args: FinishChunkedUpload, call: Call) -> LoraInstalled:
        return _installed(
            await uploads.finish(
                args.upload_id, sha256=args.sha256, verify_checksum=args.verify_checksum, report=call.report
            )
        )

    async def list_all(args: ListUploads, call: Call) -> UploadList:
        return UploadList(uploads=[_state(progress) for progress in await uploads.overview()])

    chunked = "upload-lora-chunked"
    return [
        Tool(name="upload-lora", args=UploadLora, result=LoraInstalled, effect=Effect.WRITE, run=upload),
        Tool(name=f"{chunked}-start", args=StartChunkedUpload, result=UploadState, effect=Effect.WRITE, run=start),
        Tool(name=f"{chunked}-append", args=AppendChunk, result=ChunkReceived, effect=Effect.WRITE, run=append),
        Tool(name=f"{chunked}-status", args=GetUploadStatus, result=UploadState, effect=Effect.READ, run=status),
        Tool(name=f"{chunked}-abort", args=AbortChunkedUpload, result=UploadAborted, effect=Effect.DESTROY, run=abort),
        Tool(name=f"{chunked}-finish", args=FinishChunkedUpload, result=LoraInstalled, effect=Effect.WRITE, run=finish),
        Tool(name="list-uploads", args=ListUploads, result=UploadList, effect=Effect.READ, run=list_all),
    ]


def _state(progress: UploadProgress) -> UploadState:
    manifest = progress.manifest
    return UploadState.model_validate(
        {
            "upload_id": manifest.upload_id,
            "filename": manifest.filename,
            "status": progress.state.value,
            "total_size": manifest.total_bytes,
            "chunk_size": manifest.chunk_bytes,
            "total_chunks": manifest.plan.total_chunks,
            "received_bytes": progress.received_bytes,
            "next_chunk_index": progress.next_chunk_index,
            "started": manifest.started,
        }
    )


def _installed(uploaded: UploadedLora) -> LoraInstalled:
    receipt = uploaded.receipt
    return LoraInstalled(
        lora=details_of(uploaded.lora),
        sha256=receipt.sha256,
        checksum_verified=receipt.checksum_verified,
        seconds=receipt.seconds,
        listed=uploaded.lora.listed,
        warnings=list(uploaded.lora.notices),
    )
