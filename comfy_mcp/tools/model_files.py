"""The tools that bring models, take them away, and tell how to use them."""

from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, AliasChoices, Field

from comfy_mcp.loras.loras import LoraLibrary
from comfy_mcp.model_tips import ModelTips, TipBook
from comfy_mcp.models.downloads import Download, Downloads
from comfy_mcp.models.models import LORAS, Models
from comfy_mcp.models.shelf import ModelShelf
from comfy_mcp.tools.jobs import DEFAULT_WAIT_S, LONGEST_WAIT_S
from comfy_mcp.tools.uploads import Sha256
from comfy_mcp.workflows.recipes import ImageRecipe, VideoRecipe
from mcp_toolserver.arguments import Arguments
from mcp_toolserver.tools import AnyTool, Call, Effect, Result, Tool


def _short(value: str) -> str:
    if len(value) > 4096:
        raise ValueError(f"it has {len(value)} characters, and a URL has at most 4096")
    return value


class GetModelTips(Arguments):
    """Tell how to render with a checkpoint, a diffusion model or a LoRA: family, steps, cfg, guidance, sampler,
    scheduler and size to use, trigger words of a LoRA, an example prompt."""

    filename: str = Field(
        validation_alias=AliasChoices("filename", "name", "model"), description="name as list-models gives it"
    )


class DownloadModel(Arguments):
    """Download a model or LoRA (.safetensors) from the internet into ComfyUI's folder. Only hosts that this server's
    settings list are fetched from. A download outlives the call: the same call again tells how far it is, and goes on
    where a broken one stopped."""

    classic_mistakes: ClassVar[Mapping[str, str]] = {
        "model_path": "a model of aitk_mcp is brought by `import-lora`.",
        "name": "the argument is `filename`.",
    }
    url: Annotated[str, AfterValidator(_short)] = Field(description="https address of the file itself, not of its page")
    type: str = Field(
        "checkpoints",
        validation_alias=AliasChoices("type", "model_type"),
        description="kind of model: checkpoints, loras, diffusion_models, vae, text_encoders, …",
    )
    filename: str | None = Field(
        None, description="name that it is to have, ending in .safetensors; that of the URL when left out"
    )
    overwrite: bool = Field(False, description="replace a model of the same name")
    sha256: Sha256 | None = Field(None, description="digest of the file in hex; compared before it is installed")
    wait_s: float = Field(DEFAULT_WAIT_S, ge=0, le=LONGEST_WAIT_S, description="longest time to wait, in seconds")


class DeleteModel(Arguments):
    """Delete a model or LoRA file from ComfyUI's folder, for good."""

    type: str = Field(
        validation_alias=AliasChoices("type", "model_type"), description="kind of model, as list-models gives it"
    )
    filename: str = Field(
        validation_alias=AliasChoices("filename", "name"),
        description="exact name as list-models gives it, sub-folder and extension included",
    )


class Tips(Result):
    """How to render with a model."""

    name: str = Field(description="what its loader takes")
    type: str = Field(description="kind of model")
    family: str = Field(description="family, as `architecture` of LoRAs has it; unknown where nothing tells")
    title: str = Field(description="family and variant as people write it")
    found_by: Literal["header", "name", "size", "nothing"] = Field(description="what the family was read from")
    makes: Literal["images", "videos"] | None = Field(description="what it makes; null without a built-in graph")
    steps: int | None = Field(description="steps to begin with")
    advised_steps: tuple[int, int] | None = Field(description="fewest and most steps that are worth trying")
    cfg_scale: float | None = Field(description="cfg to use")
    guidance: float | None = Field(description="guidance to use; null where the model has none")
    guidance_range: tuple[float, float] | None = Field(description="least and most guidance")
    samplers: list[str] = Field(description="samplers, the best first")
    schedulers: list[str] = Field(description="schedulers, the best first")
    width: int | None = Field(description="width in pixels that it was trained at")
    height: int | None = Field(description="height in pixels that it was trained at")
    side_step: int | None = Field(description="sides must be multiples of this")
    trained_frames: int | None = Field(description="most frames of a video that hold together")
    vram_gb: float | None = Field(description="GB of graphics memory for 49 frames of 768 x 768 pixels")
    trigger_words: list[str] = Field(description="words that a prompt needs for this LoRA")
    suggested_strength: float | None = Field(description="strength of this LoRA to begin with")
    loader: str | None = Field(description="node to load this LoRA with")
    example_prompt: str = Field(description="a prompt in the manner that the family understands")
    warnings: list[str] = Field(description="what may go wrong, and how sure all this is")


