"""What a body has to be beyond the types of its fields, as JSON Schema: for the document, which is to say all of it.

Fields that clients fill in ways of their own are decoded leniently and checked where they are read. Here stands what
those checks let through, so that whoever makes requests from the document is not refused. What no schema can say, that
one field names what another has, is said in words beside the field.
"""

from server.api.precise import chat, knowledge, llamacpp, messages, ollama, responses, vectors
from server.api.precise.forms import Schema, absent, either
from server.api.precise.knowledge import LOCAL_TIERS, declared_filter
from server.api.precise.pictures import pictures

__all__ = [
    "FIELDS",
    "LACKING",
    "LOCAL_TIERS",
    "NAMED",
    "RULES",
    "Schema",
    "absent",
    "declared_filter",
    "either",
    "pictures",
]

FIELDS: dict[str, dict[str, Schema]] = {
    **chat.FIELDS,
    **knowledge.FIELDS,
    **llamacpp.FIELDS,
    **messages.FIELDS,
    **ollama.FIELDS,
    **responses.FIELDS,
    **vectors.FIELDS,
}
"""By the type, then the field: its schema, in place of that of the type it is decoded into."""
RULES: dict[str, list[Schema]] = {
    **chat.RULES,
    **knowledge.RULES,
    **llamacpp.RULES,
    **messages.RULES,
    **ollama.RULES,
    **responses.RULES,
    **vectors.RULES,
}
"""By the type: what its fields have to be together."""
NAMED: dict[str, Schema] = {**knowledge.NAMED, **messages.NAMED, **ollama.NAMED, **responses.NAMED}
"""Schemas that others refer to."""
LACKING: dict[str, dict[str, dict[str, Schema]]] = {
    **chat.LACKING,
    **llamacpp.LACKING,
    **messages.LACKING,
    **ollama.LACKING,
}
"""By the type, then the ability: what its fields are where no model has it."""
