"""What is wrong with a document that may have been written or changed by hand."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from aitk_mcp.recipes.architectures import ARCHITECTURES
from aitk_mcp.recipes.build import environment_references
from aitk_mcp.recipes.names import doubt_of_outputs, mistaken_for_checkpoint
from aitk_mcp.recipes.overrides import unknown_keys
from aitk_mcp.recipes.presets import find_preset
from aitk_mcp.recipes.problems import Problem
from mcp_toolserver.errors import closest

_TRAINERS = ("diffusion_trainer", "sd_trainer")
# Architectures that AI Toolkit's code knows and its own pages do not offer.
# Where the config has no negative prompt, AI Toolkit 0.12 hands their tokenizers `False`, which they refuse.
_NEED_NEGATIVE_PROMPT = ("sd1", "sd15", "sd2", "sdxl")
_OLDER = ("sd1", "sd2", "sd3", "pixart", "pixart_sigma", "auraflow", "vega", "ssd", "cogview4")


def check_document(document: Mapping[str, Any], name: str, outputs_folder: str) -> list[Problem]:
    """Return what would keep AI Toolkit from training as meant, and what it would ignore."""
    config: Any = document.get("config")
    processes: Any = cast(Mapping[str, Any], config).get("process") if isinstance(config, Mapping) else None
    if not isinstance(processes, list) or not processes or not isinstance(processes[0], dict):
        return [Problem("config.process", "The document has no `config.process` list with a process in it.")]
    process = cast(dict[str, Any], processes[0])
    problems = [
        *environment_references(document),
        *_frame(document, process, name, outputs_folder),
        *_model(process),
        *_samples(process),
    ]
    ignored = [
        Problem(problem.field.removeprefix("overrides."), problem.message, problem.hint, "warning")
        for problem in unknown_keys(process)
    ]
    return problems + ignored


def _frame(document: Mapping[str, Any], process: Mapping[str, Any], name: str, outputs: str) -> Iterator[Problem]:
    if document.get("job") != "extension":
        yield Problem("job", f"`job` is {document.get('job')!r}; a training is an `extension`.")
    if document["config"].get("name") != name:
        yield Problem(
            "config.name",
            f"`config.name` is {document['config'].get('name')!r}, but the config is stored as `{name}`: files and log"
            " would lie in different folders.",
        )
    mistaken = mistaken_for_checkpoint(name)
    if mistaken:
        yield Problem(
            "config.name",
            f"`config.name` is {name!r}: AI Toolkit would take its own file `{mistaken}` for a checkpoint, and fail.",
            hint=f"Name it `{name}_lora`.",
        )
    overlooked = doubt_of_outputs(outputs, name)
    if overlooked:
        yield Problem("training_folder", overlooked, severity="warning")
    if process.get("type") not in _TRAINERS:
        yield Problem(
            "type",
            f"The process type {process.get('type')!r} does not train a LoRA.",
            hint="Use `diffusion_trainer`.",
            closest_matches=_TRAINERS,
        )
    if process.get("training_folder") != outputs:
        yield Problem(
            "training_folder",
            f"`training_folder` is {process.get('training_folder')!r}; the outputs of this server lie in {outputs}.",
        )
    steps = _section(process, "train").get("steps", 1000)
    if type(steps) is not int or steps < 1:
        yield Problem("train.steps", f"`train.steps` is {steps!r}; it must be a whole number above 0.")


def _model(process: Mapping[str, Any]) -> Iterator[Problem]:
    model = _section(process, "model")
    arch, name = model.get("arch"), model.get("name_or_path")
    if not name:
        yield Problem("model.name_or_path", "`model.name_or_path` is missing.")
    flags = [key for key in model if re.fullmatch(r"is_\w+", key) and model[key]]
    known = [*ARCHITECTURES, *(row.backend_arch for row in ARCHITECTURES.values()), *_OLDER]
    if arch is None and not flags:
        yield Problem("model.arch", "`model.arch` is missing: AI Toolkit takes the model for Stable Diffusion 1.5.")
    elif arch is not None and arch not in known and str(arch).split(":", 1)[0] not in known:
        matches = tuple(closest(str(arch), known))
        yield Problem(
            "model.arch",
            f"`model.arch` is {arch!r}, which AI Toolkit does not know and takes for Stable Diffusion 1.5.",
            hint=f"Did you mean `{matches[0]}`?" if matches else None,
            closest_matches=matches,
        )
    preset = find_preset(str(name)) if name else None
    if preset is not None and preset.gated:
        yield Problem(
            "model.name_or_path",
            f"{preset.name} is gated.",
            hint="Accept its licence on its Hugging Face page, and give AI Toolkit an HF_TOKEN of that account.",
            severity="warning",
        )


def _samples(process: Mapping[str, Any]) -> Iterator[Problem]:
    sample = _section(process, "sample")
    if not sample or _section(process, "train").get("disable_sampling"):
        return
    if _section(process, "model").get("arch") not in _NEED_NEGATIVE_PROMPT or isinstance(sample.get("neg"), str):
        return
    yield Problem(
        "sample.neg",
        "`sample.neg`, the negative prompt, is missing: AI Toolkit fails at the first sample picture.",
        hint='Set it to "", or `train.disable_sampling` to true.',
    )


def _section(process: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = process.get(name)
    return cast(Mapping[str, Any], found) if isinstance(found, Mapping) else {}
