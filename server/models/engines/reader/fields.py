"""The fields of a JSON Schema as questions: what each is called and holds, what its schema asks. No model in here."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import jsonschema_rs

Schema = Mapping[str, Any]

_DEEPEST = 8
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_ASIDE = re.compile(
    r"\s*\([^()]*\)|\s*[,;:(]?\s*(?:\be\.g\.|\bi\.e\.|\b(?:for example|such as|like|in the format|formatted as)\b).*",
    re.IGNORECASE | re.DOTALL,
)
_ASKS = re.compile(r"^(?:who|what|when|where|which|why|how|whose)\b|\?\s*$", re.IGNORECASE)
_DATE = re.compile(r"\b(?:date|day|deadline|birthday|YYYY|when)\b", re.IGNORECASE)
_TIME = re.compile(r"\b(?:time|hour|HH)\b", re.IGNORECASE)
_ISO_DATE = re.compile(r"YYYY-MM-DD|ISO[ -]?8601|ISO date", re.IGNORECASE)
_ISO_TIME = re.compile(r"HH:MM|24[ -]?hour", re.IGNORECASE)
_ADDRESSES = {
    "email": re.compile(r"\be[ -]?mail(?: address)?\b", re.IGNORECASE),
    "url": re.compile(r"\b(?:url|uri|link|web ?site|web ?page|web address)\b", re.IGNORECASE),
    "host": re.compile(r"\bhost ?(?:name)?\b|\bdomain\b|\bfqdn\b", re.IGNORECASE),
    "phone": re.compile(r"\bphone(?: number)?\b|\btelephone\b|\bmobile number\b", re.IGNORECASE),
}
_EMAIL_ADDRESS = re.compile(r"\be[ -]?mail address\b", re.IGNORECASE)
"""In a description, of a field with another name such as "to"."""
_FORMATS = {
    "email": "email",
    "idn-email": "email",
    "uri": "url",
    "url": "url",
    "iri": "url",
    "hostname": "host",
    "date": "date",
    "time": "time",
    "date-time": "moment",
}


def spaced(name: str) -> str:
    """`name` as words: postalCode and postal_code are "postal code"."""
    return " ".join(word if word.isupper() and len(word) > 1 else word.lower() for word in _WORDS.findall(name)) or name


@dataclass(frozen=True)
class Field:
    """One value to be found. `kind` is a JSON type, or what a string of it is: enum, date, time, moment, email, url,
    host, phone. `about` is what the whole object is called, for fields without a description."""

    name: str
    schema: Schema
    kind: str
    required: bool
    nullable: bool = False
    about: str = ""
    options: tuple[Any, ...] = ()
    inner: tuple["Field", ...] = field(default=())
    """The fields of an object; of an array the one field that each item is."""

    @property
    def words(self) -> str:
        """Its name and description, as words."""
        return f"{spaced(self.name)} {self.schema.get('description') or ''}".strip()

    @property
    def described(self) -> str:
        """The first line of its description, without examples."""
        return _ASIDE.sub("", str(self.schema.get("description") or "").split("\n")[0]).strip().rstrip(".")

    @property
    def question(self) -> str:
        """What to ask a reader for it."""
        described = self.described
        if described and _ASKS.search(described):
            return described if described.endswith("?") else f"{described}?"
        plain = f"the {spaced(self.name)}" + (f" of the {self.about}" if self.about else "")
        told = described[:1].lower() + described[1:] if described[1:2].islower() or not described[1:2] else described
        return f"What is {told or plain}?"

    @property
    def plain(self) -> str:
        """How to call it when asking a person."""
        described, name = self.described, spaced(self.name)
        said = set(re.findall(r"\w+", described.lower())) - {"the", "a", "an", "of"} - set(name.lower().split())
        return f"{name} ({described[:1].lower()}{described[1:]})" if said else name

    @property
    def iso(self) -> bool:
        """Whether a date or time is to be written as the standard does, instead of in the person's words."""
        told = str(self.schema.get("description") or "")
        return "format" in self.schema or bool((_ISO_DATE if self.kind == "date" else _ISO_TIME).search(told))

    def accepts(self, value: object) -> bool:
        """Whether `value` fits this field's own schema, what it refers to left aside."""
        own = {key: told for key, told in self.schema.items() if key not in ("properties", "items", "$ref", "required")}
        try:
            return bool(jsonschema_rs.validator_for(own, offline=True).is_valid(value))
        except (jsonschema_rs.ValidationError, ValueError):
            return True  # what the rest of the schema makes of it is judged once all is there


