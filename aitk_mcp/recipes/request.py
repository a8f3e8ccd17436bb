"""What a caller may ask of a training, in the words of the wire contract."""

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field


def _or(name: str, *also: str) -> AliasChoices:
    """Return the names that an argument is taken by: its own, that in camelCase, and those of other trainers."""
    first, *rest = name.split("_")
    camel = first + "".join(part.capitalize() for part in rest)
    return AliasChoices(*dict.fromkeys((name, camel, *also)))


Resolution = Annotated[int, Field(ge=64, le=4096)]


class RecipeOptions(BaseModel):
    """Everything about a training but its name, its base model and its images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    resolution: Resolution | Annotated[list[Resolution], Field(min_length=1, max_length=8)] = Field(
        512, description="Side of the training buckets in pixels, a multiple of 32; a list trains at each of them."
    )
    batch_size: int = Field(1, ge=1, le=64, description="Images a step.")
    learning_rate: float = Field(
        0.0002,
        gt=0,
        le=10,
        validation_alias=_or("learning_rate", "lr", "unet_lr", "unetLR", "unetLr"),
        description="Learning rate of the LoRA.",
    )
    steps: int = Field(1000, ge=1, le=1_000_000, description="Optimizer steps; leave out when you give `epochs`.")
    epochs: int | None = Field(
        None,
        ge=1,
        le=10_000,
        validation_alias=_or("epochs", "max_train_epochs", "maxTrainEpochs"),
        description="Passes over the dataset, turned into steps by its number of images.",
    )
    rank: int = Field(
        16,
        ge=1,
        le=1024,
        validation_alias=_or("rank", "network_dim", "networkDim"),
        description="Rank of the LoRA.",
    )
    alpha: float = Field(
        16,
        gt=0,
        le=4096,
        validation_alias=_or("alpha", "network_alpha", "networkAlpha"),
        description="Alpha of the LoRA; used for SD 1.5 and SDXL, the rank takes its place elsewhere.",
    )
    trigger_word: str | None = Field(
        None, min_length=1, max_length=100, description="Word that calls the subject; put before captions without it."
    )
    test_prompts: list[str] = Field(
        default_factory=list,
        max_length=64,
        description="Prompts of the sample pictures; `[trigger]` stands for the trigger word. Without any, the first"
        " captions of the dataset are used.",
    )
    low_vram: bool = Field(True, description="Keep parts of the model off the GPU; needed below 24 GB.")
    gradient_checkpointing: bool = Field(True, description="Save memory by computing activations twice.")
    mixed_precision: Literal["bf16", "fp16", "fp32", "no"] | None = Field(
        None, description="Number format of the training; bf16 for nearly every architecture when left out."
    )
    optimizer: str | None = Field(
        None,
        validation_alias=_or("optimizer", "optimizer_type", "optimizerType"),
        description="adamw8bit (default), adamw, adafactor, prodigy, automagic, lion8bit, …",
    )
    lr_scheduler: str | None = Field(
        None,
        validation_alias=_or("lr_scheduler"),
        description="constant (default), constant_with_warmup, cosine, cosine_with_restarts or linear (decay).",
    )
    save_every: int | None = Field(None, ge=1, description="Steps between checkpoints (default 250).")
    sample_every: int | None = Field(None, ge=1, description="Steps between sample pictures (default 250).")
    disable_sampling: bool = Field(False, description="Make no sample pictures at all.")
    seed: int | None = Field(None, ge=0, description="Seed of the training; random when left out.")
    use_wandb: bool = Field(False, description="Log to Weights & Biases (needs an account on the trainer's machine).")
    default_caption: str | None = Field(None, description="Caption of images that have none.")
    caption_dropout_rate: float | None = Field(
        None, ge=0, le=1, description="Share of steps that train without a caption (default 0.05)."
    )
    flip_augmentation: bool = Field(
        False,
        validation_alias=_or("flip_augmentation"),
        description="Also train on mirrored images; not for faces or text.",
    )
    shuffle_tokens: bool = Field(
        False,
        validation_alias=_or("shuffle_tokens", "shuffle_caption", "shuffleCaption"),
        description="Shuffle the comma-separated parts of captions.",
    )
    keep_tokens: int | None = Field(
        None,
        ge=0,
        validation_alias=_or("keep_tokens"),
        description="Caption parts at the front that are never dropped; heeded only with"
        ' overrides {"datasets": {"token_dropout_rate": …}}.',
    )
    train_text_encoder: bool = Field(
        False,
        validation_alias=_or("train_text_encoder"),
        description="Train the text encoder too; for SD 1.5 and SDXL.",
    )
    text_encoder_lr: float | None = Field(
        None,
        gt=0,
        le=10,
        validation_alias=_or("text_encoder_lr", "textEncoderLR"),
        description="Learning rate of the text encoder; AI Toolkit trains that of a LoRA at `learning_rate`.",
    )
    noise_offset: float | None = Field(
        None,
        ge=0,
        le=1,
        validation_alias=_or("noise_offset"),
        description="Noise offset, for stronger darks and lights.",
    )
    min_snr_gamma: float | None = Field(
        None,
        ge=0,
        le=20,
        validation_alias=_or("min_snr_gamma"),
        description="Min-SNR weighting; for SD 1.5 and SDXL.",
    )
    ecosystem: str | None = Field(
        None,
        description="sd1, sdxl, sd3, flux1 or wan, whose own defaults and bounds then hold, or an architecture of"
        " list-model-presets; needed when `model_name` does not tell it, such as a local file.",
    )
    model_variant: str | None = Field(
        None,
        validation_alias=_or("model_variant"),
        description="Required by ecosystems sd3 (large, medium), flux1 (dev, schnell) and wan (2.1, 2.2), refused by"
        " sd1 and sdxl.",
    )
    overrides: dict[str, Any] = Field(
        default_factory=dict,
        description="Further AI Toolkit settings by section, such as"
        ' {"train": {"gradient_accumulation": 2}, "datasets": {"num_repeats": 2}}; unknown names are refused.',
    )


class RecipeRequest(RecipeOptions):
    """A complete order for a training config."""

    name: str = Field(description="Name of the config, the job and its output files: letters, digits, `_`, `-`, `.`.")
    model_name: str = Field(
        description="Base model: a Hugging Face name, a short name such as `flux`, `flex`, `sdxl` or `sd15`, a local"
        " path, a site's name or AIR URN, or `tinyflux` for the embedded engine."
    )
    dataset_path: str = Field(
        description="Absolute path of the dataset folder, or the bare name of an uploaded dataset."
    )
