"""Diffusers models of some 100,000 random parameters, and LoRAs for them, made on the spot."""

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

WIDTH = 32
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_LAYERS = {
    "sd15": "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_v",
    "sdxl": "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_v",
    "flux": "transformer.transformer_blocks.0.attn.to_v",
}


def make_model(family: str, folder: Path) -> Path:
    """Make a model of a family (sd15, sdxl, flux) as a folder of diffusers."""
    _torch().manual_seed(0)
    pipeline = _MAKERS[family](folder.parent)
    pipeline.save_pretrained(str(folder))
    return folder


def make_lora(family: str, path: Path, *, seed: int = 1) -> Path:
    """Make a LoRA of rank 2 for a model of a family, on one layer of it, strong enough to be seen."""
    torch = _torch()
    draw = torch.Generator().manual_seed(seed)
    layer = _LAYERS[family]
    tensors = {
        f"{layer}.lora_A.weight": torch.randn(2, WIDTH, generator=draw),
        f"{layer}.lora_B.weight": torch.randn(WIDTH, 2, generator=draw) * 9,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    import_module("safetensors.torch").save_file(tensors, path)
    return path


def _sd15(words: Path) -> Any:
    diffusers = _diffusers()
    return diffusers.StableDiffusionPipeline(
        unet=_unet(attention_head_dim=8),
        vae=_vae(),
        text_encoder=_clip("CLIPTextModel"),
        tokenizer=_clip_tokenizer(words),
        scheduler=diffusers.EulerDiscreteScheduler(steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl(words: Path) -> Any:
    diffusers = _diffusers()
    return diffusers.StableDiffusionXLPipeline(
        unet=_unet(
            attention_head_dim=(2, 4),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + WIDTH,
            # Both encoders' words stand side by side.
            cross_attention_dim=2 * WIDTH,
        ),
        vae=_vae(),
        text_encoder=_clip("CLIPTextModel"),
        text_encoder_2=_clip("CLIPTextModelWithProjection"),
        tokenizer=_clip_tokenizer(words),
        tokenizer_2=_clip_tokenizer(words),
        scheduler=diffusers.EulerDiscreteScheduler(steps_offset=1),
    )


def _flux(words: Path) -> Any:
    diffusers, transformers = _diffusers(), _transformers()
    return diffusers.FluxPipeline(
        transformer=diffusers.FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=WIDTH,
            axes_dims_rope=(4, 4, 8),
            guidance_embeds=True,
        ),
        vae=_vae(shift_factor=0.1, scaling_factor=0.4),
        text_encoder=_clip("CLIPTextModel"),
        text_encoder_2=transformers.T5EncoderModel(
            transformers.T5Config(d_model=WIDTH, d_ff=37, d_kv=8, num_heads=4, num_layers=1, vocab_size=64)
        ),
        tokenizer=_clip_tokenizer(words),
        tokenizer_2=_t5_tokenizer(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )


_MAKERS: dict[str, Callable[[Path], Any]] = {"sd15": _sd15, "sdxl": _sdxl, "flux": _flux}


def _unet(**more: Any) -> Any:
    return _diffusers().UNet2DConditionModel(
        **{
            "sample_size": 8,
            "block_out_channels": (WIDTH, WIDTH),
            "layers_per_block": 1,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "cross_attention_dim": WIDTH,
            "norm_num_groups": 8,
            **more,
        }
    )


def _vae(**more: Any) -> Any:
    return _diffusers().AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        **more,
    )


def _clip(kind: str) -> Any:
    transformers = _transformers()
    config = transformers.CLIPTextConfig(
        hidden_size=WIDTH,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=2,
        vocab_size=2 + 2 * len(_LETTERS),
        projection_dim=WIDTH,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return getattr(transformers, kind)(config)


def _clip_tokenizer(folder: Path) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    words = ["<|startoftext|>", "<|endoftext|>", *_LETTERS, *(f"{letter}</w>" for letter in _LETTERS)]
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return _transformers().CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)


def _t5_tokenizer() -> Any:
    tokenizers = import_module("tokenizers")
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((letter, -1.0) for letter in _LETTERS)]
    return _transformers().T5TokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=2)), extra_ids=0
    )


def _torch() -> Any:
    return import_module("torch")


def _diffusers() -> Any:
    return import_module("diffusers")


def _transformers() -> Any:
    return import_module("transformers")
