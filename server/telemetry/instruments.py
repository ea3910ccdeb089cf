"""Every metric and span of Hearth and their names, on OpenTelemetry alone; knows nothing of who records them.

Names follow the GenAI semantic conventions (repository open-telemetry/semantic-conventions-genai, status Development):
`gen_ai.server.request.duration`, `gen_ai.server.time_to_first_token`, `gen_ai.server.time_per_output_token` in seconds
and `gen_ai.client.token.usage` in tokens. Texts of requests and answers are never recorded.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import NoOpTracer, SpanKind, Tracer
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from config.server import TelemetrySpec
from server.telemetry.histograms import Histogram, WithHistograms

METRICS_CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80]
_HTTP = ("http.request.method", "http.route", "http.response.status_code")
_MODEL = ("gen_ai.request.model", "gen_ai.operation.name")
_MODEL_FAULT = (*_MODEL, "error.type")
_SEARCH = ("hearth.collection", "hearth.search.mode")
_TOOL = ("gen_ai.tool.name", "outcome")
_UPKEEP = {
    "documents": ("{document}", "Documents of a collection."),
    "chunks": ("{chunk}", "Chunks that a collection's documents are cut into."),
    "dead_letters": ("{message}", "Messages for a collection that were refused and are kept."),
    "refused": ("{file}", "Files that a collection did not take, as of its last ingest."),
    "fragments": ("{fragment}", "Parts a collection's table lies in."),
    "unindexed": ("{row}", "Rows of a collection that no index covers yet."),
    "versions": ("{version}", "Versions of a collection's table that are kept."),
    "bytes": ("By", "What a collection's table takes on disk, earlier versions included."),
    "hot": ("{row}", "Rows of a collection that are searched in memory."),
    "cold": ("{document}", "Documents of a collection in cold storage, which are not among the others."),
    "pending": ("{document}", "Documents that are still to be brought into a new index of a collection."),
    "failures": ("{failure}", "Passes of a collection's maintenance that failed."),
    "failing": ("", "1 where the last pass of a collection's maintenance failed."),
}
_CACHE = {
    "hits": ("{search}", "Searches since the start whose answer was kept from an earlier one."),
    "misses": ("{search}", "Searches since the start whose answer was not."),
    "bytes": ("By", "What the query cache takes in memory."),
}
_SOURCE = {
    "following": ("", "1 where a source is watched or followed now."),
    "lag_seconds": ("s", "How long the last message of a source took until it was searchable."),
    "behind": ("{message}", "Messages that a source has still to read, where its broker tells."),
    "last": ("s", "When the last message of a source was sent, or its files were last synced, since 1970."),
    "messages": ("{message}", "Messages that were taken in since the start."),
    "refused": ("{message}", "Messages that were refused since the start."),
}
_POLICY = {
    "running": ("", "1 while a policy runs."),
    "failing": ("", "1 where the last run of a policy failed, or was lost with the server."),
    "last": ("s", "When the last run of a policy ended, since 1970."),
    "next": ("s", "When a policy runs next, since 1970."),
    "figure": ("", "What the last run of a policy reports, by the figure's name, with its unit in it."),
}
_PER_TOKEN = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.2, 0.5, 1]

Reading = tuple[float, dict[str, str]]
"""A gauge's value and its attributes."""


@dataclass(frozen=True)
class Gauges:
    """What is read when somebody scrapes; each call returns one reading per model or collection."""

    model_ready: Callable[[], Iterable[Reading]]
    model_in_flight: Callable[[], Iterable[Reading]]
    model_queued: Callable[[], Iterable[Reading]]
    worker_restarts: Callable[[], Iterable[Reading]]
    collection_ready: Callable[[], Iterable[Reading]]
    collection_upkeep: Callable[[str], Iterable[Reading]]
    """Of one of `_UPKEEP`."""
    source: Callable[[str], Iterable[Reading]]
    """Of one of `_SOURCE`."""
    model_info: Callable[[], Iterable[Reading]] = list
    """1 for each model that is loaded, with what computes it in the attributes."""
    query_cache: Callable[[str], Iterable[Reading]] = lambda what: []
    """Of hits, misses or bytes; nothing where there is none."""


