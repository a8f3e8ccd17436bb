"""What AI Toolkit, or the embedded engine, would not do as a request says it: a warning by name for each."""

from collections.abc import Iterator

from aitk_mcp.recipes.overrides import check_overrides
from aitk_mcp.recipes.presets import ModelChoice
from aitk_mcp.recipes.request import RecipeRequest

_FEW_STEPS = 200
# The embedded engine's own recipe: what it reads of the document, and what it has no use for.
_NOT_EMBEDDED = {
    "resolution": "it trains 32 x 32 pixels",
    "optimizer": "it has one of its own",
    "lr_scheduler": "its learning rate falls in a line",
    "mixed_precision": "it trains in float32",
    "noise_offset": "it adds none",
    "min_snr_gamma": "it weights no timesteps",
    "shuffle_tokens": "its captions keep their order",
    "train_text_encoder": "its text encoder is fixed",
    "text_encoder_lr": "its text encoder is fixed",
}


def doubts_of(request: RecipeRequest, model: ModelChoice, steps: int) -> Iterator[str]:
    """Yield what the caller should know before AI Toolkit trains this."""
    yield from _of_prompts(request)
    yield from _of_the_model(request, model)
    yield from _of_captions(request, model)
    if request.use_wandb:
        yield "With `use_wandb` AI Toolkit keeps no loss file; the loss curve then comes from the log."
    if request.epochs is not None and steps < _FEW_STEPS:
        yield (
            f"`epochs` {request.epochs} come to only {steps} steps here, since AI Toolkit repeats no images; a subject"
            " usually takes 500 to 3000. Give `steps` instead of `epochs`, or add images."
        )


def embedded_doubts(request: RecipeRequest) -> Iterator[str]:
    """Yield what the embedded engine leaves out of what the caller set."""
    for name, why in _NOT_EMBEDDED.items():
        if name in request.model_fields_set and getattr(request, name) not in (None, False):
            yield f"`{name}` has no effect on the embedded engine: {why}."


def _of_prompts(request: RecipeRequest) -> Iterator[str]:
    if request.trigger_word:
        for index, prompt in enumerate(request.test_prompts):
            if request.trigger_word.lower() not in prompt.lower() and "[trigger]" not in prompt:
                yield (
                    f"test_prompts[{index}] lacks the trigger word `{request.trigger_word}`: its sample will not show"
                    " the subject. (Captions get it put before them; sample prompts do not.)"
                )
    elif any("[trigger]" in prompt for prompt in request.test_prompts):
        yield "A test prompt holds `[trigger]`, but there is no `trigger_word`."


def _of_the_model(request: RecipeRequest, model: ModelChoice) -> Iterator[str]:
    architecture = model.architecture
    if request.mixed_precision == "fp16" and not model.is_ddpm:
        yield f"fp16 overflows easily with {architecture.label}; bf16 is what AI Toolkit uses for it."
    if request.min_snr_gamma is not None and not model.is_ddpm:
        yield f"`min_snr_gamma` was left out: {architecture.label} is a flow model, which has no such weights."
    if request.train_text_encoder and not model.is_ddpm:
        yield f"`train_text_encoder` has only been seen to work with SD 1.5 and SDXL, not with {architecture.label}."
    if request.text_encoder_lr is not None and request.text_encoder_lr != request.learning_rate:
        yield (
            f"`text_encoder_lr` {request.text_encoder_lr:g} has no effect: AI Toolkit trains the text encoder's part of"
            f" a LoRA at `learning_rate` ({request.learning_rate:g})."
        )
    if "alpha" in request.model_fields_set and request.alpha != request.rank and not model.is_ddpm:
        yield (
            f"`alpha` {request.alpha:g} has no effect: AI Toolkit trains {architecture.label} with alpha = rank"
            f" ({request.rank})."
        )
    if architecture.group == "instruction":
        yield (
            f"{architecture.label} learns edits from pairs: set the folder of the images before the edit, such as"
            ' overrides {"datasets": {"control_path": "/absolute/folder"}}.'
        )
    if architecture.group == "audio":
        yield f"{architecture.label} trains on audio files; images in the dataset are not used."


def _of_captions(request: RecipeRequest, model: ModelChoice) -> Iterator[str]:
    if request.shuffle_tokens and request.trigger_word:
        yield (
            f"`shuffle_tokens` moves the trigger word `{request.trigger_word}` too: AI Toolkit shuffles once more after"
            " it has put it into the caption."
        )
    if request.shuffle_tokens and model.architecture.set.get("train.cache_text_embeddings"):
        yield (
            f"`shuffle_tokens` shuffles only once with {model.architecture.label}, whose captions are encoded before"
            " the training."
        )
    if request.keep_tokens and not _drops_tokens(request):
        yield (
            f"`keep_tokens` {request.keep_tokens} has no effect: AI Toolkit heeds it only while it drops caption parts"
            ' (overrides {"datasets": {"token_dropout_rate": 0.1}}), not while it shuffles them.'
        )


def _drops_tokens(request: RecipeRequest) -> bool:
    settings, _ = check_overrides(request.overrides)
    return bool(settings.get("datasets.token_dropout_rate"))
