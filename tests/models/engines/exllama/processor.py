"""The real ExLlamaV2 on a processor: its compiled functions written in torch, and every device the processor.

Its configuration, model, caches, generator, pages and LoRA are the package's own code; the kernels alone are not.
Nothing of this says how fast or how exact a GPU is.
"""

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

MISSING = [name for name in ("torch", "exllamav2") if find_spec(name) is None]

needs_exllamav2 = pytest.mark.skipif(
    bool(MISSING), reason=f"NOT TESTED: {' and '.join(MISSING)} not installed: run scripts/setup dev"
)


@contextmanager
def on_processor() -> Iterator[None]:
    """While this lasts, ExLlamaV2 counts as ready, whatever this machine lacks."""
    from server.models.engines.exllama import extension

    prepared()
    import torch

    usual, threads = extension.state, torch.get_num_threads()
    extension.state = lambda engine, data, gpus: extension.State(extension.version(engine))
    torch.set_num_threads(1)  # what the package sets for the whole process
    try:
        yield
    finally:
        extension.state = usual
        torch.set_num_threads(threads)


@cache
def prepared() -> None:
    """Once for a process: what is imported stays."""
    import torch

    threads = torch.get_num_threads()
    sys.modules["exllamav2_ext"] = _compiled(torch)
    import exllamav2.generator
    import exllamav2.stloader

    for name, module in list(sys.modules.items()):
        if name.startswith("exllamav2."):
            for stand_in in ("_torch_device", "safe_move_tensor", "set_device_streams", "cuda_sync_active"):
                if hasattr(module, stand_in):
                    setattr(module, stand_in, globals()[stand_in])
    exllamav2.device.global_streams[0] = None
    exllamav2.stloader.torch = exllamav2.linear.torch = _Torch(torch)
    torch.set_num_threads(threads)


def _torch_device(index: int) -> str:
    return "cpu"


def safe_move_tensor(tensor: Any, device: Any = None, non_blocking: bool = False) -> Any:
    return tensor


def set_device_streams() -> None:
    pass


def cuda_sync_active() -> None:
    pass


class _Torch:
    """torch, whose CUDA has nothing to wait for, and whose products of 16 bits are not slow on a processor."""

    cuda = types.SimpleNamespace(synchronize=lambda: None)

    def __init__(self, torch: Any) -> None:
        self._torch = torch

    def matmul(self, one: Any, other: Any) -> Any:
        return (one.float() @ other.float()).half()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._torch, name)


class Gptq:
    """Matrices of 4 bits in GPTQ's layout, unpacked when they are made, and the layers over them.

    What a handle stands for is kept here by its number, as the compiled extension does.
    """

    def __init__(self, torch: Any, rms_norm: Any, rope: Any) -> None:
        self._torch = torch
        self._rms_norm = rms_norm
        self._rope = rope
        self._kept: dict[int, Any] = {}

    def put_into(self, made: types.ModuleType) -> None:
        for name in ("make_q_matrix", "make_q_attn", "q_attn_forward_1", "q_attn_forward_2", "make_q_mlp"):
            setattr(made, name, getattr(self, name))
        made.q_mlp_forward_ = self.q_mlp_forward
        made.free_q_matrix = made.free_q_attn = made.free_q_mlp = self._kept.pop

    def _handle(self, thing: Any) -> int:
        self._kept[len(self._kept) + 1] = thing
        return len(self._kept)

    def make_q_matrix(self, weight: Any, *parts: Any) -> int:
        torch = self._torch
        zeros, scales, order, bias = parts[6:10]
        assert order.device.type == bias.device.type == "meta"
        shifts = torch.arange(0, 32, 4)
        values = ((weight[:, None, :] >> shifts[None, :, None]) & 15).flatten(0, 1)
        offsets = ((zeros[:, :, None] >> shifts) & 15).flatten(1) + 1
        group = len(values) // len(scales)
        wide = values.float() - offsets.float().repeat_interleave(group, 0)
        return self._handle(wide * scales.float().repeat_interleave(group, 0))

    def make_q_attn(self, norm: Any, bias: Any, rms: bool, head_rms: bool, epsilon: float, *rest: Any) -> int:
        assert rms
        q, k, v, o = (self._kept[handle] for handle in rest[:4])
        return self._handle((norm, epsilon, q, k, v, o))

    def _normed(self, x: Any, norm: Any, epsilon: float) -> Any:
        out = self._torch.empty_like(x)
        self._rms_norm(x, norm, out, epsilon)
        return out.float()

    def q_attn_forward_1(
        self, handle: int, x: Any, batch: int, count: int, past: int, lengths: Any, q: Any, k: Any, v: Any, *rest: Any
    ) -> None:
        norm, epsilon, *matrices, _ = self._kept[handle]
        normed = self._normed(x, norm, epsilon)
        for target, matrix in zip((q, k, v), matrices, strict=True):
            target.copy_((normed @ matrix).half().view_as(target))
        for target in (q, k):
            self._rope(target, rest[0], rest[1], past, target.shape[-2], target.shape[-1], lengths, True)

    def q_attn_forward_2(self, handle: int, x: Any, attended: Any, *_: Any) -> None:
        x += (attended.float() @ self._kept[handle][5]).half().view_as(x)

    def make_q_mlp(self, norm: Any, bias: Any, rms: bool, epsilon: float, *rest: Any) -> int:
        gate, up, down = (self._kept[handle] for handle in rest[:3])
        return self._handle((norm, epsilon, gate, up, down))

    def q_mlp_forward(self, handle: int, x: Any, *_: Any) -> None:
        norm, epsilon, gate, up, down = self._kept[handle]
        normed = self._normed(x, norm, epsilon)
        x += ((self._torch.nn.functional.silu(normed @ gate) * (normed @ up)) @ down).half()


