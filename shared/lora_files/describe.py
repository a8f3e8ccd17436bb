"""A LoRA file described: what it is for, how it is built, how to call it, and what may go wrong with it."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from lora_files.architectures import UNKNOWN, Detection, detect_architecture
from lora_files.header import SafetensorsHeader, read_header, read_scalars
from lora_files.keys import key_format_of
from lora_files.networks import Network, alpha_of, network_of
from lora_files.spellings import loads_by_name
from lora_files.training import Training, as_object, tags_of, training_of, trigger_words_of

_GENTLE = frozenset({"sd15", "sd2", "sdxl"})
"""UNets, which people trained at high rates: a LoRA at full strength tends to burn them."""


class LoraNetwork(BaseModel):
    """The network that is added to a model's layers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str = Field(description="LoRA, LoKr, LoHa, DoRA, GLoRA, OFT, full difference, or none.")
    rank: int | None = Field(default=None, description="Rank of most layers; null where layers have no rank.")
    alpha: float | None = Field(default=None, description="Alpha of most layers.")
    alpha_stored: bool = Field(
        description="Whether the file holds alpha; without it (AI Toolkit's FLUX), loaders take alpha = rank: scale 1."
    )
    dtype: str | None = Field(default=None, description="Data type of most of the weight, such as F16 or BF16.")
    modules: int = Field(description="Number of layers that it changes.")
    text_encoder: bool = Field(description="Whether it changes a text encoder too.")


class LoraSaid(BaseModel):
    """What the metadata of a LoRA file tells, where nothing but the metadata can be read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: str = Field(description="The kind of model it fits: flux, sdxl, sd15, sd3, wan, …, or unknown.")
    base_model: str | None = Field(default=None, description="The model it was trained on, as precisely as known.")
    trigger_words: list[str] = Field(default_factory=list, description="Words that call its subject in a prompt.")
    tags: dict[str, int] = Field(default_factory=dict, description="Frequent caption tags with their counts.")
    training: Training = Field(default_factory=Training, description="How it was trained.")
    metadata: dict[str, str] = Field(default_factory=dict, description="The file's metadata, as it stands there.")


class LoraDescription(LoraSaid):
    """What the header of a LoRA file tells."""

    network: LoraNetwork = Field(description="Kind, rank, alpha, data type and extent.")
    key_format: str = Field(description="Naming of its layers: kohya, diffusers, peft, comfyui, onetrainer, lycoris, …")
    loader: str | None = Field(
        description="The ComfyUI node to load it with: LoraLoader or LoraLoaderModelOnly; null for what is no LoRA."
    )
    suggested_strength: float | None = Field(description="A strength to begin with; null for a file that is no LoRA.")
    warnings: list[str] = Field(default_factory=list, description="What may go wrong with it.")


def describe_file(path: Path) -> LoraDescription:
    """Describe a LoRA file from its header and its alpha numbers; no other tensor is read.

    Raises BadSafetensors for a file that is something else or broken; OSError as open() does.
    """
    header = read_header(path)
    alphas = read_scalars(path, header, [name for name in header.tensors if name.endswith(".alpha")])
    return describe_lora(header, alphas.values())


def describe_lora(header: SafetensorsHeader, alphas: Iterable[float] = ()) -> LoraDescription:
    """Describe a LoRA from its header; `alphas` are the values of its `.alpha` tensors, where it has any."""
    alphas = list(alphas)
    metadata = header.metadata
    network = network_of(header)
    detection = detect_architecture(network.layers, metadata)
    key_format = key_format_of(layer.key for layer in network.layers)
    return LoraDescription(
        architecture=detection.architecture,
        base_model=_base_model(metadata, detection),
        network=LoraNetwork(
            kind=network.kind,
            rank=network.rank,
            alpha=alpha_of(network, alphas),
            alpha_stored=bool(alphas),
            dtype=network.dtype,
            modules=len(network.layers),
            text_encoder=network.text_encoder,
        ),
        key_format=key_format,
        trigger_words=trigger_words_of(metadata),
        tags=tags_of(metadata),
        training=training_of(metadata),
        loader=_loader(network) if network.layers else None,
        suggested_strength=_strength(detection) if network.layers else None,
        warnings=list(_warnings(network, detection, alphas, metadata)),
        metadata=dict(metadata),
    )


def describe_metadata(metadata: Mapping[str, str]) -> LoraSaid:
    """Tell what can be told of a LoRA from its metadata alone: nothing of its layers, and so no rank."""
    detection = detect_architecture((), metadata)
    return LoraSaid(
        architecture=detection.architecture,
        base_model=_base_model(metadata, detection),
        trigger_words=trigger_words_of(metadata),
        tags=tags_of(metadata),
        training=training_of(metadata),
        metadata=dict(metadata),
    )


def _loader(network: Network) -> str:
    return "LoraLoader" if network.text_encoder else "LoraLoaderModelOnly"


def _strength(detection: Detection) -> float:
    return 0.8 if detection.architecture in _GENTLE else 1.0


def _base_model(metadata: Mapping[str, str], detection: Detection) -> str | None:
    said = (
        metadata.get(name, "").strip() for name in ("base_model", "ss_base_model_version", "modelspec.architecture")
    )
    return next((name.removesuffix("/lora") for name in said if name), detection.variant)


def _warnings(
    network: Network, detection: Detection, alphas: list[float], metadata: Mapping[str, str]
) -> Iterable[str]:
    if not network.layers:
        yield (
            "None of its tensors is named as a LoRA's: it may be a checkpoint, a VAE or an embedding, and loading it as"
            " a LoRA has no effect."
        )
        return
    if "tinyflux" in (detection.variant, metadata.get("base_model", "").strip()):
        yield (
            "It was trained on tinyflux, the embedded engine's miniature model of width 96: it fits that checkpoint and"
            " no real FLUX model."
        )
    if detection.architecture == UNKNOWN:
        yield "Its layers are those of no architecture known here: check that it fits your checkpoint first."
    if detection.remark:
        yield detection.remark
    yield from _loading_warnings(network, detection)
    yield from _scale_warnings(network, alphas, metadata)
    if network.unknown:
        shown = ", ".join(network.unknown[:3])
        yield f"{len(network.unknown)} tensors belong to no LoRA layer, such as {shown[:200]}; loaders skip them."


def _loading_warnings(network: Network, detection: Detection) -> Iterable[str]:
    layers = [layer for layer in network.layers if layer.target == "model"]
    if any(layer.key.name == "img_in" for layer in layers):
        # The control LoRAs of FLUX's makers: ComfyUI converts exactly those.
        return
    foreign = [layer for layer in layers if not loads_by_name(layer.key, detection.architecture)]
    if foreign:
        yield (
            f"ComfyUI does not look for {len(foreign)} of its {len(layers)} layers under their names (such as"
            f" {foreign[0].key.name[:120]}): it logs `lora key not loaded` and leaves them out. Convert the file first."
        )


def _scale_warnings(network: Network, alphas: list[float], metadata: Mapping[str, str]) -> Iterable[str]:
    if len(network.ranks) > 1:
        yield f"Its rank differs from layer to layer, {min(network.ranks)} to {max(network.ranks)}."
    if alphas or network.rank is None:
        return
    adapter = as_object(metadata.get("lora_adapter_metadata"))
    meant = next((adapter[name] for name in adapter if name.endswith("lora_alpha")), None)
    if isinstance(meant, (int, float)) and meant and meant != network.rank:
        yield (
            f"Its adapter settings say alpha {meant:g}, which ComfyUI does not read: strength {meant / network.rank:g}"
            " there is what 1 was in training."
        )
