"""What parsers of tool calls are made of: a machine over held-back text, and the reader of one call's JSON."""

from collections.abc import Callable

import msgspec

from server.models.stop import overlap
from server.models.tool_formats.jsonscan import Begin, End, JsonScanner, Key, Member
from server.models.tool_formats.pieces import CallArguments, CallStart, Piece, Text

_NAMES = frozenset({"name"})
_ARGUMENTS = frozenset({"arguments", "parameters"})
# Other keys calls are seen with; anything else says that an object is no call.
_BESIDE = frozenset({"id", "type", "index"})


class StreamParser:
    """A state machine over `rest`, the text not yet understood.

    A state is a method that takes from `rest`, may change `state`, and says whether there is more to do with what is
    there. Once `ended`, no state may wait. `opening` is kept while a call is not certain, to be given back as Text.
    """

    def __init__(self, begin: Callable[[], bool] | None = None) -> None:
        self.rest = ""
        self.ended = False
        self.state: Callable[[], bool] = begin or self.content
        self.opening = ""
        self.calls = 0
        self._pieces: list[Piece] = []
        self._reader = CallReader(0, "")

    def feed(self, text: str) -> list[Piece]:
        self.rest += text
        return self._run()

    def finish(self) -> list[Piece]:
        self.ended = True
        return self._run()

    def content(self) -> bool:
        """Where plain text stands; a format's own parser says what begins a call."""
        self.say(self.rest)
        self.rest = ""
        return False

    def content_until(self, marker: str, then: Callable[[], bool]) -> bool:
        """Send text up to `marker`, holding back what may be its beginning and the blanks before it."""
        at = self.rest.find(marker)
        if at >= 0:
            text = self.rest[:at].rstrip()
            self.opening = self.rest[len(text) : at + len(marker)]
            self.rest = self.rest[at + len(marker) :]
            self.say(text)
            self.state = then
            return True
        certain = self.rest
        if not self.ended:
            certain = certain[: len(certain) - overlap(certain, marker)].rstrip()
        elif self.calls and not certain.strip():
            certain, self.rest = "", ""
        self.say(certain)
        self.rest = self.rest[len(certain) :]
        return False

    def say(self, text: str) -> None:
        if text:
            self._pieces.append(Text(text))

    def give(self, piece: Piece) -> None:
        self._pieces.append(piece)

    def skip_space(self) -> bool:
        """Move blanks to `opening`; whether anything else is there."""
        bare = self.rest.lstrip()
        self.opening += self.rest[: len(self.rest) - len(bare)]
        self.rest = bare
        return bool(bare)

    def no_call(self) -> bool:
        """What looked like a call is none: `opening` is Text after all, and `rest` is read anew."""
        self.say(self.opening)
        self.opening = ""
        self.state = self.content
        return bool(self.rest)

    def read_object(self, then: Callable[[], bool], *, bare: bool, name: str | None = None) -> bool:
        """Read the call whose object begins `rest`, and go on with `then` after it.

        `bare` says that nothing but the object itself tells that it is a call. With `name` it is the arguments alone.
        """
        self._reader = CallReader(self.calls, self.opening, bare=bare, name=name)
        self.opening = ""

        def state() -> bool:
            return self._read(then)

        self.state = state
        return True

    def _read(self, then: Callable[[], bool]) -> bool:
        reader = self._reader
        self._pieces += reader.feed(self.rest)
        self.rest = ""
        if not (reader.over or self.ended):
            return False
        if not reader.over:
            reader.give_up()
        self.calls = reader.index + reader.started
        left, self.opening = reader.left, ""
        self.say(left[: reader.unread])
        self.rest = left[reader.unread :]
        self.state = then if reader.good else self.content
        return True

    def _run(self) -> list[Piece]:
        while self.state():
            pass
        pieces, self._pieces = self._pieces, []
        return merged(pieces)


