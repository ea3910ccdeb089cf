"""`/v1/rerank` of a real server over a real cross-encoder: the shapes of Cohere and Jina, faults as OpenAI's."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer

from server.models.made.encoder_folder import write_encoder
from tests.live import Live, serving
from tests.models.engines.reference import Reference

_QUERY = "How do I change the port?"
_DOCUMENTS = ["Name its folder as the source.", "Set server.listen in the recipe.", "The reader quotes a sentence."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("rerank") / "model", "xlm-roberta", labels=1)


@pytest.fixture(scope="module")
def live(folder: Path) -> Iterator[Live]:
    recipe = folder.parent / "rerank.yaml"
    recipe.write_text(
        "version: 1\n"
        "server:\n"
        "  limits: {body: 256KiB}\n"
        "  keys:\n"
        "    - {name: ide, secret: sk-infer-12345, scopes: [infer]}\n"
        "    - {name: search, secret: sk-retrieve-12345, scopes: [retrieve]}\n"
        "models:\n"
        f"  rerank: {{engine: openvino, source: {folder}, task: rerank, precision: f32, aliases: [bge]}}\n"
        "  echo: {engine: echo}\n",
        encoding="utf-8",
    )
    with serving(recipe, folder.parent / "data") as server:
        yield server


@pytest.fixture
def client(live: Live) -> Iterator[httpx.Client]:
    with live.client("sk-infer-12345") as client:
        yield client


def _expected(folder: Path) -> list[float]:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    pairs = [tokenizer.encode(_QUERY, document).ids for document in _DOCUMENTS]
    return [Reference(folder).score(ids, [0] * len(ids)) for ids in pairs]


def _asked(**more: Any) -> dict[str, Any]:
    return {"model": "rerank", "query": _QUERY, "documents": _DOCUMENTS} | more


@pytest.mark.parametrize("route", ["/v1/rerank", "/rerank", "/v2/rerank", "/v1/reranking", "/reranking"])
def test_documents_come_best_first_with_the_scores_of_the_model(route: str, client: httpx.Client, folder: Path) -> None:
    reply = client.post(route, json=_asked())
    assert reply.status_code == 200, reply.text
    told = reply.json()
    expected = _expected(folder)
    assert [each["index"] for each in told["results"]] == sorted(range(3), key=lambda at: -expected[at])
    for each in told["results"]:
        assert each["relevance_score"] == pytest.approx(expected[each["index"]], abs=1e-5)
        assert set(each) == {"index", "relevance_score"}
    assert told["model"] == "rerank"
    assert told["id"].startswith("rerank-")


def test_usage_counts_every_pair(client: httpx.Client, folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    read = sum(len(tokenizer.encode(_QUERY, document).ids) for document in _DOCUMENTS)
    told = client.post("/v1/rerank", json=_asked()).json()
    assert told["usage"] == {"prompt_tokens": read, "total_tokens": read}
    assert told["meta"] == {"api_version": {"version": "2"}, "tokens": {"input_tokens": read}}


def test_top_n_bounds_the_results_and_documents_come_back_when_asked_for(client: httpx.Client) -> None:
    given = [{"text": _DOCUMENTS[0]}, *_DOCUMENTS[1:]]
    every = client.post("/v1/rerank", json=_asked()).json()["results"]
    told = client.post("/v1/rerank", json=_asked(documents=given, top_n=2, return_documents=True)).json()["results"]
    assert [each["index"] for each in told] == [each["index"] for each in every][:2]
    assert [each["document"] for each in told] == [{"text": _DOCUMENTS[each["index"]]} for each in told]


def test_an_alias_and_more_results_than_documents_are_fine(client: httpx.Client) -> None:
    told = client.post("/v1/rerank", json=_asked(model="bge", top_n=99)).json()
    assert told["model"] == "bge"
    assert len(told["results"]) == 3


def test_what_has_no_effect_is_named(client: httpx.Client) -> None:
    reply = client.post("/v1/rerank", json=_asked(max_tokens_per_doc=99, rank_fields=["text"]))
    assert reply.status_code == 200
    assert reply.headers["x-ignored-params"] == "max_tokens_per_doc,rank_fields"


@pytest.mark.parametrize(
    ("more", "status", "param", "code"),
    [
        ({"documents": []}, 400, "documents", "invalid_value"),
        ({"documents": "text"}, 400, "documents", "invalid_value"),
        ({"documents": ["a", 3]}, 400, "documents[1]", "invalid_value"),
        ({"documents": [{"title": "a"}]}, 400, "documents[0].text", "invalid_value"),
        ({"query": ""}, 400, "query", "invalid_value"),
        ({"top_n": 0}, 400, "top_n", "invalid_value"),
        ({"model": "nope"}, 404, "model", "model_not_found"),
        ({"model": "echo"}, 400, "model", "invalid_value"),
        ({"query": "port " * 200}, 400, "query", "context_length_exceeded"),
    ],
)
def test_faults_name_the_field(more: dict[str, Any], status: int, param: str, code: str, client: httpx.Client) -> None:
    reply = client.post("/v1/rerank", json=_asked(**more))
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert (error["param"], error["code"]) == (param, code)


def test_a_document_longer_than_the_model_reads_is_ranked_whole(client: httpx.Client) -> None:
    long = "Set server.listen in the recipe and start again. " * 200
    told = client.post("/v1/rerank", json=_asked(documents=[long, "short"])).json()
    assert len(told["results"]) == 2
    assert told["usage"]["prompt_tokens"] > 3000


def test_teis_clients_get_a_list_of_scores(client: httpx.Client) -> None:
    every = client.post("/v1/rerank", json=_asked()).json()["results"]
    asked = {"query": _QUERY, "texts": _DOCUMENTS}
    told = client.post("/rerank", json=asked).json()
    assert told == [{"index": each["index"], "score": each["relevance_score"]} for each in every]
    best = client.post("/rerank", json=asked | {"return_text": True, "top_n": 1, "raw_scores": False}).json()
    assert best == [told[0] | {"text": _DOCUMENTS[told[0]["index"]]}]
    for wrong, param in (
        ({"texts": None}, "documents"),
        ({"texts": [1]}, "texts[0]"),
        ({"documents": _DOCUMENTS}, "texts"),
        ({"raw_scores": True}, "raw_scores"),
    ):
        reply = client.post("/rerank", json=asked | wrong)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize("route", ["/v1/score", "/score"])
def test_pairs_are_scored_as_vllm_does(route: str, client: httpx.Client, folder: Path) -> None:
    one = client.post(route, json={"model": "rerank", "text_1": _QUERY, "text_2": _DOCUMENTS}).json()
    assert [each["index"] for each in one["data"]] == [0, 1, 2]
    assert [each["score"] for each in one["data"]] == pytest.approx(_expected(folder), abs=1e-4)
    pairs = client.post(route, json={"text_1": [_QUERY] * 3, "text_2": _DOCUMENTS}).json()
    assert (pairs["data"], pairs["usage"]) == (one["data"], one["usage"])
    assert len(client.post(route, json={"text_1": _QUERY, "text_2": "one"}).json()["data"]) == 1
    for wrong, param in (
        ({"text_1": ["a", "b"]}, "text_2"),
        ({"text_1": ""}, "text_1"),
        ({"model": "echo"}, "model"),
    ):
        reply = client.post(route, json={"text_1": "a", "text_2": ["b", "c", "d"]} | wrong)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


def test_the_routes_need_the_scope_infer(live: Live) -> None:
    with live.client() as nobody, live.client("sk-retrieve-12345") as searching:
        for route in ("/v1/rerank", "/rerank", "/v2/rerank", "/v1/reranking", "/reranking"):
            assert nobody.post(route, json=_asked()).json()["error"]["code"] == "invalid_api_key"
            assert searching.post(route, json=_asked()).json()["error"]["code"] == "insufficient_scope"


def test_another_method_is_refused_and_browsers_may_ask_first(client: httpx.Client) -> None:
    wrong = client.get("/v1/rerank")
    assert wrong.status_code == 405
    assert "POST" in wrong.headers["allow"]
    assert client.head("/v1/rerank").status_code == 405
    asked = {"origin": "http://localhost:3000", "access-control-request-method": "POST"}
    assert client.options("/v1/rerank", headers=asked).headers["access-control-allow-origin"] == "http://localhost:3000"


def test_a_chat_with_a_reranker_is_refused(client: httpx.Client) -> None:
    for route, body in (
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hello"}]}),
        ("/v1/embeddings", {"input": "hello"}),
    ):
        reply = client.post(route, json={"model": "rerank"} | body)
        assert reply.status_code == 400, reply.text
        assert "is for rerank" in reply.json()["error"]["message"]


def test_the_list_of_models_says_rerank(client: httpx.Client) -> None:
    told = {each["id"]: each for each in client.get("/v1/models").json()["data"]}
    assert told["rerank"]["task"] == "rerank"
    assert told["rerank"]["context_length"] == 64


def test_the_routes_are_in_the_served_document(client: httpx.Client) -> None:
    document = json.loads(client.get("/openapi.json").content)
    for route in ("/v1/rerank", "/v1/reranking", "/v2/rerank"):
        body = document["paths"][route]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert body == {"$ref": "#/components/schemas/RerankRequest"}
    assert document["components"]["schemas"]["RerankRequest"]["required"] == ["query"]
    assert "RerankReply" in document["components"]["schemas"]


def test_the_route_keeps_to_its_document(live: Live, tmp_path: Path) -> None:
    command = [
        *(Path(sys.executable).with_name("schemathesis"), "run", f"{live.url}/openapi.json"),
        *("--include-path", "/v1/rerank", "--header", "Authorization: Bearer sk-infer-12345"),
        *("--max-examples", "25", "--seed", "1", "--generation-database", "none", "--workers", "1"),
        *("--phases", "examples,coverage,fuzzing", "--checks", "all"),
        # Which model there is, no schema can say; and the header above stands in for the keys the checks would vary.
        *("--exclude-checks", "positive_data_acceptance,ignored_auth"),
        *("--request-timeout", "30"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout[-12000:] + done.stderr[-2000:]
