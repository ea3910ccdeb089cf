"""What a deployment is, as one frozen value; knows nothing of servers, engines or databases."""

from config.fault import Fault, RecipeError
from config.load import load
from config.recipe import Recipe

__all__ = ["Fault", "Recipe", "RecipeError", "load"]
