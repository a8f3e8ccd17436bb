"""Read from AI Toolkit's document what the embedded engine can honour, and say what it cannot."""

from dataclasses import dataclass

from aitk_mcp.documents import TrainingDocument, mapping_of

BASE_MODEL = "tinyflux"
# What AI Toolkit writes as ss_base_model_version for the architectures whose key names tinyflux shares.
_BASE_MODEL_VERSIONS = {"flux": "flux.1", "flex1": "flux.1", "flex2": "flux.1"}
_PROCESS_TYPES = ("diffusion_trainer", "sd_trainer", "ui_trainer")
_USUAL_RATE, _OWN_RATE = 1e-4, 1e-2
_DEFAULT_SEED = 42


class Refused(ValueError):
    """Say why the embedded engine does not train a config."""


@dataclass(frozen=True)
class SamplePlan:
    """Which pictures to draw while training: each prompt with its seed."""

    every: int
    start_step: int
    skip_first: bool
    prompts: tuple[tuple[str, int], ...]
    steps: int
    guidance: float
    side: int


@dataclass(frozen=True)
class SavePlan:
    """When to save, how many checkpoints to keep, and with which dtype (`float16` or `float32`)."""

    every: int
    keep: int
    dtype: str


@dataclass(frozen=True)
class Recipe:
    """A training as the embedded engine does it."""

    rank: int
    steps: int
    batch_size: int
    learning_rate: float
    seed: int
    save: SavePlan
    sample: SamplePlan
    records_loss: bool
    base_model_version: str
    notes: tuple[str, ...]


def refusal(document: TrainingDocument) -> str | None:
    """Return why the embedded engine does not train this config, or None where it does."""
    kind = str(document.process.get("type", ""))
    if kind not in _PROCESS_TYPES:
        return f"the embedded engine runs processes of type {', '.join(_PROCESS_TYPES)}; this config has {kind!r}"
    if document.architecture not in _BASE_MODEL_VERSIONS:
        return (
            f"the embedded engine trains tinyflux only, a miniature FLUX; this config has the architecture"
            f" {document.architecture!r}: choose model_name `tinyflux` or a FLUX model, or set up AI Toolkit"
        )
    network = str(document.block("network").get("type", "lora"))
    if network.lower() != "lora":
        return f"the embedded engine trains networks of type lora; this config has {network!r}"
    if document.steps < 1:
        return f"train.steps is {document.steps}; it must be at least 1"
    return None


def read_recipe(document: TrainingDocument) -> Recipe:
    """Return the recipe of a config; raises Refused."""
    refused = refusal(document)
    if refused:
        raise Refused(refused)
    train, save, network = document.block("train"), document.block("save"), document.block("network")
    rank = int(network.get("linear") or network.get("rank") or 4)
    accumulation = int(train.get("gradient_accumulation") or 1) * int(train.get("gradient_accumulation_steps") or 1)
    seed = next((int(value) for value in (document.process.get("training_seed"), train.get("seed")) if value), None)
    dtype = str(save.get("dtype", "float16"))
    return Recipe(
        rank=rank,
        steps=document.steps,
        batch_size=int(train.get("batch_size", 1)) * accumulation,
        learning_rate=float(train.get("lr", 1e-6)),
        seed=_DEFAULT_SEED if seed is None else seed,
        save=SavePlan(
            every=int(save.get("save_every", 1000) or 0),
            keep=max(1, int(save.get("max_step_saves_to_keep", 5))),
            dtype="float32" if dtype in ("fp32", "float32", "float") else "float16",
        ),
        sample=_sample_plan(document),
        records_loss=bool(document.block("logging").get("use_ui_logger", False)),
        base_model_version=_BASE_MODEL_VERSIONS[document.architecture],
        notes=_notes(document, rank, dtype),
    )


def _sample_plan(document: TrainingDocument) -> SamplePlan:
    train, sample = document.block("train"), document.block("sample")
    seed, walk = int(sample.get("seed", 0)), bool(sample.get("walk_seed", False))
    return SamplePlan(
        every=int(sample.get("sample_every", 100) or 0),
        start_step=int(sample.get("sample_start_step", 0)),
        skip_first=bool(train.get("skip_first_sample", False)),
        prompts=tuple((prompt, seed + index if walk else seed) for index, prompt in enumerate(document.prompts)),
        steps=int(sample.get("sample_steps", 20)),
        guidance=float(sample.get("guidance_scale", 4)),
        side=max(32, min(int(sample.get("width", 512)), int(sample.get("height", 512)))),
    )


def _notes(document: TrainingDocument, rank: int, dtype: str) -> tuple[str, ...]:
    """Return what the user should know: what this engine does otherwise than AI Toolkit would."""
    train, network = document.block("train"), document.block("network")
    rate = float(train.get("lr", 1e-6))
    notes = [
        "The embedded engine trains tinyflux, a miniature FLUX of 32 x 32 pixels, on the CPU.",
        f"Learning rate {rate:.1e} is {rate * _OWN_RATE / _USUAL_RATE:.1e} for tinyflux,"
        " falling in a line to 0 at the last step.",
        "Images are cropped to a square and resized to 32 x 32; the resolution of the config is not used.",
    ]
    wanted = str(document.block("model").get("name_or_path", ""))
    if wanted != BASE_MODEL:
        notes.append(f"WARNING: the config asks for {wanted}; the embedded engine trains {BASE_MODEL} in its place.")
    alpha = network.get("linear_alpha", network.get("alpha"))
    if alpha is not None and float(alpha) != rank:
        notes.append(
            f"alpha {alpha} has no effect: as in AI Toolkit, a FLUX LoRA is trained with alpha = rank ({rank})."
        )
    if dtype not in ("fp16", "float16", "fp32", "float32", "float"):
        notes.append(f"save.dtype {dtype}: the embedded engine writes float16.")
    if any(mapping_of(dataset).get("caption_dropout_rate") for dataset in document.datasets):
        notes.append("caption_dropout_rate is not used: the embedded engine drops single words instead.")
    return tuple(notes)
