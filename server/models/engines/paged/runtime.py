"""A compiled decoder and its cache: one call computes one step; knows pages by number and nothing of who owns them."""

import math
from collections.abc import Collection
from itertools import accumulate

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from server.models.engines.paged.constants import Constants
from server.models.engines.paged.decoding import PAGE, CompiledDecoder, possible
from server.models.engines.paged.graph import decoder
from server.models.engines.paged.kernel import Kernel
from server.models.engines.paged.memory import Memory
from server.models.engines.paged.packs import Packs
from server.models.engines.paged.span import Span
from server.models.engines.paged.weights import GROUP, Matrix, Weights
from server.models.header import WeightsError

ROUNDED = "f32 with 8-bit activations"
"""The precision that is f32, but for activations that meet quantised weights: those are 8-bit in groups of 32."""

_CACHES = {
    "f32": {"auto": "f32", "f32": "f32", "q8": "u8"},
    "bf16": {"auto": "bf16", "bf16": "bf16", "q8": "u8"},
}
"""What OpenVINO calls a precision of keys and values, by the graph's own precision and the recipe's word."""
_MANY = 16
"""Tokens after which memory lets go of the constants: each looks at a row of the embedding, and so may bring in the
2 MiB around it. To let go takes less than half a millisecond."""


def precision_of(wanted: str, capabilities: Collection[str]) -> str:
    """The precision that the recipe's word stands for where the processor has OpenVINO's `capabilities`.

    bf16, f32, or ROUNDED: without bf16 that is several times faster on quantised weights than exact f32. Raises
    ValueError for a precision that the processor lacks.
    """
    if wanted == "auto":
        return "bf16" if "BF16" in capabilities else ROUNDED
    if wanted == "bf16" and "BF16" not in capabilities:
        raise ValueError("precision: this processor does not compute in bf16; use auto or f32")
    return wanted


def capabilities() -> list[str]:
    """What this processor computes in, in OpenVINO's words."""
    found: list[str] = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return found


