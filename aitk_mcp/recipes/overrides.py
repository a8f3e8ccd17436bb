"""Settings of AI Toolkit that a caller sets directly: known by name, of the right kind, and put in place."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from aitk_mcp.recipes.architectures import Process, put, read_table
from aitk_mcp.recipes.problems import Problem
from mcp_toolserver.errors import closest

_TABLE = read_table("parameters.json")
_SYNONYMS: dict[str, str] = _TABLE["synonyms"]
_KINDS: dict[str, dict[str, str]] = {
    section: {key: kind for kind, keys in kinds.items() for key in keys}
    for section, kinds in _TABLE["sections"].items()
}
# AI Toolkit hands the keys of these on to the optimizer, the scheduler or the model: no list of them exists.
_FREE_FORM = frozenset(
    {"network.network_kwargs", "train.optimizer_params", "train.lr_scheduler_params", "model.model_kwargs"}
    | {"model.quantize_kwargs", "model.model_paths"}
)

_OWNED = {
    "type": "the trainer's own pages and its command line both need `diffusion_trainer`",
    "name": "the config's `name` names the job",
    "training_folder": "files and log must lie in the outputs folder of this server",
    "datasets.folder_path": "`dataset_path` sets it",
    "datasets.dataset_path": "`dataset_path` sets it",
}
_KIND_TYPES: dict[str, tuple[type, ...]] = {
    "boolean": (bool,),
    "number": (int, float),
    "text": (str,),
    "list": (list,),
    "object": (dict,),
}


def check_overrides(overrides: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Return the settings by dotted path, and a problem for each that AI Toolkit would ignore or choke on."""
    settings: dict[str, Any] = {}
    problems: list[Problem] = []
    for path, value in _leaves(overrides):
        found = _problem(path, value)
        if found is None:
            settings[path] = value
        else:
            problems.append(found)
    return settings, problems


def apply_overrides(process: Process, settings: Mapping[str, Any]) -> None:
    """Put checked settings into a process."""
    for path, value in settings.items():
        put(process, path, value)


def unknown_keys(process: Mapping[str, Any]) -> list[Problem]:
    """Return a problem for each key of a whole process that AI Toolkit would ignore in silence."""
    owned = {"type": None, "training_folder": None}
    return [
        problem
        for path, _ in _leaves({key: value for key, value in process.items() if key not in owned})
        if (problem := _unknown(path)) is not None
    ]


def _leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        path = f"{prefix}.{key}" if prefix else str(key)
        if path == "datasets" and isinstance(inner, Sequence) and not isinstance(inner, str):
            for dataset in cast(Sequence[Any], inner):
                known = cast(Mapping[str, Any], dataset) if isinstance(dataset, Mapping) else {str(dataset): None}
                yield from _leaves(known, path)
        elif isinstance(inner, Mapping) and (path in _KINDS or path in _FREE_FORM) and inner:
            yield from _leaves(cast(Mapping[str, Any], inner), path)
        else:
            yield path, inner


def _problem(path: str, value: Any) -> Problem | None:
    where = f"overrides.{path}"
    if path in _OWNED:
        return Problem(where, f"`{where}` cannot be set: {_OWNED[path]}.")
    found = _unknown(path)
    if found is not None:
        return found
    section, _, key = path.rpartition(".")
    kind = _KINDS.get(section or "process", {}).get(key, "any")
    fits = _KIND_TYPES.get(kind)
    if value is None or fits is None or (isinstance(value, fits) and (kind == "boolean" or value is not True)):
        return None
    return Problem(where, f"`{where}` is {value!r}; AI Toolkit expects a {kind} there.")


def _unknown(path: str) -> Problem | None:
    section, _, key = path.rpartition(".")
    if any(path == free or path.startswith(f"{free}.") for free in _FREE_FORM):
        return None
    known = _KINDS.get(section or "process")
    if known is not None and (key in known or path in _KINDS):
        return None
    named = [f"{name}.{each}" if name != "process" else each for name, keys in _KINDS.items() for each in keys]
    local = [f"{section}.{each}" if section else each for each in known] if known else []
    # The right key in the wrong section is likelier than a similar key in the right one.
    same_key = [each for each in named if each.rsplit(".", 1)[-1] == key]
    synonym = [_SYNONYMS[key]] if key in _SYNONYMS else []
    matches = (same_key or synonym or closest(path, local) or closest(path, [*_KINDS, *named]))[:3]
    cure = f"Did you mean `{matches[0]}`?" if matches else f"The sections are {', '.join(_KINDS)}."
    return Problem(
        f"overrides.{path}",
        f"AI Toolkit has no setting `{path}` and would ignore it.",
        hint=cure,
        closest_matches=tuple(matches),
    )
