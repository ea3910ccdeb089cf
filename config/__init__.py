"""What a deployment is, as one frozen value; knows nothing of servers, engines or databases."""

from config.fault import Fault, RecipeError
from config.load import all_keys, keys_in, load
from config.recipe import Recipe

__all__ = ["Fault", "Recipe", "RecipeError", "all_keys", "keys_in", "load"]
