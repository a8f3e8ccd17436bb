"""What the tools that make pictures and videos take."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import AliasChoices, Field

from comfy_mcp.tools.jobs import DEFAULT_WAIT_S, LONGEST_WAIT_S
from mcp_toolserver.arguments import Arguments

_WAIT = "longest time to wait for the result, in seconds; afterwards the job goes on, and wait-job has it"


class LoraArgument(Arguments):
    """A LoRA to apply."""

    name: str = Field(
        validation_alias=AliasChoices("name", "filename", "lora_name"), description="name, as list-loras has it"
    )
    strength: float = Field(
        1.0,
        ge=0.0,
        le=2.0,
        validation_alias=AliasChoices("strength", "strength_model", "weight"),
        description="how strongly it works on the picture, 0.0 to 2.0",
    )
    strength_clip: float | None = Field(
        None, ge=0.0, le=2.0, description="how strongly it works on the text encoder; as `strength` when left out"
    )


class HiresArgument(Arguments):
    """A second pass over the enlarged picture, for detail that the first size has no room for."""

    classic_mistakes: ClassVar[Mapping[str, str]] = {
        "upscale_by": "the argument is `scale`.",
        "upscale_model": "`upscale_model` stands beside `hires`, not in it.",
    }
    scale: float = Field(1.5, description="how many times longer each side becomes, 1.05 to 4.0")
    denoise: float = Field(0.55, description="how much of the enlarged picture is drawn anew, 0.0 to 1.0")
    steps: int | None = Field(None, description="sampling steps of the second pass; those of the first when left out")


class ControlNetArgument(Arguments):
    """A ControlNet and the picture that it reads: edges, a pose, depth, as the ControlNet was trained on."""

    classic_mistakes: ClassVar[Mapping[str, str]] = {
        "start_percent": "the argument is `start`.",
        "end_percent": "the argument is `end`.",
    }
    name: str = Field(
        validation_alias=AliasChoices("name", "filename", "control_net_name"),
        description="name, as list-models has it (type controlnet; model_patches for Z-Image)",
    )
    image: str = Field(description="picture that it reads: a name that upload-image returned")
    strength: float = Field(1.0, description="how strongly it leads, 0.0 to 2.0")
    start: float = Field(0.0, description="share of the steps after which it begins, 0.0 to 1.0")
    end: float = Field(1.0, description="share of the steps after which it ends, 0.0 to 1.0")


class GenerateImage(Arguments):
    """Make pictures from a prompt, with LoRAs if wanted, on the right graph for the checkpoint's family (FLUX:
    FluxGuidance, cfg 1.0, heunpp2/simple): from text, from a picture (`input_image`), within a `mask`, by an edit
    (FLUX.1 Kontext, Qwen-Image-Edit), led by a `controlnet`, enlarged by `hires` or an `upscale_model`. Every value
    left out takes the family's own. Waits for the result up to `wait_s`; the job goes on after that."""

    classic_mistakes: ClassVar[Mapping[str, str]] = {
        "cfg": "the argument is `cfg_scale`.",
        "guidance_scale": "the argument is `guidance` for FLUX, `cfg_scale` for other models.",
        "sampler_name": "the argument is `sampler`.",
        "num_inference_steps": "the argument is `steps`.",
        "lora": "the argument is `loras`, a list of {name, strength}.",
        "image": "the argument is `input_image`, the name that upload-image returned.",
        "mask_image": "the argument is `mask`, the name that upload-image returned.",
        "control_net": "the argument is `controlnet`, an object {name, image, strength, start, end}.",
        "upscaler": "the argument is `upscale_model`.",
        "hires_fix": "the argument is `hires`, an object {scale, denoise, steps}.",
    }
    prompt: str = Field(min_length=1, description="what to show; name the LoRA's trigger word")
    negative_prompt: str = Field("", description="what to avoid; FLUX never reads it")
    checkpoint: str | None = Field(
        None,
        validation_alias=AliasChoices("checkpoint", "model", "ckpt_name"),
        description="model to start from, as list-models has it; the first of the FLUX family when left out",
    )
    loras: tuple[LoraArgument, ...] = Field((), description="LoRAs, applied in this order")
    width: int | None = Field(None, description="width in pixels, a multiple of 8")
    height: int | None = Field(None, description="height in pixels, a multiple of 8")
    seed: int = Field(-1, ge=-1, le=2**64 - 1, description="seed of the noise; -1 draws one, which the result tells")
    steps: int | None = Field(None, description="sampling steps")
    cfg_scale: float | None = Field(None, description="classifier-free guidance; FLUX takes 1.0 and no other")
    guidance: float | None = Field(None, description="FLUX guidance, 1.0 to 10.0")
    sampler: str | None = Field(None, description="sampler")
    scheduler: str | None = Field(None, description="scheduler")
    batch_size: int = Field(1, description="how many pictures, 1 to 20")
    input_image: str | None = Field(
        None, description="picture to start from, or to edit: a name that upload-image returned"
    )
    reference_images: tuple[str, ...] = Field(
        (), description="further pictures for a model that edits: names that upload-image returned"
    )
    mask: str | None = Field(
        None, description="picture of the size of `input_image`, white where that is drawn anew and black where kept"
    )
    denoise: float | None = Field(None, description="how much of the input image to replace, 0.0 to 1.0")
    hires: HiresArgument | None = Field(None, description="a second pass over the enlarged picture")
    upscale_model: str | None = Field(
        None,
        description="model that enlarges the finished picture (with `hires`: before the second pass), as list-models "
        "has it (type upscale_models)",
    )
    controlnet: ControlNetArgument | None = Field(None, description="a ControlNet and the picture that it reads")
    engine: Literal["auto", "comfyui", "diffusers", "embedded"] = Field(
        "auto",
        description="what renders; `auto` is the server's own engine or, while ComfyUI does not answer, diffusers "
        "where it and a model for it are installed; any other must be there",
    )
    wait_s: float = Field(DEFAULT_WAIT_S, ge=0, le=LONGEST_WAIT_S, description=_WAIT)


