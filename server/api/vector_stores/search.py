"""`/v1/vector_stores/{id}/search`: the same search as `/v1/retrieve`, in OpenAI's shape."""

from typing import Any

from litestar import Request, post

from server.api.decode import decode, ignored
from server.api.document import documented
from server.api.reply import Reply, json
from server.api.vector_stores.shown import FAULTS
from server.api.vector_stores.wire import SearchPage, SearchRanking, SearchResult, SearchStore, StoreText
from server.chat.search import Search, search
from server.knowledge import Hit, parse_filter
from server.runtime import NO_RANKER, Runtime

_NO_RANKER = (None, "none", "auto")


@post(
    ["/v1/vector_stores/{vector_store_id:str}/search", "/vector_stores/{vector_store_id:str}/search"],
    status_code=200,
    opt={"needs": "retrieve"},
    operation_class=documented(SearchStore, SearchPage, summary="Search a vector store", faults=(*FAULTS, "504")),
)
async def search_store(request: Request[Any, Any, Any], vector_store_id: str) -> Reply:
    body, unknown = await decode(request, SearchStore)
    runtime: Runtime = request.app.state["runtime"]
    store = await runtime.vector_stores.find(vector_store_id)
    await runtime.vector_stores.used(store)
    ranking = body.ranking_options or SearchRanking()
    hybrid = ranking.hybrid_search
    found = await search(
        runtime,
        Search(
            queries=[body.query] if isinstance(body.query, str) else body.query,
            collections=[runtime.vector_stores.shelf(store.id).collection],
            k=body.max_num_results,
            filters=None if body.filters is None else parse_filter(body.filters),
            weights=None if hybrid is None else (hybrid.embedding_weight, hybrid.text_weight),
            threshold=ranking.score_threshold or 0.0,
            ranker=NO_RANKER if ranking.ranker == NO_RANKER else None,
            page=body.page,
        ),
    )
    page = SearchPage(
        search_query=[body.query] if isinstance(body.query, str) else body.query,
        data=[_result(group[0]) for group in found.groups],
        has_more=found.next_page is not None,
        next_page=found.next_page,
    )
    no_effect = ["rewrite_query"] if body.rewrite_query else []
    no_effect += [] if ranking.ranker in _NO_RANKER else ["ranking_options.ranker"]
    return json(page, headers=ignored(unknown + no_effect))


def _result(hit: Hit) -> SearchResult:
    texts = [StoreText(hit.text)]
    return SearchResult(hit.document_id, hit.filename, round(hit.score, 6), hit.attributes, texts)


ROUTES = [search_store]