class ModelDownloaded(Result):
    """A download: over, or under way."""

    status: Literal["completed", "downloading"] = Field(description="`downloading`: call again to hear how it goes on")
    name: str = Field(description="what its loader takes")
    type: str = Field(description="kind of model")
    received_bytes: int = Field(description="bytes that have come")
    total_bytes: int | None = Field(description="size of the file; null where its host does not tell")
    checksum_verified: bool = Field(description="whether a digest that the caller gave was compared, and was the same")
    warnings: list[str] = Field(description="what the caller should know")


class ModelDeleted(Result):
    """A model that is no more."""

    name: str = Field(description="its name")
    type: str = Field(description="kind of model")
    freed_bytes: int = Field(description="size of the file that was deleted")


def model_file_tools(
    tips: TipBook,
    downloads: Downloads,
    models: Models,
    library: LoraLibrary,
    shelf_of: Callable[[str], ModelShelf],
) -> list[AnyTool]:
    """Return the tools over model files."""

    async def get_tips(args: GetModelTips, call: Call) -> Tips:
        return _tips(await tips.tips(args.filename))

    async def download(args: DownloadModel, call: Call) -> ModelDownloaded:
        return _downloaded(
            await downloads.fetch(
                args.url,
                args.type,
                filename=args.filename,
                overwrite=args.overwrite,
                sha256=args.sha256,
                wait_s=args.wait_s,
                report=call.report,
            )
        )

    async def delete(args: DeleteModel, call: Call) -> ModelDeleted:
        kind = await models.kind(args.type)
        if kind == LORAS:
            gone = await library.delete(args.filename)
            return ModelDeleted(name=gone.name, type=kind, freed_bytes=gone.size_bytes or 0)
        return ModelDeleted(name=args.filename, type=kind, freed_bytes=await shelf_of(kind).delete(args.filename))

    return [
        Tool(name="get-model-tips", args=GetModelTips, result=Tips, effect=Effect.READ, run=get_tips),
        Tool(name="download-model", args=DownloadModel, result=ModelDownloaded, effect=Effect.WRITE, run=download),
        Tool(name="delete-model", args=DeleteModel, result=ModelDeleted, effect=Effect.DESTROY, run=delete),
    ]


def _tips(tips: ModelTips) -> Tips:
    recipe, lora = tips.recipe, tips.lora
    image = recipe if isinstance(recipe, ImageRecipe) else None
    video = recipe if isinstance(recipe, VideoRecipe) else None
    return Tips.model_validate(
        {
            "name": tips.name,
            "type": tips.type,
            "family": tips.family,
            "title": tips.title,
            "found_by": tips.found_by,
            "makes": "images" if image else "videos" if video else None,
            "steps": recipe.steps if recipe else None,
            "advised_steps": image.advised_steps if image else None,
            "cfg_scale": recipe.cfg if recipe else None,
            "guidance": image.guidance if image else None,
            "guidance_range": image.guidance_range if image and image.guidance is not None else None,
            "samplers": list(dict.fromkeys((recipe.sampler, *(image.samplers if image else ())))) if recipe else [],
            "schedulers": list(dict.fromkeys((recipe.scheduler, *recipe.schedulers))) if recipe else [],
            "width": recipe.width if recipe else None,
            "height": recipe.height if recipe else None,
            "side_step": recipe.side_step if recipe else None,
            "trained_frames": video.trained_frames if video else None,
            "vram_gb": video.vram_gb if video else None,
            "trigger_words": lora.trigger_words if lora else [],
            "suggested_strength": lora.description.suggested_strength if lora and lora.description else None,
            "loader": lora.description.loader if lora and lora.description else None,
            "example_prompt": tips.example_prompt,
            "warnings": list(tips.warnings),
        }
    )


def _downloaded(download: Download) -> ModelDownloaded:
    placed = download.placed
    return ModelDownloaded(
        status="completed" if placed else "downloading",
        name=placed.name if placed else download.wanted.name,
        type=download.wanted.kind,
        received_bytes=download.received_bytes,
        total_bytes=download.total_bytes,
        checksum_verified=placed is not None and download.wanted.sha256 is not None,
        warnings=list(placed.notices) if placed else [],
    )
