"""What models are asked to answer with: bounded, because random weights end nothing by themselves."""

from pydantic import BaseModel, Field

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 8},
        "days": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}


class Trip(BaseModel):
    city: str = Field(max_length=8)
    days: int = Field(ge=0, le=99)
