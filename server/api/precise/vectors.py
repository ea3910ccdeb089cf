"""Embeddings and reranking: what a body has to be beyond the types of its fields."""

from server.api.precise.forms import IDS, SOME, Schema, absent, array, exactly_one

FIELDS: dict[str, dict[str, Schema]] = {
    "EmbeddingsRequest": {"input": {"anyOf": [SOME, array(SOME, most=2048), IDS, array(IDS, most=2048)]}},
    "RerankRequest": {"raw_scores": absent(False)},
}

RULES: dict[str, list[Schema]] = {
    "RerankRequest": [exactly_one("documents", "texts")],
}
