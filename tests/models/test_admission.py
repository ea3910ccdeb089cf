"""Who of the waiting goes next: decisions without a clock, and the door that acts on them."""

import asyncio

import pytest

from config.model import EchoModel
from server.errors import Overloaded
from server.models.admission import Admission, charge_of, room
from server.models.caller import CALLER, Caller, Charge
from server.models.engine import Embed, Generate, Message, Rerank
from server.models.fair_queue import FairQueue, Room, Ticket

pytestmark = pytest.mark.anyio

PATIENCE = 10.0


def full(places: int = 1, spare: int = 0, short: float = 0, queue: int = 100) -> FairQueue:
    """A queue whose places the caller `held` has all."""
    made = FairQueue(Room(places, spare, short), queue)
    for _ in range(places):
        assert made.enter(Ticket("held", short + 1))
    return made


def wait(queue: FairQueue, caller: str, count: int = 1, cost: float = 1) -> None:
    for _ in range(count):
        ticket = Ticket(caller, cost)
        assert not queue.enter(ticket)
        queue.wait(ticket)


def served(queue: FairQueue, count: int, inside: Ticket) -> str:
    """The callers of the next `count`, each of which ends before the next is taken."""
    order = []
    for _ in range(count):
        queue.leave(inside)
        following = queue.admit()
        assert following is not None
        inside = following
        order.append(inside.caller)
    return " ".join(order)


def test_one_waits_for_one_request_of_a_flood_and_not_for_all() -> None:
    queue = FairQueue(Room(1, 0), 300)
    queue.enter(first := Ticket("flood", 1))
    wait(queue, "flood", 200)
    wait(queue, "one")
    assert served(queue, 3, first) == "one flood flood"


def test_waiting_callers_take_turns_whatever_order_they_came_in() -> None:
    queue = FairQueue(Room(1, 0), 300)
    queue.enter(first := Ticket("a", 1))
    wait(queue, "a", 3)
    wait(queue, "b", 3)
    wait(queue, "c", 1)
    assert served(queue, 7, first) == "b c a b a b a"


def test_large_requests_take_turns_with_as_many_small_ones() -> None:
    queue = FairQueue(Room(1, 0), 300)
    queue.enter(first := Ticket("large", 100))
    wait(queue, "large", 3, cost=100)
    wait(queue, "small", 8, cost=25)
    assert served(queue, 11, first) == "small small small small large small small small small large large"


def test_a_rest_saves_nothing_up() -> None:
    queue = FairQueue(Room(1, 0), 300)
    queue.enter(inside := Ticket("busy", 1))
    wait(queue, "busy", 50)
    for _ in range(49):
        queue.leave(inside)
        following = queue.admit()
        assert following is not None
        inside = following
    wait(queue, "busy", 3)
    wait(queue, "rested", 3)
    assert served(queue, 6, inside) == "rested busy rested busy rested busy"


def test_a_caller_without_a_place_takes_a_spare_one_and_no_second() -> None:
    queue = full(places=2, spare=1)
    assert queue.enter(Ticket("other", 1))
    assert not queue.enter(Ticket("other", 1))
    assert not queue.enter(Ticket("third", 1))
    assert queue.admit() is None


def test_a_short_request_overtakes_and_takes_no_place() -> None:
    queue = full(places=1, short=10)
    wait(queue, "bulk", cost=50)
    ticket = Ticket("query", 10)
    assert queue.enter(ticket)
    assert (queue.running, queue.waiting) == (2, 1)
    queue.leave(ticket)
    assert queue.admit() is None
    assert (queue.running, queue.waiting) == (1, 1)


def test_short_requests_are_bounded_too() -> None:
    queue = full(places=1, short=10, queue=2)
    assert [queue.enter(Ticket("query", 1)) for _ in range(3)] == [True, True, False]


