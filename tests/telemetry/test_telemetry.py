"""What is recorded reaches a scrape and a collector alike."""

import gzip
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from config.server import TelemetrySpec
from server.telemetry import Gauges, Telemetry


@contextmanager
def collector() -> Iterator[tuple[str, list[ExportMetricsServiceRequest]]]:
    """A collector that speaks OTLP over HTTP and keeps what it was sent."""
    received: list[ExportMetricsServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            if self.path == "/v1/metrics":
                received.append(ExportMetricsServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", received
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def recorded(telemetry: Telemetry) -> None:
    telemetry.watch(
        Gauges(lambda: [(1.0, {"hearth.model": "m"})], list, list, list, list, lambda what: [], lambda what: [])
    )
    for elapsed in (0.001, 0.0011, 3.0, 1000.0):
        telemetry.request.model(elapsed, "m", "chat")
    telemetry.request.model(0.5, "m", "chat", "overloaded")
    telemetry.http.http(0.2, "POST", "/v1/chat/completions", 200)
    telemetry.tokens("m", read=7, written=5)
    telemetry.tokens("m", read=1, written=0)
    telemetry.cancelled("m")


def test_a_scrape_shows_every_record_in_its_bucket() -> None:
    telemetry = Telemetry(TelemetrySpec(), "1")
    recorded(telemetry)

    text = telemetry.render().decode()

    def value(name: str, *labels: str) -> float:
        found = [
            line for line in text.splitlines() if line.startswith(name + "{") and all(each in line for each in labels)
        ]
        assert len(found) == 1, (name, labels, found)
        return float(found[0].rsplit(" ", 1)[1])

    bucket = "gen_ai_server_request_duration_seconds_bucket"
    assert value(bucket, 'error_type=""', 'le="0.001"') == 1  # an upper bound is inclusive
    assert value(bucket, 'error_type=""', 'le="0.0025"') == 2
    assert value(bucket, 'error_type=""', 'le="5.0"') == 3
    assert value(bucket, 'error_type=""', 'le="+Inf"') == 4
    assert value("gen_ai_server_request_duration_seconds_count", 'error_type=""') == 4
    assert value("gen_ai_server_request_duration_seconds_sum", 'error_type=""') == pytest.approx(1003.0021)
    assert value("gen_ai_server_request_duration_seconds_count", 'error_type="overloaded"') == 1
    assert value("http_server_request_duration_seconds_count", 'http_response_status_code="200"') == 1
    assert value("gen_ai_client_token_usage_total", 'gen_ai_token_type="input"') == 8
    assert value("gen_ai_client_token_usage_total", 'gen_ai_token_type="output"') == 5
    assert value("hearth_requests_cancelled_total") == 1
    assert not re.search("time_to_first_token", text), "a histogram without records has no series"


def test_a_collector_gets_what_a_scrape_shows() -> None:
    with collector() as (url, received):
        telemetry = Telemetry(TelemetrySpec(otlp=url), "1")
        recorded(telemetry)
        telemetry.close()  # flushes

    metrics = {
        metric.name: metric
        for resource in received[-1].resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    points = metrics["gen_ai.server.request.duration"].histogram.data_points
    assert sorted(point.count for point in points) == [1, 4]
    assert {attribute.key for attribute in points[0].attributes} >= {"gen_ai.request.model", "gen_ai.operation.name"}
    most = max(points, key=lambda point: point.count)
    assert sum(most.bucket_counts) == most.count
    assert len(most.bucket_counts) == len(most.explicit_bounds) + 1
    assert (most.min, most.max) == (0.001, 1000.0)
    assert metrics["gen_ai.client.token.usage"].sum.is_monotonic
    assert "hearth.model.ready" in metrics