def _read(file: str, offset: int, size: int, tensor: Any) -> None:
    import torch

    with Path(file).open("rb") as opened:
        opened.seek(offset)
        tensor.copy_(torch.frombuffer(bytearray(opened.read(size)), dtype=tensor.dtype).view(tensor.shape))


def layer_norm(x: Any, weight: Any, bias: Any, out: Any, epsilon: float) -> None:
    from torch.nn.functional import layer_norm as usual

    shift = None if bias.device.type == "meta" else bias.float()
    out.copy_(usual(x.float(), x.shape[-1:], weight.float(), shift, epsilon).to(out.dtype))


def gen_mrope_pos_ids(out: Any, ids: Any, merge: int, spans: list[Any], grids: list[Any]) -> int:
    """Places in time, height and width: those of a picture start where the text before it ended."""
    import torch

    base = after = 0
    for at in range(out.shape[1]):
        token = int(ids[at]) if at < len(ids) else -1
        [*found] = [number for number, (first, end) in enumerate(spans) if first <= token < end]
        if found:
            frames, height, width = grids[found[0]]
            cell, rows, columns = token - spans[found[0]][0], height // merge, width // merge
            place = (cell // columns // rows) % frames, (cell // columns) % rows, cell % columns
            out[:, at] = base + torch.tensor(place)
            after = max(after, base + 1 + max(place))
        else:
            out[:, at] = after
            base = after = after + 1
    return after


def _compiled(torch: Any) -> types.ModuleType:
    """The compiled functions that a model of 16 bits, its generator and its GPTQ weights need."""
    made = types.ModuleType("exllamav2_ext")

    def rms_norm(x: Any, weight: Any, out: Any, epsilon: float) -> None:
        wide = x.float()
        normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
        out.copy_((normed * weight.float()).to(out.dtype))

    def head_norm(x: Any, weight: Any, bias: Any, out: Any, epsilon: float, rms: bool) -> None:
        wide = x.float()
        if not rms:  # as the kernel does it
            wide = wide - wide.mean(-1, keepdim=True)
        normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
        out.copy_((normed * weight.float()).to(out.dtype))

    def rope_(x: Any, sin: Any, cos: Any, past: int, heads: int, width: int, offsets: Any, neox: bool) -> None:
        assert neox
        batch, count = x.shape[0], x.shape[1]
        places = torch.arange(count).view(1, count) + past
        if offsets.device.type != "meta":
            places = places + offsets.view(batch, 1).long()
        sines, cosines = (each.reshape(-1, width)[places].unsqueeze(2).float() for each in (sin, cos))
        wide = x.view(batch, count, heads, width).float()
        turned = torch.cat((-wide[..., width // 2 :], wide[..., : width // 2]), -1)
        x.copy_((wide * cosines + turned * sines).to(x.dtype).view_as(x))

    def count_match(one: Any, other: Any, most: int) -> int:
        count = min(one.shape[-1], other.shape[-1], most)
        differing = (one[0, :count] != other[0, :count]).nonzero()
        return int(differing[0]) if len(differing) else count

    def cache_rotate(cache: Any, order: Any, buffer: Any) -> None:
        order = order.tolist()
        first = cache[order[0]].clone()
        for target, source in pairwise(order):
            cache[target] = cache[source]
        cache[order[-1]] = first

    for function in (rms_norm, layer_norm, head_norm, rope_, gen_mrope_pos_ids, count_match, cache_rotate):
        setattr(made, function.__name__, function)
    Gptq(torch, rms_norm, rope_).put_into(made)
    made.stloader_read = _read
    made.stloader_open_file = made.stloader_close_file = lambda *_: None
    return made
