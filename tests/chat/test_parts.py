"""What of messages is more than text: who reads it, where pictures' marks stand, and what a template has to show."""

import pytest

from server.chat import parts
from server.chat.parts import placed, readable, shown
from server.errors import InvalidValue
from server.models.engine import Message
from tests.pictures import picture, url

RED, BLUE = (picture(colour, size=(4, 4)) for colour in ("red", "blue"))


def image(data: bytes) -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": url(data)}}


def text(said: str) -> dict[str, object]:
    return {"type": "text", "text": said}


def test_who_sees_reads_pictures_and_another_server_whatever_it_does() -> None:
    heard = {"type": "input_audio", "input_audio": {}}
    given = [text("One"), image(RED), heard]
    for honours, read in (
        ([], [True, False, False]),
        (["images"], [True, True, False]),
        (["parts"], [True, True, True]),
    ):
        assert [readable(part, honours) for part in given] == read


def test_marks_stand_where_the_pictures_stood_and_texts_stay_apart() -> None:
    content = [text("One"), text("two"), image(RED), text("three"), image(BLUE)]
    plain = Message("system", "Be brief.")
    [first, message], [red, blue] = placed([plain, Message("user", "One\ntwo\nthree", parts=content)])
    assert first is plain
    assert message == Message("user", f"One\ntwo{red.mark}three{blue.mark}")
    assert [red.data, blue.data] == [RED, BLUE]
    assert [red.param, blue.param] == ["messages[1].content[2]", "messages[1].content[4]"]


def test_the_clients_own_names_of_places_are_told() -> None:
    message = Message("tool", "", parts=[image(RED)], origins=["messages[2].content[0].content[1]"])
    assert placed([message])[1][0].param == "messages[2].content[0].content[1]"


def test_a_request_has_no_more_pictures_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MOST", 2)
    assert len(placed([Message("user", "", parts=[image(RED)] * 2)])[1]) == 2
    with pytest.raises(InvalidValue) as fault:
        placed([Message("user", "", parts=[image(RED)] * 3)])
    assert fault.value.param == "messages[0].content[2]"


def test_a_template_that_leaves_a_picture_out_is_told() -> None:
    _, [red] = placed([Message("user", "", parts=[image(RED)])])
    shown(f"<user>{red.mark}</user>", [red])
    for prompt in ("<user></user>", red.mark * 2):
        with pytest.raises(InvalidValue, match="template does not show") as fault:
            shown(prompt, [red])
        assert fault.value.param == "messages[0].content[0]"
