"""OpenVINO GenAI's pipeline as a peer, run by its own environment's Python: `genai.py FILE`.

Spoken to as `bench.cpu.ours`; imports nothing of Hearth, and Hearth nothing of it. It may write beside FILE.
"""

import json
import sys
import time

import numpy as np

_CACHE_GIB = 2
_BATCH = 512
"""Tokens of a step at most; its default of 256 would cut the prompts in two."""


def main(file: str) -> None:
    import openvino_genai  # type: ignore[import-not-found]

    scheduling = openvino_genai.SchedulerConfig()
    scheduling.cache_size = _CACHE_GIB
    scheduling.max_num_batched_tokens = _BATCH
    pipeline = openvino_genai.ContinuousBatchingPipeline(file, scheduling, "CPU")
    print(f"GenAI {openvino_genai.__version__.partition('-')[0]}", flush=True)
    for number, line in enumerate(sys.stdin):
        prompts, tokens = json.loads(line)
        print(json.dumps(_timed(pipeline, number, prompts, tokens)), flush=True)


def _timed(pipeline, number: int, prompts: list[list[int]], tokens: int) -> tuple[float, float, int]:  # type: ignore[no-untyped-def]
    import openvino  # type: ignore[import-untyped,unused-ignore]
    import openvino_genai

    asked = openvino_genai.GenerationConfig(max_new_tokens=tokens, ignore_eos=True, do_sample=False)
    started = begun = time.perf_counter()
    # A request whose handle is dropped is cancelled.
    handles = [
        pipeline.add_request(number * len(prompts) + at, openvino.Tensor(np.array([ids], np.int64)), asked)
        for at, ids in enumerate(prompts)
    ]
    counts = [0] * len(handles)
    before = 0
    while pipeline.has_non_finished_requests():
        pipeline.step()
        if before == 0:
            _count(handles, counts)
            if all(counts):
                begun, before = time.perf_counter(), sum(counts)
    seconds = time.perf_counter() - begun
    _count(handles, counts)
    if sum(counts) != tokens * len(prompts):
        raise RuntimeError(f"the pipeline wrote {sum(counts)} tokens of {tokens * len(prompts)}")
    return begun - started, seconds, sum(counts) - before


def _count(handles, counts: list[int]) -> None:  # type: ignore[no-untyped-def]
    """Add what was written since the last time."""
    for at, handle in enumerate(handles):
        while handle.can_read():
            counts[at] += sum(len(output.generated_ids) for output in handle.read().values())


if __name__ == "__main__":
    main(sys.argv[1])
