"""The nodes that read model files."""

from collections.abc import Callable, Mapping
from typing import Any

from comfy_mcp.embedded.folders import Folders
from comfy_mcp.embedded.nodes.definitions import Choices, Input, NodeDefinition, NodeResult, Output, Run
from comfy_mcp.embedded.nodes.models import Model, PixelSpace, TextEncoder, file_stamp, require_tinyflux

CATEGORY = "model/loaders"
PIXEL_SPACE = "pixel_space"


def files_of(kind: str) -> Choices:
    """Offer the files of one kind of model."""
    return lambda folders: folders.model_names(kind)


def words(*options: str) -> Choices:
    """Offer a fixed list of words."""
    return lambda _: list(options)


def _stamps(kind: str, *names: str) -> Callable[[Folders, Mapping[str, Any]], str]:
    def fingerprint(folders: Folders, inputs: Mapping[str, Any]) -> str:
        return " ".join(file_stamp(folders.find_model(kind, inputs[name])) for name in names)

    return fingerprint


def _load_checkpoint(run: Run, *, ckpt_name: str) -> NodeResult:
    base = run.models.flux(run.folders.find_model("checkpoints", ckpt_name))
    return NodeResult((Model(base), TextEncoder(), PixelSpace()))


def _load_unet(run: Run, *, unet_name: str, weight_dtype: str) -> NodeResult:
    # Rendering is in float32 whatever `weight_dtype` says: the weights are two megabytes.
    return NodeResult((Model(run.models.flux(run.folders.find_model("diffusion_models", unet_name))),))


def _load_two_clips(run: Run, *, clip_name1: str, clip_name2: str, type: str, device: str = "default") -> NodeResult:
    for name in (clip_name1, clip_name2):
        require_tinyflux(run.folders.find_model("text_encoders", name))
    return NodeResult((TextEncoder(),))


def _load_vae(run: Run, *, vae_name: str) -> NodeResult:
    if vae_name != PIXEL_SPACE:
        require_tinyflux(run.folders.find_model("vae", vae_name))
    return NodeResult((PixelSpace(),))


def _vae_stamp(folders: Folders, inputs: Mapping[str, Any]) -> str:
    return "" if inputs["vae_name"] == PIXEL_SPACE else _stamps("vae", "vae_name")(folders, inputs)


def _load_lora(
    run: Run, *, model: Model, clip: TextEncoder, lora_name: str, strength_model: float, strength_clip: float
) -> NodeResult:
    lora = run.models.lora(run.folders.find_model("loras", lora_name))
    return NodeResult((model.with_lora(lora, strength_model), clip))


def _load_lora_for_model(run: Run, *, model: Model, lora_name: str, strength_model: float) -> NodeResult:
    lora = run.models.lora(run.folders.find_model("loras", lora_name))
    return NodeResult((model.with_lora(lora, strength_model),))


def _strength(name: str, tooltip: str) -> Input:
    return Input(name, "FLOAT", {"default": 1.0, "min": -100.0, "max": 100.0, "step": 0.01, "tooltip": tooltip})


_LORA_NAME = Input("lora_name", "COMBO", {"tooltip": "The LoRA file."}, files_of("loras"))
_LORA_MODEL = Input("model", "MODEL", {"tooltip": "The model that the LoRA changes."})
_MODEL = Output("MODEL", "MODEL", "The model that turns noise into a picture.")
_CLIP = Output("CLIP", "CLIP", "What turns a prompt into conditioning.")
_VAE = Output("VAE", "VAE", "What turns pixels into latents and back.")

LOADERS = (
    NodeDefinition(
        "CheckpointLoaderSimple",
        "Load Checkpoint",
        CATEGORY,
        "Load a whole checkpoint: model, text encoder and VAE.",
        (Input("ckpt_name", "COMBO", {"tooltip": "The checkpoint file."}, files_of("checkpoints")),),
        (_MODEL, _CLIP, _VAE),
        _load_checkpoint,
        fingerprint=_stamps("checkpoints", "ckpt_name"),
    ),
    NodeDefinition(
        "UNETLoader",
        "Load Diffusion Model",
        CATEGORY,
        "Load a model without its text encoder and VAE.",
        (
            Input("unet_name", "COMBO", {}, files_of("diffusion_models")),
            Input(
                "weight_dtype",
                "COMBO",
                {"advanced": True},
                words("default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"),
            ),
        ),
        (_MODEL,),
        _load_unet,
        fingerprint=_stamps("diffusion_models", "unet_name"),
    ),
    NodeDefinition(
        "DualCLIPLoader",
        "DualCLIPLoader",
        CATEGORY,
        "Load the two text encoders of a model.",
        (
            Input("clip_name1", "COMBO", {}, files_of("text_encoders")),
            Input("clip_name2", "COMBO", {}, files_of("text_encoders")),
            Input("type", "COMBO", {}, words("sdxl", "sd3", "flux", "hunyuan_video", "hidream")),
            Input("device", "COMBO", {"advanced": True}, words("default", "cpu"), required=False),
        ),
        (_CLIP,),
        _load_two_clips,
        fingerprint=_stamps("text_encoders", "clip_name1", "clip_name2"),
    ),
    NodeDefinition(
        "VAELoader",
        "Load VAE",
        CATEGORY,
        "Load a VAE; `pixel_space` needs no file.",
        (Input("vae_name", "COMBO", {}, lambda folders: [*folders.model_names("vae"), PIXEL_SPACE]),),
        (_VAE,),
        _load_vae,
        fingerprint=_vae_stamp,
    ),
    NodeDefinition(
        "LoraLoader",
        "Load LoRA (Model and CLIP)",
        CATEGORY,
        "Put a LoRA on a model and its text encoder. Several of these nodes may follow one another.",
        (
            _LORA_MODEL,
            Input("clip", "CLIP", {"tooltip": "The text encoder that the LoRA changes."}),
            _LORA_NAME,
            _strength("strength_model", "How strongly the model is changed; may be negative."),
            _strength("strength_clip", "How strongly the text encoder is changed; may be negative."),
        ),
        (_MODEL, _CLIP),
        _load_lora,
        fingerprint=_stamps("loras", "lora_name"),
    ),
    NodeDefinition(
        "LoraLoaderModelOnly",
        "Load LoRA",
        CATEGORY,
        "Put a LoRA on a model. Several of these nodes may follow one another.",
        (
            Input("model", "MODEL"),
            Input("lora_name", "COMBO", {}, files_of("loras")),
            Input("strength_model", "FLOAT", {"default": 1.0, "min": -100.0, "max": 100.0, "step": 0.01}),
        ),
        (_MODEL,),
        _load_lora_for_model,
        fingerprint=_stamps("loras", "lora_name"),
    ),
)
