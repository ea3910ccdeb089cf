"""The process that makes a snapshot: reads its recipe from the standard input, writes lines of JSON."""

import json
import pickle
import sys
import time

import msgspec

from server.errors import HearthError
from server.policies.backup.job import Backup

_EVERY_S = 0.2


def main() -> None:
    last = 0.0

    def tell(sentence: str) -> None:
        nonlocal last
        if time.monotonic() - last >= _EVERY_S:
            last = time.monotonic()
            _say({"told": sentence})

    try:
        recipe = pickle.load(sys.stdin.buffer)
        report = Backup.declared(recipe, tell).make(recipe)
    except HearthError as fault:
        _say({"code": fault.code, "message": fault.message})
        sys.exit(1)
    _say({"report": msgspec.to_builtins(report)})


def _say(what: object) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main()
