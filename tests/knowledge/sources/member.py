"""A member of a consumer group in a process of its own, which writes what it has done as lines of JSON.

`python -m tests.knowledge.sources.member BROKERS TOPIC FOLDER SESSION_MS`. SIGTERM has it leave its group.
"""

import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from config.knowledge import KafkaSource
from server.knowledge.sources import kafka_stream
from server.models.prompts import Side
from tests.knowledge.hashing import HashedWords, HashEmbedder
from tests.knowledge.sources.conftest import Followed, following

ENDLESS = "endlessly"
"""A text with this word is never embedded here."""
_LOOK_S = 0.02


class Stuck(HashEmbedder):
    """Never done with a text that holds ENDLESS."""

    def __init__(self) -> None:
        super().__init__()
        self.is_stuck = False

    async def embed(self, inputs: Sequence[str], side: Side = "document") -> HashedWords:
        if any(ENDLESS in text for text in inputs):
            self.is_stuck = True
            await asyncio.Event().wait()
        return await super().embed(inputs, side)


async def main(brokers: str, topic: str, folder: str, session_ms: str) -> None:
    kafka_stream._SESSION_MS = int(session_ms)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    embedder = Stuck()
    async with following(KafkaSource(kafka=brokers, topic=topic), Path(folder), embedder) as followed:
        told = ""
        while not ended.is_set():
            if (now := _told(followed, embedder)) != told:
                told = now
                print(told, flush=True)
            await asyncio.sleep(_LOOK_S)  # what another task does


def _told(followed: Followed, embedder: Stuck) -> str:
    state = followed.follower.state
    return json.dumps({"state": state.state, "messages": state.messages, "is_stuck": embedder.is_stuck})


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
