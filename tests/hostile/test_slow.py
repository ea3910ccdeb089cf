"""Clients that take their time: heads and bodies that never end, answers that nobody reads, connections by the hundred.

The server's limits are 700 ms, 1500 ms for what is read slowly, and 100 connections; that others are served meanwhile
is what each test asks.
"""

import select
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from tests.hostile.raw import CHAT, PATIENCE, Raw, chat, exchange, get, head, post
from tests.live import Live

JSON = "Content-Type: application/json"


@contextmanager
def crowd(target: Live, count: int, *parts: bytes) -> Iterator[list[Raw]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Raw(target)).send(*parts) for _ in range(count)]


def cancelled(target: Live, model: str = "slow") -> float:
    """The metric of requests that their clients left."""
    with target.client() as client:
        lines = client.get("/metrics").text.splitlines()
    mark = f'hearth_requests_cancelled_total{{gen_ai_request_model="{model}"'
    return next((float(line.split()[-1]) for line in lines if line.startswith(mark)), 0.0)


def running(target: Live, model: str = "slow") -> int:
    with target.client() as client:
        count: int = client.get("/health").json()["models"][model]["in_flight"]
        return count


def soon(done: Callable[[], bool]) -> None:
    """Ask until it is so; a failure after ten seconds."""
    until = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < until
        time.sleep(0.02)  # polling another process' state, which has nothing to wait on


def wait_until_cancelled(target: Live, before: float, model: str = "slow") -> None:
    soon(lambda: cancelled(target, model) > before and not running(target, model))


# ---- heads and bodies -----------------------------------------------------------------------------------------------


def test_slow_heads_by_the_hundred_hold_nobody_up(target: Live) -> None:
    with crowd(target, 90, b"GET /healthz HTTP/1.1\r\nHost: loc") as slow:
        assert exchange(target, post(chat())).status == 200
        answers = [raw.answer() for raw in slow]
    assert {answer.status for answer in answers} == {408}
    assert {answer.error["code"] for answer in answers} == {"request_timeout"}


def test_a_head_that_drips_does_not_last_longer(target: Live) -> None:
    with Raw(target) as raw:
        raw.send(b"GET /healthz HTTP/1.1\r\n")
        for _ in range(100):
            if select.select([raw.fileno], [], [], 0.05)[0]:
                break
            raw.send_if_open(b"X: a\r\n"[:3])
        assert raw.answer().status == 408


def test_a_connection_without_a_word_is_closed(target: Live) -> None:
    with Raw(target) as raw:
        assert raw.closed


def test_empty_lines_are_no_request(target: Live) -> None:
    with Raw(target) as raw:
        raw.send(b"\r\n" * 10)
        assert raw.closed


def test_slow_bodies_by_the_hundred_hold_nobody_up(target: Live) -> None:
    with crowd(target, 90, head("POST", CHAT, JSON, "Content-Length: 1000"), b'{"model"') as slow:
        assert exchange(target, post(chat())).status == 200
        answers = [raw.answer() for raw in slow]
    assert {answer.status for answer in answers} == {408}


def test_a_body_that_drips_ends_too(target: Live) -> None:
    with Raw(target) as raw:
        raw.send(head("POST", CHAT, JSON, "Content-Length: 100000"))
        for _ in range(200):
            if select.select([raw.fileno], [], [], 0.05)[0]:
                break
            raw.send_if_open(b" ")
        assert raw.answer().status == 408


def test_a_body_that_comes_byte_by_byte_in_time_is_read(target: Live) -> None:
    with Raw(target) as raw:
        for byte in post(chat()):
            raw.send(bytes([byte]))
        assert raw.answer().status == 200


def test_a_chunked_body_that_stops_is_not_waited_for(target: Live) -> None:
    with Raw(target) as raw:
        raw.send(head("POST", CHAT, JSON, "Transfer-Encoding: chunked"), b"5\r\n{")
        assert raw.answer().status == 408


# ---- floods ---------------------------------------------------------------------------------------------------------


def test_more_idle_connections_than_allowed_shut_nobody_out(target: Live) -> None:
    with crowd(target, 250):
        for _ in range(20):
            assert exchange(target, get()).status == 200


def test_slow_connections_past_the_limit_shut_nobody_out(target: Live) -> None:
    with crowd(target, 150, b"GET /heal"), crowd(target, 150, head("POST", CHAT, JSON, "Content-Length: 9"), b"{"):
        assert exchange(target, post(chat())).status == 200


def test_work_is_not_given_up_for_a_flood(target: Live) -> None:
    with Raw(target) as working:
        working.send(post(chat("slow", "a b c d e f g h i j k l m n o p", stream=True)))
        working.until(b"data: ")
        with crowd(target, 250):
            assert working.until(b"data: [DONE]")


