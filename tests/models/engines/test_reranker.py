"""The rerank engine: scores of the cross-encoder, long documents by windows, nobody kept waiting."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from config.model import LocalModel
from server.errors import ContextLengthExceeded, RequestError
from server.models.engine import Embed, Engine, Event, Rerank, Scores, is_last
from server.models.engines.encoders.reranker import RerankEngine, windows
from server.models.made.encoder_folder import FAMILIES, write_encoder
from tests.models.engines.driving import finished, steps
from tests.models.engines.reference import Reference

_QUERY = "How do I add a model?"
_DOCUMENTS = [
    "Name its folder as the source.",
    "",
    "To change the port, set server.listen in the recipe and start again.",
    "The reader quotes the best sentence, café 😀.",
]
_WINDOW = 64


def _engine(folder: Path, cache: Path) -> Engine:
    told = {"engine": "openvino", "source": str(folder), "task": "rerank", "precision": "f32"}
    engine = RerankEngine(LocalModel.model_validate(told, context={}), folder, cache)
    engine.load(lambda _: None)
    return engine


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("rerankers")
    return {family: write_encoder(base / family, family, labels=1, window=_WINDOW) for family in FAMILIES}


@pytest.fixture(scope="module")
def rerankers(folders: dict[str, Path], cache: Path) -> Iterator[dict[str, Engine]]:
    ready = {family: _engine(folder, cache) for family, folder in folders.items()}
    yield ready
    for engine in ready.values():
        engine.close()


@pytest.fixture
def reranker(rerankers: dict[str, Engine]) -> Engine:
    return rerankers["bert"]


def _scores(events: list[Event]) -> list[float]:
    found = {
        place: score
        for event in events
        if isinstance(event, Scores)
        for place, score in zip(event.indices, event.scores, strict=True)
    }
    return [found[place] for place in range(len(found))]


def _expected(folder: Path, query: str, document: str) -> float:
    """By the numpy reference, from ids and token types as the tokenizer itself joins a pair."""
    pair = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(query, document)
    kinds = pair.type_ids if folder.name == "bert" else [0] * len(pair.ids)
    return Reference(folder).score(pair.ids, kinds)


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_the_reference(family: str, rerankers: dict[str, Engine], folders: dict[str, Path]) -> None:
    [events] = finished(rerankers[family], Rerank(_QUERY, _DOCUMENTS))
    expected = [_expected(folders[family], _QUERY, document) for document in _DOCUMENTS]
    assert _scores(events) == pytest.approx(expected, abs=1e-5)
    assert len({round(score, 3) for score in expected}) > 1


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_transformers(family: str, rerankers: dict[str, Engine], folders: dict[str, Path]) -> None:
    torch = pytest.importorskip("torch", reason="torch and transformers are needed as the oracle")
    transformers = pytest.importorskip("transformers", reason="torch and transformers are needed as the oracle")
    oracle = transformers.AutoModelForSequenceClassification.from_pretrained(str(folders[family])).eval()
    tokenizer = Tokenizer.from_file(str(folders[family] / "tokenizer.json"))
    expected = []
    for document in _DOCUMENTS:
        pair = tokenizer.encode(_QUERY, document)
        inputs = {"input_ids": torch.tensor([pair.ids])}
        if family == "bert":
            inputs["token_type_ids"] = torch.tensor([pair.type_ids])
        with torch.no_grad():
            expected.append(float(torch.sigmoid(oracle(**inputs).logits)[0, 0]))
    [events] = finished(rerankers[family], Rerank(_QUERY, _DOCUMENTS))
    assert _scores(events) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tokens_are_those_of_every_pair_with_special_ones(
    family: str, rerankers: dict[str, Engine], folders: dict[str, Path]
) -> None:
    tokenizer = Tokenizer.from_file(str(folders[family] / "tokenizer.json"))
    admitted = rerankers[family].submit(1, Rerank(_QUERY, _DOCUMENTS))
    assert admitted.prompt_tokens == sum(len(tokenizer.encode(_QUERY, document).ids) for document in _DOCUMENTS)
    rerankers[family].cancel(1)


def test_token_types_change_the_score(reranker: Engine, folders: dict[str, Path]) -> None:
    pair = Tokenizer.from_file(str(folders["bert"] / "tokenizer.json")).encode(_QUERY, _DOCUMENTS[0])
    reference = Reference(folders["bert"])
    assert abs(reference.score(pair.ids, pair.type_ids) - reference.score(pair.ids, [0] * len(pair.ids))) > 1e-3


def test_a_long_document_has_the_score_of_its_best_window(reranker: Engine, folders: dict[str, Path]) -> None:
    document = " ".join(f"Number {n} of many sentences is here for the port." for n in range(40))
    tokenizer = Tokenizer.from_file(str(folders["bert"] / "tokenizer.json"))
    query, ids = (tokenizer.encode(text, add_special_tokens=False).ids for text in (_QUERY, document))
    first, last = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    room = _WINDOW - 3 - len(query)
    reference = Reference(folders["bert"])
    expected = [
        reference.score([first, *query, last, *part, last], [0] * (len(query) + 2) + [1] * (len(part) + 1))
        for part in windows(ids, room)
    ]
    assert len(expected) > 5
    [events] = finished(reranker, Rerank(_QUERY, ["short", document, "also short"]))
    assert _scores(events)[1] == pytest.approx(max(expected), abs=1e-5)
    assert max(expected) - min(expected) > 1e-3


@pytest.mark.parametrize(("length", "room"), [(0, 5), (5, 5), (6, 5), (100, 5), (97, 10), (4, 1), (1000, 33)])
def test_windows_cover_everything_and_overlap(length: int, room: int) -> None:
    ids = list(range(length))
    parts = windows(ids, room)
    assert max(map(len, parts)) <= room
    assert sorted({each for part in parts for each in part}) == ids
    for one, two in pairwise(parts):
        assert len(one) == len(two) == room
        assert 1 <= two[0] - one[0] <= room - room // 4
    assert not parts[-1] or parts[-1][-1] == length - 1


def test_a_query_that_leaves_no_room_is_refused_and_nothing_of_it_kept(reranker: Engine) -> None:
    with pytest.raises(ContextLengthExceeded, match="maximum context length is 64 tokens") as refused:
        reranker.submit(1, Rerank("port " * 40, ["a document " * 40]))
    assert refused.value.param == "query"
    assert not reranker.busy


def test_a_long_query_is_served_where_the_documents_fit(reranker: Engine) -> None:
    [events] = finished(reranker, Rerank("port " * 40, ["model"]))
    assert len(_scores(events)) == 1


@pytest.mark.parametrize(
    ("request_", "says"),
    [(Rerank(_QUERY, []), "no documents to rank"), (Embed(texts=["text"]), "This model is for reranking")],
)
def test_what_cannot_be_ranked_is_refused(request_: Rerank | Embed, says: str, reranker: Engine) -> None:
    with pytest.raises(RequestError, match=says):
        reranker.submit(1, request_)
    assert not reranker.busy


def test_requests_that_share_batches_get_their_own_scores(reranker: Engine) -> None:
    requests = [Rerank(f"{_QUERY} {n}", [f"text {n}", f"another one, {n}, a bit longer"]) for n in range(9)]
    together = finished(reranker, *requests)
    for request, events in zip(requests, together, strict=True):
        [alone] = finished(reranker, request)
        assert _scores(events) == pytest.approx(_scores(alone), abs=1e-5)
        assert [is_last(event) for event in events] == [False] * (len(events) - 1) + [True]


def test_a_short_request_does_not_wait_for_the_end_of_a_long_one(reranker: Engine) -> None:
    reranker.submit(1, Rerank(_QUERY, ["a document of some length " * 30] * 60))
    reranker.step()
    reranker.submit(2, Rerank(_QUERY, ["short"]))
    assert [key for key, event in steps(reranker) if is_last(event)] == [2, 1]


def test_a_cancelled_request_gets_no_more_events(reranker: Engine) -> None:
    reranker.submit(1, Rerank(_QUERY, ["a document of some length " * 30] * 60))
    reranker.submit(2, Rerank(_QUERY, ["short"]))
    reranker.step()
    reranker.cancel(1)
    assert {key for key, _ in steps(reranker)} <= {2}
    assert not reranker.busy


def test_a_classifier_of_three_labels_is_refused(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "three", "bert", labels=3)
    with pytest.raises(ValueError, match=r"config\.json: num_labels is 3; a reranker has one label"):
        _engine(folder, tmp_path / "cache")


def test_weights_without_a_head_are_refused(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "headless", "xlm-roberta", labels=1)
    config = folder / "config.json"
    told = config.read_text(encoding="utf-8")
    config.write_text(told.replace("XLMRobertaForSequenceClassification", "XLMRobertaForTokens"), encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"config\.json: architectures is \['XLMRobertaForTokens'\]; .* is XLMRobertaFor"
    ):
        RerankEngine(
            LocalModel.model_construct(engine="openvino", task="rerank", precision="f32", threads=None),
            folder,
            tmp_path / "cache",
        ).load(lambda _: None)


def test_the_card_says_what_it_is(folders: dict[str, Path], tmp_path: Path) -> None:
    spec = LocalModel.model_construct(engine="openvino", task="rerank", precision="f32", threads=None)
    card = RerankEngine(spec, folders["roberta"], tmp_path / "cache").load(lambda _: None)
    assert (card.task, card.context, card.precision, card.dimension) == ("rerank", _WINDOW, "f32", None)
    assert card.weights_bytes == (folders["roberta"] / "model.safetensors").stat().st_size
