"""Draw the things that tinyflux knows, each in a unit box and in a given colour."""

from __future__ import annotations

from collections.abc import Callable

from tinyflux_pen import INK, Colour, Pen, mix

WHITE: Colour = (248, 248, 246)
Drawer = Callable[[Pen, Colour], None]


def _tones(colour: Colour) -> tuple[Colour, Colour]:
    return mix(colour, INK, 0.55), mix(colour, WHITE, 0.4)


def _cat_head(pen: Pen, u: float, v: float, colour: Colour, eye: Colour | None) -> None:
    """Draw a head with its upper left corner at (u, v), 0.56 wide; no eye colour means asleep."""
    edge, light = _tones(colour)
    pen.shape([(u, v + 0.3), (u + 0.02, v - 0.04), (u + 0.24, v + 0.14)], colour, edge)
    pen.shape([(u + 0.56, v + 0.3), (u + 0.54, v - 0.04), (u + 0.32, v + 0.14)], colour, edge)
    pen.oval(u, v + 0.08, u + 0.56, v + 0.5, colour, edge)
    size = 2 if pen.size >= 17 else 1
    for side in (0.14, 0.36):
        if eye is None:
            pen.stroke([(u + side - 0.02, v + 0.29), (u + side + 0.09, v + 0.29)], edge)
        else:
            pen.dot(u + side, v + 0.23, eye, size)
            if size == 2:
                pen.dot(u + side + 0.03, v + 0.27, INK)
    pen.dot(u + 0.28, v + 0.38, (240, 130, 150))
    pen.dot(u + 0.28, v + 0.44, light)


def draw_cat(pen: Pen, colour: Colour, pose: str = "sitting", eye: Colour = INK, scarf: Colour | None = None) -> None:
    """Draw a cat in one of three poses: sitting, standing or sleeping."""
    edge, light = _tones(colour)
    if pose == "sitting":
        pen.stroke([(0.72, 0.93), (0.95, 0.88), (0.98, 0.6), (0.9, 0.5)], edge, 2)
        pen.oval(0.24, 0.46, 0.8, 1.0, colour, edge)
        pen.oval(0.4, 0.62, 0.62, 0.96, light)
        pen.stroke([(0.5, 0.72), (0.5, 0.98)], edge)
        _cat_head(pen, 0.22, 0.04, colour, eye)
        if scarf is not None:
            pen.box(0.3, 0.52, 0.72, 0.6, scarf)
            pen.box(0.6, 0.58, 0.7, 0.8, scarf)
    elif pose == "standing":
        pen.stroke([(0.1, 0.56), (0.0, 0.4), (0.06, 0.16)], edge, 2)
        for leg in (0.12, 0.28, 0.5, 0.64):
            pen.box(leg, 0.7, leg + 0.09, 1.0, colour, edge)
        pen.oval(0.04, 0.46, 0.78, 0.84, colour, edge)
        pen.oval(0.2, 0.66, 0.6, 0.82, light)
        _cat_head(pen, 0.44, 0.1, colour, eye)
        if scarf is not None:
            pen.box(0.52, 0.58, 0.9, 0.65, scarf)
            pen.box(0.5, 0.62, 0.6, 0.84, scarf)
    else:
        pen.oval(0.12, 0.5, 1.0, 1.0, colour, edge)
        pen.stroke([(0.96, 0.8), (0.8, 0.96), (0.5, 0.98)], edge, 2)
        _cat_head(pen, 0.0, 0.44, colour, None)
        if scarf is not None:
            pen.stroke([(0.56, 0.62), (0.62, 0.74), (0.58, 0.92)], scarf, 2)


