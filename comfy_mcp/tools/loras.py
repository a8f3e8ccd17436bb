"""The tools over the LoRAs that ComfyUI has."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote

import orjson
import pybase64
from anyio import to_thread
from pydantic import AliasChoices, Field

from comfy_mcp.loras.checks import LoraChecks
from comfy_mcp.loras.info import LoraInfo
from comfy_mcp.loras.loras import LoraLibrary
from comfy_mcp.loras.remote import out_of_reach
from lora_files.describe import LoraNetwork
from lora_files.training import Training
from mcp_toolserver.arguments import Arguments
from mcp_toolserver.errors import TooLarge
from mcp_toolserver.tools import AnyTool, Call, Effect, Result, Tool

MAX_VALUE_CHARACTERS = 4096
MAX_METADATA_CHARACTERS = 32_768
MAX_BASE64_BYTES = 64 * 1024 * 1024

_NAME = Field(
    validation_alias=AliasChoices("lora_name", "name", "filename"),
    description="Name as `list-loras` gives it, sub-folder and extension included.",
)


class ListLoras(Arguments):
    """List the LoRAs that ComfyUI has, with architecture, rank and trigger words. `name` is what LoraLoader takes."""

    query: str | None = Field(default=None, description="Words that must occur in the name or the trigger words.")
    architecture: str | None = Field(
        default=None, description="Only LoRAs for this kind of model: flux, sdxl, sd15, wan, …"
    )
    sort: Literal["name", "modified", "size"] = Field(
        "name", description="By name, by time (newest first) or by size (largest first)."
    )
    limit: int = Field(100, ge=1, le=1000, description="At most this many in one answer.")
    cursor: str | None = Field(default=None, description="`next_cursor` of the page before.")


class GetLoraInfo(Arguments):
    """Describe a LoRA from its file: architecture, rank, trigger words, how it was trained, which loader it needs,
    digests, and what may go wrong with it."""

    lora_name: str = _NAME
    include_hashes: bool = Field(True, description="Compute digests where they are not known yet; reads the file once.")


class CheckLora(Arguments):
    """Tell whether a LoRA fits a checkpoint before anything is rendered: a LoRA for another architecture has no
    effect, and ComfyUI says so only in its log (`lora key not loaded`)."""

    lora_name: str = _NAME
    checkpoint: str = Field(
        validation_alias=AliasChoices("checkpoint", "model", "ckpt_name"),
        description="Checkpoint or diffusion model, as `list-models` gives it.",
    )


class DownloadLora(Arguments):
    """Download a LoRA: as a URL that serves byte ranges (any size), or as base64 within the answer (bounded)."""

    lora_name: str = _NAME
    format: Literal["url", "base64"] = Field("url", description="`url` for any size, `base64` for small files.")


class DeleteLora(Arguments):
    """Delete a LoRA file from ComfyUI's loras folder, for good."""

    lora_name: str = _NAME


class LoraSummary(Result):
    """A LoRA in a list."""

    name: str = Field(description="What LoraLoader takes as `lora_name`.")
    size_bytes: int | None = Field(description="Size of the file; null where ComfyUI does not tell it.")
    modified: datetime | None = Field(description="When the file was last changed, in UTC; null where that is unknown.")
    architecture: str = Field(description="Kind of model it fits, or unknown.")
    rank: int | None = Field(description="Rank of most layers; null where there is none, or it is not known.")
    trigger_words: list[str] = Field(description="Words that call its subject in a prompt.")
    problem: str | None = Field(default=None, description="Why it cannot be used, where that is so.")


class LoraList(Result):
    """LoRAs, one page of them."""

    loras: list[LoraSummary] = Field(description="The LoRAs of this page.")
    total: int = Field(description="How many match in all.")
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page; null on the last one.")
    warnings: list[str] = Field(description="What is wrong with the folders, and what is not known of these LoRAs.")


class LoraDetails(Result):
    """Everything that a LoRA's file tells."""

    name: str = Field(description="What LoraLoader takes as `lora_name`.")
    size_bytes: int | None = Field(description="Size of the file; null where ComfyUI does not tell it.")
    modified: datetime | None = Field(description="When the file was last changed, in UTC; null where that is unknown.")
    sha256: str | None = Field(description="Digest of the file in hex; null where it is unknown or was not asked for.")
    autov2: str | None = Field(description="Short digest by which model sites know the file.")
    autov3: str | None = Field(description="Short digest of the tensors alone; null where it was not computed.")
    architecture: str = Field(description="Kind of model it fits: flux, sdxl, sd15, wan, …, or unknown.")
    base_model: str | None = Field(description="Model it was trained on, as precisely as known.")
    network: LoraNetwork | None = Field(description="Kind, rank, alpha, data type and extent.")
    key_format: str = Field(description="Naming of its layers: kohya, diffusers, peft, comfyui, …")
    trigger_words: list[str] = Field(description="Words that call its subject in a prompt.")
    tags: dict[str, int] = Field(description="Frequent caption tags with their counts.")
    training: Training | None = Field(description="How it was trained, as far as the file tells.")
    loader: str | None = Field(description="Node to load it with: LoraLoader or LoraLoaderModelOnly; null if no LoRA.")
    suggested_strength: float | None = Field(description="A strength to begin with.")
    warnings: list[str] = Field(description="What may go wrong with it.")
    metadata: dict[str, str] = Field(description="The file's metadata as it stands there; long values are cut.")
    supplied_metadata: dict[str, Any] = Field(description="What was sent with the upload, kept beside the file.")


