"""Draw pixel art in a unit box: the pen, its colours and the backgrounds of the scenes tinyflux learns from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (214, 48, 49),
    "orange": (240, 138, 36),
    "yellow": (247, 211, 62),
    "green": (62, 160, 70),
    "blue": (52, 104, 214),
    "purple": (136, 72, 186),
    "pink": (244, 140, 182),
    "brown": (134, 86, 48),
    "white": (242, 242, 238),
    "black": (38, 38, 46),
    "gray": (136, 142, 150),
    "cream": (240, 216, 168),
}
INK: Colour = (28, 24, 36)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Blend two colours; share 0 is the first, 1 the second."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def jitter(colour: Colour, rng: np.random.RandomState, amount: int = 10) -> Colour:
    """Move a colour a little, so that a name means a family of colours."""
    red, green, blue = (int(np.clip(c + rng.randint(-amount, amount + 1), 0, 255)) for c in colour)
    return red, green, blue


class Pen:
    """Draw in unit coordinates of a square box: (0, 0) is its upper left corner, (1, 1) its lower right."""

    def __init__(self, draw: ImageDraw.ImageDraw, left: float, top: float, size: float) -> None:
        self.draw, self.left, self.top, self.size = draw, left, top, size

    def at(self, u: float, v: float) -> tuple[int, int]:
        """Map a point of the box to a pixel."""
        return round(self.left + u * self.size), round(self.top + v * self.size)

    def oval(self, u0: float, v0: float, u1: float, v1: float, fill: Colour, edge: Colour | None = None) -> None:
        """Fill an ellipse between two corners."""
        self.draw.ellipse([self.at(u0, v0), self.at(u1, v1)], fill=fill, outline=edge)

    def box(self, u0: float, v0: float, u1: float, v1: float, fill: Colour, edge: Colour | None = None) -> None:
        """Fill a rectangle between two corners."""
        self.draw.rectangle([self.at(u0, v0), self.at(u1, v1)], fill=fill, outline=edge)

    def shape(self, points: Sequence[tuple[float, float]], fill: Colour, edge: Colour | None = None) -> None:
        """Fill a polygon."""
        self.draw.polygon([self.at(u, v) for u, v in points], fill=fill, outline=edge)

    def stroke(self, points: Sequence[tuple[float, float]], fill: Colour, width: int = 1) -> None:
        """Draw a line through points."""
        self.draw.line([self.at(u, v) for u, v in points], fill=fill, width=width)

    def dot(self, u: float, v: float, fill: Colour, size: int = 1) -> None:
        """Set a square of 1 or 2 pixels."""
        x, y = self.at(u, v)
        self.draw.rectangle([x, y, x + size - 1, y + size - 1], fill=fill)


Backdrop = Callable[[ImageDraw.ImageDraw, np.random.RandomState], None]


def _ground(draw: ImageDraw.ImageDraw, sky: Colour, soil: Colour, line: int) -> None:
    draw.rectangle([0, 0, 31, line], fill=sky)
    draw.rectangle([0, line + 1, 31, 31], fill=soil)
    draw.line([0, line + 1, 31, line + 1], fill=mix(soil, INK, 0.2))


def _specks(
    draw: ImageDraw.ImageDraw, rng: np.random.RandomState, count: int, low: int, high: int, fill: Colour
) -> None:
    for x, y in zip(rng.randint(0, 32, count), rng.randint(low, high, count), strict=True):
        draw.point((int(x), int(y)), fill=fill)


def meadow(draw: ImageDraw.ImageDraw, rng: np.random.RandomState) -> None:
    """Draw grass under a blue sky."""
    line = int(rng.randint(18, 23))
    _ground(draw, jitter((142, 206, 246), rng), jitter((98, 186, 74), rng), line)
    _specks(draw, rng, 8, line + 3, 32, (70, 150, 56))
    x = int(rng.randint(0, 24))
    draw.ellipse([x, 2, x + 8, 5], fill=(250, 250, 252))


def night(draw: ImageDraw.ImageDraw, rng: np.random.RandomState) -> None:
    """Draw a dark sky with a moon over dark ground."""
    line = int(rng.randint(20, 24))
    _ground(draw, jitter((24, 28, 66), rng, 6), jitter((34, 52, 54), rng, 6), line)
    _specks(draw, rng, 12, 0, line, (236, 232, 190))
    x = int(rng.randint(2, 24))
    draw.ellipse([x, 2, x + 5, 7], fill=(248, 240, 190))


def snow(draw: ImageDraw.ImageDraw, rng: np.random.RandomState) -> None:
    """Draw snow on the ground and in the air."""
    line = int(rng.randint(18, 23))
    _ground(draw, jitter((168, 190, 214), rng), jitter((236, 242, 250), rng, 5), line)
    _specks(draw, rng, 16, 0, line, (250, 252, 255))


def desert(draw: ImageDraw.ImageDraw, rng: np.random.RandomState) -> None:
    """Draw dunes of sand under a hot sky."""
    line = int(rng.randint(18, 23))
    _ground(draw, jitter((250, 218, 148), rng), jitter((222, 168, 84), rng), line)
    x = int(rng.randint(-4, 20))
    draw.ellipse([x, line - 3, x + 18, line + 8], fill=(230, 180, 96))
    draw.ellipse([25, 2, 29, 6], fill=(255, 244, 196))


def beach(draw: ImageDraw.ImageDraw, rng: np.random.RandomState) -> None:
    """Draw sand, a strip of sea and the sky."""
    line = int(rng.randint(14, 18))
    _ground(draw, jitter((156, 216, 248), rng), jitter((240, 220, 160), rng), line + 6)
    draw.rectangle([0, line, 31, line + 6], fill=jitter((44, 132, 204), rng))
    draw.line([0, line + 7, 31, line + 7], fill=(250, 250, 250))


def forest(draw: ImageDraw.ImageDraw, rng: np.random.RandomState) -> None:
    """Draw dark trunks and leaves."""
    line = int(rng.randint(20, 24))
    _ground(draw, jitter((44, 96, 64), rng, 8), jitter((54, 78, 40), rng, 8), line)
    offset = int(rng.randint(0, 6))
    for x in range(offset, 32, 7):
        draw.rectangle([x, 4, x + 1, line], fill=(66, 48, 34))
    draw.rectangle([0, 0, 31, 5], fill=(30, 74, 44))
    _specks(draw, rng, 10, 5, 9, (30, 74, 44))


def city(draw: ImageDraw.ImageDraw, rng: np.random.RandomState) -> None:
    """Draw a row of houses with lit windows over a street."""
    _ground(draw, jitter((186, 200, 222), rng), jitter((98, 98, 106), rng, 6), 23)
    x = 0
    while x < 32:
        width, top = int(rng.randint(5, 9)), int(rng.randint(5, 15))
        wall = jitter((116, 124, 150), rng, 14)
        draw.rectangle([x, top, x + width - 1, 23], fill=wall)
        for row in range(top + 2, 22, 4):
            for column in range(x + 1, x + width - 2, 3):
                draw.point((column, row), fill=(250, 226, 130))
        x += width


def room(draw: ImageDraw.ImageDraw, rng: np.random.RandomState) -> None:
    """Draw a wall with a window and a wooden floor."""
    _ground(draw, jitter((226, 206, 184), rng), jitter((158, 106, 66), rng), 22)
    x = int(rng.randint(2, 20))
    draw.rectangle([x, 3, x + 8, 11], fill=(160, 214, 246), outline=(250, 248, 244))
    draw.line([x + 4, 3, x + 4, 11], fill=(250, 248, 244))


def space(draw: ImageDraw.ImageDraw, rng: np.random.RandomState) -> None:
    """Draw stars and a planet on black."""
    draw.rectangle([0, 0, 31, 31], fill=jitter((14, 10, 30), rng, 4))
    _specks(draw, rng, 22, 0, 32, (226, 226, 250))
    x, y = int(rng.randint(0, 26)), int(rng.randint(0, 8))
    draw.ellipse([x, y, x + 6, y + 6], fill=jitter((176, 92, 84), rng, 30))


def under_water(draw: ImageDraw.ImageDraw, rng: np.random.RandomState) -> None:
    """Draw deep blue water with bubbles and weed."""
    for row in range(32):
        draw.line([0, row, 31, row], fill=mix((44, 136, 196), (14, 48, 110), row / 31))
    _specks(draw, rng, 8, 0, 28, (176, 222, 246))
    for x in rng.randint(0, 32, 4):
        draw.line([int(x), 25, int(x), 31], fill=(36, 122, 88))


def sunset(draw: ImageDraw.ImageDraw, rng: np.random.RandomState) -> None:
    """Draw a sky from purple to orange with a low sun."""
    for row in range(24):
        draw.line([0, row, 31, row], fill=mix((118, 62, 136), (252, 148, 72), row / 23))
    x = int(rng.randint(4, 22))
    draw.ellipse([x, 15, x + 8, 23], fill=(255, 218, 110))
    draw.rectangle([0, 22, 31, 31], fill=jitter((66, 46, 70), rng, 6))


def mountains(draw: ImageDraw.ImageDraw, rng: np.random.RandomState) -> None:
    """Draw two gray peaks with snow."""
    _ground(draw, jitter((178, 214, 242), rng), jitter((112, 140, 84), rng), 22)
    for peak in (int(rng.randint(4, 12)), int(rng.randint(18, 28))):
        top = int(rng.randint(4, 9))
        draw.polygon([(peak - 12, 22), (peak, top), (peak + 12, 22)], fill=jitter((112, 116, 132), rng, 8))
        draw.polygon([(peak - 3, top + 5), (peak, top), (peak + 3, top + 5)], fill=(248, 250, 252))


def garden(draw: ImageDraw.ImageDraw, rng: np.random.RandomState) -> None:
    """Draw a fence and flowers in the grass."""
    _ground(draw, jitter((170, 220, 244), rng), jitter((84, 168, 72), rng), 19)
    for x in range(int(rng.randint(0, 3)), 32, 4):
        draw.rectangle([x, 12, x + 1, 20], fill=(244, 238, 226))
    draw.line([0, 15, 31, 15], fill=(244, 238, 226))
    for index in range(8):
        spot = (int(rng.randint(0, 32)), int(rng.randint(22, 32)))
        draw.point(spot, fill=[(240, 90, 120), (250, 220, 90), (240, 240, 250)][index % 3])


# The words that a caption uses for a backdrop; "plain" is drawn apart, since it has a colour of its own.
BACKDROPS: dict[str, tuple[Backdrop, tuple[str, ...]]] = {
    "meadow": (meadow, ("in a meadow", "on the grass", "in a green field")),
    "night": (night, ("at night", "under the moon", "on a dark night")),
    "snow": (snow, ("in the snow", "in winter")),
    "desert": (desert, ("in the desert", "on the sand")),
    "beach": (beach, ("on the beach", "by the sea")),
    "forest": (forest, ("in the forest", "in the woods")),
    "city": (city, ("in the city", "on a street")),
    "room": (room, ("in a room", "at home", "by the window")),
    "space": (space, ("in space", "among the stars")),
    "water": (under_water, ("under water", "underwater")),
    "sunset": (sunset, ("at sunset", "in the evening")),
    "mountains": (mountains, ("in the mountains", "on a mountain")),
    "garden": (garden, ("in a garden", "with flowers")),
}


def canvas() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Return an empty picture of 32 x 32 and what draws on it."""
    picture = Image.new("RGB", (32, 32), (255, 255, 255))
    return picture, ImageDraw.Draw(picture)
