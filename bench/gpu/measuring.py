"""One measurement in a process of its own, so that it has the whole GPU and a fault of it costs nothing else.

`python -m bench.gpu.measuring TASK JSON` prints one line of JSON, the last one of its output.
"""

import json
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from bench.gpu.arithmetic import agreement, relative_error, same_tokens
from bench.gpu.behaving import BEHAVIOURS, ROOM
from bench.gpu.driving import engine_timed, prompts
from bench.gpu.making import SIZES, make
from bench.gpu.pictures import pictures
from config.model import LocalModel
from server.models.engine import Engine
from server.models.engines import create
from server.models.engines.exllama import extension
from server.models.engines.exllama.generator import PAGE

_READ = 2 << 30
_TIMES = 10
_WARM = 8
_CALLS = 20
_NOT_HERE = "Triton or a CUDA device is missing"


def loaded(told: dict[str, Any], **more: Any) -> Engine:
    """The engine of `told`: its engine, source and data directory, and further keys of the recipe."""
    keys = {"engine": told["engine"], "source": told["source"], **more}
    engine, _ = create(LocalModel.model_validate(keys, context={}), Path(told["data"]))
    engine.load(lambda line: print(line, file=sys.stderr, flush=True))
    return engine


def bandwidth(told: dict[str, Any]) -> dict[str, float]:
    """Bytes a second of the device's memory, by copying: each byte is read once and written once. The best of ten."""
    import torch

    device = told["device"]
    count = _READ if device == "cuda" else _READ // 16
    one = torch.empty(count, dtype=torch.uint8, device=device)
    other = torch.empty_like(one)
    best = 0.0
    for _ in range(_TIMES):
        _wait(device)
        started = time.perf_counter()
        other.copy_(one)
        _wait(device)
        best = max(best, 2 * count / (time.perf_counter() - started))
    return {"bytes_per_second": best}


