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
    "beautiful detailed masterpiece quality photo style retro game sprite cute happy little looking at camera "
    "wearing colorful bright high best 8k trending render anime old new playing very sharp simple lovely icon"
).split()
_OPENINGS = ("", "", "", "", "pixel art of a", "a picture of a", "a photo of a", "a drawing of a", "pixel art", "one")


@dataclass(frozen=True)
class Subject:
    """Hold what is to be said of one thing in a scene; an empty text is never said."""

    name: str
    colour: str
    colour_matters: bool
    pose: str
    size: str


@dataclass(frozen=True)
class Scene:
    """Hold what a scene shows."""

    subjects: tuple[Subject, ...]
    backdrop: str
    backdrop_colour: str


def draw_scene(rng: np.random.RandomState) -> tuple[NDArray[np.uint8], Scene]:
    """Draw one scene and return its pixels (32, 32, 3) with what it shows."""
    picture, draw = canvas()
    kinds = [*BACKDROPS, "plain", "plain"]
    backdrop, backdrop_colour = kinds[rng.randint(len(kinds))], ""
    if backdrop == "plain":
        backdrop_colour = list(COLOURS)[rng.randint(len(COLOURS))]
        draw.rectangle([0, 0, 31, 31], fill=jitter(COLOURS[backdrop_colour], rng))
    else:
        BACKDROPS[backdrop][0](draw, rng)
    if rng.rand() < 0.12:
        names = _pick_name(rng), _pick_name(rng)
        sides = [float(rng.randint(0, 3)), float(rng.randint(16, 18))]
        subjects = tuple(
            _draw_subject(draw, rng, name, backdrop_colour, (left, 14.0))
            for name, left in zip(names, sides, strict=True)
        )
    else:
        subjects = (_draw_subject(draw, rng, _pick_name(rng), backdrop_colour, None),)
    return np.asarray(picture, dtype=np.uint8), Scene(subjects, backdrop, backdrop_colour)


def _pick_name(rng: np.random.RandomState) -> str:
    names = [name for name, (_, _, weight) in OBJECTS.items() for _ in range(weight)]
    return names[rng.randint(len(names))]


def _draw_subject(
    draw: ImageDraw.ImageDraw,
    rng: np.random.RandomState,
    name: str,
    taken_colour: str,
    place: tuple[float, float] | None,
) -> Subject:
    drawer, natural, _ = OBJECTS[name]
    matters = rng.rand() < 0.6
    choices = [colour for colour in (list(COLOURS) if matters else natural) if colour != taken_colour]
    colour_name = choices[rng.randint(len(choices))]
    size_name = ""
    if place is None:
        draw_size = rng.rand()
        if draw_size < 0.12:
            size_name, size = "small", float(rng.randint(12, 15))
        elif draw_size < 0.24:
            size_name, size = "big", float(rng.randint(25, 28))
        else:
            size = float(rng.randint(18, 24))
        left = (31 - size) / 2 + rng.randint(-4, 5)
    else:
        left, size = place
    top = min(30.0, 29 + rng.randint(-3, 2)) - size
    pen = Pen(draw, left, top, size)
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
    return Subject(name, colour_name, matters, pose, size_name)


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