class LoraFit(Result):
    """How a LoRA fits a checkpoint."""

    lora_name: str = Field(description="The LoRA.")
    checkpoint: str = Field(description="The checkpoint, as its loader takes it.")
    fits: bool | None = Field(description="Whether every layer finds its place; null where that cannot be told.")
    verdict: Literal["fits", "partly", "does_not_fit", "unknown"] = Field(description="The same in one word.")
    message: str = Field(description="What that means for the picture.")
    lora_architecture: str = Field(description="What the LoRA is for.")
    checkpoint_architecture: str = Field(description="What the checkpoint is.")
    layers: int = Field(description="Layers of the diffusion model that the LoRA changes.")
    matched_layers: int = Field(description="Those that the checkpoint has, in the right shape.")
    keys_not_loaded: list[str] = Field(description="Layers that ComfyUI will not find; the first 20.")
    shape_mismatches: list[str] = Field(description="Layers of another shape; the first 20.")
    loader: str | None = Field(description="Node to load it with.")


class LoraDownload(Result):
    """A LoRA's bytes, or where to get them."""

    lora_name: str = Field(description="The LoRA.")
    filename: str = Field(description="Its name without sub-folders.")
    size_bytes: int = Field(description="Size of the file.")
    sha256: str | None = Field(description="Digest of the file in hex.")
    format: Literal["url", "base64"] = Field(description="Which of the two follows.")
    url: str | None = Field(default=None, description="Address of the file; serves byte ranges.")
    content: str | None = Field(default=None, description="The file in base64.")


class LoraDeleted(Result):
    """A LoRA that is no more."""

    name: str = Field(description="Its name.")
    freed_bytes: int = Field(description="Size of the file that was deleted.")


def lora_tools(library: LoraLibrary, checks: LoraChecks, *, max_base64_bytes: int = MAX_BASE64_BYTES) -> list[AnyTool]:
    """Return the tools over the LoRAs."""

    async def list_loras(args: ListLoras, call: Call) -> LoraList:
        page = await library.list(
            query=args.query, architecture=args.architecture, sort=args.sort, limit=args.limit, cursor=args.cursor
        )
        return LoraList(
            loras=[summary_of(lora) for lora in page.loras],
            total=page.total,
            next_cursor=page.next_cursor,
            warnings=list(page.warnings),
        )

    async def get_info(args: GetLoraInfo, call: Call) -> LoraDetails:
        return details_of(await library.info(args.lora_name, hashes=args.include_hashes, report=call.report))

    async def check(args: CheckLora, call: Call) -> LoraFit:
        found = await checks.check(args.lora_name, args.checkpoint)
        fit, lora = found.fit, found.lora
        return LoraFit(
            lora_name=lora.name,
            checkpoint=found.checkpoint,
            fits=None if fit.verdict == "unknown" else fit.verdict == "fits",
            verdict=fit.verdict,
            message=found.message,
            lora_architecture=lora.architecture,
            checkpoint_architecture=fit.checkpoint_architecture,
            layers=fit.layers,
            matched_layers=fit.matched,
            keys_not_loaded=list(fit.not_found[:20]),
            shape_mismatches=[
                f"{each.layer}: {each.lora} in the LoRA, {each.checkpoint} in the checkpoint"
                for each in fit.mismatched[:20]
            ],
            loader=lora.description.loader if lora.description else None,
        )

    async def download(args: DownloadLora, call: Call) -> LoraDownload:
        lora = await library.info(args.lora_name, report=call.report)
        path, size_bytes = lora.path, lora.size_bytes
        if path is None or size_bytes is None:
            raise out_of_reach(lora.name, "fetch")
        answer = LoraDownload(
            lora_name=lora.name,
            filename=path.name,
            size_bytes=size_bytes,
            sha256=lora.hashes.sha256 if lora.hashes else None,
            format=args.format,
        )
        # Over stdio, which has no address: the file itself, on this machine.
        url = f"{call.base_url}/loras/{quote(lora.name)}" if call.base_url else path.as_uri()
        if args.format == "url":
            return answer.model_copy(update={"url": url})
        if size_bytes > max_base64_bytes:
            raise TooLarge(
                f"`{lora.name}` has {size_bytes} bytes, and base64 is given up to {max_base64_bytes}.",
                hint=f"Ask with `format: url`, or fetch {url} in ranges.",
                details={"size_bytes": size_bytes, "limit_bytes": max_base64_bytes, "url": url},
            )
        content = await to_thread.run_sync(lambda: pybase64.b64encode(path.read_bytes()).decode("ascii"))
        return answer.model_copy(update={"content": content})

    async def delete(args: DeleteLora, call: Call) -> LoraDeleted:
        lora = await library.delete(args.lora_name)
        return LoraDeleted(name=lora.name, freed_bytes=lora.size_bytes or 0)

    return [
        Tool(name="list-loras", args=ListLoras, result=LoraList, effect=Effect.READ, run=list_loras),
        Tool(name="get-lora-info", args=GetLoraInfo, result=LoraDetails, effect=Effect.READ, run=get_info),
        Tool(name="check-lora", args=CheckLora, result=LoraFit, effect=Effect.READ, run=check),
        Tool(name="download-lora", args=DownloadLora, result=LoraDownload, effect=Effect.READ, run=download),
        Tool(name="delete-lora", args=DeleteLora, result=LoraDeleted, effect=Effect.DESTROY, run=delete),
    ]