class CallReader:
    """Reads one call, {"name": ..., "arguments": {...}}, that arrives in pieces.

    The call starts when its name and the `{` of its arguments are there; from then on its arguments stream. `over`
    once it ended well (`good`) or broke. `left` is then the text that belongs to no call: its first `unread`
    characters are this call's own failed text, the others follow it.
    """

    def __init__(self, index: int, opening: str, *, bare: bool = False, name: str | None = None) -> None:
        self.index = index
        self.started = False
        self.over = False
        self.good = False
        self.left = ""
        self.unread = 0
        self._opening = opening
        self._bare = bare
        self._name = name
        self._alone = name is not None
        self._text = ""
        self._scanner = JsonScanner()
        self._key = ""
        self._begin: int | None = 0 if self._alone else None
        self._end: int | None = None
        self._quoted: str | None = None
        self._sent = 0

    def feed(self, text: str) -> list[Piece]:
        self._text += text
        broken = not self._understood(self._scanner.scan(self._text))
        if self._alone and self._scanner.done:
            self._end = self._scanner.at
        if broken or (self._scanner.bad and not self._certain()):
            self.give_up()
            return []
        pieces = self._progress()
        if self._scanner.bad:
            self.give_up()
        elif self._scanner.done:
            self._close(pieces)
        return pieces

    def give_up(self) -> None:
        """Nothing more comes, or it makes no sense: what was not sent is no call."""
        self.over = True
        if not self.started:
            self.left = self._opening + self._text
            self.unread = len(self._opening) + (self._scanner.at if self._scanner.bad else len(self._text))
            # At least the first brace is this call's own: reading it again would find the same call.
            self.unread = max(self.unread, len(self._opening) + 1)
        elif self._end is None:
            self.left, self.unread = self._text[self._sent :], 0
        else:
            # The arguments are whole; what closes the call around them is layout as far as it was good.
            self.left, self.unread = self._text[self._scanner.at :], 0

    def _certain(self) -> bool:
        return self._name is not None and self._begin is not None

    def _understood(self, members: list[Member]) -> bool:
        try:
            return all([self._member(member) for member in members])
        except msgspec.DecodeError:  # an escape that is half a character
            return False

    def _member(self, member: Member) -> bool:
        """Note a member of the call; False where no call has such a one."""
        if self._alone:
            return True
        match member:
            case Key(start=start, end=end):
                self._key = msgspec.json.decode(self._text[start:end], type=str)
                return not self._bare or self._key in _NAMES | _ARGUMENTS | _BESIDE
            case Begin(start=start):
                return self._value_begins(start)
            case End(start=start, end=end):
                return self._value_ends(start, end)

    def _value_begins(self, start: int) -> bool:
        first = self._text[start]
        if self._key in _NAMES:
            return first == '"' and self._name is None
        if self._key in _ARGUMENTS:
            if self._begin is not None or self._quoted is not None or first not in '{"n':
                return False
            if first == "{":
                self._begin = self._sent = start
        return True

    def _value_ends(self, start: int, end: int) -> bool:
        value = self._text[start:end]
        if self._key in _NAMES:
            self._name = msgspec.json.decode(value, type=str)
            return bool(self._name)
        if self._key in _ARGUMENTS:
            if value[0] == "{":
                self._end = end
            elif value == "null":
                self._quoted = "{}"
            else:
                # Some models write the arguments as the OpenAI wire does: an object inside a string.
                self._quoted = msgspec.json.decode(value, type=str)
                return is_object(self._quoted)
        return True

    def _progress(self) -> list[Piece]:
        if not self._certain():
            return []
        pieces: list[Piece] = []
        if not self.started:
            pieces.append(self._start())
        upto = self._scanner.at if self._end is None else self._end
        if upto > self._sent:
            pieces.append(CallArguments(self.index, self._text[self._sent : upto]))
            self._sent = upto
        return pieces

    def _start(self) -> CallStart:
        assert self._name is not None
        self.started = True
        return CallStart(self.index, self._name)

    def _close(self, pieces: list[Piece]) -> None:
        if not self.started:
            if self._name is None or (self._quoted is None and self._bare):
                self.give_up()
                return
            pieces += [self._start(), CallArguments(self.index, self._quoted or "{}")]
        self.over = self.good = True
        self.left = self._text[self._scanner.at :]


def is_object(text: str) -> bool:
    """Whether `text` is a JSON object."""
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except msgspec.DecodeError:
        return False


def merged(pieces: list[Piece]) -> list[Piece]:
    """The same pieces, neighbours of one kind made one."""
    out: list[Piece] = []
    for piece in pieces:
        match out[-1] if out else None, piece:
            case Text(text=before), Text(text=text):
                out[-1] = Text(before + text)
            case CallArguments(index=one, text=before), CallArguments(index=other, text=text) if one == other:
                out[-1] = CallArguments(one, before + text)
            case _:
                out.append(piece)
    return out