def draw_dog(pen: Pen, colour: Colour, pose: str = "sitting") -> None:
    """Draw a dog with hanging ears and a long nose, sitting or standing."""
    edge, light = _tones(colour)
    if pose == "sitting":
        pen.stroke([(0.24, 0.9), (0.06, 0.7)], edge, 2)
        pen.oval(0.22, 0.44, 0.74, 1.0, colour, edge)
        pen.oval(0.44, 0.6, 0.66, 0.94, light)
        u, v = 0.3, 0.06
    else:
        pen.stroke([(0.08, 0.52), (0.0, 0.3)], edge, 2)
        for leg in (0.1, 0.24, 0.48, 0.6):
            pen.box(leg, 0.7, leg + 0.1, 1.0, colour, edge)
        pen.box(0.06, 0.46, 0.7, 0.78, colour, edge)
        u, v = 0.42, 0.12
    pen.oval(u, v, u + 0.46, v + 0.44, colour, edge)
    pen.oval(u + 0.24, v + 0.2, u + 0.62, v + 0.42, light, edge)
    pen.oval(u - 0.06, v + 0.04, u + 0.12, v + 0.46, edge)
    pen.dot(u + 0.28, v + 0.12, INK)
    pen.dot(u + 0.54, v + 0.22, INK, 2)


def draw_ball(pen: Pen, colour: Colour) -> None:
    """Draw a shaded ball with a highlight."""
    edge, light = _tones(colour)
    pen.oval(0.1, 0.2, 0.9, 1.0, colour, edge)
    pen.stroke([(0.18, 0.66), (0.5, 0.74), (0.82, 0.66)], edge)
    pen.oval(0.26, 0.32, 0.46, 0.5, light)


def draw_tree(pen: Pen, colour: Colour) -> None:
    """Draw a round crown on a trunk."""
    edge, light = _tones(colour)
    pen.box(0.42, 0.6, 0.58, 1.0, (112, 72, 40), (70, 44, 26))
    pen.oval(0.06, 0.18, 0.62, 0.7, colour, edge)
    pen.oval(0.38, 0.18, 0.94, 0.7, colour, edge)
    pen.oval(0.2, 0.0, 0.8, 0.56, colour)
    pen.oval(0.28, 0.1, 0.5, 0.28, light)


def draw_house(pen: Pen, colour: Colour) -> None:
    """Draw a house whose walls have the colour."""
    edge, _ = _tones(colour)
    pen.box(0.12, 0.44, 0.88, 1.0, colour, edge)
    pen.box(0.68, 0.08, 0.8, 0.34, (112, 72, 60))
    pen.shape([(0.0, 0.46), (0.5, 0.02), (1.0, 0.46)], (150, 62, 48), (92, 36, 30))
    pen.box(0.42, 0.66, 0.6, 1.0, (92, 58, 34))
    pen.box(0.2, 0.56, 0.34, 0.7, (176, 226, 250), edge)
    pen.box(0.68, 0.56, 0.82, 0.7, (176, 226, 250), edge)


def draw_car(pen: Pen, colour: Colour) -> None:
    """Draw a car from its side."""
    edge, light = _tones(colour)
    pen.shape([(0.2, 0.62), (0.32, 0.38), (0.68, 0.38), (0.82, 0.62)], colour, edge)
    pen.shape([(0.3, 0.6), (0.37, 0.45), (0.48, 0.45), (0.48, 0.6)], (186, 228, 246))
    pen.shape([(0.54, 0.6), (0.54, 0.45), (0.64, 0.45), (0.72, 0.6)], (186, 228, 246))
    pen.box(0.0, 0.6, 1.0, 0.86, colour, edge)
    pen.box(0.92, 0.66, 0.98, 0.72, (255, 240, 160))
    pen.stroke([(0.08, 0.66), (0.86, 0.66)], light)
    for wheel in (0.12, 0.64):
        pen.oval(wheel, 0.74, wheel + 0.26, 1.0, INK)
        pen.dot(wheel + 0.12, 0.86, (190, 190, 196))


