"""Stop strings: whatever the pieces, the text is cut where the first stop string begins."""

from hypothesis import given
from hypothesis import strategies as st

from server.models.stop import StopScanner

_text = st.text("ab ", max_size=30)
_stops = st.lists(st.text("ab ", min_size=1, max_size=4), min_size=1, max_size=3)


@given(_text, _stops, st.integers(1, 7))
def test_pieces_make_no_difference(text: str, stops: list[str], piece: int) -> None:
    scanner = StopScanner(tuple(stops))
    sent, stopped = "", False
    for at in range(0, len(text), piece):
        more, stopped = scanner.feed(text[at : at + piece])
        sent += more
        if stopped:
            break
    if not stopped:
        sent += scanner.flush()
    assert not any(stop in sent for stop in stops)
    assert text.startswith(sent)
    assert stopped == any(stop in text for stop in stops)
    if not stopped:
        assert sent == text