def _wait(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def reference(told: dict[str, Any]) -> dict[str, Any]:
    """Logits of transformers on the 16-bit folder, kept at `kept` [tokens, vocabulary] f32."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(
        told["source"], dtype=torch.float16 if told["device"] == "cuda" else torch.float32
    )
    model = model.to(told["device"]).eval()
    ids = torch.tensor(prompts(1, told["tokens"], told["vocabulary"])).to(told["device"])
    with torch.inference_mode():
        logits = model(input_ids=ids).logits[0].float().cpu().numpy()
    np.save(told["kept"], logits)
    return {"tokens": int(ids.shape[1])}


def logits(told: dict[str, Any]) -> dict[str, Any]:
    """ExLlamaV2's own logits of the GPTQ folder, with our attention, against those that were kept."""
    extension.prepare("exllamav2", Path(told["data"]))
    import exllamav2
    import torch

    from server.models.engines.exllama import attention

    backend, _ = attention.register()
    settings = exllamav2.ExLlamaV2Config(told["source"])
    settings.no_sdpa = True
    settings.max_input_len = settings.max_seq_len = max(2048, told["tokens"])
    model = exllamav2.ExLlamaV2(settings)
    model.load()
    cache = exllamav2.ExLlamaV2Cache(model)
    ids = torch.tensor(prompts(1, told["tokens"], told["vocabulary"]))
    with torch.inference_mode():
        found = model.forward(ids, cache)[0].float().cpu().numpy()
    wanted = np.load(told["kept"])
    found = found[:, : wanted.shape[1]]
    return {"relative": relative_error(found, wanted), "agreement": agreement(found, wanted), "attention": str(backend)}


def scores(told: dict[str, Any]) -> dict[str, Any]:
    """The same through an engine's own log-probabilities of a prompt, for an engine that shows no logits."""
    from server.models.engine import Generate, Scored

    engine = loaded(told, context=told["tokens"] + 64, parallel=1, **told.get("keys", {}))
    asked = prompts(1, told["tokens"], told["vocabulary"])[0]
    engine.submit(0, Generate(prompt=asked, max_tokens=0, prompt_logprobs=1))
    found: list[float] = []
    likeliest: list[float] = []
    while engine.busy:
        for _, event in engine.step():
            if isinstance(event, Scored):
                found = [each.logprob for each in event.tokens[1:] if each.logprob is not None]
                likeliest = [each.top[0].logprob or 0.0 for each in event.tokens[1:]]
    wanted = np.load(told["kept"])
    normal = wanted - np.logaddexp.reduce(wanted, -1, keepdims=True)
    chosen = normal[np.arange(len(found)), asked[1:]]
    best = normal.max(-1)[: len(likeliest)]
    engine.close()
    near = np.abs(np.array(likeliest) - best) < 0.05 * np.abs(best)
    return {
        "relative": relative_error(np.array(found, np.float32), chosen.astype(np.float32)),
        "agreement": float(np.mean(near)),
        "attention": "the engine's own",
    }


def generated(told: dict[str, Any]) -> dict[str, Any]:
    """Greedy answers of all streams at once, token by token through pages: `ids` of the prompts and of the answers."""
    context, streams = told["prompt"] + told["tokens"] + 64, told["streams"]
    keys = {"context": context, "cache_tokens": streams * (-(-context // PAGE) * PAGE), "parallel": streams}
    engine = loaded(told, **keys, **told.get("keys", {}))
    asked = prompts(streams, told["prompt"], told["vocabulary"], seed=7)
    found = engine_timed(engine, asked, told["tokens"]).ids
    engine.close()
    return {"prompts": asked, "answers": found}


def judged(told: dict[str, Any]) -> dict[str, Any]:
    """The share of the tokens of `answers` that transformers finds likeliest too after what is before them."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(
        told["source"], dtype=torch.float16 if told["device"] == "cuda" else torch.float32
    )
    model = model.to(told["device"]).eval()
    same = []
    for asked, answer in zip(told["prompts"], told["answers"], strict=True):
        ids = torch.tensor([[*asked, *answer]]).to(told["device"])
        with torch.inference_mode():
            likeliest = model(input_ids=ids).logits[0, len(asked) - 1 : -1].argmax(-1).cpu().tolist()
        same += [one == other for one, other in zip(likeliest, answer, strict=True)]
    return {"agreement": float(np.mean(same)), "tokens": len(same)}


def speed(told: dict[str, Any]) -> dict[str, Any]:
    """Rate and first token at each number of streams, with one cache; and whether a batch answers as one does."""
    length, tokens, most = told["prompt"], told["tokens"], max(told["streams"])
    context = length + tokens + 64
    keys = {"context": context, "cache_tokens": most * (-(-context // 256) * 256), "parallel": most}
    if told.get("by_torch"):
        from server.models.engines.exllama import attention

        attention.forgo_kernel()
    engine = loaded(told, cache=told["cache"], **keys, **told.get("keys", {}))
    asked = prompts(most, length, told["vocabulary"])
    rows = []
    for streams in told["streams"]:
        # What such a batch needs for the first time is set aside by other prompts, so that none was read before.
        engine_timed(engine, prompts(streams, length, told["vocabulary"], seed=8), _WARM)
        timing = engine_timed(engine, asked[:streams], tokens)
        rows.append({"streams": streams, "rate": timing.rate, "first": timing.first})
    made: dict[str, Any] = {"rows": rows}
    if told.get("compare"):
        few = asked[: told["compare"]]
        alone = [engine_timed(engine, [prompt], tokens).ids[0] for prompt in few]
        made["same"] = same_tokens(alone, engine_timed(engine, few, tokens).ids)
    engine.close()
    return made


def bare(told: dict[str, Any]) -> dict[str, float]:
    """Tokens a second of ExLlamaV2's own generator, nothing of ours around it; of the engine in process elsewhere."""
    asked = prompts(told["streams"], told["prompt"], told["vocabulary"])
    if told["engine"] != "exllamav2":
        context = told["prompt"] + told["tokens"] + 64
        engine = loaded(told, context=context, cache_tokens=told["streams"] * context, parallel=told["streams"])
        engine_timed(engine, asked[:1], _WARM)
        return {"rate": engine_timed(engine, asked, told["tokens"]).rate}
    return _bare_exllamav2(told, asked)


def _bare_exllamav2(told: dict[str, Any], asked: list[list[int]]) -> dict[str, float]:
    extension.prepare("exllamav2", Path(told["data"]))
    import exllamav2
    import torch
    from exllamav2.generator import ExLlamaV2DynamicGenerator, ExLlamaV2DynamicJob, ExLlamaV2Sampler

    from server.models.engines.exllama import attention

    _, longest = attention.register()

    class Told(ExLlamaV2DynamicGenerator):  # type: ignore[misc]  # the package has no types
        """The package's own, with the same attention: it is told how long sequences are, as flash-attn need not be."""

        def get_paged_params(
            self, batch_size: int, block_index: Any, cache_seqlens: Any, q_len: int, **rest: Any
        ) -> Any:
            longest.rows = int(cache_seqlens.max()) + q_len
            return super().get_paged_params(batch_size, block_index, cache_seqlens, q_len, **rest)

    settings = exllamav2.ExLlamaV2Config(told["source"])
    settings.no_sdpa = True
    model = exllamav2.ExLlamaV2(settings)
    room = -(-(told["prompt"] + told["tokens"] + 64) // 256) * 256 * told["streams"]
    model.load()
    cache = exllamav2.ExLlamaV2Cache(model, max_seq_len=room)
    tokenizer = exllamav2.ExLlamaV2Tokenizer(settings)
    generator = Told(model, cache, tokenizer, max_batch_size=told["streams"])
    rate = 0.0
    for tokens in (_WARM, told["tokens"]):
        for prompt in asked:
            greedy = ExLlamaV2Sampler.Settings.greedy()
            generator.enqueue(ExLlamaV2DynamicJob(torch.tensor([prompt]), tokens, gen_settings=greedy))
        started, begun, first, count = time.perf_counter(), set(), [], 0
        while generator.num_remaining_jobs():
            for result in generator.iterate():
                if result["stage"] == "streaming" and (ids := result.get("token_ids")) is not None:
                    count += int(ids.shape[-1])
                    if result["serial"] not in begun:
                        begun.add(result["serial"])
                        first.append(time.perf_counter() - started)
        rate = (count - len(asked)) / (time.perf_counter() - started - float(np.median(first)))
    return {"rate": rate}


def made(told: dict[str, Any]) -> dict[str, str]:
    """A model of the check, in the folder it is told."""
    return {"folder": str(make(Path(told["folder"]), SIZES[told["size"]], halves=told["halves"]))}


def behaviour(told: dict[str, Any]) -> dict[str, float]:
    """One of `BEHAVIOURS`, of the engine as a recipe would have it."""
    # All the room there is for one request, so that one which leaves some taken is found out.
    keys = {"context": ROOM, "cache_tokens": ROOM, "parallel": 8, **told.get("keys", {})}
    engine = loaded(told, **keys)
    engine_timed(engine, prompts(1, 16, told["vocabulary"]), _WARM)
    found = BEHAVIOURS[told["behaviour"]](engine, told["vocabulary"])
    engine.close()
    return found


def kernel(told: dict[str, Any]) -> dict[str, Any]:
    """Our attention over pages, for one new token of each stream: by torch, and by our Triton kernel where it runs.

    Each row: `streams` and `length`; milliseconds of a call by `torch`, by `triton` (None where it does not run) and of
    attention over keys that lie in `order`; bytes of keys and values that a call reads; and of torch's and Triton's
    calls the share of each of their kernels. `objection` is why the Triton kernel is not taken here, None where it is.
    """
    import torch

    from server.models.engines.exllama import attention

    objection = _objection(attention)
    ways: dict[str, Any] = {"torch": None} if objection == _NOT_HERE else {"torch": None, "triton": _triton()}
    rows = [_attended(told, streams, length, ways) for streams, length in told["shapes"]]
    attention.expect(0)
    return {"rows": rows, "attention": attention.BACKEND, "objection": objection, "torch": torch.__version__}


def _objection(attention: Any) -> str | None:
    """What the engine would find: see `paged_kernel.objection`."""
    import torch

    if not torch.cuda.is_available() or find_spec("triton") is None:
        return _NOT_HERE
    from server.models.engines.exllama import paged_kernel

    found: str | None = paged_kernel.objection(attention._by_torch, torch.device("cuda"))
    return found


def _triton() -> Any:
    from server.models.engines.exllama import paged_kernel

    return paged_kernel


def _attended(told: dict[str, Any], streams: int, length: int, ways: dict[str, Any]) -> dict[str, Any]:
    """One row of `kernel`."""
    import torch

    from server.models.engines.exllama import attention

    device, kind = told["device"], torch.float16 if told["device"] == "cuda" else torch.float32
    heads, kv_heads, width = told["heads"], told["kv_heads"], told["width"]

    def numbers(*shape: int) -> Any:
        return torch.randn(*shape, device=device, dtype=kind)

    pages = -(-(length + 1) // PAGE)
    k_cache, v_cache = (numbers(streams * pages, PAGE, kv_heads, width) for _ in "kv")
    table = torch.randperm(streams * pages, device=device, dtype=torch.int32).view(streams, pages)
    q, (k, v) = numbers(streams, 1, heads, width), (numbers(streams, 1, kv_heads, width) for _ in "kv")
    lengths = torch.full((streams,), length, device=device, dtype=torch.int32)
    attention.expect(length + 1)

    def paged() -> Any:
        return attention.flash_attn_with_kvcache(q, k_cache, v_cache, k, v, lengths, table)

    keys, values = (each[table.long()].flatten(1, 2)[:, : length + 1] for each in (k_cache, v_cache))
    keys, values = (each.transpose(1, 2).contiguous() for each in (keys, values))

    def plain() -> Any:
        return torch.nn.functional.scaled_dot_product_attention(
            q.transpose(1, 2), keys, values, enable_gqa=heads != kv_heads
        )

    read = 2 * streams * (length + 1) * kv_heads * width * q.element_size()
    row: dict[str, Any] = {"streams": streams, "length": length, "triton": None, "bytes": read, "parts": {}}
    keys[:, :, length], values[:, :, length] = k[:, 0], v[:, 0]
    with torch.inference_mode():
        row["order"] = 1000 * _fastest(plain, device)
        for name, chosen in ways.items():
            attention._kernel = chosen
            try:
                found = paged()
                assert torch.allclose(found, plain().transpose(1, 2), atol=2e-2), f"attention by {name} differs"
                row[name] = 1000 * _fastest(paged, device)
                row["parts"][name] = _parts(paged, device)
            finally:
                attention._kernel = None
    return row


def _fastest(call: Callable[[], Any], device: str) -> float:
    """Seconds of a call when many follow each other: the best of ten rounds."""
    best = float("inf")
    for _ in range(_TIMES):
        _wait(device)
        started = time.perf_counter()
        for _ in range(_CALLS):
            call()
        _wait(device)
        best = min(best, (time.perf_counter() - started) / _CALLS)
    return best


def _parts(call: Callable[[], Any], device: str) -> dict[str, float]:
    """The kernels of a call by torch's profiler, with their share of its time; those on the processor where there is
    no GPU. Five at most."""
    from torch.profiler import ProfilerActivity, profile

    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with profile(activities=kinds) as profiled:
        for _ in range(_CALLS):
            call()
        _wait(device)
    spent = {
        each.key: float(each.self_device_time_total if device == "cuda" else each.self_cpu_time_total)
        for each in profiled.key_averages()
    }
    whole = sum(spent.values()) or 1.0
    largest = sorted(spent, key=spent.__getitem__, reverse=True)[:5]
    return {name[:60]: spent[name] / whole for name in largest}


_ALL = (bandwidth, reference, logits, scores, generated, judged, speed, bare, made, behaviour, kernel, pictures)
TASKS: dict[str, Callable[[dict[str, Any]], Any]] = {each.__name__: each for each in _ALL}

if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](json.loads(sys.argv[2]))), flush=True)
