"""The folder a package is given: the user's own where it reads that rightly, else one beside the data that it does.

Nothing of the user's is changed. What has to be written once, an AWQ model as GPTQ, stays in the cache under a name
that says what it was made of; where a small file alone has to be in other words, links stand for all else.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from server.models.engines.exllama import awq
from server.models.engines.exllama.preflight import beside_tower, quantised, rewritten
from server.models.engines.exllama.sight import PROCESSOR, processor
from server.models.header import config, parts, read_json


@contextmanager
def readable(engine: str, folder: Path, cache: Path, progress: Callable[[str], None]) -> Iterator[Path]:
    """While this lasts, a folder that `engine`, exllamav2 or exllamav3, reads as `folder` means it. `cache` is Hearth's
    own.

    Raises WeightsError or OSError naming the file at fault.
    """
    if engine == "exllamav2" and quantised(folder, config(folder)).kind == "awq":
        folder = repacked(folder, cache, progress)
    made = _in_other_words(engine, folder)
    if not made:
        yield folder
        return
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="exllama-", dir=cache) as room:
        for file in folder.iterdir():
            if file.is_file() and file.name not in made:
                (Path(room) / file.name).symlink_to(file.resolve())
        for name, said in made.items():
            (Path(room) / name).write_text(json.dumps(said), encoding="utf-8")
        yield Path(room)


def _in_other_words(engine: str, folder: Path) -> dict[str, dict[str, Any]]:
    """The files that `engine` would not find or read otherwise, by name."""
    told = config(folder)
    made = {"config.json": rewritten(told) if engine == "exllamav2" else beside_tower(told)}
    if "vision_config" in told and (said := processor(engine, folder)) is not None:
        made[PROCESSOR] = said
    kept = {name: read_json(folder / name) for name in made if (folder / name).is_file()}
    return {name: said for name, said in made.items() if said != kept.get(name)}


def repacked(folder: Path, cache: Path, progress: Callable[[str], None]) -> Path:
    """The AWQ model of `folder` as GPTQ, made at the first call; half of one is never left behind."""
    place = cache / "gptq-of-awq" / f"{folder.name}-{_mark(folder)}"
    if (place / "config.json").is_file():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    half = Path(tempfile.mkdtemp(prefix=f"{place.name}.", dir=place.parent))
    try:
        awq.repack(folder, half, progress)
        half.replace(place)
    except OSError:
        if not (place / "config.json").is_file():  # else another worker was faster
            raise
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return place


def _mark(folder: Path) -> str:
    """Sixteen digits that differ where the files do: their names, sizes and times."""
    said = hashlib.sha256()
    for file in [folder / "config.json", *parts(folder)]:
        stat = file.stat()
        said.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return said.hexdigest()[:16]
