"""ExLlamaV3 as this engine calls it, against the real package: names and parameters, as nothing of it computes here.

Its kernels and triton stand in as names alone, in a process of their own.
"""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

_MISSING = [name for name in ("torch", "exllamav3") if find_spec(name) is None]

_CHECK = """
import inspect
from tests.models.engines.exllama import names

names.install()
import torch
from server.models.engine import Sampling
from server.models.engines.exllama import v3
from server.models.engines.exllama.answer import Answer, Samplers
from server.models.engines.sampling.admission import Admission
from server.models.engines.sampling.sampler import Chooser

def takes(function, *given, **named):
    inspect.signature(function).bind(*given, **named)

takes(v3.Cache.__init__, None, None, max_num_tokens=1, max_batch_size=1, max_history=0, layer_type=None, k_bits=4,
      v_bits=4)
takes(v3.Model.load_gen, None, use_per_device=None, tensor_p=False, max_chunk_size=1, callback=None)
takes(v3.PagedGenerator.__init__, None, model=0, cache=0, tokenizer=0, max_batch_size=1, max_chunk_size=1,
      num_draft_tokens=None, ngram_match_min=0, draft_model=0, draft_cache=0)
for name in ("enqueue", "iterate", "cancel", "clear_queue", "close"):
    assert hasattr(v3.PagedGenerator, name), name
# The estimate of `hearth check` is what the package sets aside.
from types import SimpleNamespace as Sizes
from server.models.vram import _BITS
for heads, width in ((2, 64), (8, 128)):
    for name, bits in (("q8", 8), ("q6", 6), ("q4", 4)):
        kept = v3.CacheLayer_quant(None, Sizes(num_kv_heads=heads, head_dim=width), 0, 512, bits, bits)
        kept.alloc(torch.device("cpu"))
        given = sum(each.numel() * each.element_size() for each in (kept.qk, kept.qv, kept.sk, kept.sv))
        assert given == 2 * heads * width * 512 * _BITS["exllamav3"][name] / 8, (name, given)
from exllamav3.generator.pagetable import PageTable
assert PageTable.reset_page_table and v3.Model.unload and v3.LoRA.unload and v3.CacheLayer_quant.storage_size

chooser = Chooser(Sampling(temperature=0.0), [1, 2], None, frozenset([7]))
answer = Answer(1, Admission([1, 2], 2, chooser, None, None, False), Samplers(16))
job = v3.Job(torch.tensor([answer.tokens]), max_new_tokens=4, sampler=v3._Chosen(answer, 16, True), identifier=answer)
assert job.identifier is answer and job.sampler.reqs_past_ids and (job.cached_pages, job.cached_tokens) == (0, 0)
logits = torch.zeros(1, 1, 32)
for token in (5, 3):
    logits.zero_()[0, 0, token] = 1
    found = job.sampler.forward(logits, None, 0, None, logit_mask=None)
    assert found.tolist() == [[token]] and found.dtype == torch.long
assert answer.tokens == [1, 2, 5, 3] and answer.reason == "length"
assert job.sampler.forward(logits).tolist() == [[3]] and answer.tokens == [1, 2, 5, 3]

# A prompt that is scored: the package's own job and pages, over a model whose logits say token + 1 is likely.
from types import SimpleNamespace
class Model:
    config, caps, calls = SimpleNamespace(vocab_size=16), {}, []
    def forward(self, input_ids, params):
        self.calls.append((int(params["cache_seqlens"]), input_ids.shape[-1]))
        logits = torch.zeros(1, input_ids.shape[-1], 32)
        logits[0, torch.arange(input_ids.shape[-1]), (input_ids[0] + 1) % 16] = 5
        return logits
    def prefill(self, input_ids, params):
        self.forward(input_ids, params)
def generator_of(model):
    made = SimpleNamespace(cache=SimpleNamespace(max_num_tokens=4096), max_total_tokens=4096, max_draft_tokens=0,
        recurrent_cache=None, max_batch_size=4, mtp_draft=False, dflash_draft=False, draft_model=None, model=model,
        ngram_match_min=0, hybrid_draft_tokens=0, ngram_corpus=None, padded_vocab_size=32, max_chunk_size=2048,
        num_draft_tokens=0)
    made.pagetable = PageTable(made, made.cache)
    return made
def read_through(generator, job):
    job.prepare_for_queue(generator, 1)
    job.allocate_pages()
    while not job.sequences[0].prefill_complete:
        job.prefill([], 1024)
    job.deallocate_pages()
import exllamav3.generator.job as package
compared = []
package.ext = SimpleNamespace(count_match_tensor=lambda *pages: compared.append(pages) or 0)
tokens = [n % 16 for n in range(700)]
def score(kind, generator):
    answer = Answer(1, Admission(tokens, 2, chooser, None, 2, False), Samplers(16))
    job = kind(torch.tensor([tokens]), max_new_tokens=4, sampler=v3._Chosen(answer, 16, False), identifier=answer)
    read_through(generator, job)
    return answer, job
generator = generator_of(Model())
_, plain = score(v3.Job, generator)
assert Model.calls == [(0, 699)] and compared, Model.calls
Model.calls.clear(), compared.clear()
answer, job = score(v3._Read, generator)
assert Model.calls == [(0, 256), (256, 256), (512, 187)] and job.cached_pages == job.cached_tokens == 0, Model.calls
assert not compared and isinstance(generator.model, Model) and len(generator.pagetable.all_pages) == 16
assert [each.token for each in answer.read] == tokens[1:] and not answer.scores
exact = 5 - torch.tensor([5.0] + [0.0] * 15).logsumexp(0)
assert max(abs(each.logprob - exact) for each in answer.read) < 1e-5
_, again = score(v3.Job, generator)
assert again.cached_pages == 2, again.cached_pages
"""


@pytest.mark.skipif(bool(_MISSING), reason=f"NOT TESTED: {' and '.join(_MISSING)} not installed: run scripts/setup dev")
def test_the_package_takes_what_this_engine_gives_it() -> None:
    root = Path(__file__).parents[4]
    done = subprocess.run(
        [sys.executable, "-c", _CHECK], capture_output=True, text=True, timeout=300, cwd=root, check=False
    )
    assert done.returncode == 0, done.stderr