def draw_fish(pen: Pen, colour: Colour) -> None:
    """Draw a fish with a forked tail."""
    edge, light = _tones(colour)
    pen.shape([(0.72, 0.56), (1.0, 0.28), (1.0, 0.84)], colour, edge)
    pen.shape([(0.3, 0.36), (0.5, 0.16), (0.62, 0.36)], edge)
    pen.oval(0.0, 0.3, 0.8, 0.82, colour, edge)
    pen.oval(0.2, 0.58, 0.6, 0.76, light)
    pen.dot(0.16, 0.46, WHITE, 2)
    pen.dot(0.16, 0.48, INK)


def draw_bird(pen: Pen, colour: Colour) -> None:
    """Draw a bird on two thin legs."""
    edge, light = _tones(colour)
    pen.stroke([(0.44, 0.8), (0.44, 1.0)], (220, 140, 50))
    pen.stroke([(0.56, 0.8), (0.56, 1.0)], (220, 140, 50))
    pen.shape([(0.2, 0.56), (0.0, 0.42), (0.06, 0.7)], edge)
    pen.oval(0.14, 0.36, 0.78, 0.86, colour, edge)
    pen.oval(0.5, 0.12, 0.9, 0.54, colour, edge)
    pen.shape([(0.88, 0.28), (1.0, 0.36), (0.86, 0.42)], (246, 170, 50))
    pen.oval(0.24, 0.5, 0.54, 0.7, light, edge)
    pen.dot(0.72, 0.28, INK)


def draw_flower(pen: Pen, colour: Colour) -> None:
    """Draw a flower with six petals and a stem."""
    edge, _ = _tones(colour)
    pen.stroke([(0.5, 0.5), (0.5, 1.0)], (46, 128, 52), 2)
    pen.oval(0.52, 0.74, 0.78, 0.88, (70, 160, 66))
    for u, v in ((0.16, 0.2), (0.36, 0.02), (0.58, 0.2), (0.16, 0.42), (0.36, 0.5), (0.58, 0.42)):
        pen.oval(u, v - 0.02, u + 0.28, v + 0.22, colour, edge)
    pen.oval(0.36, 0.26, 0.64, 0.52, (250, 214, 80), (200, 150, 40))


def draw_boat(pen: Pen, colour: Colour) -> None:
    """Draw a boat with a white sail."""
    edge, _ = _tones(colour)
    pen.stroke([(0.5, 0.02), (0.5, 0.74)], (92, 62, 40), 2)
    pen.shape([(0.56, 0.06), (0.94, 0.62), (0.56, 0.62)], WHITE, (180, 180, 190))
    pen.shape([(0.44, 0.2), (0.14, 0.62), (0.44, 0.62)], (226, 226, 232), (180, 180, 190))
    pen.shape([(0.0, 0.7), (1.0, 0.7), (0.8, 1.0), (0.2, 1.0)], colour, edge)


def draw_mushroom(pen: Pen, colour: Colour) -> None:
    """Draw a mushroom with a spotted cap."""
    edge, _ = _tones(colour)
    pen.box(0.36, 0.5, 0.64, 1.0, (240, 228, 204), (170, 150, 124))
    pen.oval(0.04, 0.08, 0.96, 0.86, colour, edge)
    pen.dot(0.26, 0.32, WHITE, 2)
    pen.dot(0.56, 0.22, WHITE, 2)
    pen.dot(0.7, 0.48, WHITE, 2)


def draw_star(pen: Pen, colour: Colour) -> None:
    """Draw a star with five points."""
    edge, _ = _tones(colour)
    points = [(0.5, 0.0), (0.63, 0.36), (1.0, 0.38), (0.7, 0.6), (0.82, 1.0), (0.5, 0.76)]
    mirrored = [(1.0 - u, v) for u, v in reversed(points[1:-1])]
    pen.shape([*points, *mirrored], colour, edge)


