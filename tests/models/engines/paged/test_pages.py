"""Pages under any order of use: none is lost, none is written by two, and what is found is what was computed."""

from hypothesis import given, settings
from hypothesis import strategies as st

from server.models.engines.paged.pages import Held, Pages

SIZE = 4


def computed(pages: Pages, tokens: list[int]) -> Held:
    held = Held(tokens)
    pages.restore(held)
    assert pages.reserve(held, len(tokens))
    pages.advance(held, len(tokens))
    return held


def test_a_prefix_is_found_page_by_page_and_its_last_token_left_to_compute() -> None:
    pages = Pages(8, SIZE)
    first = computed(pages, list(range(8)))
    again, longer, other = Held(list(range(8))), Held(list(range(9))), Held([*range(4), 9, 9, 9, 9, 9])
    for held in (again, longer, other):
        pages.restore(held)
    assert (again.past, longer.past, other.past) == (4, 8, 4)
    assert longer.pages == first.pages[:2]


def test_the_same_tokens_after_others_are_another_page() -> None:
    pages = Pages(8, SIZE)
    computed(pages, [1, 1, 1, 1, 2, 2, 2, 2])
    held = Held([2, 2, 2, 2, 2])
    pages.restore(held)
    assert held.past == 0


def test_content_survives_its_owner_until_the_page_is_needed() -> None:
    pages = Pages(2, SIZE)
    pages.release(computed(pages, list(range(8))))
    assert pages.free == 2
    again = Held(list(range(9)))
    pages.restore(again)
    assert again.past == 8
    pages.release(again)
    pages.release(computed(pages, [9] * 8))
    gone = Held(list(range(9)))
    pages.restore(gone)
    assert gone.past == 0


def test_a_reservation_that_does_not_fit_takes_nothing() -> None:
    pages = Pages(2, SIZE)
    held = Held([0] * 12)
    assert not pages.reserve(held, 12)
    assert (pages.free, held.pages) == (2, [])


def test_spare_pages_go_back_and_what_was_guessed_into_them_is_never_found() -> None:
    pages = Pages(4, SIZE)
    held = Held([1, 2, 3])
    assert pages.reserve(held, 3 + 8)  # three tokens and eight guesses
    held.tokens.append(4)  # none of them right
    pages.advance(held, 3)
    assert (pages.free, held.published) == (3, 0)
    held.tokens.append(5)
    pages.reserve(held, 5)
    pages.advance(held, 4)
    found = Held([1, 2, 3, 4, 5, 6])
    pages.restore(found)
    assert found.pages == held.pages[:1]


class _Content:
    """What the pages would hold: tokens by page and place, written as a decoder writes them."""

    def __init__(self, pages: Pages) -> None:
        self.cells = [[-1] * SIZE for _ in range(pages.count)]

    def write(self, held: Held, tokens: list[int]) -> None:
        for place, token in enumerate(tokens, held.past):
            self.cells[held.pages[place // SIZE]][place % SIZE] = token

    def check(self, held: Held) -> None:
        for place in range(held.past):
            assert self.cells[held.pages[place // SIZE]][place % SIZE] == held.tokens[place]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_page_is_lost_or_written_by_two_and_every_prefix_is_true(data: st.DataObject) -> None:
    pages = Pages(6, SIZE)
    content = _Content(pages)
    live: list[Held] = []
    token = st.integers(0, 1)
    for _ in range(data.draw(st.integers(1, 40))):
        action = data.draw(st.sampled_from(["begin", "go on", "guess", "end"]))
        if action == "begin" or not live:
            held = Held(data.draw(st.lists(token, min_size=1, max_size=12)))
            pages.restore(held)
            live.append(held)
        held = data.draw(st.sampled_from(live))
        if action == "end":
            pages.release(held)
            live.remove(held)
        elif action == "go on" and pages.reserve(held, len(held.tokens)):
            content.write(held, held.tokens[held.past :])
            pages.advance(held, len(held.tokens))
            held.tokens.append(data.draw(token))
        elif action == "guess" and held.due == 1:
            guesses = data.draw(st.lists(token, max_size=9))
            right = data.draw(st.integers(0, len(guesses)))
            if pages.reserve(held, len(held.tokens) + len(guesses)):
                content.write(held, [held.tokens[-1], *guesses])
                held.tokens += [*guesses[:right], data.draw(token)]
                pages.advance(held, len(held.tokens) - 1)
        for each in live:
            content.check(each)
        owned = {page for each in live for page in each.pages}
        assert pages.free + len(owned) == pages.count
        partial = [each.pages[page] for each in live for page in range(each.past // SIZE, len(each.pages))]
        assert len(partial) == len(set(partial)), "a page that is still written has one owner"
    for held in live:
        pages.release(held)
    assert pages.free == pages.count
