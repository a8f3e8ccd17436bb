"""Draw the captioned scenes that the base weights of tinyflux are trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw

from tinyflux_objects import OBJECTS, POSES, WHITE, draw_cat, draw_dog
from tinyflux_pen import BACKDROPS, COLOURS, INK, Colour, Pen, canvas, jitter

_SYLLABLES = ("ka", "zo", "mi", "ru", "te", "sha", "blo", "vex", "qu", "ni", "oh", "wx", "sk", "dra", "pix", "lum")
_FILLERS = (
    "beautiful",
    "detailed",
    "masterpiece",
    "quality",
    "photo",
    "style",
    "retro",
    "game",
    "sprite",
    "cute",
    "happy",
    "little",
    "looking",
    "at",
    "camera",
    "wearing",
    "colorful",
    "bright",
    "high",
    "best",
    "8k",
    "trending",
    "render",
    "anime",
    "old",
    "new",
    "playing",
    "very",
    "sharp",
    "simple",
    "lovely",
    "icon",
)
_OPENINGS = ("", "", "", "", "pixel art of a", "a picture of a", "a photo of a", "a drawing of a", "pixel art", "one")

_FREE_SHARE = 0.12
_BACKDROP_VARIANTS = 4


@dataclass(frozen=True)
class Subject:
    """Hold what is to be said of one thing in a scene; an empty text is never said."""

    name: str
    colour: str
    colour_matters: bool
    pose: str
    size: str


@dataclass(frozen=True)
class Place:
    """Hold where a thing is drawn, in pixels, and the word for its size."""

    name: str
    left: float
    top: float
    size: float


@dataclass(frozen=True)
class Scene:
    """Hold what a scene shows."""

    subjects: tuple[Subject, ...]
    backdrop: str
    backdrop_colour: str


def draw_scene(rng: np.random.RandomState) -> tuple[NDArray[np.uint8], Scene]:
    """Draw one scene and return its pixels (32, 32, 3) with what it shows.

    Most scenes keep to the grid of patches and to a few variants of each backdrop: a model of a million weights learns
    those sharply, where free placement leaves it with blurs. The rest are placed freely, and half of them mirrored, so
    that it is no stranger to other people's pictures.
    """
    picture, draw = canvas()
    free = rng.rand() < _FREE_SHARE
    kinds = [*BACKDROPS, "plain", "plain"]
    backdrop, backdrop_colour = kinds[rng.randint(len(kinds))], ""
    if backdrop == "plain":
        backdrop_colour = list(COLOURS)[rng.randint(len(COLOURS))]
        draw.rectangle([0, 0, 31, 31], fill=jitter(COLOURS[backdrop_colour], rng))
    else:
        variants = 2**31 - 1 if free else _BACKDROP_VARIANTS
        BACKDROPS[backdrop][0](draw, np.random.RandomState(rng.randint(variants)))
    if rng.rand() < 0.12:
        names = _pick_name(rng), _pick_name(rng)
        subjects = tuple(
            _draw_subject(draw, rng, name, backdrop_colour, Place("", left, 14.0, 14.0))
            for name, left in zip(names, (1.0, 17.0), strict=True)
        )
    else:
        place = _free_place(rng) if free else _grid_place(rng)
        subjects = (_draw_subject(draw, rng, _pick_name(rng), backdrop_colour, place),)
    pixels = np.asarray(picture, dtype=np.uint8)
    if free and rng.rand() < 0.5:
        pixels = pixels[:, ::-1]
    return pixels, Scene(subjects, backdrop, backdrop_colour)


def _grid_place(rng: np.random.RandomState) -> Place:
    chance = rng.rand()
    if chance < 0.1:
        return Place("small", 4.0 * rng.randint(2, 4), 16.0, 12.0)
    if chance < 0.2:
        return Place("big", 2.0, 2.0, 27.0)
    return Place("", 4.0 * rng.randint(1, 3), 8.0 if rng.rand() < 0.75 else 4.0, 21.0)


def _free_place(rng: np.random.RandomState) -> Place:
    chance = rng.rand()
    name, low, high = ("small", 12, 15) if chance < 0.1 else ("big", 25, 28) if chance < 0.2 else ("", 18, 24)
    size = float(rng.randint(low, high))
    return Place(name, (31 - size) / 2 + rng.randint(-4, 5), min(30.0, 29.0 + rng.randint(-3, 2)) - size, size)


def _pick_name(rng: np.random.RandomState) -> str:
    names = [name for name, (_, _, weight) in OBJECTS.items() for _ in range(weight)]
    return names[rng.randint(len(names))]


def _draw_subject(
    draw: ImageDraw.ImageDraw,
    rng: np.random.RandomState,
    name: str,
    taken_colour: str,
    place: Place,
) -> Subject:
    drawer, natural, _ = OBJECTS[name]
    matters = rng.rand() < 0.6
    choices = [colour for colour in (list(COLOURS) if matters else natural) if colour != taken_colour]
    colour_name = choices[rng.randint(len(choices))]
    pen = Pen(draw, place.left, place.top, place.size)
    colour = jitter(COLOURS[colour_name], rng)
    poses = POSES.get(name, ("",))
    pose = poses[rng.randint(len(poses))]
    if name == "cat":
        eye: Colour = WHITE if colour_name == "black" else INK
        draw_cat(pen, colour, pose, eye)
    elif name == "dog":
        draw_dog(pen, colour, pose)
    else:
        drawer(pen, colour)
    return Subject(name, colour_name, matters, pose, place.name)


def caption(scene: Scene, rng: np.random.RandomState) -> str:
    """Describe a scene in one of many ways; now and then with no, unknown or missing words."""
    chance = rng.rand()
    if chance < 0.10:
        return ""
    if chance < 0.14:
        return " ".join(_unknown_word(rng) for _ in range(rng.randint(1, 4)))
    joiner = ("and a", "with a", "next to a")[rng.randint(3)]
    subject = f" {joiner} ".join(_phrase(one, rng) for one in scene.subjects)
    behind = _backdrop_phrase(scene, rng) if rng.rand() < 0.82 else ""
    opening = _OPENINGS[rng.randint(len(_OPENINGS))]
    text = f"{opening} {subject} {behind}" if rng.rand() < 0.85 else f"{behind} {opening} {subject}"
    words = text.split()
    if rng.rand() < 0.25:
        words = [word for word in words if rng.rand() > 0.2]
    if rng.rand() < 0.3:
        for _ in range(rng.randint(1, 4)):
            place = 0 if rng.rand() < 0.5 else rng.randint(len(words) + 1)
            words.insert(place, _unknown_word(rng))
    return " ".join(words)


def _phrase(subject: Subject, rng: np.random.RandomState) -> str:
    says_colour = rng.rand() < (0.96 if subject.colour_matters else 0.3)
    colour = subject.colour if says_colour else ""
    pose = subject.pose if rng.rand() < 0.7 else ""
    size = subject.size if rng.rand() < 0.9 else ""
    words = [size, colour, subject.name, pose] if rng.rand() < 0.75 else [size, pose, colour, subject.name]
    return " ".join(word for word in words if word)


def _backdrop_phrase(scene: Scene, rng: np.random.RandomState) -> str:
    if scene.backdrop == "plain":
        form = ("on a {} background", "{} background", "on a plain {} background")[rng.randint(3)]
        return form.format(scene.backdrop_colour)
    phrases = BACKDROPS[scene.backdrop][1]
    return phrases[rng.randint(len(phrases))]


def _unknown_word(rng: np.random.RandomState) -> str:
    if rng.rand() < 0.35:
        return _FILLERS[rng.randint(len(_FILLERS))]
    word = "".join(_SYLLABLES[rng.randint(len(_SYLLABLES))] for _ in range(rng.randint(1, 4)))
    chance = rng.rand()
    if chance < 0.25:
        return f"{word}_{_SYLLABLES[rng.randint(len(_SYLLABLES))]}"
    return f"{word}{rng.randint(10)}" if chance < 0.4 else word


def draw_scenes(count: int, seed: int) -> tuple[NDArray[np.uint8], list[Scene]]:
    """Draw many scenes: pixels (count, 32, 32, 3) and what they show."""
    rng = np.random.RandomState(seed)
    pixels = np.zeros((count, 32, 32, 3), dtype=np.uint8)
    scenes: list[Scene] = []
    for index in range(count):
        pixels[index], scene = draw_scene(rng)
        scenes.append(scene)
    return pixels, scenes