def fields(schema: Schema) -> tuple[Field, ...]:
    """Those of an object's `schema`, in its order."""
    return _fields(schema, schema, 0)


def whole(schema: Schema) -> Field:
    """`schema` itself as one field, which an answer as a whole is."""
    return _field("", schema, schema, True, "", 0)


def _fields(schema: Schema, root: Schema, depth: int) -> tuple[Field, ...]:
    required = schema.get("required") or ()
    about = spaced(str(schema.get("title") or ""))
    listed = schema.get("properties")
    if not isinstance(listed, Mapping) or depth > _DEEPEST:
        return ()
    return tuple(
        _field(name, told if isinstance(told, Mapping) else {}, root, name in required, about, depth)
        for name, told in listed.items()
    )


def _field(name: str, told: Schema, root: Schema, required: bool, about: str, depth: int) -> Field:
    schema, nullable = _resolved(told, root)
    kind, options = _kind(name, schema)
    inner: tuple[Field, ...] = ()
    if kind == "object":
        inner = _fields(schema, root, depth + 1)
    elif kind == "array":
        items = schema.get("items")
        inner = (
            (_field(name, _described(items, schema), root, True, about, depth + 1),)
            if isinstance(items, Mapping) and depth < _DEEPEST
            else ()
        )
    return Field(name, schema, kind, required, nullable, about, options, inner)


def _described(items: Schema, array: Schema) -> Schema:
    """An item without words of its own is what its array is."""
    return (
        items if "description" in items or "$ref" in items else {**items, "description": array.get("description") or ""}
    )


def _resolved(told: Schema, root: Schema, depth: int = 0) -> tuple[Schema, bool]:
    """The schema of the value, with what it refers to in it, and whether null is one too."""
    schema = dict(told)
    reference = schema.pop("$ref", None)
    if isinstance(reference, str) and reference.startswith("#") and depth < _DEEPEST:
        target: Any = root
        for step in reference[1:].strip("/").split("/") if reference != "#" else ():
            target = target.get(step.replace("~1", "/").replace("~0", "~"), {}) if isinstance(target, Mapping) else {}
        referred, nullable = _resolved(target if isinstance(target, Mapping) else {}, root, depth + 1)
        return {**referred, **schema}, nullable
    for key in ("anyOf", "oneOf", "allOf"):
        ways = schema.get(key)
        if isinstance(ways, list) and ways and "type" not in schema and depth < _DEEPEST:
            real = [way for way in ways if isinstance(way, Mapping) and way.get("type") != "null"]
            chosen, nullable = _resolved(real[0], root, depth + 1) if real else ({}, True)
            rest = {each: value for each, value in schema.items() if each != key}
            return {**chosen, **rest}, nullable or (key != "allOf" and len(real) < len(ways))
    types = schema.get("type")
    if isinstance(types, list):
        named = [each for each in types if each != "null"]
        return {**schema, "type": named[0] if named else "null"}, "null" in types
    return schema, schema.get("type") == "null" or schema.get("nullable") is True or None in (schema.get("enum") or ())


def _kind(name: str, schema: Schema) -> tuple[str, tuple[Any, ...]]:
    if "const" in schema:
        return "const", (schema["const"],)
    if isinstance(schema.get("enum"), list):
        return "enum", tuple(option for option in schema["enum"] if option is not None)
    told = schema.get("type")
    if told == "string" or (told is None and "properties" not in schema and "items" not in schema):
        return _of_string(name, schema), ()
    if told is None:
        return ("object" if "properties" in schema else "array"), ()
    return str(told), ()


def _of_string(name: str, schema: Schema) -> str:
    if (told := _FORMATS.get(str(schema.get("format")))) is not None:
        return told
    named, described = spaced(name), str(schema.get("description") or "")
    for kind, pattern in _ADDRESSES.items():
        if pattern.search(named):
            return kind
    if _EMAIL_ADDRESS.search(described):
        return "email"
    if _DATE.search(named) or "YYYY" in described:
        return "date"
    if _TIME.search(named) and not re.search(r"\btime ?zone\b", named):
        return "time"
    return "string"


def leaves(found: tuple[Field, ...]) -> Iterator[Field]:
    """All fields that hold a value themselves, those of objects in objects too."""
    for each in found:
        if each.kind == "object":
            yield from leaves(each.inner)
        else:
            yield each