def draw_heart(pen: Pen, colour: Colour) -> None:
    """Draw a heart."""
    edge, light = _tones(colour)
    pen.shape([(0.04, 0.42), (0.5, 1.0), (0.96, 0.42)], colour, edge)
    pen.oval(0.02, 0.1, 0.52, 0.6, colour, edge)
    pen.oval(0.48, 0.1, 0.98, 0.6, colour, edge)
    pen.shape([(0.1, 0.44), (0.5, 0.9), (0.9, 0.44), (0.5, 0.3)], colour)
    pen.oval(0.16, 0.22, 0.32, 0.36, light)


def draw_apple(pen: Pen, colour: Colour) -> None:
    """Draw an apple with a leaf."""
    edge, light = _tones(colour)
    pen.stroke([(0.5, 0.3), (0.54, 0.06)], (92, 62, 40), 2)
    pen.oval(0.56, 0.04, 0.86, 0.2, (84, 170, 64))
    pen.oval(0.08, 0.24, 0.62, 1.0, colour, edge)
    pen.oval(0.38, 0.24, 0.92, 1.0, colour, edge)
    pen.oval(0.24, 0.3, 0.76, 0.94, colour)
    pen.oval(0.2, 0.38, 0.36, 0.56, light)


def draw_rocket(pen: Pen, colour: Colour) -> None:
    """Draw a rocket with a flame."""
    edge, _ = _tones(colour)
    pen.shape([(0.36, 0.78), (0.5, 1.0), (0.64, 0.78)], (252, 176, 60))
    pen.shape([(0.3, 0.5), (0.08, 0.84), (0.3, 0.78)], edge)
    pen.shape([(0.7, 0.5), (0.92, 0.84), (0.7, 0.78)], edge)
    pen.shape([(0.5, 0.0), (0.72, 0.28), (0.72, 0.8), (0.28, 0.8), (0.28, 0.28)], colour, edge)
    pen.oval(0.38, 0.3, 0.62, 0.52, (186, 228, 246), edge)


def draw_robot(pen: Pen, colour: Colour) -> None:
    """Draw a robot with an antenna and square eyes."""
    edge, light = _tones(colour)
    pen.stroke([(0.5, 0.14), (0.5, 0.0)], edge)
    pen.box(0.24, 0.12, 0.76, 0.46, colour, edge)
    pen.dot(0.36, 0.24, (250, 240, 120), 2)
    pen.dot(0.58, 0.24, (250, 240, 120), 2)
    pen.box(0.04, 0.52, 0.18, 0.8, colour, edge)
    pen.box(0.82, 0.52, 0.96, 0.8, colour, edge)
    pen.box(0.2, 0.48, 0.8, 0.84, colour, edge)
    pen.box(0.38, 0.56, 0.62, 0.7, light)
    pen.box(0.26, 0.84, 0.42, 1.0, edge)
    pen.box(0.58, 0.84, 0.74, 1.0, edge)


def draw_cup(pen: Pen, colour: Colour) -> None:
    """Draw a cup with a handle and steam."""
    edge, light = _tones(colour)
    pen.oval(0.62, 0.46, 0.98, 0.84, edge)
    pen.oval(0.72, 0.56, 0.88, 0.74, light)
    pen.shape([(0.1, 0.36), (0.76, 0.36), (0.68, 1.0), (0.18, 1.0)], colour, edge)
    pen.stroke([(0.32, 0.28), (0.38, 0.16), (0.32, 0.04)], (222, 222, 226))
    pen.stroke([(0.54, 0.28), (0.6, 0.16), (0.54, 0.04)], (222, 222, 226))


def draw_hat(pen: Pen, colour: Colour) -> None:
    """Draw a tall hat with a band."""
    edge, light = _tones(colour)
    pen.box(0.24, 0.2, 0.76, 0.84, colour, edge)
    pen.box(0.24, 0.62, 0.76, 0.74, light)
    pen.box(0.02, 0.82, 0.98, 0.96, colour, edge)