def test_a_server_full_of_work_says_so(target: Live) -> None:
    before = cancelled(target)
    with crowd(target, 99, post(chat("slow", "word " * 300, stream=True))):
        soon(lambda: running(target) == 99)
        with Raw(target).send(post(chat("slow", "word " * 300))), Raw(target) as late:
            answer = late.answer()
            assert answer.status == 503
            assert answer.error["code"] == "too_many_connections"
            assert answer.headers["retry-after"] == "1"
    soon(lambda: cancelled(target) > before and not running(target))


def test_one_connection_may_ask_often(target: Live) -> None:
    with Raw(target) as raw:
        for _ in range(20):
            raw.send(get() * 50)
            assert [raw.answer().status for _ in range(50)] == [200] * 50


# ---- readers --------------------------------------------------------------------------------------------------------


def test_a_client_that_never_reads_loses_its_stream(target: Live) -> None:
    """200,000 short tokens are more than any buffer between the two takes."""
    before = cancelled(target, "echo")
    text = "a " * 90_000
    with Raw(target).small_window() as raw:
        raw.send(post(chat("echo", text, stream=True)))
        raw.until(b"data: ")
        assert exchange(target, post(chat())).status == 200
        wait_until_cancelled(target, before, "echo")


def test_a_slow_reader_gets_all_of_it(target: Live) -> None:
    with Raw(target).small_window() as raw:
        raw.send(post(chat("echo", "word " * 1500, stream=True)))
        assert raw.answer().body.endswith(b"data: [DONE]\n\n")


# ---- leaving --------------------------------------------------------------------------------------------------------


def test_a_client_that_sends_no_more_is_answered(target: Live) -> None:
    for request in (get(), post(chat()), post(chat("slow", "a b c d"))):
        with Raw(target) as raw:
            answer = raw.send(request).end().answer()
            assert answer.status == 200
            assert raw.closed


def test_a_client_that_sends_no_more_gets_all_of_its_stream(target: Live) -> None:
    with Raw(target) as raw:
        body = raw.send(post(chat("slow", "a b c d e f g h", stream=True))).end().answer().body
        assert body.endswith(b"data: [DONE]\n\n")
        assert raw.closed


def test_a_long_whole_answer_is_waited_for_by_a_client_that_sends_no_more(target: Live) -> None:
    with Raw(target) as raw:
        answer = raw.send(post(chat("slow", "word " * 40))).end().answer()
        assert answer.status == 200
        assert b"word word" in answer.body


def test_pipelined_requests_before_the_end_are_answered(target: Live) -> None:
    with Raw(target) as raw:
        raw.send(post(chat("slow", "a b")) + get() + get("/readyz")).end()
        assert [raw.answer().status for _ in range(3)] == [200, 200, 200]
        assert raw.closed


def test_half_a_request_and_the_end_is_no_request(target: Live) -> None:
    with Raw(target) as raw:
        assert raw.send(b"GET /healthz HTT").end().closed
    with Raw(target) as raw:
        answer = raw.send(head("POST", CHAT, JSON, "Content-Length: 1000"), b"{}").end().answer()
        assert answer.error["code"] == "invalid_http"
        assert raw.closed


def test_a_stream_whose_client_leaves_is_cancelled(target: Live) -> None:
    for leave in (Raw.close, Raw.reset):
        before = cancelled(target)
        raw = Raw(target).send(post(chat("slow", "word " * 2000, stream=True)))
        raw.until(b"data: ")
        leave(raw)
        wait_until_cancelled(target, before)


def test_a_whole_answer_whose_client_leaves_is_cancelled(target: Live) -> None:
    for leave in (Raw.close, Raw.reset):
        before = cancelled(target)
        raw = Raw(target).send(post(chat("slow", "word " * 2000)))
        soon(lambda: running(target) == 1)
        leave(raw)
        wait_until_cancelled(target, before)


def test_pipelined_work_whose_client_leaves_is_cancelled(target: Live) -> None:
    before = cancelled(target)
    raw = Raw(target).send(post(chat("slow", "word " * 2000, stream=True)) * 3)
    raw.until(b"data: ")
    raw.reset()
    wait_until_cancelled(target, before)


def test_resets_in_the_middle_of_requests_harm_nobody(target: Live) -> None:
    for sent in (b"", b"GET /hea", get()[:-2], post(chat())[:-5], head("POST", CHAT, "Transfer-Encoding: chunked")):
        for _ in range(10):
            Raw(target).send(sent).reset()
    assert exchange(target, post(chat())).status == 200


def test_more_promised_than_sent(target: Live) -> None:
    for _ in range(10):
        with Raw(target) as raw:
            raw.send(head("POST", CHAT, JSON, "Content-Length: 500"), chat())
    assert exchange(target, post(chat())).status == 200


def test_the_socket_is_no_longer_waited_on_after_a_goodbye(target: Live) -> None:
    """A refused client that goes on sending is cut off, however much it has to say."""
    with Raw(target) as raw:
        raw.send(b"BAD\r\n\r\n")
        assert raw.answer().status == 400
        soon(lambda: not raw.send_if_open(b"x" * 1000))
