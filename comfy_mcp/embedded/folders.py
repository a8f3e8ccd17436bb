"""The folder layout of ComfyUI, and the names by which nodes call the files in it.

DATA_DIR/models/checkpoints/...     one folder per kind of model; `FOLDERS` says which, and their aliases
DATA_DIR/input/                     uploaded pictures
DATA_DIR/output/                    saved pictures; output/loras is a folder of LoRAs too
DATA_DIR/temp/                      previews
"""

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

MODEL_EXTENSIONS = frozenset({".safetensors", ".sft", ".pt", ".pt2", ".pth", ".bin", ".ckpt", ".pkl"})

FOLDERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "checkpoints": ("models/checkpoints", "output/checkpoints"),
        "configs": ("models/configs",),
        "loras": ("models/loras", "output/loras"),
        "vae": ("models/vae", "output/vae"),
        "text_encoders": ("models/text_encoders", "models/clip", "output/clip"),
        "diffusion_models": ("models/unet", "models/diffusion_models", "output/diffusion_models"),
        "clip_vision": ("models/clip_vision",),
        "style_models": ("models/style_models",),
        "embeddings": ("models/embeddings",),
        "vae_approx": ("models/vae_approx",),
        "controlnet": ("models/controlnet", "models/t2i_adapter"),
        "gligen": ("models/gligen",),
        "upscale_models": ("models/upscale_models",),
        "latent_upscale_models": ("models/latent_upscale_models",),
        "hypernetworks": ("models/hypernetworks",),
        "photomaker": ("models/photomaker",),
        "model_patches": ("models/model_patches",),
    }
)
"""Kind of model -> folders under the data directory, in the order in which they are searched."""

PICTURE_EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"})

_ANNOTATION = re.compile(r"(?P<name>.*\S)\s*\[(?P<type>input|output|temp)\]\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One listed file: its name relative to folder number `path_index` of its kind."""

    name: str
    path_index: int
    path: Path


@dataclass(frozen=True, slots=True)
class Folders:
    """The folders under one data directory."""

    root: Path

    def create(self) -> None:
        """Create every folder that a person would look for, leaving what is there."""
        for name in ("input", "output", "temp"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        for folders in FOLDERS.values():
            for folder in folders:
                if folder.startswith("models/"):
                    (self.root / folder).mkdir(parents=True, exist_ok=True)

    def clear_temp(self) -> None:
        """Empty the folder of previews, which live as long as the server."""
        shutil.rmtree(self.root / "temp", ignore_errors=True)
        (self.root / "temp").mkdir(parents=True, exist_ok=True)

    def of_type(self, folder_type: str) -> Path | None:
        """Return the folder called `input`, `output` or `temp` on the wire; None for any other word."""
        return self.root / folder_type if folder_type in {"input", "output", "temp"} else None

    def model_folders(self, kind: str) -> list[Path]:
        """Return the folders that are searched for this kind of model; KeyError when there is no such kind."""
        return [self.root / folder for folder in FOLDERS[kind]]

    def model_files(self, kind: str) -> list[ModelFile]:
        """List the files of a kind as ComfyUI does: by extension alone, nested, dotfiles and broken links included."""
        found = [
            ModelFile(path.relative_to(folder).as_posix(), index, path)
            for index, folder in enumerate(self.model_folders(kind))
            for path in _files_below(folder)
            if path.suffix.lower() in MODEL_EXTENSIONS
        ]
        return sorted(found, key=lambda file: file.name)

    def model_names(self, kind: str) -> list[str]:
        """List the names that a loader node of this kind accepts."""
        return list(dict.fromkeys(file.name for file in self.model_files(kind)))

    def find_model(self, kind: str, name: str) -> Path:
        """Return the path of a listed model; FileNotFoundError when nothing readable bears that name."""
        for folder in self.model_folders(kind):
            path = folder / name
            if is_inside(path, folder) and path.is_file():
                return path
        raise FileNotFoundError(f"Model in folder '{kind}' with filename '{name}' not found.")

    def input_pictures(self) -> list[str]:
        """List the pictures that LoadImage offers: those directly in the input folder."""
        return sorted(
            path.name for path in (self.root / "input").iterdir() if path.suffix.lower() in PICTURE_EXTENSIONS
        )

    def find_picture(self, annotated: str) -> Path | None:
        """Return the file that `name`, `sub/name` or `name [output]` means, or None when it is not there."""
        name, folder_type = split_annotation(annotated, "input")
        folder = self.root / folder_type
        path = folder / name
        return path if is_inside(path, folder) and path.is_file() else None


def split_annotation(annotated: str, default_type: str) -> tuple[str, str]:
    """Split `a.png [output]` into its name and folder type."""
    match = _ANNOTATION.fullmatch(annotated)
    return (match["name"], match["type"]) if match else (annotated, default_type)


def is_inside(path: Path, folder: Path) -> bool:
    """Say whether the path lies in the folder by its name; links inside the folder may lead anywhere, as in ComfyUI."""
    inner = os.path.normpath(path)
    outer = os.path.normpath(folder)
    return inner == outer or inner.startswith(outer + os.sep)


def _files_below(folder: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for directory, subdirectories, names in os.walk(folder, followlinks=True):
        # A link to a folder above itself would be walked for ever.
        real = os.path.realpath(directory)
        if real in seen:
            subdirectories.clear()
            continue
        seen.add(real)
        for name in names:
            yield Path(directory) / name
