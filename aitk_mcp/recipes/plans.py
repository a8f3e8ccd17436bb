"""Apply the plan of an ecosystem: its defaults where a request says nothing, its bounds where it does."""

from collections.abc import Iterator
from typing import Any

from aitk_mcp.recipes.ecosystems import Bounds, Plan
from aitk_mcp.recipes.problems import Problem
from aitk_mcp.recipes.request import RecipeRequest


def planned(request: RecipeRequest, plan: Plan, images: int | None) -> RecipeRequest:
    """Return a request with the plan's defaults for whatever it leaves out.

    Epochs become steps by the number of images, so that they are left to the request's own default while that is
    unknown.
    """
    said = request.model_fields_set
    defaults: dict[str, Any] = {
        "resolution": plan.resolution,
        "learning_rate": plan.learning_rate,
        "rank": plan.rank.default,
        # Alpha goes with the rank: at a rank that was chosen, a fixed alpha would change how strongly it learns.
        "alpha": request.rank if "rank" in said else plan.alpha.default,
        "train_text_encoder": plan.train_text_encoder,
    }
    trains_text_encoder = request.train_text_encoder if "train_text_encoder" in said else plan.train_text_encoder
    if trains_text_encoder and plan.text_encoder_lr is not None:
        defaults["text_encoder_lr"] = plan.text_encoder_lr
    if "steps" not in said and images:
        defaults["epochs"] = plan.epochs.default
    missing = {name: value for name, value in defaults.items() if name not in said}
    return request.model_copy(update=missing)


def out_of_bounds(request: RecipeRequest, plan: Plan) -> Iterator[Problem]:
    """Yield a problem for each number that a caller set outside of the plan's bounds."""
    numbers: tuple[tuple[str, float | None, Bounds], ...] = (
        ("epochs", request.epochs, plan.epochs),
        ("rank", request.rank, plan.rank),
        ("alpha", request.alpha, plan.alpha),
    )
    for name, value, bounds in numbers:
        if name in request.model_fields_set and value is not None and not bounds.min <= value <= bounds.max:
            nearest = min(max(value, bounds.min), bounds.max)
            yield Problem(
                name,
                f"`{name}` is {value:g}; ecosystem `{request.ecosystem}` takes {bounds.min} to {bounds.max}.",
                hint=f"Use {nearest:g}, or name an architecture of list-model-presets as `ecosystem`, which has no"
                " such bounds.",
                closest_matches=(f"{nearest:g}",),
            )
