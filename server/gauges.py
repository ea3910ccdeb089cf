"""What of models, collections and their sources is read when somebody scrapes; asks no table and no database."""

from collections.abc import Iterable, Mapping

from server.knowledge import QueryCache, Shelf
from server.models.engine import Card
from server.models.served import Served
from server.telemetry import Gauges, Reading


def gauges_of(models: Mapping[str, Served], shelves: Mapping[str, Shelf], cache: QueryCache | None) -> Gauges:
    """What of these is told to whoever scrapes."""

    def of_models(read: Iterable[tuple[str, float]]) -> list[Reading]:
        return [(value, {"gen_ai.request.model": name}) for name, value in read]

    return Gauges(
        model_ready=lambda: of_models((name, _ready(model)) for name, model in models.items()),
        model_info=lambda: [
            (1.0, {"gen_ai.request.model": name, **_computed(card)})
            for name, model in models.items()
            if (card := model.card) is not None
        ],
        model_in_flight=lambda: of_models((name, model.in_flight) for name, model in models.items()),
        model_queued=lambda: of_models((name, model.queued) for name, model in models.items()),
        worker_restarts=lambda: of_models((name, model.restarts) for name, model in models.items()),
        collection_ready=lambda: [
            (float(shelf.opened), {"hearth.collection": name}) for name, shelf in shelves.items()
        ],
        collection_upkeep=lambda what: [
            (_fact(shelf, what), {"hearth.collection": name}) for name, shelf in shelves.items()
        ],
        query_cache=lambda what: [] if cache is None else [(float(getattr(cache, what)), {})],
        source=lambda what: [reading for name, shelf in shelves.items() for reading in _sources(name, shelf, what)],
    )


def _computed(card: Card) -> dict[str, str]:
    """What computes a model, in the words of its card."""
    told = {"hearth.engine": card.engine, "hearth.device": card.device, "hearth.attention": card.attention or ""}
    return {name: value for name, value in told.items() if value}


def _ready(model: Served) -> float:
    """1 where it can answer now; a remote model is available also while its server cannot be reached."""
    return float(model.available and model.state != "failed")


def _fact(shelf: Shelf, what: str) -> float:
    """What is known of a collection without asking its table or the database."""
    match what:
        case "dead_letters":
            return float(sum(shelf.current.letters.counts.values())) if shelf.current is not None else 0.0
        case "refused":
            return float(shelf.refused.held) if shelf.refused is not None else 0.0
        case "failing":
            return float(shelf.upkeep.error is not None)
        case _:
            return float(getattr(shelf.upkeep, what))


def _sources(name: str, shelf: Shelf, what: str) -> list[Reading]:
    """A fact of each source that has it by now."""
    return [
        (float(value), {"hearth.collection": name, "hearth.source": each.source})
        for each in shelf.sources
        if (value := each.state == "following" if what == "following" else getattr(each, what)) is not None
    ]
