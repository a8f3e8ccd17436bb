"""Join pictures to one animated file."""

from collections.abc import Sequence
from io import BytesIO

QUALITIES = {"draft": 60, "standard": 80, "high": 95}
"""Quality of WebP, 0 to 100, by the words of callers."""


def joined(pictures: Sequence[bytes], *, frame_duration_s: float, quality: str) -> tuple[bytes, list[str]]:
    """Return pictures, one after another, as an animated WebP that repeats, and a warning for each that was scaled.

    All take the size of the first; what does not change from one to the next is one longer frame. It blocks.
    """
    from PIL import Image

    frames: list[Image.Image] = []
    warnings: list[str] = []
    for index, content in enumerate(pictures):
        with Image.open(BytesIO(content)) as picture:
            frame = picture.convert("RGB")
        if frames and frame.size != frames[0].size:
            sizes = " to ".join(f"{width} x {height}" for width, height in (frame.size, frames[0].size))
            warnings.append(f"Frame {index + 1} was scaled from {sizes}, the size of the first.")
            frame = frame.resize(frames[0].size)
        frames.append(frame)
    file = BytesIO()
    frames[0].save(
        file,
        "WEBP",
        save_all=True,
        append_images=frames[1:],
        duration=round(frame_duration_s * 1000),
        loop=0,
        quality=QUALITIES[quality],
    )
    return file.getvalue(), warnings
