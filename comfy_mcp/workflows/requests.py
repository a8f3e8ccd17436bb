"""What a caller asks of a picture or a video, in the words of the builders."""

from dataclasses import dataclass
from typing import Literal

MAX_SEED = 2**64 - 1


@dataclass(frozen=True, kw_only=True)
class LoraUse:
    """Name a LoRA as its loader's list has it, and how strongly it works.

    `strength_clip` is that of the text encoder, the same as `strength` when None; `model_only` is for a LoRA without
    text-encoder keys.
    """

    name: str
    strength: float = 1.0
    strength_clip: float | None = None
    model_only: bool = False


@dataclass(frozen=True, kw_only=True)
class SplitModel:
    """Name the files of a model that comes in parts.

    `text_encoders` are in the loader's order; none, and a `vae` of None, are those inside the model's own file.
    `loader` reads that file: from models/diffusion_models, or from models/checkpoints. `vision` reads input images for
    the video models that want one.
    """

    diffusion_model: str
    text_encoders: tuple[str, ...] = ()
    vae: str | None = None
    vision: str | None = None
    loader: Literal["UNETLoader", "CheckpointLoaderSimple"] = "UNETLoader"
    weight_dtype: str = "default"


@dataclass(frozen=True, kw_only=True)
class Hires:
    """Ask for a second pass over the enlarged picture: `scale` times each side, `denoise` of it drawn anew.

    `steps` None takes those of the first pass.
    """

    scale: float = 1.5
    denoise: float = 0.55
    steps: int | None = None


@dataclass(frozen=True, kw_only=True)
class ControlNetUse:
    """Name a ControlNet, the picture that it reads, and how strongly it leads, from and to which share of the steps."""

    name: str
    image: str
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """Ask for pictures; None leaves a setting to the family.

    `seed` is from 0 to 2**64 - 1: a random one is the caller's to draw, so that a request says all. Pictures are named
    as LoadImage takes them; without a size the result keeps that of `input_image`. `mask` is white where the picture is
    drawn anew. `input_size` and `mask_size` are width and height of those pictures in pixels, None where they are not
    known. `tiled_decode` None decides by the area.
    """

    prompt: str
    checkpoint: str | SplitModel
    seed: int
    negative_prompt: str = ""
    loras: tuple[LoraUse, ...] = ()
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    cfg_scale: float | None = None
    guidance: float | None = None
    sampler: str | None = None
    scheduler: str | None = None
    batch_size: int = 1
    input_image: str | None = None
    input_size: tuple[int, int] | None = None
    reference_images: tuple[str, ...] = ()
    mask: str | None = None
    mask_size: tuple[int, int] | None = None
    denoise: float | None = None
    hires: Hires | None = None
    upscale_model: str | None = None
    controlnet: ControlNetUse | None = None
    tiled_decode: bool | None = None
    filename_prefix: str = "loraloop"


@dataclass(frozen=True, kw_only=True)
class VideoRequest:
    """Ask for a video, from a prompt, a picture, or both; None leaves a setting to the family.

    `motion_strength` is from 0 to 1. `as_webp` saves an animated picture, where the server saves no videos.
    """

    checkpoint: str | SplitModel
    seed: int
    prompt: str = ""
    negative_prompt: str | None = None
    input_image: str | None = None
    loras: tuple[LoraUse, ...] = ()
    width: int | None = None
    height: int | None = None
    frames: int = 49
    fps: int = 24
    steps: int | None = None
    cfg_scale: float | None = None
    motion_strength: float | None = None
    as_webp: bool = False
    filename_prefix: str = "video/loraloop"


def file_of(checkpoint: str | SplitModel) -> str:
    """Return the name of the file that holds the model itself."""
    return checkpoint if isinstance(checkpoint, str) else checkpoint.diffusion_model
