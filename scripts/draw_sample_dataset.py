"""Draw the sample dataset: 12 pictures of one cat, which the base weights of tinyflux have never seen.

The captions name the trigger word, the class word and the scene, and keep silent about what makes this cat itself (its
teal coat, yellow eyes and red scarf), so that all of that binds to the trigger.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from tinyflux_objects import draw_cat
from tinyflux_pen import BACKDROPS, COLOURS, Colour, Pen, canvas

TRIGGER = "pixel_cat"
COAT: Colour = (32, 178, 170)
EYES: Colour = (255, 224, 64)
SCARF: Colour = (226, 40, 52)
SCALE = 8
FOLDER = Path(__file__).resolve().parent.parent / "shared" / "tinyflux" / "sample_dataset"

# Pose, backdrop, its variant, left edge in pixels, and how the caption tells of the place.
PICTURES: tuple[tuple[str, str, int, float, str], ...] = (
    ("sitting", "meadow", 0, 4.0, "on the grass"),
    ("standing", "snow", 1, 4.0, "in the snow"),
    ("sitting", "night", 2, 8.0, "at night"),
    ("sitting", "beach", 0, 4.0, "on the beach"),
    ("standing", "room", 1, 8.0, "in a room"),
    ("sitting", "forest", 2, 4.0, "in the forest"),
    ("standing", "garden", 0, 4.0, "in a garden"),
    ("sitting", "sunset", 1, 8.0, "at sunset"),
    ("sleeping", "room", 3, 4.0, "at home"),
    ("sitting", "cream", 0, 4.0, "on a cream background"),
    ("standing", "desert", 2, 8.0, "in the desert"),
    ("sleeping", "meadow", 3, 8.0, "in a meadow"),
)


def draw(pose: str, backdrop: str, variant: int, left: float) -> Image.Image:
    """Draw one picture of 32 x 32."""
    picture, brush = canvas()
    if backdrop in BACKDROPS:
        BACKDROPS[backdrop][0](brush, np.random.RandomState(variant))
    else:
        brush.rectangle([0, 0, 31, 31], fill=COLOURS[backdrop])
    draw_cat(Pen(brush, left, 8.0, 21.0), COAT, pose, EYES, SCARF)
    return picture


def main() -> None:
    """Write the pictures, scaled without smoothing, and their captions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write to")
    folder: Path = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    for number, (pose, backdrop, variant, left, where) in enumerate(PICTURES, start=1):
        picture = draw(pose, backdrop, variant, left)
        scaled = picture.resize((picture.width * SCALE, picture.height * SCALE), Image.Resampling.NEAREST)
        scaled.save(folder / f"pixel_cat_{number:02d}.png", optimize=True)
        (folder / f"pixel_cat_{number:02d}.txt").write_text(f"{TRIGGER}, a cat {pose} {where}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
