"""The kernel that is compiled on a machine: what it computes beside numpy, and when the engine uses it."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import openvino as ov
import openvino.opset16 as ops
import pytest
from numpy.typing import NDArray

from config.model import LocalModel
from server.models import native, openvino_kernel
from server.models.engines.paged import PagedEngine, trial
from server.models.engines.paged.constants import Constants
from server.models.engines.paged.gguf_file import GgufFile
from server.models.engines.paged.graph import decoder
from server.models.engines.paged.kernel import Kernel
from server.models.engines.paged.packs import Packs
from server.models.engines.paged.runtime import Decoder
from server.models.engines.paged.size import held, predicted
from server.models.engines.paged.span import Span
from server.models.engines.paged.weights import Int8, UInt4
from server.models.made.shapes import FAMILIES
from tests.making import made
from tests.making.tiny_task import examples
from tests.models.engines.paged.answering import answered, asking
from tests.models.engines.paged.compiled import given, library, needs_compiler
from tests.models.engines.paged.test_gguf_file import plain

pytestmark = needs_compiler

WIDTHS = [256, 512]
ROWS = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 70]
"""Of activations: every tile of both kernels, and several of them."""


@pytest.fixture(scope="module", params=WIDTHS)
def kernel(request: pytest.FixtureRequest) -> Kernel:
    made_of = Kernel(library(), request.param)
    if made_of.registers != request.param:
        pytest.skip(f"NOT TESTED: this processor has no registers of {request.param} bits, or no VNNI")
    return made_of


def _matrix(kind: type[Int8 | UInt4], rows: int, columns: int, seed: int = 0) -> Int8 | UInt4:
    random = np.random.default_rng(seed)
    scales = random.uniform(0.001, 0.01, (rows, columns // 32, 1)).astype(np.float16)
    if kind is Int8:
        return Int8(random.integers(-128, 128, (rows, columns // 32, 32)).astype(np.int8), scales)
    return UInt4(random.integers(0, 256, (rows, columns // 32, 16)).astype(np.uint8), scales)


def _product(
    kernel: Kernel,
    matrices: list[Int8 | UInt4],
    states: list[NDArray[np.float32]],
    *,
    threads: int = 2,
    added: NDArray[np.float32] | None = None,
    norm: tuple[NDArray[np.float32], float] | None = None,
    gated: bool = False,
) -> list[NDArray[np.float32]]:
    """Of each of the states [rows, columns], one after another through the same request; `added` is one row for all."""
    parameter = ops.parameter([-1, 1, states[0].shape[1]], np.float32)
    inputs = [parameter]
    if added is not None:
        inputs.append(ops.parameter([-1, 1, len(added)], np.float32))
    packed = kernel.packed(matrices, gated=gated)
    node = kernel.product(parameter, packed, norm=norm, added=inputs[1] if added is not None else None)
    model = ov.Model([ops.result(node)], inputs, "product")
    request = ov.Core().compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": threads}).create_infer_request()
    found = []
    for state in states:
        sums = [] if added is None else [np.tile(added, (len(state), 1, 1))]
        found.append(request.infer([state[:, None], *sums])[0][:, 0].copy())
    return found


def _rounded(state: NDArray[np.float32]) -> NDArray[np.float32]:
    """Activations as the kernel sees them: 8 bits in groups of 32."""
    groups = state.reshape(len(state), -1, 32)
    most = np.abs(groups).max(-1, keepdims=True)
    steps = np.rint(groups * (np.float32(127) / most))
    return np.asarray((steps * (most / np.float32(127))).reshape(state.shape), np.float32)


def _states(columns: int) -> list[NDArray[np.float32]]:
    random = np.random.default_rng(1)
    return [random.normal(0, 1, (rows, columns)).astype(np.float32) for rows in ROWS]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("rows", "columns"), [([16], 32), ([5, 100], 96), ([40, 17, 8], 1024)])
@pytest.mark.parametrize("kind", [Int8, UInt4])
def test_products_are_those_of_numpy(
    kernel: Kernel, kind: type[Int8 | UInt4], rows: list[int], columns: int, threads: int
) -> None:
    matrices = [_matrix(kind, count, columns, seed) for seed, count in enumerate(rows)]
    floats = np.concatenate([plain(each) for each in matrices])
    states = _states(columns)
    for state, found in zip(states, _product(kernel, matrices, states, threads=threads), strict=True):
        expected = _rounded(state) @ floats.T
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("kind", [Int8, UInt4])
def test_a_state_is_normalised_before_and_added_to_after(kernel: Kernel, kind: type[Int8 | UInt4]) -> None:
    matrix, states = _matrix(kind, 50, 96), _states(96)
    random = np.random.default_rng(2)
    norm, added = (random.uniform(0.5, 1.5, size).astype(np.float32) for size in (96, 50))
    found = _product(kernel, [matrix], states, norm=(norm, 0.25), added=added)
    for state, result in zip(states, found, strict=True):
        normal = state / np.sqrt((state**2).mean(-1, keepdims=True) + 0.25) * norm
        expected = _rounded(normal.astype(np.float32)) @ plain(matrix).T + added
        np.testing.assert_allclose(result, expected, atol=5e-3 * np.abs(expected).max())


@pytest.mark.parametrize("kind", [Int8, UInt4])
def test_a_gate_lets_through_what_silu_says(kernel: Kernel, kind: type[Int8 | UInt4]) -> None:
    matrices, states = [_matrix(kind, 48, 64, seed) for seed in (0, 1)], _states(64)
    # Far below and above zero e^x has no float; the gate is shut or open there.
    states.append(np.float32(1e4) * states[0])
    for state, found in zip(states, _product(kernel, matrices, states, gated=True), strict=True):
        gate, up = (_rounded(state).astype(np.float64) @ plain(each).T for each in matrices)
        expected = gate / (1 + np.exp(-np.clip(gate, -500, 500))) * up
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("kind", [Int8, UInt4])
def test_a_row_has_the_same_result_in_any_company(kernel: Kernel, kind: type[Int8 | UInt4]) -> None:
    matrix, state = _matrix(kind, 100, 512), _states(512)[-1]
    whole, *alone = _product(kernel, [matrix], [state, *(state[at : at + 1] for at in range(len(state)))])
    assert np.array_equal(whole, np.concatenate(alone))


def test_rows_of_zeros_and_no_rows_give_as_many_of_zeros(kernel: Kernel) -> None:
    zeros, none = _product(
        kernel, [_matrix(Int8, 20, 64)], [np.zeros((3, 64), np.float32), np.zeros((0, 64), np.float32)]
    )
    assert zeros.shape == (3, 20) and not zeros.any()
    assert none.shape == (0, 20)


def test_the_trial_takes_it_and_refuses_one_that_computes_otherwise(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial.multiplies(kernel)
    monkeypatch.setattr("server.models.engines.paged.trial.floats", lambda matrix: plain(matrix)[::-1])
    with pytest.raises(RuntimeError, match=r"its results for Int8 are .* from numpy's"):
        trial.multiplies(kernel)


@pytest.mark.parametrize("quant", ["q8_0", "q4_0"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_layer_is_four_products_and_one_attention(family: str, quant: str) -> None:
    file = GgufFile(made("random", family=family, quant=quant))
    constants, kernel = Constants(None, 0), Kernel(library())
    compiled = ov.Core().compile_model(decoder(file, constants.keep, Packs(kernel)).model, "CPU")
    told = (operation.get_rt_info()["layerType"].value for operation in compiled.get_runtime_model().get_ordered_ops())
    kinds = Counter(map(str, told))
    assert kinds["Reference"] == 4 * file.shape.layers + 1
    assert kinds["PagedAttention"] == file.shape.layers
    assert kinds["FullyConnected"] == kinds["Swish"] == 0
    # Only those of each head are left.
    assert kinds["RMS"] == (2 * file.shape.layers if family == "qwen3" else 0)


@pytest.mark.parametrize("quant", ["q8_0", "q4_0"])
def test_its_logits_are_near_exact_ones_and_its_weights_as_predicted(quant: str) -> None:
    path = made("random", family="qwen2", quant=quant)
    file = GgufFile(path)
    span = Span([int(token) for token in np.random.default_rng(3).integers(0, 1500, 60)], 0, [0, 1], 9)
    exact = Decoder(file, tokens=64, precision="f32", threads=2).compute([span]).copy()
    kernel = Kernel(library())
    quick = Decoder(file, tokens=64, precision="bf16", threads=2, kernel=kernel)
    near = quick.compute([span])
    assert (exact * near).sum() / np.linalg.norm(exact) / np.linalg.norm(near) > 0.998
    told = predicted(path, keep_floats=False, tokens=64, cache="auto", precision="bf16", kernel=True)
    assert told.weights == pytest.approx(kernel.bytes, rel=0.03)
    # Of a matrix that is the kernel's nothing is held beside it but the embedding, whose rows are looked up.
    assert held(file, kernel=True) < held(file) / 2


def _engine(path: Path, data: Path, told: list[str] | None = None, **keys: str) -> PagedEngine:
    spec = LocalModel.model_validate({"engine": "openvino", "source": str(path), "context": 256, **keys}, context={})
    engine = PagedEngine(spec, path, cache=data / "cache")
    card = engine.load((told if told is not None else []).append)
    assert ("kernel" in card.description) == (engine._kernel is not None)
    return engine


def _said(engine: PagedEngine, prompts: list[str]) -> list[str]:
    return [each.text for each in answered(engine, *(asking(prompt, 16) for prompt in prompts))]


@pytest.mark.parametrize("quant", ["q8_0", "q4_0"])
def test_the_engine_uses_it_once_it_is_built_and_says_the_same(tmp_path: Path, quant: str) -> None:
    path, told = made("tiny", quant=quant), list[str]()
    without = _engine(path, tmp_path, told)
    assert without._kernel is None
    assert any("hearth engines build openvino" in line for line in told)
    with_it = _engine(path, given(tmp_path), told)
    assert with_it._kernel is not None
    prompts = [each.prompt for each in examples(40, 2)]
    assert _said(with_it, prompts) == _said(without, prompts)


def test_one_that_an_image_brings_is_used_where_the_data_directory_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_kernel, "SHIPPED", native.home(given(tmp_path / "image")))
    assert _engine(made("automaton", quant="q8_0"), tmp_path / "data")._kernel is not None
    here = native.home(given(tmp_path / "data"))
    mine = openvino_kernel.found(here)
    assert mine is not None
    assert mine.is_relative_to(here)
    mine.write_bytes(b"cut")
    assert openvino_kernel.fault(here) is None
    found = openvino_kernel.found(here)
    assert found is not None
    assert found.is_relative_to(openvino_kernel.SHIPPED)


def test_exact_arithmetic_does_without_it(tmp_path: Path) -> None:
    engine = _engine(made("random", quant="q8_0"), given(tmp_path), precision="f32")
    assert engine._kernel is None


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("broken", "kernel.so cannot be loaded"),
        ("another", "from numpy's"),
        ("cut", "kernel.so is not as it was built; hearth engines build openvino"),
        ("unmarked", "kernel.so has no built.json beside it"),
        ("unreadable", "kernel.so cannot be read: "),
        ("misread", "built.json does not say how it was built"),
    ],
)
def test_one_that_cannot_be_used_is_told_and_left_out(
    tmp_path: Path, how: str, why: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = native.home(given(tmp_path))
    placed = openvino_kernel.found(engines)
    assert placed is not None
    whole = placed.read_bytes()
    placed.unlink()  # one that is in the process stays as it is
    match how:
        case "broken":
            shutil.copy(made("automaton"), placed)
            openvino_kernel.mark(placed)
        case "another":
            placed.write_bytes(whole)
            monkeypatch.setattr("server.models.engines.paged.trial._ROUNDED_APART", 0.0)
        case "unreadable":
            placed.mkdir()
        case _:
            # What is loaded of a file that was cut ends the process.
            placed.write_bytes(whole[: len(whole) // 2])
            told = placed.with_name(openvino_kernel.MARK)
            if how == "unmarked":
                told.unlink()
            elif how == "misread":
                told.write_text("[]", encoding="utf-8")
    assert (openvino_kernel.found(engines) is None) == (how not in ("broken", "another"))
    engine = _engine(made("automaton", quant="q8_0"), tmp_path)
    assert engine._kernel is None
    assert "the kernel built on this machine is not used: " in caplog.text
    assert why in caplog.text
    assert _said(engine, ["one two"]) != [""]