class GenerateVideo(Arguments):
    """Make a video from a picture (`input_image`), from a `prompt`, or from both, with LTX-Video, Wan 2.2 TI2V 5B or
    HunyuanVideo 1.5. Frames and sides that the model cannot render are set to the nearest that it can, and a warning
    says so. Waits for the result up to `wait_s`, which a video mostly outlasts: wait-job has it then."""

    classic_mistakes: ClassVar[Mapping[str, str]] = {
        "image": "the argument is `input_image`, the name that upload-image returned.",
        "length": "the argument is `frames`.",
        "num_frames": "the argument is `frames`.",
        "frame_rate": "the argument is `fps`.",
        "cfg": "the argument is `cfg_scale`.",
    }
    prompt: str = Field("", description="what happens; may be left out where `input_image` is given")
    negative_prompt: str | None = Field(None, description="what to avoid; the family's own words when left out")
    input_image: str | None = Field(None, description="first frame: a name that upload-image returned")
    video_model: str | None = Field(
        None,
        validation_alias=AliasChoices("video_model", "model", "checkpoint"),
        description="model, as list-models has it; the first that makes videos when left out",
    )
    loras: tuple[LoraArgument, ...] = Field((), description="LoRAs made for the model's family, in this order")
    width: int | None = Field(None, description="width in pixels, 256 to 1920; 768 when left out")
    height: int | None = Field(None, description="height in pixels, 256 to 1920; 768 when left out")
    frames: int = Field(49, description="how many frames; LTX-Video takes 8n+1, Wan and HunyuanVideo 4n+1")
    fps: int = Field(24, description="frames per second, 1 to 120")
    motion_strength: float | None = Field(
        None, description="how much moves, 0.0 to 1.0; for Wan alone, 0.7 when left out"
    )
    seed: int = Field(-1, ge=-1, le=2**64 - 1, description="seed of the noise; -1 draws one, which the result tells")
    steps: int | None = Field(None, description="sampling steps")
    cfg_scale: float | None = Field(
        None, description="classifier-free guidance; distilled models take 1.0 and no other"
    )
    engine: Literal["auto", "comfyui", "embedded"] = Field(
        "auto", description="engine that must render; another than the server's own is refused"
    )
    wait_s: float = Field(DEFAULT_WAIT_S, ge=0, le=LONGEST_WAIT_S, description=_WAIT)


class ExecuteWorkflow(Arguments):
    """Run a ComfyUI graph, checked before anything is queued. It may be in API format, or as ComfyUI's page saves it:
    then it is converted, sub-graphs too, and what cannot be converted is named."""

    classic_mistakes: ClassVar[Mapping[str, str]] = {
        "prompt": "the graph belongs in `workflow`.",
        "graph": "the graph belongs in `workflow`.",
        "parameters": "values for the graph belong in `inputs`.",
    }
    workflow: dict[str, Any] = Field(description="nodes by id, each with `class_type` and `inputs`")
    inputs: dict[str, Any] = Field(
        default_factory=dict[str, Any],
        description='values to put into the graph: {"6": {"text": "a cat"}} or {"6.text": "a cat"}',
    )
    wait_s: float = Field(DEFAULT_WAIT_S, ge=0, le=LONGEST_WAIT_S, description=_WAIT)


class UploadImage(Arguments):
    """Store a picture for `input_image` or a LoadImage node, and return the name that both take."""

    filename: str = Field(description="plain file name")
    content: str = Field(validation_alias=AliasChoices("content", "data"), description="the file as base64")
    overwrite: bool = Field(False, description="replace a picture of that name; otherwise another name is found")
