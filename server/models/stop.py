"""Stop strings over a stream of text, the same for every engine; knows nothing of tokens."""


class StopScanner:
    """Cuts a stream at the first of `stops`, holding back text that may be the beginning of one.

    `met` is the one that cut it, None as long as none did.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self.met: str | None = None
        self._stops = stops
        self._held = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """The text that may be sent now, and whether a stop string was met (then nothing follows)."""
        if not self._stops:
            return text, False
        seen = self._held + text
        found = [(at, stop) for stop in self._stops if (at := seen.find(stop)) >= 0]
        if found:
            cut, self.met = min(found)
            self._held = ""
            return seen[:cut], True
        keep = max(overlap(seen, stop) for stop in self._stops)
        self._held = seen[len(seen) - keep :]
        return seen[: len(seen) - keep], False

    def flush(self) -> str:
        """What was held back, once the stream has ended by itself."""
        held, self._held = self._held, ""
        return held


def overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
