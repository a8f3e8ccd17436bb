"""Draw the sample pictures of a training, in the folder and under the names that AI Toolkit gives them."""

import time
from pathlib import Path

from PIL import Image, ImageOps
from tqdm import tqdm

from aitk_mcp.embedded.recipe import SamplePlan
from tinyflux import TinyFlux, text_to_pixels

_THUMBNAIL_SIDE = 300


def draw_samples(model: TinyFlux, plan: SamplePlan, folder: Path, step: int) -> None:
    """Draw each prompt of the plan into `folder`; a picture appears when it is whole, its thumbnail before it."""
    work, thumbnails = folder / ".tmp", folder / ".thumbs"
    for path in (work, thumbnails):
        path.mkdir(parents=True, exist_ok=True)
    width = len(str(len(plan.prompts)))
    for index, (prompt, seed) in enumerate(tqdm(plan.prompts, desc="Generating Images", leave=False)):
        pixels = text_to_pixels(model, prompt, seed, steps=plan.steps, guidance=plan.guidance)
        picture = Image.fromarray(pixels).resize((plan.side, plan.side), Image.Resampling.NEAREST)
        name = f"{int(time.time() * 1000)}__{step:09d}_{index:0{width}d}.jpg"
        thumbnail = ImageOps.fit(picture, (_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
        thumbnail.save(work / f"{name}.thumb", format="JPEG", quality=90)
        (work / f"{name}.thumb").replace(thumbnails / f"{name}.jpg")
        picture.save(work / name, quality=95, subsampling=0)
        (work / name).replace(folder / name)
