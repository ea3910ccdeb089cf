"""What a step computes: decoding always, prompts in fair pieces, and memory that runs out costs time, not answers."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.models.engines.paged.pages import Pages
from server.models.engines.paged.schedule import Schedule, Sequence, Work

SIZE = 4


def sequence(key: int, tokens: int, *, first: int = 0, **fields: object) -> Sequence:
    return Sequence([first + key * 1000 + index for index in range(tokens)], key=key, prompt=tokens, **fields)  # type: ignore[arg-type]


def step(schedule: Schedule, budget: int = 1000) -> list[Work]:
    """One step in which every sequence that can choose a token chooses one."""
    works = schedule.plan(budget)
    for work in works:
        if work.ends:
            work.sequence.tokens.append(7)
            schedule.done(work)
        else:
            schedule.done(work)
    return works


def told(works: list[Work]) -> dict[int, int]:
    return {work.sequence.key: work.count for work in works}


def test_a_prompt_is_read_in_pieces_and_decoding_goes_on_beside_it() -> None:
    schedule = Schedule(Pages(100, SIZE), 4)
    schedule.add(sequence(1, 5))
    step(schedule)
    schedule.add(sequence(2, 70))
    # The last six would cost a step of their own.
    assert [told(step(schedule, 33)) for _ in range(3)] == [{1: 1, 2: 32}, {1: 1, 2: 38}, {1: 1, 2: 1}]
    schedule.add(sequence(3, 73))
    assert [told(step(schedule, 34))[3] for _ in range(3)] == [32, 32, 9]


def test_prompts_advance_however_many_sequences_decode() -> None:
    schedule = Schedule(Pages(1000, SIZE), 100)
    for key in range(60):
        schedule.add(sequence(key, 1))
    step(schedule)
    schedule.add(sequence(99, 40))
    assert told(step(schedule, 32))[99] == 16


def test_half_of_a_step_goes_to_the_shortest_prompt_and_the_rest_to_the_oldest() -> None:
    schedule = Schedule(Pages(1000, SIZE), 4)
    for key, tokens in ((1, 500), (2, 300), (3, 90)):
        schedule.add(sequence(key, tokens))
    assert told(step(schedule, 100)) == {3: 50, 1: 50}
    assert told(step(schedule, 100)) == {3: 40, 1: 60}
    assert told(step(schedule, 101)) == {3: 1, 2: 50, 1: 50}


def test_no_more_than_parallel_run_and_the_others_come_in_order() -> None:
    schedule = Schedule(Pages(100, SIZE), 2)
    waiting = [sequence(key, 3) for key in range(4)]
    for each in waiting:
        schedule.add(each)
    assert set(told(step(schedule))) == {0, 1}
    schedule.remove(waiting[0])
    assert set(told(step(schedule))) == {1, 2}


def test_a_piece_is_no_larger_than_a_sequence_allows() -> None:
    schedule = Schedule(Pages(100, SIZE), 2)
    schedule.add(sequence(1, 20, piece=8))
    assert [told(step(schedule))[1] for _ in range(3)] == [8, 8, 4]


def test_one_that_does_not_reuse_pages_computes_all_its_tokens() -> None:
    schedule = Schedule(Pages(100, SIZE), 3)
    schedule.add(sequence(1, 21))
    step(schedule)
    again = [sequence(1, 21), sequence(1, 21, reuses=False)]
    for each in again:
        schedule.add(each)
    schedule.plan(100)
    assert [each.cached for each in again] == [20, 0]


def test_the_latest_gives_its_pages_up_and_comes_back_first() -> None:
    pages = Pages(6, SIZE)
    schedule = Schedule(pages, 4)
    first, second, third = sequence(1, 8), sequence(2, 8), sequence(3, 2)
    for each in (first, second, third):
        schedule.add(each)
    while not schedule.preempted:
        step(schedule)
    assert second.pages == [] and second.past == 0
    assert set(told(step(schedule))) == {1}
    schedule.remove(first)
    assert set(told(schedule.plan(100))) == {2, 3}


def test_a_sequence_longer_than_all_pages_is_given_back_and_never_waited_for() -> None:
    schedule = Schedule(Pages(2, SIZE), 4)
    long, growing, short = sequence(1, 9), sequence(2, 6), sequence(3, 2)
    for each in (long, growing, short):
        schedule.add(each)
    assert schedule.exceeding() == [long]
    for _ in range(4):
        step(schedule)
    assert schedule.exceeding() == [growing]
    assert set(told(step(schedule))) == {3}
    assert len(schedule) == 1


def test_guesses_take_free_pages_only() -> None:
    pages = Pages(3, SIZE)
    schedule = Schedule(pages, 4)
    one, other = sequence(1, 3), sequence(2, 3)
    schedule.add(one)
    schedule.add(other)
    step(schedule)
    work = next(work for work in schedule.plan(100) if work.sequence is one)
    schedule.extend(work, list(range(16)))
    assert len(work.guesses) == 4  # the page left over
    assert pages.free == 0 and len(other.pages) == 1
    one.tokens += [*work.guesses[:1], 5]
    schedule.done(work, 1)
    assert (one.past, one.due) == (5, 1)
    assert len(one.pages) == 2


def test_removing_what_is_unknown_is_no_fault() -> None:
    Schedule(Pages(2, SIZE), 1).remove(sequence(1, 3))


class _Life:
    """A schedule under whatever `data` draws, its books checked after every step."""

    def __init__(self, parallel: int, data: st.DataObject) -> None:
        self.pages = Pages(8, SIZE)
        self.schedule = Schedule(self.pages, parallel)
        self.live: dict[int, Sequence] = {}
        self._parallel = parallel
        self._most: dict[int, int] = {}
        self._data = data

    def add(self, key: int) -> None:
        added = Sequence(self._data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=20)), key=key)
        self.live[key] = added
        self._most[key] = len(added.tokens) + self._data.draw(st.integers(1, 11))
        self.schedule.add(added)

    def end(self, key: int) -> None:
        self.schedule.remove(self.live.pop(key))

    def advance(self, budget: int) -> None:
        works = self.schedule.plan(budget)
        assert len({work.sequence.key for work in works}) == len(works) <= self._parallel
        for work in works:
            self._compute(work)
        for key in [key for key, each in self.live.items() if len(each.tokens) >= self._most[key]]:
            self.end(key)
        assert self.schedule.exceeding() == []
        self._check()

    def _compute(self, work: Work) -> None:
        sequence, draw = work.sequence, self._data.draw
        if work.ends and work.count == 1:
            self.schedule.extend(work, draw(st.lists(st.integers(0, 2), max_size=3)))
        assert len(sequence.pages) * SIZE >= sequence.past + work.count + len(work.guesses)
        right = draw(st.integers(0, len(work.guesses)))
        if work.ends:
            sequence.tokens += [*work.guesses[:right], draw(st.integers(0, 2))]
        self.schedule.done(work, right)

    def _check(self) -> None:
        owned = {page for each in self.live.values() for page in each.pages}
        assert self.pages.free + len(owned) == self.pages.count
        written = [page for each in self.live.values() for page in each.pages[each.past // SIZE :]]
        assert len(written) == len(set(written)), "a page that is still written has one owner"


@pytest.mark.parametrize("parallel", [1, 3, 8])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_whatever_comes_every_page_has_its_owner_and_all_come_to_an_end(parallel: int, data: st.DataObject) -> None:
    life = _Life(parallel, data)
    for key in range(data.draw(st.integers(1, 12))):
        life.add(key)
        for _ in range(data.draw(st.integers(0, 3))):
            life.advance(data.draw(st.integers(1, 30)))
        if life.live and data.draw(st.booleans()):
            life.end(data.draw(st.sampled_from(sorted(life.live))))
    for _ in range(1000):
        if not life.live:
            break
        life.advance(8)
    assert not life.live and len(life.schedule) == 0
    assert life.pages.free == life.pages.count
