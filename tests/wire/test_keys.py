"""Keys while a server runs: what opens, what has ended, what changes without a restart, and what is never told."""

import hashlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.live import Live, wait_for

LIST = "/v1/models"


def recipe_of(live: Live) -> Path:
    return live.log.parent.parent / "limited.yaml"


def status(live: Live, key: str) -> int:
    with live.client(key) as client:
        return client.get(LIST).status_code


def keys(live: Live, *arguments: str) -> str:
    command = [sys.executable, "-m", "server", "keys", "--recipe", str(recipe_of(live)), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@contextmanager
def changed(live: Live, old: str, new: str) -> Iterator[None]:
    """The recipe with `new` for `old` while the block lasts, and afterwards as it was, in force."""
    recipe = recipe_of(live)
    before = recipe.read_text(encoding="utf-8")
    assert before.count(old) == 1
    recipe.write_text(before.replace(old, new), encoding="utf-8")
    try:
        yield
    finally:
        # A key of its own tells when the old recipe is in force again.
        with live.client("sk-back-again") as client:
            recipe.write_text(before + "# as it was\n", encoding="utf-8")
            marked = before.replace("  keys:\n", "  keys:\n    - {name: back, secret: sk-back-again}\n")
            recipe.write_text(marked, encoding="utf-8")
            wait_for(lambda: client.get(LIST).status_code == 200, "the recipe was not read again", live.log)
            recipe.write_text(before, encoding="utf-8")
            wait_for(lambda: client.get(LIST).status_code == 401, "the recipe was not read again", live.log)


def test_a_key_declared_by_its_hash_opens_and_its_hash_does_not(limited: Live) -> None:
    digest = hashlib.sha256(b"sk-hashed-12345").hexdigest()
    tried = ("sk-hashed-12345", digest, f"sha256:{digest}")
    assert [status(limited, key) for key in tried] == [200, 401, 401]


def test_an_expired_key_is_refused_and_says_so(limited: Live) -> None:
    with limited.client("sk-expired-12345") as client:
        reply = client.get(LIST)
    assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
    assert reply.json()["error"]["code"] == "invalid_api_key"
    assert "expired at 2020-01-01" in reply.json()["error"]["message"]


def test_either_header_may_carry_the_key(limited: Live) -> None:
    right, wrong = "sk-hashed-12345", "sk-somebody-elses"
    sent = (
        {"authorization": f"bearer {right}"},
        {"x-api-key": right},
        {"authorization": f"Bearer {wrong}", "x-api-key": right},
        {"authorization": f"Bearer {right}", "x-api-key": wrong},
        {"authorization": f"Basic {right}"},
        {"authorization": "Bearer"},
        {},
    )
    with limited.client() as client:
        assert [client.get(LIST, headers=each).status_code for each in sent] == [200, 200, 200, 200, 401, 401, 401]


def test_a_socket_without_a_key_is_refused_in_its_handshake(limited: Live) -> None:
    url = limited.url.replace("http:", "ws:") + "/v1/responses"
    with pytest.raises(InvalidStatus) as refused:
        connect(url, additional_headers={"authorization": "Bearer sk-somebody-elses"}, proxy=None)
    reply = refused.value.response
    assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
    assert b'"code":"invalid_api_key"' in (reply.body or b"")
    with connect(url, additional_headers={"authorization": "Bearer sk-hashed-12345"}, proxy=None):
        pass


def test_keys_are_made_and_removed_while_the_server_runs(limited: Live) -> None:
    key = keys(limited, "add", "joe", "--scopes", "retrieve").strip()
    kept = recipe_of(limited).with_name("keys.yaml")
    assert key.startswith("sk-hearth-") and len(key) == len("sk-hearth-") + 43
    assert kept.stat().st_mode & 0o777 == 0o600
    assert key not in kept.read_text(encoding="utf-8")
    wait_for(lambda: status(limited, key) == 403, "the new key was not taken over", limited.log)  # it may retrieve
    assert "joe" in keys(limited, "list")
    keys(limited, "remove", "joe")
    wait_for(lambda: status(limited, key) == 401, "the removed key still works", limited.log)
    assert status(limited, "sk-hashed-12345") == 200


def test_a_secret_file_is_read_again(limited: Live) -> None:
    assert status(limited, "sk-turned-before") == 200
    recipe_of(limited).with_name("turned.txt").write_text("sk-turned-after", encoding="utf-8")
    wait_for(lambda: status(limited, "sk-turned-after") == 200, "the new secret does not work", limited.log)
    assert status(limited, "sk-turned-before") == 401


def test_a_broken_recipe_keeps_the_keys_and_every_fault_is_logged(limited: Live) -> None:
    def logged() -> bool:
        text = limited.log.read_text(encoding="utf-8")
        return all(fault in text for fault in ('unknown key "quue"', 'unknown key "bdy"'))

    with changed(limited, "limits: {queue: 6}", "limits: {quue: 6, bdy: 1}"):
        wait_for(logged, "the faults were not logged", limited.log)
        assert status(limited, "sk-hashed-12345") == 200
        assert status(limited, "sk-somebody-elses") == 401


def test_limits_that_change_are_in_force(limited: Live) -> None:
    def limit() -> str | None:
        with limited.client("sk-hashed-12345") as client:
            told: str | None = client.get(LIST).headers.get("x-ratelimit-limit-requests")
            return told

    assert limit() is None
    with changed(limited, "{name: hashed,", "{name: hashed, limits: {requests_per_minute: 5000},"):
        wait_for(lambda: limit() == "5000", "the new limit is not in force", limited.log)
    assert limit() is None


def test_other_changes_are_named_as_needing_a_restart(limited: Live) -> None:
    with changed(limited, "  echo: {engine: echo}\n", "  echo: {engine: echo, context: 100}\n"):
        told = "needs a restart: models"
        wait_for(lambda: told in limited.log.read_text(encoding="utf-8"), "nothing was told of it", limited.log)


def test_a_hangup_reads_everything_again_and_ends_nothing(limited: Live) -> None:
    limited.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "SIGHUP: reading" in limited.log.read_text(encoding="utf-8"), "it was not heard", limited.log)
    assert status(limited, "sk-hashed-12345") == 200


