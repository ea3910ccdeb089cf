"""One measurement in a process of its own, so that it has the whole GPU and a fault of it costs nothing else.

`python -m bench.gpu.measuring TASK JSON` prints one line of JSON, the last one of its output.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.gpu.arithmetic import agreement, relative_error, same_tokens
from bench.gpu.driving import engine_timed, prompts
from config.model import LocalModel
from server.models.engine import Engine
from server.models.engines import create
from server.models.engines.exllama import extension

_READ = 2 << 30
_TIMES = 10
_WARM = 8


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
    cache = exllamav2.ExLlamaV2Cache(model, lazy=True)
    model.load_autosplit(cache)
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


def speed(told: dict[str, Any]) -> dict[str, Any]:
    """Rate and first token at each number of streams, with one cache; and whether a batch answers as one does."""
    length, tokens, most = told["prompt"], told["tokens"], max(told["streams"])
    context = length + tokens + 64
    keys = {"context": context, "cache_tokens": most * (-(-context // 256) * 256), "parallel": most}
    engine = loaded(told, cache=told["cache"], **keys, **told.get("keys", {}))
    asked = prompts(most, length, told["vocabulary"])
    engine_timed(engine, asked[:1], _WARM)
    rows = []
    for streams in told["streams"]:
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

    attention.register()
    settings = exllamav2.ExLlamaV2Config(told["source"])
    settings.no_sdpa = True
    model = exllamav2.ExLlamaV2(settings)
    room = -(-(told["prompt"] + told["tokens"] + 64) // 256) * 256 * told["streams"]
    cache = exllamav2.ExLlamaV2Cache(model, max_seq_len=room, lazy=True)
    model.load_autosplit(cache)
    tokenizer = exllamav2.ExLlamaV2Tokenizer(settings)
    generator = ExLlamaV2DynamicGenerator(model, cache, tokenizer, max_batch_size=told["streams"])
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


TASKS = {each.__name__: each for each in (bandwidth, reference, logits, scores, speed, bare)}

if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](json.loads(sys.argv[2]))), flush=True)
