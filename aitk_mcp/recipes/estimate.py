"""How long a training will take, as far as anything is known of it."""

from dataclasses import dataclass

from aitk_mcp.recipes.presets import SECONDS_PER_STEP

_EMBEDDED_SECONDS_PER_STEP = 0.03


@dataclass(frozen=True)
class Estimate:
    """The size of a training: `epochs` passes over the images; `seconds` is None where nothing was ever measured."""

    steps: int
    images: int | None
    epochs: float | None
    seconds: float | None
    based_on: str


def estimate(arch: str, steps: int, batch_size: int, images: int | None, engine: str) -> Estimate:
    """Estimate a training of an architecture on an engine; the time of loading the model is not in it."""
    epochs = round(steps * batch_size / images, 2) if images else None
    if engine == "embedded":
        seconds = steps * _EMBEDDED_SECONDS_PER_STEP
        return Estimate(steps, images, epochs, round(seconds, 1), "the embedded engine on two CPU cores")
    measured = SECONDS_PER_STEP.get(arch)
    if measured is None:
        return Estimate(steps, images, epochs, None, f"nothing: no time a step is known for `{arch}`")
    return Estimate(steps, images, epochs, round(steps * batch_size * measured["seconds"]), measured["on"])
