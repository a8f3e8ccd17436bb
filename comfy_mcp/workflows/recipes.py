"""How each family is rendered: its nodes, its settings by default, and what is asked of it by mistake.

A family that can be built has one row here; the builder reads nothing else of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from comfy_mcp.workflows.families import FLUX, SD3, SD15, SDXL, title_of
from mcp_toolserver.errors import InvalidArguments, closest


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Hold a family's defaults and the differences of its graph.

    `guidance` is None where the family has no FluxGuidance; such a family takes `cfg` as asked, the others always 1.0.
    `split_loader` and `split_type` load the text encoders where the model comes in parts. `samplers` and `schedulers`
    are those that suit the family, and empty where all do; `unfit_schedulers` are replaced.
    """

    family: str
    width: int = 1024
    height: int = 1024
    steps: int = 20
    cfg: float = 7.0
    guidance: float | None = None
    sampler: str = "euler"
    scheduler: str = "normal"
    latent: str = "EmptyLatentImage"
    split_loader: str | None = None
    split_type: str | None = None
    samplers: tuple[str, ...] = ()
    schedulers: tuple[str, ...] = ()
    unfit_schedulers: frozenset[str] = field(default_factory=frozenset[str])
    advised_steps: tuple[int, int] | None = None


RECIPES: Mapping[str, Recipe] = {
    recipe.family: recipe
    for recipe in (
        Recipe(
            family=FLUX,
            cfg=1.0,
            guidance=3.5,
            sampler="heunpp2",
            scheduler="simple",
            split_loader="DualCLIPLoader",
            split_type="flux",
            samplers=("heunpp2", "dpmpp_2m", "euler_ancestral"),
            schedulers=("simple", "beta", "sgm_uniform"),
            unfit_schedulers=frozenset({"normal", "karras", "exponential"}),
            advised_steps=(20, 30),
        ),
        Recipe(family=SDXL, steps=25, split_loader="DualCLIPLoader", split_type="sdxl"),
        Recipe(family=SD15, width=512, height=512, steps=25),
        Recipe(
            family=SD3,
            steps=28,
            cfg=4.5,
            sampler="dpmpp_2m",
            scheduler="sgm_uniform",
            latent="EmptySD3LatentImage",
            split_loader="TripleCLIPLoader",
        ),
    )
}


def recipe_of(family: str) -> Recipe:
    """Return a family's recipe; raises InvalidArguments with those that there are."""
    recipe = RECIPES.get(family)
    if recipe is None:
        raise InvalidArguments(
            f"There is no built-in graph for {title_of(family)} (`{family}`).",
            hint=f"Built-in graphs exist for {', '.join(RECIPES)}; send your own graph with `execute-workflow`.",
            details={"family": family, "families": list(RECIPES), "closest_matches": closest(family, RECIPES)},
        )
    return recipe
