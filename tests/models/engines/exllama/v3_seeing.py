"""What ExLlamaV3's own tower and language model make of pictures on a processor, beside transformers: a process.

`python -m tests.models.engines.exllama.v3_seeing FOLDER ...` prints figures of models of `bench.gpu.pictures` as JSON.
"""

import io
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.models.engines.exllama import names

names.install()

import numpy as np  # noqa: E402  # the names come first
import torch  # noqa: E402
from exllamav3 import Config, Model, Tokenizer  # noqa: E402
from PIL import Image as Pillow  # noqa: E402

from bench.gpu.arithmetic import relative_error  # noqa: E402
from bench.gpu.pictures import SHAPES, Answered, Oracle, asked, picture  # noqa: E402
from server.models.engine import Admitted  # noqa: E402
from server.models.engines.exllama.answer import Answer, Samplers  # noqa: E402
from server.models.engines.exllama.folder import readable  # noqa: E402
from server.models.engines.exllama.sight import image_token  # noqa: E402
from server.models.engines.exllama.v3_tower import V3Tower  # noqa: E402
from server.models.engines.exllama.vision import Vision  # noqa: E402
from server.models.engines.sampling import vocabulary  # noqa: E402
from server.models.engines.sampling.admission import Desk  # noqa: E402
from server.models.header import config  # noqa: E402
from tests.models.engines.exllama import v3_kernels  # noqa: E402, F401


def measured(folder: Path) -> dict[str, Any]:
    """How far the towers' `features` and the answers' `logprobs` are from transformers', at worst; and whether the
    tokens that stand for a picture are those that were counted."""
    image = image_token(config(folder))
    assert image is not None
    with TemporaryDirectory() as cache, readable("exllamav3", folder, Path(cache), print) as read:
        settings = Config.from_directory(str(read))
        tower = V3Tower(settings, Tokenizer.from_config(settings), image, None, lambda done, of: None)
        model = Model.from_config(settings)
        model.load()
    oracle = Oracle(folder, "cpu")
    files = [picture(size, seed) for seed, size in enumerate(SHAPES)]
    apart, same = [], True
    for file in files:
        seen = Pillow.open(io.BytesIO(file)).convert("RGB")
        layout, made = tower.layout(tower.fitted(seen.size)), tower.embed(seen)
        # The package counts its ids of a picture's own tokens up from a thousand million.
        same &= [token == image for token in layout] == [made_of >= 10**9 for made_of in made.ids]
        same &= all(token == made_of for token, made_of in zip(layout, made.ids, strict=True) if token != image)
        apart.append(relative_error(made.embedding.embeddings.float().numpy(), oracle.features(file)))
    words = vocabulary.from_folder(folder, settings.vocab_size)
    vision, desk = Vision(tower, words), Desk(words, 2048)
    shown = [files[1], files[0]]
    request = asked(*shown)
    read_as = vision.read(request.prompt, request.images)
    for placed in read_as.pictures:
        while placed.embedded is None:
            vision.look([placed], idle=True)
    plain = type(request)(prompt=read_as.tokens, max_tokens=1)
    answer = Answer(0, desk.admit(plain), Samplers(settings.vocab_size), pictures=read_as.pictures)
    ids = torch.tensor([answer.ids])
    params: dict[str, Any] = {"attn_mode": "flash_attn_nc", "indexed_embeddings": answer.embeddings}
    if model.caps.get("mrope"):
        params["inv_freq"], _ = model.g_rope.get_mrope_freqs(ids, answer.embeddings, ids.shape[-1])
    with torch.inference_mode():
        logits = model.forward(ids, params)[0, :, : settings.vocab_size].float()
    told = Answered(Admitted(1, ids=answer.tokens[:1]))
    told.ids = answer.tokens[1:]
    exact = oracle.logprobs(told, shown)
    found = torch.log_softmax(logits[:-1], -1).numpy()
    vision.close()
    return {
        "features": max(map(float, apart)),
        "layouts": same,
        "logprobs": float(np.abs(found - exact)[exact > -8].max()),
        "tower": tower.weights_bytes,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    usual = Model.load
    Model.load = lambda self, **named: usual(self, device="cpu", callback=named.get("callback"))
    print(json.dumps({folder: measured(Path(folder)) for folder in sys.argv[1:]}))
