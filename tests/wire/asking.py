"""One request with a body of JSON to a server of the tests."""

from typing import Any

import httpx

from tests.live import Live


def post(live: Live, path: str, **body: Any) -> httpx.Response:
    with live.client() as client:
        return client.post(path, json=body)


def told(live: Live, path: str, **body: Any) -> Any:
    """What it answers with 200."""
    reply = post(live, path, **body)
    assert reply.status_code == 200, reply.text
    return reply.json()
