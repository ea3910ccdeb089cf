"""Knowledge that one request brings along: OpenAI's tool `file_search`, or the field `retrieval`, as one value."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from server.api.decode import invalid, whole
from server.api.wire import AskedRetrieval, HybridWeights, Name, Probability, RankingOptions
from server.chat import FILE_SEARCH, Retrieval
from server.errors import InvalidValue
from server.knowledge import parse_filter
from server.runtime import NO_RANKER


class SearchRanking(msgspec.Struct):
    """`ranker` is `none`, or any other name for this server's own ranking."""

    ranker: str | None = None
    score_threshold: Probability | None = None
    hybrid_search: HybridWeights | None = None


class FileSearch(msgspec.Struct):
    """OpenAI's tool: `vector_store_ids` are collections of the recipe, or stores that clients made."""

    vector_store_ids: Annotated[list[Name], Meta(min_length=1)]
    type: Literal["file_search"] = "file_search"
    max_num_results: Annotated[int, Meta(ge=1, le=50)] | None = None
    filters: dict[str, Any] | None = None
    ranking_options: SearchRanking | None = None


def is_search(tool: Mapping[str, Any]) -> bool:
    return tool.get("type") == FILE_SEARCH


def unsearched(tools: Sequence[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """The tools of a request that is only rendered, or only loads a model: nothing is searched, nor checked for it."""
    return None if tools is None else [tool for tool in tools if not is_search(tool)]


def retrieval(tools: Sequence[Mapping[str, Any]] | None, field: AskedRetrieval | None) -> Retrieval | None:
    """What a request says of knowledge. Raises InvalidValue, naming the field that is wrong, or the second of two."""
    places = [place for place, tool in enumerate(tools or ()) if is_search(tool)]
    if len(places) > 1 or (places and field is not None):
        param = f"tools[{places[1]}]" if len(places) > 1 else f"tools[{places[0]}]"
        raise InvalidValue(f"A request says once which knowledge it needs: `{param}` says it again.", param=param)
    if field is not None:
        return _of_field(field)
    return _of_tool((tools or ())[places[0]], f"tools[{places[0]}]") if places else None


def _of_field(field: AskedRetrieval) -> Retrieval:
    if field.when == "never" and field != AskedRetrieval(when="never"):
        raise InvalidValue("With `never` nothing is searched, so nothing else goes with it.", param="retrieval.when")
    ranking = field.ranking_options or RankingOptions()
    return Retrieval(
        collections=None if field.collections is None else tuple(field.collections),
        when=field.when,
        k=field.k,
        filters=None if field.filters is None else parse_filter(field.filters),
        weights=_weights(ranking.hybrid_search),
        threshold=ranking.score_threshold or 0.0,
        ranker=ranking.ranker,
        depth=ranking.depth,
        tiers=None if field.tiers is None else tuple(field.tiers),
    )


def _of_tool(tool: Mapping[str, Any], where: str) -> Retrieval:
    try:
        asked = msgspec.convert(whole(dict(tool)), FileSearch)
    except msgspec.ValidationError as error:
        raise invalid(str(error), where) from error
    ranking = asked.ranking_options or SearchRanking()
    return Retrieval(
        collections=tuple(asked.vector_store_ids),
        k=asked.max_num_results,
        filters=None if asked.filters is None else parse_filter(asked.filters),
        weights=_weights(ranking.hybrid_search),
        threshold=ranking.score_threshold or 0.0,
        ranker=NO_RANKER if ranking.ranker == NO_RANKER else None,
        param=where,
    )


def _weights(given: HybridWeights | None) -> tuple[float, float] | None:
    return None if given is None else (given.embedding_weight, given.text_weight)
