"""The recipe as a JSON Schema, for editors to complete, explain and underline; knows no recipe."""

import json
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from config.contradiction import TASKS
from config.recipe import Recipe
from config.section import PLACEHOLDER

FILE = Path(__file__).resolve().parent.parent / "recipes" / "recipe.schema.json"


class _RecipeSchema(GenerateJsonSchema):
    """Allows placeholders where numbers and words stand, but not for `engine`: it tells an editor which keys follow."""

    def int_schema(self, schema: core_schema.IntSchema) -> JsonSchemaValue:
        return _or_placeholder(super().int_schema(schema))

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        return _or_placeholder(super().float_schema(schema))

    def bool_schema(self, schema: core_schema.BoolSchema) -> JsonSchemaValue:
        return _or_placeholder(super().bool_schema(schema))

    def literal_schema(self, schema: core_schema.LiteralSchema) -> JsonSchemaValue:
        fixed = len(schema["expected"]) == 1 or TASKS.keys() >= set(schema["expected"])
        plain = super().literal_schema(schema)
        return plain if fixed else _or_placeholder(plain)

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        found = super().dict_schema(schema)
        return found | {"additionalProperties": False} if "patternProperties" in found else found

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        found = super().model_schema(schema)
        return {key: value for key, value in found.items() if key != "title"}

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _or_placeholder(schema: JsonSchemaValue) -> JsonSchemaValue:
    return {"anyOf": [schema, {"type": "string", "pattern": PLACEHOLDER}]}


def render() -> str:
    """The schema as it stands in recipes/recipe.schema.json, the same for the same code."""
    schema = {
        "$schema": GenerateJsonSchema.schema_dialect,
        "title": "Hearth recipe",
        **Recipe.model_json_schema(schema_generator=_RecipeSchema),
        "description": "One Hearth deployment: where it listens, its models, its knowledge, its assistants.",
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(render(), encoding="utf-8")
