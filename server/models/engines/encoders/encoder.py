"""An encoder on the OpenVINO runtime: tokens in, one unit vector or one score out. Imported by workers only.

Pooling, normalisation or the scoring head stand inside the graph, which is stored once as OpenVINO IR in the cache.
"""

import fcntl
import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Literal

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from tokenizers import Tokenizer

from server.models.engine import Detokenize, Spelled, Tokenize, Tokens, check_tokens
from server.models.engines.encoders.config import FAMILIES, Shape, Task, advised
from server.models.engines.encoders.graph import VERSION, build
from server.models.engines.encoders.tensors import files_of


class Encoder:
    """Weights, tokenizer and one compiled graph. One thread uses it."""

    def __init__(
        self,
        folder: Path,
        cache: Path,
        precision: Literal["auto", "f32", "bf16"],
        threads: int | None,
        task: Task = "embed",
    ) -> None:
        """Blocks for a second or less once the cache is warm. Raises ValueError naming the file at fault."""
        self.shape = Shape.read(folder, task)
        self.advised = advised(folder)
        self.tokenizer_file = folder / "tokenizer.json"
        self._tokenizer = _tokenizer(self.tokenizer_file, self.shape.vocabulary)
        self._start, self._end = self._frame()
        self._tie = self._end * FAMILIES[self.shape.family].tie
        self.window = self.shape.window
        self.weights = files_of(folder)
        self.weights_bytes = sum(file.stat().st_size for file in self.weights)
        core = ov.Core()
        self.precision = _precision(core, precision)
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": self.precision,
            "PERFORMANCE_HINT": "LATENCY",
            # A thread bound to a processor waits there while another process has it, and all others wait for it.
            "ENABLE_CPU_PINNING": False,
            "CACHE_DIR": str(cache / "compiled"),
        }
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        self._core, self._cache, self._settings = core, cache, settings
        self.weights_sum = " ".join(map(sum_of, self.weights))
        self._request = self.compiled(f"{self.weights_sum} {self.shape}", lambda: build(self.weights, self.shape))

    def compiled(self, made_of: str, make: Callable[[], ov.Model]) -> ov.InferRequest:
        """A graph ready to run, from the cache or by `make`; `made_of` tells all that it depends on."""
        key = hashlib.sha256(f"{made_of} {ov.__version__} graph {VERSION}".encode()).hexdigest()[:24]
        home = self._cache / "encoders" / key
        with _alone(self._cache):
            if not _is_whole(home):
                shutil.rmtree(home, ignore_errors=True)
                _store(make(), home)
            return self._core.compile_model(str(home / "model.xml"), "CPU", self._settings).create_infer_request()

    def _frame(self) -> tuple[list[int], list[int]]:
        """The special tokens before and after a text, which the tokenizer puts there as the encoder was trained."""
        file, family = self.tokenizer_file, FAMILIES[self.shape.family]
        framed = self._tokenizer.encode("").ids
        if family.first is None or family.last is None:
            # A decoder that embeds says everything at one token behind the text, which its tokenizer adds.
            if len(framed) != 1:
                raise ValueError(
                    f"{file}: encodes an empty text as {framed}, where a {family.name} model that embeds needs one "
                    "token at the end; mend its post_processor"
                )
            return [], framed
        wanted = [_special(self._tokenizer, file, token, family.name) for token in (family.first, family.last)]
        if framed != wanted:
            raise ValueError(
                f"{file}: encodes an empty text as {framed}, where a {family.name} encoder needs {wanted}; "
                "mend its post_processor"
            )
        return wanted[:1], wanted[1:]

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included, nothing cut."""
        return [encoded.ids for encoded in self._tokenizer.encode_batch(list(texts))]

    def framed(self, ids: list[int]) -> list[int]:
        """Bare token ids with the special tokens around them."""
        return [*self._start, *ids, *self._end]

    def bare(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text without special ones."""
        return [encoded.ids for encoded in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    @property
    def frame(self) -> int:
        """How many special tokens a pair has."""
        return len(self._start) + len(self._tie) + len(self._end)

    def paired(self, one: list[int], other: list[int]) -> list[int]:
        """Bare token ids of two texts as the family joins them; the other text's part starts at `second(one)`."""
        return [*self._start, *one, *self._tie, *other, *self._end]

    def second(self, one: list[int]) -> int:
        """The first token of type 1 in a pair: token types change after the first separators."""
        return len(self._start) + len(one) + len(self._tie)

    def pieces(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Bare token ids of each text, and the characters that each token stands for."""
        encoded = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [(each.ids, each.offsets) for each in encoded]

    def count(self, text: str) -> int:
        """Tokens of `text` without special ones."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def tokenize(self, request: Tokenize) -> Tokens:
        self._tokenizer.encode_special_tokens = not request.parse_special
        encoded = self._tokenizer.encode(request.text, add_special_tokens=request.add_special)
        self._tokenizer.encode_special_tokens = False
        return Tokens(encoded.ids, [token.encode() for token in encoded.tokens] if request.pieces else [])

    def detokenize(self, request: Detokenize) -> Spelled:
        """Raises InvalidValue for an id that is not in the vocabulary."""
        check_tokens(request.tokens, self.shape.vocabulary, "tokens")
        return Spelled(self._tokenizer.decode(request.tokens, skip_special_tokens=False))

    def encode(self, rows: list[list[int]]) -> NDArray[np.float32]:
        """Unit vectors [rows, hidden] of one padded batch; every row at most `window` ids long. For task embed."""
        ids, mask = _padded(rows)
        self._request.infer({"input_ids": ids, "attention_mask": mask})
        # The tensor is overwritten by the next call.
        return np.array(self._request.get_tensor("embedding").data, np.float32)

    def score(self, rows: list[list[int]], seconds: Sequence[int]) -> list[float]:
        """Relevance, 0 to 1, of each pair; its second text begins at the id of that number. For task rerank."""
        ids, mask = _padded(rows)
        inputs = {"input_ids": ids, "attention_mask": mask}
        if self.shape.kinds > 1:
            inputs["token_type_ids"] = mask * (np.arange(ids.shape[1]) >= np.asarray(seconds)[:, None])
        self._request.infer(inputs)
        scores: list[float] = self._request.get_tensor("score").data[:, 0].astype(float).tolist()
        return scores


def _padded(rows: list[list[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
    mask = np.zeros_like(ids)
    for at, row in enumerate(rows):
        ids[at, : len(row)] = row
        mask[at, : len(row)] = 1
    return ids, mask


def _tokenizer(file: Path, vocabulary: int) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises plain Exception for every fault of the file
        raise ValueError(f"{file}: not a tokenizer: {error}") from error
    size = tokenizer.get_vocab_size()
    if size > vocabulary:
        raise ValueError(f"{file}: has {size} tokens, the weights have {vocabulary}: they do not belong together")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _special(tokenizer: Tokenizer, file: Path, token: str, family: str) -> int:
    number: int | None = tokenizer.token_to_id(token)
    if number is None:
        raise ValueError(f"{file}: has no {token} token, which a {family} encoder needs")
    return number


def _precision(core: ov.Core, asked: Literal["auto", "f32", "bf16"]) -> str:
    can = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if asked == "auto":
        return "bf16" if "BF16" in can else "f32"
    if asked == "bf16" and "BF16" not in can:
        raise ValueError("precision: this processor does not compute in bf16; use auto or f32")
    return asked


# ---- the graph, and its place in the cache --------------------------------------------------------------------------


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """One process at a time: workers that start together use the same weights, and would read what another writes."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def sum_of(file: Path) -> str:
    """The SHA-256 of its content."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _sums(home: Path) -> str:
    return f"{sum_of(home / 'model.xml')} {sum_of(home / 'model.bin')}"


def _is_whole(home: Path) -> bool:
    """Whether what is stored is what was written: a power cut may leave a file of the right size and nothing in it."""
    try:
        return (home / "sums").read_text(encoding="utf-8") == _sums(home)
    except (OSError, UnicodeDecodeError):
        return False


def _store(model: ov.Model, home: Path) -> None:
    """All or nothing: written beside and renamed."""
    home.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(mkdtemp(dir=home.parent))
    try:
        ov.save_model(model, str(beside / "model.xml"), compress_to_fp16=False)
        (beside / "sums").write_text(_sums(beside), encoding="utf-8")
        beside.replace(home)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
