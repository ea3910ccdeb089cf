"""A server behind remote models: each model's id is a script, and what it was sent is remembered."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-of-the-upstream-12345"
USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 7,
    "total_tokens": 18,
    "prompt_tokens_details": {"cached_tokens": 5},
    "completion_tokens_details": {"reasoning_tokens": 3},
}
CITED = {
    "type": "url_citation",
    "url_citation": {"url": "https://a.example/", "title": "A", "start_index": 0, "end_index": 2},
}


class Upstream:
    """`bodies` holds the last request of each model; `left` is set when the client of `hang` is gone."""

    def __init__(self) -> None:
        self.url = ""
        self.bodies: dict[str, dict[str, Any]] = {}
        self.keys: set[str | None] = set()
        self.connections: set[tuple[str, int]] = set()
        self.left = threading.Event()


class _Answer(BaseHTTPRequestHandler):
    """One request. HTTP/1.1 with chunks, so that an answer that breaks off differs from one that ends."""

    protocol_version = "HTTP/1.1"
    upstream: Upstream

    def log_message(self, *told: Any) -> None:
        """Silent."""

    def do_GET(self) -> None:
        self.upstream.keys.add(self.headers["authorization"])
        listed = [{"id": name, "object": "model", "max_model_len": 4321} for name in SCRIPTS]
        self.whole(200, {"object": "list", "data": listed})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.upstream.bodies[body["model"]] = body
        self.upstream.keys.add(self.headers["authorization"])
        self.upstream.connections.add(self.client_address)
        SCRIPTS[body["model"]](self)

    def whole(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        told = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
        self.send_response(status)
        for name, value in ({"content-type": "application/json"} | (headers or {})).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def begin(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def send(self, text: str) -> None:
        told = text.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(told), told))
        self.wfile.flush()

    def event(self, chunk: object) -> None:
        self.send(f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n")

    def say(self, delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason} | more
        self.event({"id": "x", "object": "chat.completion.chunk", "choices": [choice]})

    def end(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def drop(self) -> None:
        self.wfile.flush()
        self.close_connection = True


def _said(answer: _Answer) -> None:
    answer.begin()
    answer.say({"role": "assistant", "content": ""})
    answer.say({"reasoning_content": "Hm. "})
    answer.say({"content": "Yes"}, annotations=None)
    answer.say({"content": "\u2028no", "annotations": [CITED, {"type": "other"}]})
    answer.say({}, "content_filter")
    answer.event({"choices": [], "usage": USAGE})
    answer.send("data: [DONE]\n\n")
    answer.end()


def _odd(answer: _Answer) -> None:
    """What servers get wrong, all at once."""
    answer.begin()
    answer.send(": a comment\r\n\r\n")
    answer.send('data: {"choices":[{"delta":{"reasoning":"Hm.","con')
    answer.send('tent":null}}]}\r\n\r\nid: 7\r\n')
    call = '{"id":"one","function":{"name":"f","arguments":{"a":1}}}'
    answer.send('data: {"choices":[{"delta":{"tool_calls":[' + call + "]}}]}\r\n\r\n")
    answer.say({"tool_calls": [{"index": 1, "id": "two", "function": {"name": "g", "arguments": '{"b"'}}]})
    answer.say({"tool_calls": [{"index": 1, "id": "two", "function": {"name": "g", "arguments": ":2}"}}]})
    answer.say({}, "stop")
    answer.end()


def _whole(answer: _Answer) -> None:
    message = {"role": "assistant", "content": "All at once"}
    answer.whole(200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": USAGE})


def _begun(answer: _Answer) -> None:
    answer.begin()
    answer.say({"role": "assistant", "content": "Yes"})


def _mid(answer: _Answer) -> None:
    _begun(answer)
    answer.event({"error": {"message": "burnt down", "type": "fire", "param": None, "code": "burnt"}})
    answer.end()


def _named(answer: _Answer) -> None:
    _begun(answer)
    answer.send('event: error\ndata: {"detail": "burnt down too"}\n\n')
    answer.end()


def _dropped(answer: _Answer) -> None:
    _begun(answer)
    answer.drop()


def _unfinished(answer: _Answer) -> None:
    _begun(answer)
    answer.end()


def _hang(answer: _Answer) -> None:
    """Until the client has left, which its end of the connection tells."""
    _begun(answer)
    answer.connection.settimeout(30)
    if answer.connection.recv(1) == b"":
        answer.upstream.left.set()
    answer.drop()


def _refusing(status: int, kind: str, code: str, message: str, **headers: str) -> Callable[[_Answer], None]:
    error = {"message": message, "type": kind, "param": "model", "code": code}
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda answer: answer.whole(status, {"error": error}, told)


def _vectors(*rows: list[float]) -> Callable[[_Answer], None]:
    data = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)]
    return lambda answer: answer.whole(200, {"data": data[::-1], "usage": {"prompt_tokens": 4, "total_tokens": 4}})


_QUERY = '{"query": "When does the ferry to Marram leave?"}'
_ARGUMENTS = {"add": '{"a": 1}', "file_search": _QUERY, "lookup": _QUERY}


def _calling(answer: _Answer) -> None:
    """Calls all functions that it is offered, once each; without any it says that it is enough."""
    names = [tool["function"]["name"] for tool in answer.upstream.bodies["calling"].get("tools", ())]
    answer.begin()
    answer.say({"role": "assistant", "content": "So. " if names else "Enough [1]."})
    for index, name in enumerate(names):
        function = {"name": name, "arguments": _ARGUMENTS.get(name, "{}")}
        answer.say(
            {"tool_calls": [{"index": index, "id": f"theirs{index:03}", "type": "function", "function": function}]}
        )
    answer.say({}, "tool_calls" if names else "stop")
    answer.event({"choices": [], "usage": USAGE})
    answer.send("data: [DONE]\n\n")
    answer.end()


SCRIPTS: dict[str, Callable[[_Answer], None]] = {
    "said": _said,
    "odd": _odd,
    "whole": _whole,
    "mid": _mid,
    "named": _named,
    "dropped": _dropped,
    "unfinished": _unfinished,
    "hang": _hang,
    "calling": _calling,
    "401": _refusing(401, "invalid_request_error", "invalid_api_key", f"Incorrect API key provided: {KEY}"),
    "404": _refusing(404, "not_found_error", "model_not_found", "No such model"),
    "429": _refusing(429, "tokens", "rate_limit_exceeded", "Slow down", retry_after="17"),
    "500": _refusing(500, "server_error", "oops", "Broken"),
    "html": lambda answer: answer.whole(502, b"<h1>Bad Gateway</h1>", {"content-type": "text/html"}),
    "vectors": _vectors([0.6, 0.8, 0.0], [1.0, 0.0, 0.0]),
    "ragged": _vectors([0.6, 0.8, 0.0], [1.0, 0.0]),
}


@contextmanager
def upstream() -> Iterator[Upstream]:
    """The server, on a free port, until the block ends."""
    told = Upstream()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Answer", (_Answer,), {"upstream": told}))
    server.daemon_threads = True
    server.block_on_close = False
    told.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