def draw_umbrella(pen: Pen, colour: Colour) -> None:
    """Draw an open umbrella."""
    edge, light = _tones(colour)
    pen.stroke([(0.5, 0.4), (0.5, 0.94), (0.38, 0.98), (0.32, 0.88)], (92, 62, 40))
    points = [(0.0, 0.52), (0.1, 0.24), (0.34, 0.06), (0.66, 0.06), (0.9, 0.24), (1.0, 0.52)]
    pen.shape([*points, (0.76, 0.44), (0.5, 0.52), (0.24, 0.44)], colour, edge)
    pen.stroke([(0.5, 0.06), (0.26, 0.42)], light)
    pen.stroke([(0.5, 0.06), (0.74, 0.42)], light)


def draw_butterfly(pen: Pen, colour: Colour) -> None:
    """Draw a butterfly with four wings."""
    edge, light = _tones(colour)
    for u in (0.0, 0.54):
        pen.oval(u, 0.12, u + 0.46, 0.56, colour, edge)
        pen.oval(u + 0.06, 0.5, u + 0.4, 0.88, colour, edge)
        pen.dot(u + 0.2, 0.3, light, 2)
    pen.oval(0.44, 0.2, 0.56, 0.86, INK)
    pen.stroke([(0.48, 0.22), (0.36, 0.04)], INK)
    pen.stroke([(0.52, 0.22), (0.64, 0.04)], INK)


def draw_snail(pen: Pen, colour: Colour) -> None:
    """Draw a snail with a round shell."""
    edge, light = _tones(colour)
    pen.oval(0.0, 0.78, 0.9, 1.0, (226, 190, 142), (150, 116, 80))
    pen.oval(0.7, 0.46, 0.92, 0.96, (226, 190, 142), (150, 116, 80))
    pen.stroke([(0.86, 0.48), (0.96, 0.28)], (150, 116, 80))
    pen.dot(0.82, 0.56, INK)
    pen.oval(0.06, 0.26, 0.72, 0.92, colour, edge)
    pen.oval(0.22, 0.42, 0.58, 0.76, light, edge)


def draw_balloon(pen: Pen, colour: Colour) -> None:
    """Draw a balloon on a string."""
    edge, light = _tones(colour)
    pen.stroke([(0.5, 0.66), (0.56, 0.8), (0.46, 1.0)], (230, 230, 230))
    pen.oval(0.16, 0.0, 0.84, 0.7, colour, edge)
    pen.shape([(0.42, 0.76), (0.5, 0.66), (0.58, 0.76)], colour, edge)
    pen.oval(0.28, 0.12, 0.44, 0.3, light)


def draw_ghost(pen: Pen, colour: Colour) -> None:
    """Draw a ghost with big eyes."""
    edge, _ = _tones(colour)
    pen.oval(0.12, 0.02, 0.88, 0.7, colour, edge)
    points = [(0.12, 0.4), (0.88, 0.4), (0.88, 1.0), (0.72, 0.86), (0.5, 1.0), (0.28, 0.86), (0.12, 1.0)]
    pen.shape(points, colour, edge)
    pen.box(0.2, 0.36, 0.8, 0.6, colour)
    pen.oval(0.28, 0.28, 0.42, 0.48, INK)
    pen.oval(0.58, 0.28, 0.72, 0.48, INK)


def draw_castle(pen: Pen, colour: Colour) -> None:
    """Draw a castle with two towers and a gate."""
    edge, _ = _tones(colour)
    pen.box(0.14, 0.44, 0.86, 1.0, colour, edge)
    for u in (0.0, 0.7):
        pen.box(u, 0.26, u + 0.3, 1.0, colour, edge)
        pen.shape([(u - 0.02, 0.28), (u + 0.15, 0.0), (u + 0.32, 0.28)], (168, 56, 60), (100, 34, 40))
        pen.dot(u + 0.13, 0.46, INK, 2)
    pen.oval(0.38, 0.6, 0.62, 0.86, (76, 50, 34))
    pen.box(0.38, 0.74, 0.62, 1.0, (76, 50, 34))


