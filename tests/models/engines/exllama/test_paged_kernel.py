"""The Triton kernel of new tokens against attention by torch, in Triton's interpreter: its own process, on a processor.

Says that it computes rightly, and nothing of how fast.
"""

import os
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest

_LIMIT_S = 120


def _missing() -> str | None:
    if missing := [name for name in ("torch", "triton") if find_spec(name) is None]:
        return f"{' and '.join(missing)} not installed"
    newest = tuple(int(each) for each in metadata.version("triton").split(".")[:2])
    return None if newest >= (3, 9) else "the interpreter of older Tritons fails with today's numpy"


pytestmark = pytest.mark.skipif(
    bool(_missing()), reason=f"NOT TESTED: {_missing()}: pip install 'triton>=3.9' (1 GB, Linux)"
)

_CHECK = """
import itertools, math, os
os.environ["TRITON_INTERPRET"] = "1"
import torch
from server.models.engines.exllama import attention, paged_kernel

torch.set_num_threads(1)
drawn = torch.Generator().manual_seed(3)
SIZE = 64

def numbers(*shape):
    return torch.randn(*shape, generator=drawn)

def same(batch, queries, heads, groups, width, window, softcap, appended, parts, known, dtype=torch.float32):
    lengths = [queries + int(torch.randint(0, 300, (1,), generator=drawn)) for _ in range(batch)]
    caches = [numbers(32, SIZE, groups, width).to(dtype) for _ in "kv"]
    table = torch.randperm(32, generator=drawn)[: batch * 6].view(batch, 6).int()
    q = numbers(batch, queries, heads, width).to(dtype)
    new = [numbers(batch, queries, groups, width).to(dtype) for _ in "kv"] if appended else [None, None]
    before = torch.tensor(lengths, dtype=torch.int32) - (queries if appended else 0)
    ours = [each.clone() for each in caches]
    assert paged_kernel.takes(q, caches[0])
    rest = (*new, before, table, width**-0.5, window, softcap, max(lengths) if known else 0)
    exact = attention._by_torch(q.float(), *(each.float() for each in caches),
                                *(each if each is None else each.float() for each in new), *rest[2:])
    found = paged_kernel.attend(q, *ours, *rest, parts)
    assert found.dtype == dtype and found.shape == q.shape
    error = (found.float() - exact).abs().max().item()
    assert error < (1e-5 if dtype == torch.float32 else 2e-3), (error, batch, queries, groups, window, softcap, parts)
    attention._by_torch(q, *caches, *rest)
    assert all((one == other).all() for one, other in zip(caches, ours)), "other rows were appended"

for batch, (queries, parts), appended in itertools.product((1, 3), ((1, 1), (1, 3), (5, 3)), (True, False)):
    same(batch, queries, 4, 2, 64, -1, 0.0, appended, parts, known=True)
same(2, 3, 8, 1, 48, -1, 0.0, True, 2, known=False)            # a head that is no power of two, all heads share one
same(2, 1, 4, 4, 64, 37, 0.0, True, 3, known=True)              # a window, over parts that see nothing
same(1, 4, 4, 2, 64, 37, 5.0, True, 1, known=False)             # and a cap
same(1, 1, 2, 1, 256, -1, 30.0, True, 2, known=True)            # wide heads
same(2, 1, 4, 2, 64, -1, 0.0, True, 3, True, torch.float16)     # as on a GPU
q, cache = numbers(1, 40, 4, 64), numbers(4, SIZE, 2, 64)
assert not paged_kernel.takes(q, cache), "a prompt"
assert paged_kernel.takes(q[:, :32], cache) and not paged_kernel.takes(q[:, :1], cache.transpose(0, 1))
assert paged_kernel._parts(192, 32, 132) == 1 and paged_kernel._parts(4096, 8, 132) == 16
assert paged_kernel._parts(4096, 32 * 8, 132) == 2 and paged_kernel._parts(100_000, 1, 132) == 64

# A short trial decides, and says why not. The processor has no CUDA events, so the times are made up here.
paged_kernel._LENGTH, paged_kernel._PAGE, paged_kernel._SHAPES = 100, 64, ((1, 4, 2),)
spent = iter((1.0, 2.0, 2.0, 1.0))
paged_kernel._seconds = lambda call: next(spent)
assert paged_kernel.objection(attention._by_torch, torch.device("cpu")) is None
assert paged_kernel.objection(attention._by_torch, torch.device("cpu")) == "torch is faster here"
wrong = lambda *given, **rest: 1.1 * attention._by_torch(*given, **rest)
assert paged_kernel.objection(wrong, torch.device("cpu")) == "the Triton kernel computes wrongly here"
def broken(*given, **rest): raise RuntimeError("no compiler")
assert paged_kernel.objection(broken, torch.device("cpu")) == "the Triton kernel does not run here: no compiler"

# Where it was chosen, ExLlamaV2's calls of new tokens reach it, and those of prompts do not.
calls = []
class Listening:
    takes = staticmethod(paged_kernel.takes)
    def attend(self, *given):
        calls.append(given[0].shape[1])
        return paged_kernel.attend(*given)
attention._kernel = Listening()
for queries in (1, 40):
    caches = [numbers(4, SIZE, 2, 64) for _ in "kv"]
    given = numbers(1, queries, 4, 64), *caches, *(numbers(1, queries, 2, 64) for _ in "kv")
    rest = torch.tensor([50], dtype=torch.int32), torch.tensor([[2, 0, 1]], dtype=torch.int32)
    found = attention.flash_attn_with_kvcache(*given, *rest)
    attention._kernel, kept = None, attention._kernel
    assert torch.allclose(attention.flash_attn_with_kvcache(*given, *rest), found, atol=1e-5)
    attention._kernel = kept
assert calls == [1] and attention._chosen() == "torch sdpa" and attention._kernel is None

# It is chosen where there is a GPU and the trial has nothing against it.
torch.cuda.is_available, torch.cuda.current_device, objections = (lambda: True), (lambda: 0), iter(("slow", None))
paged_kernel.objection = lambda by_torch, device: next(objections)
assert attention._chosen() == "torch sdpa" and attention._kernel is None
assert attention._chosen() == "triton, torch sdpa" and attention._kernel is paged_kernel
attention.forgo_kernel()
assert attention._chosen() == "torch sdpa" and attention._kernel is None
"""


_COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from server.models.engines.exllama import paged_kernel

constants = dict(HEADS=32, GROUPS=8, WIDTH=256, SIZE=256, ROWS=64, WIDE=256, KEYS=paged_kernel._KEYS_OF_WIDE,
                 APPENDED=True, CAPPED=True, WINDOWED=True, SPLIT=True)
kinds = dict.fromkeys(("q", "k_new", "v_new", "k_cache", "v_cache"), "*fp16")
kinds |= dict(table="*i32", lengths="*i32", out="*fp32", norms="*fp32", scale="fp32", softcap="fp32")

def fits(kernel, kinds, constants):
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else kinds.get(name, "i32") for name in names}
    attributes = {(at,): [["tt.divisibility", 16]] for at, name in enumerate(names) if signature[name][0] == "*"}
    given = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, signature, given, attributes)
    return compile(source, target=GPUTarget("cuda", 90, 32)).metadata.shared

# What a program of the RTX 30 and 40 series may have, 99 KiB.
assert fits(paged_kernel._attended, kinds, constants) <= 101_376
assert fits(paged_kernel._joined, dict(found="*fp32", norms="*fp32", out="*fp16"), dict(WIDTH=128, WIDE=128, PARTS=64))
"""


def test_it_compiles_for_a_gpu_that_is_not_here(tmp_path: Path) -> None:
    told = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    told.pop("TRITON_INTERPRET", None)
    done = subprocess.run(
        [sys.executable, "-c", _COMPILE], capture_output=True, text=True, timeout=_LIMIT_S, env=told, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_it_is_the_attention_that_torch_computes() -> None:
    told = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", _CHECK], capture_output=True, text=True, timeout=_LIMIT_S, env=told, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