class Telemetry:
    """One meter and one tracer for one runtime; `close` flushes what an exporter still holds."""

    def __init__(self, spec: TelemetrySpec, service_version: str) -> None:
        resource = Resource.create({"service.name": "hearth", "service.version": service_version})
        self._registry = CollectorRegistry()
        readers: list[_Scraped | _Pushed] = [_Scraped(registry=self._registry)]
        self._tracing: TracerProvider | None = None
        if spec.otlp is not None:
            readers.append(_otlp_metrics(spec.otlp))
            self._tracing = _otlp_traces(spec.otlp, resource)
        self._metering = MeterProvider(metric_readers=readers, resource=resource, shutdown_on_exit=False)
        self._tracer: Tracer = self._tracing.get_tracer("hearth") if self._tracing else NoOpTracer()
        meter = self._meter = self._metering.get_meter("hearth")

        self.http = Seconds("http.server.request.duration", "Whole HTTP requests, streams included.")
        self.request = Seconds("gen_ai.server.request.duration", "One model request from admission to its end.")
        self.first_token = Seconds("gen_ai.server.time_to_first_token", "From admission to the first token.")
        self.per_token = Seconds("gen_ai.server.time_per_output_token", "Between tokens after the first.", _PER_TOKEN)
        self.search = Seconds("hearth.knowledge.search.duration", "One search over one collection.")
        self.lag = Seconds("hearth.knowledge.lag", "From when a message was sent until it is searchable.")
        self._tool = Seconds("hearth.tool.duration", "One call of a tool by the server, waiting included.")
        for reader in readers:
            reader.histograms = (
                *(self.http, self.request, self.first_token, self.per_token),
                *(self.search, self.lag, self._tool),
            )
        self._tokens = _Count(meter, "gen_ai.client.token.usage", "{token}", "Tokens read and written.")
        self._fallbacks = _Count(meter, "hearth.fallback", "{request}", "Requests that went to another model.")
        self._tool_calls = _Count(meter, "hearth.tool.calls", "{call}", "Calls of tools that the server ran.")
        self._cancelled = _Count(meter, "hearth.requests.cancelled", "{request}", "Requests the client left.")

    def tokens(self, model: str, *, read: int, written: int) -> None:
        self._tokens.add(read, ("gen_ai.request.model", model), ("gen_ai.token.type", "input"))
        if written:
            self._tokens.add(written, ("gen_ai.request.model", model), ("gen_ai.token.type", "output"))

    def cancelled(self, model: str) -> None:
        self._cancelled.add(1, ("gen_ai.request.model", model))

    def fallback(self, model: str, to: str, reason: str) -> None:
        self._fallbacks.add(1, ("from", model), ("to", to), ("reason", reason))

    def tool(self, name: str, outcome: str, elapsed: float) -> None:
        """One call of a tool that took `elapsed` seconds."""
        self._tool_calls.add(1, (_TOOL[0], name), (_TOOL[1], outcome))
        self._tool.record(elapsed, _TOOL, (name, outcome))

    def watch(self, gauges: Gauges) -> None:
        """Register what is read at scrape time. Called once."""
        for name, unit, description, read in (
            ("hearth.model.ready", "", "1 where a model can answer now.", gauges.model_ready),
            (
                "hearth.model.info",
                "",
                "1 for a loaded model, with its engine, device and attention.",
                gauges.model_info,
            ),
            ("hearth.model.in_flight", "{request}", "Requests running or waiting in a model.", gauges.model_in_flight),
            ("hearth.model.queued", "{request}", "Requests waiting for a place in a model.", gauges.model_queued),
            ("hearth.worker.restarts", "{restart}", "Restarts of a model's process.", gauges.worker_restarts),
            ("hearth.knowledge.ready", "", "1 where a collection can be searched now.", gauges.collection_ready),
        ):
            self._meter.create_observable_gauge(name, [_observer(read)], unit, description)
        for what, (unit, description) in _UPKEEP.items():
            of_what = partial(gauges.collection_upkeep, what)
            self._meter.create_observable_gauge(f"hearth.knowledge.{what}", [_observer(of_what)], unit, description)
        for what, (unit, description) in _CACHE.items():
            of_what = partial(gauges.query_cache, what)
            self._meter.create_observable_gauge(f"hearth.query_cache.{what}", [_observer(of_what)], unit, description)
        for what, (unit, description) in _SOURCE.items():
            name = f"hearth.knowledge.source.{what.removesuffix('_seconds')}"
            self._meter.create_observable_gauge(name, [_observer(partial(gauges.source, what))], unit, description)

    def watch_policies(self, read: Callable[[str], Iterable[Reading]]) -> None:
        """Register what is read of policies at scrape time, one of `_POLICY` at a time. Called once."""
        for what, (unit, description) in _POLICY.items():
            self._meter.create_observable_gauge(
                f"hearth.policy.{what}", [_observer(partial(read, what))], unit, description
            )

    def span(self, method: str, path: str, request_id: str) -> AbstractContextManager[object]:
        """The server span of one request; costs nothing where no exporter is declared."""
        if self._tracing is None:
            return nullcontext()
        attributes = {"hearth.request.id": request_id}
        return self._tracer.start_as_current_span(f"{method} {path}", kind=SpanKind.SERVER, attributes=attributes)

    def render(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def close(self) -> None:
        """Flush and stop. Blocks for as long as the collector takes to answer; call it off the event loop."""
        self._metering.shutdown()
        if self._tracing is not None:
            self._tracing.shutdown()


class Seconds(Histogram):
    """A histogram in seconds that is recorded with the conventions' attribute names."""

    def __init__(self, name: str, description: str, bounds: Sequence[float] = _SECONDS) -> None:
        super().__init__(name, "s", description, bounds)

    def http(self, elapsed: float, method: str, route: str, status: int) -> None:
        self.record(elapsed, _HTTP, (method, route, status))

    def model(self, elapsed: float, model: str, operation: str, error: str | None = None) -> None:
        if error is None:
            self.record(elapsed, _MODEL, (model, operation))
        else:
            self.record(elapsed, _MODEL_FAULT, (model, operation, error))

    def collection(self, elapsed: float, collection: str, mode: str) -> None:
        self.record(elapsed, _SEARCH, (collection, mode))

    def source(self, elapsed: float, *, collection: str) -> None:
        self.record(elapsed, _SEARCH[:1], (collection,))


class _Scraped(WithHistograms, PrometheusMetricReader):
    """What `/metrics` renders."""


class _Pushed(WithHistograms, PeriodicExportingMetricReader):
    """What a collector is sent."""


class _Count:
    """A counter that is summed here and read at scrape time: a record costs a tenth of the SDK's own."""

    def __init__(self, meter: Meter, name: str, unit: str, description: str) -> None:
        self._sums: Counter[tuple[tuple[str, str], ...]] = Counter()
        meter.create_observable_counter(name, [_observer(self._read)], unit, description)

    def add(self, amount: int, *attributes: tuple[str, str]) -> None:
        self._sums[attributes] += amount

    def _read(self) -> Iterable[Reading]:
        # A copy, because a reader's thread asks while the loop counts.
        return [(value, dict(attributes)) for attributes, value in self._sums.copy().items()]


def _observer(read: Callable[[], Iterable[Reading]]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    return lambda _options: [Observation(value, attributes) for value, attributes in read()]


def _otlp_metrics(endpoint: str) -> _Pushed:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    return _Pushed(OTLPMetricExporter(endpoint=f"{endpoint.rstrip('/')}/v1/metrics"))


def _otlp_traces(endpoint: str, resource: Resource) -> TracerProvider:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")))
    return provider
