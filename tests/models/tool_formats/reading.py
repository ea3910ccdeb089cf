"""How these tests read an answer: in pieces of any size, to its text and its calls."""

from collections.abc import Iterable, Sequence

from server.models.tool_formats import CallArguments, CallStart, Piece, Text, ToolFormat, ToolSpec


def pieces(form: ToolFormat, chunks: Iterable[str], tools: Sequence[ToolSpec] = ()) -> list[Piece]:
    parser = form.parser(tools)
    found = [piece for chunk in chunks for piece in parser.feed(chunk)]
    return found + parser.finish()


def summed(found: Sequence[Piece]) -> tuple[str, list[tuple[str, str]]]:
    """The content, and each call's name and arguments; calls have to be numbered as they come."""
    text, calls = "", list[tuple[str, str]]()
    for piece in found:
        match piece:
            case Text(text=more):
                text += more
            case CallStart(index=index, name=name):
                assert index == len(calls)
                calls.append((name, ""))
            case CallArguments(index=index, text=more):
                name, arguments = calls[index]
                calls[index] = (name, arguments + more)
    return text, calls


def read(form: ToolFormat, answer: str, size: int | None = None) -> tuple[str, list[tuple[str, str]]]:
    """What an answer holds, fed in chunks of `size` characters, or whole."""
    step = size or max(1, len(answer))
    return summed(pieces(form, [answer[at : at + step] for at in range(0, len(answer), step)]))
