"""Small models made on this machine, without a network, for trying clients: what `source: made:NAME` names.

`automaton` says one known text, `random` has random weights and obeys nothing but grammars, `reranker` has random
weights too, and `sight` names the colour of a picture. Imported by workers only.
"""

from dataclasses import replace
from pathlib import Path

from config.source import Source
from server.models.kept import path_of
from server.models.made.automaton import Automaton
from server.models.made.build import once
from server.models.made.encoder_folder import write_encoder
from server.models.made.gguf_file import write_gguf
from server.models.made.shapes import random_shape
from server.models.made.sight import Sight, write_projector
from server.models.made.vocabulary import trained
from server.models.made.weights import Random

TEMPLATE = Path(__file__).with_name("chatml.jinja")

_VERSION = "3"
"""To be raised with every change of what is written, so that no folder made before is taken for a new one."""
_CONTEXT = 131_072
_TOKENS = 2000
_WINDOW = 512


def build(source: Source, data: Path) -> Path:
    """The .gguf file or the folder of a `made:` source in the data directory, written if it is not there yet.

    A projector and its model are written together.
    """
    model = path_of(Source(source), data)
    once(model.parent, _VERSION, lambda folder: _write(source.made, folder / model.name))
    return path_of(source, data)


def _write(name: str, path: Path) -> None:
    if name == "reranker":
        write_encoder(path, "bert", window=_WINDOW, labels=1)
        return
    template = TEMPLATE.read_text(encoding="utf-8")
    if name == "automaton":
        knows = Automaton()
        write_gguf(path, name, "f32", knows.shape, knows.vocabulary, knows, template)
        return
    if name == "sight":
        sees = Sight()
        write_gguf(path, name, "f32", sees.shape, sees.vocabulary, sees, template)
        write_projector(path.with_name("projector.gguf"), sees)
        return
    vocabulary = trained(_TOKENS, "qwen2")
    shape = replace(random_shape("small", "qwen3"), context=_CONTEXT)
    weights = Random(shape, 0, vocabulary.special, len(vocabulary.tokens), quantised=False)
    write_gguf(path, name, "q8_0", shape, vocabulary, weights, template)
