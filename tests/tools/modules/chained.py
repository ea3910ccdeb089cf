"""Tools with the interface of LangChain's, as its own documentation describes it."""

import asyncio
from typing import Any, ClassVar

from pydantic import BaseModel, Field


class Sum(BaseModel):
    """What to add."""

    a: int = Field(description="The first.")
    b: int = Field(default=1, description="The second.")


class Adder:
    """Made with an argument, called either way."""

    name = "adder"
    description = "Adds what it is given to what it has."
    args_schema = Sum

    def __init__(self, start: int = 0) -> None:
        self._start = start

    def invoke(self, arguments: dict[str, Any]) -> int:
        return self._start + int(arguments["a"]) + int(arguments.get("b", 1))

    async def ainvoke(self, arguments: dict[str, Any]) -> int:
        await asyncio.sleep(0)
        return self.invoke(arguments)


class Mapped:
    """Its schema is a mapping, and it is called in one way only."""

    name = "mapped"
    description = "Tells the length of a text."
    tool_call_schema: ClassVar[dict[str, Any]] = {
        "title": "Mapped",
        "type": "object",
        "properties": {"text": {"type": "string"}},
    }

    def invoke(self, arguments: dict[str, Any]) -> int:
        return len(arguments["text"])


class Nameless:
    """Has half of the interface."""

    description = "It has no name."


class Schemaless:
    name = "schemaless"
    description = "It has no schema."
    args_schema = None

    def invoke(self, arguments: dict[str, Any]) -> None: ...


made = Adder(100)
