"""The reading set: passages, questions over them, and the words that answer each."""

from pathlib import Path

from bench.table import CannotRun
from server.models.engines.reader.questions import Passage, read

_DEFAULT = Path(__file__).parents[2] / "shared" / "data" / "reading"


def passages(folder: str | None) -> list[Passage]:
    """The dev part, from `folder` or where it lies beside the clone. Raises CannotRun where there is none."""
    file = (_DEFAULT if folder is None else Path(folder)) / "dev.jsonl"
    if not file.is_file():
        raise CannotRun(f"No data, nothing measured: {file} does not exist. Name the reading set's folder with --data.")
    return read(file)
