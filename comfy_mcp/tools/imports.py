"""The tool that brings a LoRA from the server that trained it, or from the web, in one call."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import AliasChoices, Field

from comfy_mcp.imports.imports import Imports
from comfy_mcp.imports.job import Choice, Import, Method, Wanted
from comfy_mcp.imports.peer import AitkPeer
from comfy_mcp.loras.loras import LoraLibrary
from comfy_mcp.models.downloads import Downloads
from comfy_mcp.models.models import LORAS
from comfy_mcp.tools.jobs import DEFAULT_WAIT_S, LONGEST_WAIT_S
from comfy_mcp.tools.loras import LoraDetails, details_of
from comfy_mcp.tools.uploads import Sha256
from mcp_toolserver.arguments import Arguments
from mcp_toolserver.errors import InvalidArguments
from mcp_toolserver.tools import AnyTool, Call, Effect, Result, Tool


class ImportLora(Arguments):
    """Bring a trained LoRA from aitk_mcp into ComfyUI's loras folder: the one call that is needed after a training.
    On one disk it is there at once; else its bytes are fetched and checked by their digest, and a broken fetch goes on
    where it stopped when the same call is made again. Instead of `model_path`, `url` takes a file from the web."""

    classic_mistakes: ClassVar[Mapping[str, str]] = {
        "model": "the argument is `model_path`, as list-exported-models of aitk_mcp gives it.",
        "job_id": "the argument is `model_path`, which also takes the name of a finished job.",
        "name": "the argument is `filename`.",
        "lora_name": "the argument is `filename`.",
    }
    model_path: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        validation_alias=AliasChoices("model_path", "model_name"),
        description="Model of aitk_mcp, as list-exported-models there gives it, or the name of a finished job.",
    )
    url: str | None = Field(
        None, min_length=1, max_length=4096, description="https address of the file itself, on a host that is allowed."
    )
    filename: str | None = Field(
        None, description="Name in ComfyUI's loras folder, ending in .safetensors; that of the model when left out."
    )
    sha256: Sha256 | None = Field(
        None, description="Digest of the file in hex: compared before ComfyUI sees it, and any other is refused."
    )
    overwrite: bool = Field(False, description="Replace a LoRA of the same name that has other bytes.")
    method: Choice = Field(
        "auto",
        description="Only this way for a model: `link` (no byte is moved), `copy` (on this machine), `pull` (by HTTP); "
        "`auto` takes the fastest that works.",
    )
    wait_s: float = Field(DEFAULT_WAIT_S, ge=0, le=LONGEST_WAIT_S, description="Longest time to wait, in seconds.")


class LoraImported(Result):
    """An import: over, or under way."""

    status: Literal["completed", "importing"] = Field(
        description="`importing`: it goes on by itself; the same call again waits for it further."
    )
    already_there: bool = Field(description="Whether these very bytes were there already, so that nothing was done.")
    source: str = Field(description="Where it comes from: the model's path, or the URL.")
    filename: str | None = Field(description="Name that ComfyUI's loaders take; null while it is not known.")
    method: Literal[Method, "download"] | None = Field(
        description="How the bytes came: reflink or link (none was moved), copy, pull (from aitk_mcp), download (from "
        "the web); null where none did, or it is not decided."
    )
    received_bytes: int = Field(description="Bytes that have come.")
    total_bytes: int | None = Field(description="Size of the file; null while it is not known.")
    upload_id: str | None = Field(
        description="The upload that its bytes go through, for upload-lora-chunked-status and -abort; null without one."
    )
    sha256: str | None = Field(
        description="Digest of the file in hex; where a link was not compared, as aitk_mcp tells it. Null while it is "
        "not known."
    )
    checksum_verified: bool = Field(
        description="Whether the bytes here were read and have the digest that the caller or aitk_mcp gave. A link is "
        "compared only with the caller's: its bytes are those of aitk_mcp's own file."
    )
    seconds: float | None = Field(description="How long it took; null while it is under way, and for a download.")
    lora: LoraDetails | None = Field(
        description="The LoRA, as `get-lora-info` describes it; null while it is not there."
    )
    listed: bool | None = Field(
        description="Whether ComfyUI lists it now, so that workflows can use it; null where ComfyUI did not answer."
    )
    warnings: list[str] = Field(description="What the caller should know.")


def import_tools(imports: Imports, peer: AitkPeer, downloads: Downloads, library: LoraLibrary) -> list[AnyTool]:
    """Return the tool; `downloads` fetch from the web, and follow no redirect to another host."""

    async def bring(args: ImportLora, call: Call) -> LoraImported:
        if (args.model_path is None) == (args.url is None):
            raise InvalidArguments(
                "Give either `model_path` or `url`." if args.url is None else "Give `model_path` or `url`, not both.",
                hint="list-exported-models of aitk_mcp names the models; the name of a finished job is one too.",
                details={"field": "model_path", "value": args.model_path},
            )
        model_path = args.model_path or (peer.model_path_in(args.url) if args.url else None)
        if model_path is None:
            assert args.url is not None
            return await download(args, args.url, call)
        wanted = Wanted(
            model_path=model_path,
            filename=args.filename,
            sha256=args.sha256,
            overwrite=args.overwrite,
            way=args.method,
        )
        return _imported(await imports.bring(wanted, wait_s=args.wait_s, caller=call.caller, report=call.report))

    async def download(args: ImportLora, url: str, call: Call) -> LoraImported:
        fetched = await downloads.fetch(
            url,
            LORAS,
            filename=args.filename,
            overwrite=args.overwrite,
            sha256=args.sha256,
            wait_s=args.wait_s,
            report=call.report,
        )
        placed = fetched.placed
        lora = await library.with_listing(await library.info(placed.name, report=call.report)) if placed else None
        return LoraImported(
            status="completed" if lora else "importing",
            already_there=False,
            source=url,
            filename=lora.name if lora else fetched.wanted.name,
            method="download",
            received_bytes=fetched.received_bytes,
            total_bytes=fetched.total_bytes,
            upload_id=None,
            sha256=lora.hashes.sha256 if lora and lora.hashes else None,
            checksum_verified=lora is not None and args.sha256 is not None,
            seconds=None,
            lora=details_of(lora) if lora else None,
            listed=lora.listed if lora else None,
            warnings=list(dict.fromkeys((*placed.notices, *lora.notices))) if placed and lora else [],
        )

    return [Tool(name="import-lora", args=ImportLora, result=LoraImported, effect=Effect.WRITE, run=bring)]


def _imported(job: Import) -> LoraImported:
    lora, model = job.lora, job.model
    return LoraImported(
        status="completed" if lora else "importing",
        already_there=job.already_there,
        source=model.model_path if model else job.wanted.model_path,
        filename=lora.name if lora else job.filename,
        method=job.method,
        received_bytes=job.received_bytes,
        total_bytes=model.size_bytes if model else None,
        upload_id=job.upload_id,
        sha256=model.sha256 if model else None,
        checksum_verified=lora is not None and job.is_compared,
        seconds=job.seconds,
        lora=details_of(lora) if lora else None,
        listed=lora.listed if lora else None,
        warnings=list(lora.notices) if lora else [],
    )
