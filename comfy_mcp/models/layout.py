"""The folders that a ComfyUI on this disk reads: its own, and those that its extra_model_paths.yaml adds. Blocks."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

EXTRA_PATHS = "extra_model_paths.yaml"

# ComfyUI renamed some kinds, and takes the old names in its settings.
_RENAMED = {"unet": "diffusion_models", "clip": "text_encoders"}
_OWN_FOLDERS = {
    "text_encoders": ("text_encoders", "clip"),
    "diffusion_models": ("unet", "diffusion_models"),
    "controlnet": ("controlnet", "t2i_adapter"),
}
# What ComfyUI's own nodes save is listed beside what was put there.
_SAVED = {
    "checkpoints": "checkpoints",
    "loras": "loras",
    "vae": "vae",
    "text_encoders": "clip",
    "diffusion_models": "diffusion_models",
}


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders of one kind of model in the order in which ComfyUI searches them, and what is wrong with settings."""

    folders: tuple[Path, ...]
    problem: str | None = None


def layout_of(comfyui_dir: Path, kind: str) -> Layout:
    """Return where a ComfyUI in this folder looks for one kind of model, existing or not."""
    own = [comfyui_dir / "models" / name for name in _OWN_FOLDERS.get(kind, (kind,))]
    saved = [comfyui_dir / "output" / _SAVED[kind]] if kind in _SAVED else []
    first: list[Path] = []
    last: list[Path] = []
    problem = None
    try:
        for folder, is_default in _extra_folders(comfyui_dir, kind):
            if is_default:
                # Each default goes before those before it.
                first.insert(0, folder)
            else:
                last.append(folder)
    except (OSError, yaml.YAMLError, TypeError, UnicodeDecodeError) as error:
        words = (str(error).splitlines() or [type(error).__name__])[0]
        problem = f"{comfyui_dir / EXTRA_PATHS} cannot be read, and its folders are left out: {words}."
    return Layout(tuple(dict.fromkeys((*first, *own, *last, *saved))), problem)


def _extra_folders(comfyui_dir: Path, kind: str) -> Iterator[tuple[Path, bool]]:
    """Yield each folder that the file adds for a kind, and whether it is to come first.

    Source: extra_model_paths.yaml.example of ComfyUI, and what its reader makes of relative paths.
    """
    try:
        text = (comfyui_dir / EXTRA_PATHS).read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    sections: Any = yaml.safe_load(text)
    if sections is None:
        return
    if not isinstance(sections, dict):
        raise TypeError("it holds no sections")
    for name, value in cast(dict[Any, Any], sections).items():
        if value is None:
            continue
        if not isinstance(value, dict):
            raise TypeError(f"section {name} holds no folders")
        section = cast(dict[str, Any], value)
        base = _expanded(str(section["base_path"]), comfyui_dir) if section.get("base_path") else comfyui_dir
        for key, lines in section.items():
            if _RENAMED.get(key, key) != kind or not isinstance(lines, str):
                continue
            for line in lines.splitlines():
                if line.strip():
                    yield Path(os.path.normpath(base / line.strip())), bool(section.get("is_default"))


def _expanded(path: str, comfyui_dir: Path) -> Path:
    return comfyui_dir / os.path.expandvars(Path(path).expanduser())