def draw_duck(pen: Pen, colour: Colour) -> None:
    """Draw a duck on the water line."""
    edge, light = _tones(colour)
    pen.shape([(0.1, 0.6), (0.0, 0.4), (0.26, 0.56)], colour, edge)
    pen.oval(0.04, 0.5, 0.84, 1.0, colour, edge)
    pen.oval(0.5, 0.08, 0.88, 0.56, colour, edge)
    pen.shape([(0.86, 0.28), (1.0, 0.34), (1.0, 0.42), (0.84, 0.44)], (244, 150, 40))
    pen.oval(0.2, 0.6, 0.58, 0.84, light, edge)
    pen.dot(0.7, 0.24, INK)


def draw_rabbit(pen: Pen, colour: Colour) -> None:
    """Draw a rabbit with long ears."""
    edge, light = _tones(colour)
    pen.oval(0.28, 0.0, 0.42, 0.44, colour, edge)
    pen.oval(0.54, 0.0, 0.68, 0.44, colour, edge)
    pen.oval(0.22, 0.56, 0.76, 1.0, colour, edge)
    pen.oval(0.36, 0.7, 0.62, 0.96, light)
    pen.oval(0.2, 0.28, 0.76, 0.68, colour, edge)
    pen.dot(0.34, 0.44, INK)
    pen.dot(0.6, 0.44, INK)
    pen.dot(0.47, 0.54, (240, 130, 150))
    pen.oval(0.72, 0.78, 0.9, 0.94, light)


POSES: dict[str, tuple[str, ...]] = {"cat": ("sitting", "standing", "sleeping"), "dog": ("sitting", "standing")}

# What each thing is coloured where the caption names no colour, and how often it is drawn.
OBJECTS: dict[str, tuple[Drawer, tuple[str, ...], int]] = {
    "cat": (draw_cat, ("orange", "gray", "black", "white", "brown", "cream"), 4),
    "dog": (draw_dog, ("brown", "cream", "black", "white", "orange"), 2),
    "ball": (draw_ball, ("red", "blue", "yellow", "green"), 2),
    "tree": (draw_tree, ("green", "green", "orange"), 2),
    "house": (draw_house, ("cream", "white", "yellow", "red"), 2),
    "car": (draw_car, ("red", "blue", "yellow", "white"), 2),
    "fish": (draw_fish, ("orange", "blue", "yellow"), 1),
    "bird": (draw_bird, ("blue", "red", "yellow", "brown"), 1),
    "flower": (draw_flower, ("red", "pink", "purple", "white"), 1),
    "boat": (draw_boat, ("brown", "red", "blue"), 1),
    "mushroom": (draw_mushroom, ("red", "red", "brown"), 1),
    "star": (draw_star, ("yellow", "yellow", "white"), 1),
    "heart": (draw_heart, ("red", "pink"), 1),
    "apple": (draw_apple, ("red", "green", "yellow"), 1),
    "rocket": (draw_rocket, ("white", "red", "gray"), 1),
    "robot": (draw_robot, ("gray", "blue", "white"), 1),
    "cup": (draw_cup, ("white", "blue", "brown"), 1),
    "hat": (draw_hat, ("black", "purple", "brown"), 1),
    "umbrella": (draw_umbrella, ("red", "purple", "blue"), 1),
    "butterfly": (draw_butterfly, ("orange", "blue", "pink"), 1),
    "snail": (draw_snail, ("brown", "orange", "purple"), 1),
    "balloon": (draw_balloon, ("red", "blue", "yellow"), 1),
    "ghost": (draw_ghost, ("white", "white", "gray"), 1),
    "castle": (draw_castle, ("gray", "gray", "cream"), 1),
    "duck": (draw_duck, ("yellow", "white", "brown"), 1),
    "rabbit": (draw_rabbit, ("white", "gray", "brown"), 1),
}
