"""Training recipes: from what a caller asks to the exact document that AI Toolkit runs. Pure."""

from aitk_mcp.recipes.build import Place, Recipe, build_config
from aitk_mcp.recipes.request import RecipeOptions, RecipeRequest

__all__ = ["Place", "Recipe", "RecipeOptions", "RecipeRequest", "build_config"]