class Decoder:
    """One compiled graph. Not re-entrant: one thread computes. The interpreter is free while it does."""

    def __init__(
        self,
        weights: Weights,
        *,
        tokens: int,
        precision: str,
        threads: int | None,
        cache: str = "auto",
        constants: Constants | None = None,
        kernel: Kernel | None = None,
    ) -> None:
        """`tokens` is the least the cache holds; `precision` is one of `precision_of`; `cache` is the recipe's word
        for the precision of keys and values. Raises WeightsError where the two do not go together. Without
        `constants` those of the graph stay in memory. `kernel` multiplies by quantised weights, with activations of 8
        bits, so exact f32 has none."""
        hint = "bf16" if precision == "bf16" else "f32"
        caches = _CACHES[hint]
        if cache not in caches:
            raise WeightsError(f"cache {cache} does not go with precision {hint}; {', '.join(caches)} do")
        hints: dict[str, object] = {
            "INFERENCE_PRECISION_HINT": hint,
            "PERFORMANCE_HINT": "LATENCY",
            "KV_CACHE_PRECISION": caches[cache],
            # A thread bound to a processor waits there while another process has it, and all others wait for it.
            "ENABLE_CPU_PINNING": False,
        }
        if hint == "f32":
            # Said, for what OpenVINO does by itself differs from processor to processor.
            hints["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = GROUP if precision == ROUNDED else 0
        if threads is not None:
            hints["INFERENCE_NUM_THREADS"] = threads
        # Held as long as the graph, which shares their memory.
        self._constants = constants or Constants(None, 0)
        self._looked_up = _MANY
        self._kernel = kernel
        before = 0 if kernel is None else kernel.bytes
        packs = None if kernel is None else Packs(kernel)
        graph = decoder(weights, self._constants.keep, packs)
        self.weights_bytes = sum(_octets(each) for each in graph.model.get_ops() if each.get_type_name() == "Constant")
        if kernel is not None:
            self.weights_bytes += kernel.bytes - before
        self._compiled = ov.Core().compile_model(graph.model, "CPU", hints)
        embedding = graph.embedding
        del graph
        self._request = self._compiled.create_infer_request()
        self._held: dict[str, NDArray[np.generic]] = {}
        ports = {each.any_name: each for each in self._compiled.inputs if "_cache." in each.any_name}
        self.page_size = ports["value_cache.0"].partial_shape[2].get_length() if ports else tokens
        self.pages = -(-tokens // self.page_size)
        self._memory = Memory()
        self._cells: dict[str, NDArray[np.generic]] = {}
        for name, port in ports.items():
            sizes = [self.pages, *(size.get_length() for size in list(port.partial_shape)[1:])]
            # Of what numpy has no type for the bits are held.
            self._cells[name] = self._memory.zeros(tuple(sizes), np.dtype(f"u{port.element_type.size}"))
            self._request.set_tensor(name, ov.Tensor(self._cells[name], ov.Shape(sizes), port.element_type))
        self.cache_bytes = sum(cells.nbytes for cells in self._cells.values())
        self._few = None if packs is None else self._by_itself(weights, packs, embedding, caches[cache])

    @property
    def compiled(self) -> bool:
        """Whether answers are computed without the graph."""
        return self._few is not None

    def _by_itself(self, weights: Weights, packs: Packs, embedding: Matrix, cache: str) -> CompiledDecoder | None:
        """What computes answers without the graph, where there is such for this model and its cache."""
        if cache not in ("bf16", "f32") or self.page_size != PAGE or not possible(weights, packs):
            return None
        layers = range(weights.shape.layers)
        keys, values = ([self._cells[f"{kind}_cache.{at}"] for at in layers] for kind in ("key", "value"))
        threads = int(self._compiled.get_property("INFERENCE_NUM_THREADS"))
        return CompiledDecoder(weights, packs, embedding, keys, values, threads)

    def compute(self, spans: list[Span]) -> NDArray[np.float32]:
        """Logits f32 [sum of wanted, vocabulary], in the order of the spans; valid until the next call."""
        # Which way a token goes hangs on nothing but itself, so an answer is the same beside any other.
        if self._few is None or not any(span.written for span in spans):
            return self._run(spans)
        if all(span.written for span in spans):
            return self._answers(self._few, spans)
        prompts = self._run([span for span in spans if not span.written])
        answers = self._answers(self._few, [span for span in spans if span.written])
        rows = []
        begins = {True: 0, False: 0}
        for span in spans:
            begin, end = begins[span.written], begins[span.written] + span.wanted
            rows.append((answers if span.written else prompts)[begin:end])
            begins[span.written] = end
        return np.concatenate(rows)

    def _answers(self, few: CompiledDecoder, spans: list[Span]) -> NDArray[np.float32]:
        logits = few.compute(spans)
        self._let_go(spans)
        return logits

    def _run(self, spans: list[Span]) -> NDArray[np.float32]:
        for name, values in self._inputs(spans).items():
            self._set(name, values)
        # Sharing spares a copy of all logits.
        self._request.infer(share_outputs=True)
        # The weights are packed in the first step, not when they are compiled.
        self._let_go(spans)
        wanted = sum(span.wanted for span in spans)
        logits: NDArray[np.float32] = self._request.get_output_tensor(0).data
        return logits[:wanted]

    def _let_go(self, spans: list[Span]) -> None:
        self._looked_up += sum(len(span.tokens) for span in spans)
        if self._looked_up >= _MANY:
            self._constants.release()
            self._looked_up = 0

    def _set(self, name: str, values: NDArray[np.generic]) -> None:
        """Steps in a row mostly have inputs of the same sizes: those are written where the last ones were."""
        held = self._held.get(name)
        if held is not None and held.shape == values.shape:
            held[...] = values
            return
        self._held[name] = values
        # The request keeps a reference to the tensor, the tensor one to the array.
        self._request.set_tensor(name, ov.Tensor(values, shared_memory=True))

    def _inputs(self, spans: list[Span]) -> dict[str, NDArray[np.generic]]:
        begins = [0, *accumulate(len(span.tokens) for span in spans)]
        used = [span.pages[: -(-(span.past + len(span.tokens)) // self.page_size)] for span in spans]
        last = [at for end, span in zip(begins[1:], spans, strict=True) for at in range(end - span.wanted, end)]
        positions = [at for span in spans for at in range(span.past, span.past + len(span.tokens))]
        return {
            "input_ids": np.array([token for span in spans for token in span.tokens], np.int64),
            "position_ids": np.array(positions, np.int64),
            "past_lens": np.array([span.past for span in spans], np.int32),
            "subsequence_begins": np.array(begins, np.int32),
            "block_indices": np.array([page for pages in used for page in pages], np.int32),
            "block_indices_begins": np.array([0, *accumulate(len(pages) for pages in used)], np.int32),
            "max_context_len": np.array(max(span.past + len(span.tokens) for span in spans), np.int32),
            # The graph wants at least one position; where none is wanted, its logits go unread.
            "sampled_tokens_indices": np.array(last or [0], np.int64),
        }


def _octets(constant: ov.Node) -> int:
    """The bytes of a constant; four-bit values are two to one."""
    port = constant.output(0)
    bits: int = math.prod(port.get_shape()) * port.get_element_type().bitwidth
    return -(-bits // 8)