def test_the_queue_is_shared_by_those_that_wait() -> None:
    queue = full(queue=8)
    assert queue.share("a") == 8
    wait(queue, "a", 8)
    assert (queue.share("a"), queue.share("b")) == (8, 4)
    wait(queue, "b")
    assert (queue.share("a"), queue.share("b"), queue.share("c")) == (4, 4, 2)
    assert full(queue=1).share("a") == 1


def test_one_that_gives_up_waiting_is_passed_over() -> None:
    queue = FairQueue(Room(1, 0), 300)
    queue.enter(first := Ticket("a", 1))
    wait(queue, "a", 1)
    queue.wait(gone := Ticket("b", 1))
    queue.leave(gone)
    assert (queue.waiting, queue.callers) == (1, 1)
    assert served(queue, 1, first) == "a"
    assert queue.admit() is None


def test_requests_are_weighed_before_anybody_counts_them() -> None:
    text = "four" * 100
    assert charge_of(Generate([Message("user", text)], max_tokens=16)).cost == 116
    assert charge_of(Generate(prompt=text)).expected == 100
    assert charge_of(Generate(prompt=[1, 2, 3])).expected == 3
    assert charge_of(Embed(texts=[text, text])).expected == 200
    assert charge_of(Embed(tokens=[[1, 2], [3]])).expected == 3
    assert charge_of(Rerank("four", [text, text])).expected == 202


# ---- the door -------------------------------------------------------------------------------------------------------


def door(queue: int = 4) -> Admission:
    return Admission("m", room(EchoModel(engine="echo", parallel=1)), queue)


def charge(caller: Caller) -> Charge:
    token = CALLER.set(caller)
    try:
        return Charge(expected=1, cost=1)
    finally:
        CALLER.reset(token)


async def test_a_waiting_request_goes_in_when_one_leaves() -> None:
    admission = door()
    first, second = (admission.ask(charge(Caller("a"))) for _ in range(2))
    assert (first.inside, second.inside, admission.waiting) == (True, False, 1)
    turn = asyncio.create_task(admission.turn(second, None))
    admission.leave(first)
    assert await asyncio.wait_for(turn, PATIENCE)
    assert (second.inside, admission.waiting) == (True, 0)


async def test_a_turn_that_does_not_come_in_time_frees_its_place() -> None:
    admission = door()
    admission.ask(charge(Caller("a")))
    late = admission.ask(charge(Caller("a")))
    assert not await admission.turn(late, asyncio.get_running_loop().time())
    admission.leave(late)
    assert admission.waiting == 0


async def test_a_caller_that_leaves_while_it_is_let_in_passes_its_place_on() -> None:
    admission = door()
    first, gone, last = (admission.ask(charge(Caller("a"))) for _ in range(3))
    leaving = asyncio.create_task(admission.turn(gone, None))
    await asyncio.sleep(0)
    leaving.cancel()
    admission.leave(first)  # before the task has heard of its end
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert gone.inside
    admission.leave(gone)
    assert await asyncio.wait_for(admission.turn(last, None), PATIENCE)


async def test_a_flood_is_refused_for_itself_alone() -> None:
    admission = door(queue=4)
    flood, other = Caller("flood"), Caller("other")
    for _ in range(5):
        admission.ask(charge(flood))
    with pytest.raises(Overloaded, match="4 requests of the key `flood` waiting") as refused:
        admission.ask(charge(flood))
    assert refused.value.retry_after is not None and refused.value.retry_after >= 1
    assert not admission.ask(charge(other)).inside
    assert admission.waiting == 5


async def test_a_key_may_have_a_shorter_queue_of_its_own() -> None:
    admission = door(queue=4)
    small = Caller("small", queue=1)
    for _ in range(2):
        admission.ask(charge(small))
    with pytest.raises(Overloaded):
        admission.ask(charge(small))


async def test_a_queue_that_is_made_shorter_keeps_those_that_wait() -> None:
    admission = door(queue=4)
    for _ in range(4):
        admission.ask(charge(Caller("a")))
    admission.resize(2)
    with pytest.raises(Overloaded):
        admission.ask(charge(Caller("a")))
    assert admission.waiting == 3