def test_health_tells_texts_only_to_who_looks_after_the_server(limited: Live) -> None:
    with limited.client() as anybody, limited.client("sk-one-12345") as one, limited.client("sk-ops-12345") as ops:

        def gone(client: httpx.Client) -> dict[str, object]:
            model: dict[str, object] = client.get("/health").json()["models"]["gone"]
            return model

        wait_for(lambda: gone(ops)["state"] == "failed", "the model without weights has not failed", limited.log)
        assert "hearth pull" in str(gone(ops)["error"])
        for client in (anybody, one):
            assert gone(client) == gone(ops) | {"error": None}


def test_no_secret_is_told_anywhere(limited: Live) -> None:
    wrong = "sk-typed-in-wrongly"
    with limited.client(wrong) as client, limited.client("sk-ops-12345") as ops:
        replies: list[httpx.Response] = [client.get(LIST), client.get("/metrics"), ops.get("/metrics")]
        replies += [ops.get("/health"), ops.post("/v1/chat/completions", json={}), ops.get("/v1/nothing")]
    command = [sys.executable, "-m", "server", "show", str(recipe_of(limited))]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    log = limited.log.read_text(encoding="utf-8")
    for text in (log, shown.stdout, shown.stderr, *(f"{reply.text}{reply.headers}" for reply in replies)):
        assert not any(secret in text for secret in (wrong, "sk-ops-12345", "sk-rated-12345", "sk-turned"))


@pytest.mark.parametrize("route", ["/", "/healthz", "/readyz", "/health", "/openapi.json"])
def test_monitors_need_no_key(limited: Live, route: str) -> None:
    with limited.client() as client:
        assert client.get(route).status_code == (503 if route == "/readyz" else 200)  # one model of it has no weights
        assert client.get("/metrics").status_code == 401