def summary_of(lora: LoraInfo) -> LoraSummary:
    """Return a LoRA as lists show it."""
    return LoraSummary(
        name=lora.name,
        size_bytes=lora.size_bytes,
        modified=lora.modified,
        architecture=lora.architecture,
        rank=lora.description.network.rank if lora.description else None,
        trigger_words=lora.trigger_words,
        problem=lora.problem,
    )


def details_of(lora: LoraInfo) -> LoraDetails:
    """Return everything that is known of a LoRA."""
    said, description, hashes = lora.said, lora.description, lora.hashes
    metadata, cut = _shortened(said.metadata if said else {})
    supplied, left_out = _bounded(lora.supplied)
    unreadable = [] if said else [lora.problem or "It cannot be read."]
    return LoraDetails(
        name=lora.name,
        size_bytes=lora.size_bytes,
        modified=lora.modified,
        sha256=hashes.sha256 if hashes else None,
        autov2=hashes.autov2 if hashes else None,
        autov3=hashes.autov3 if hashes else None,
        architecture=lora.architecture,
        base_model=said.base_model if said else None,
        network=description.network if description else None,
        key_format=description.key_format if description else "unknown",
        trigger_words=lora.trigger_words,
        tags=said.tags if said else {},
        training=said.training if said else None,
        loader=description.loader if description else None,
        suggested_strength=description.suggested_strength if description else None,
        warnings=[*lora.notices, *(description.warnings if description else unreadable), *cut, *left_out],
        metadata=metadata,
        supplied_metadata=supplied,
    )


def _shortened(metadata: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return metadata of a bounded length, and a sentence on what was cut, where that is so."""
    shown: dict[str, str] = {}
    cut: list[str] = []
    room = MAX_METADATA_CHARACTERS
    # The short ones first, so that a long one takes the place of none of them.
    for name, value in sorted(metadata.items(), key=lambda entry: len(entry[1])):
        shown[name[:200]] = value[: min(MAX_VALUE_CHARACTERS, room)]
        room = max(0, room - len(name[:200]) - len(shown[name[:200]]))
        if shown[name[:200]] != value:
            cut.append(f"{name[:60]} ({len(value)} characters)")
        if not room:
            break
    cut.extend([f"{len(metadata) - len(shown)} more entries"] if len(shown) < len(metadata) else [])
    if not cut:
        return dict(metadata), []
    others = f" and {len(cut) - 5} more" if len(cut) > 5 else ""
    words = f"`metadata` was cut: {', '.join(cut[:5])}{others}. The file has it whole, in its header: `download-lora`."
    return {name: shown[name[:200]] for name in metadata if name in shown}, [words]


def _bounded(supplied: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return what a caller supplied without its largest entries where it is long, and a sentence that names them."""
    sizes = {name: len(name) + len(orjson.dumps(value)) for name, value in supplied.items()}
    room = MAX_METADATA_CHARACTERS
    left_out: list[str] = []
    for name in sorted(sizes, key=sizes.__getitem__):
        room -= sizes[name]
        if room < 0:
            left_out.append(name)
    if not left_out:
        return dict(supplied), []
    named = ", ".join(f"{name[:60]} ({sizes[name]} bytes)" for name in left_out[:5])
    others = f" and {len(left_out) - 5} more" if len(left_out) > 5 else ""
    words = f"Left out of `supplied_metadata`: {named}{others}. The side-car file beside the LoRA has them."
    return {name: value for name, value in supplied.items() if name not in left_out}, [words]
