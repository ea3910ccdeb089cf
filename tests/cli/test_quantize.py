"""`hearth quantize`: the table, the card and the exit codes, as a user meets them."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from server.__main__ import main
from server.models.quantization import evaluating, exllama
from tests.making import made
from tests.making.oracle import needs_torch


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantize")
    file = folder / "recipe.yaml"
    source = made("random", family="qwen3", format="safetensors")
    file.write_text(
        f"version: 1\nserver: {{data: {folder / 'data'}}}\nmodels:\n  echo: {{engine: echo}}\n"
        f"  chat: {{engine: openvino, source: {source}}}\n",
        encoding="utf-8",
    )
    return file


def hearth(recipe: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["quantize", *arguments, "--recipe", str(recipe)])


def test_a_model_of_the_recipe_gets_smaller_and_its_card_says_what_that_cost(recipe: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The server answers. " * 40, encoding="utf-8")
    out = tmp_path / "small"
    told = ["chat", "--bits", "4.0", "--out", str(out), "--calibration", str(text), "--eval", "--data", str(text)]
    done = hearth(recipe, *told)
    assert done.exit_code == 0, done.stderr
    (file,) = out.glob("*-q4_0.gguf")
    card = (out / "README.md").read_text(encoding="utf-8")
    kept = json.loads((out / "quantized.json").read_text(encoding="utf-8"))
    for wanted in ("size as fp16", "smaller by", "perplexity before", "perplexity now", "accuracy now", "same choice"):
        assert wanted in done.stdout and wanted in card
    assert kept["bytes"] == file.stat().st_size < kept["half_bytes"] / 2
    assert f"`{kept['sums'][file.name]}`" in card and "4.5 bits a weight with its scales" in card
    assert "fitted to text.txt" in card
    figures = kept["evaluated"][0]
    assert figures["before"] != figures["after"] and 0 < figures["agreement"] < 1
    assert not list(out.glob(".*"))
    # The same again finds it all there, figures too, and changes nothing.
    again = hearth(recipe, *told)
    assert again.exit_code == 0 and "quantising" not in again.stdout and "perplexity now" in again.stdout
    assert (out / "README.md").read_text(encoding="utf-8") == card
    # Other weights do not go over these.
    other = hearth(recipe, str(made("random", format="safetensors")), "--plain", "--out", str(out))
    assert other.exit_code == 0, "a file of another name lies beside it"
    assert "each weight rounded to nearest" in (out / "README.md").read_text(encoding="utf-8")
    # Nor does what is fitted to another text, or to none.
    plain = hearth(recipe, "chat", "--plain", "--out", str(out))
    assert plain.exit_code == 1 and "made of other weights or fitted to another text" in plain.stderr


def test_the_table_says_which_weights_could_not_have_the_type(recipe: Path, tmp_path: Path) -> None:
    done = hearth(recipe, "chat", "--type", "q4_k", "--plain", "--out", str(tmp_path / "out"))
    assert done.exit_code == 0, done.stderr
    says = "no whole number of the blocks of 256 of q4_k"
    assert says in " ".join(done.stdout.split()) and says in (tmp_path / "out" / "README.md").read_text("utf-8")
    kept = json.loads((tmp_path / "out" / "quantized.json").read_text(encoding="utf-8"))
    assert kept["types"]["q5_0"] > kept["types"]["q4_k"] > 0
    fits = hearth(recipe, "chat", "--type", "q5_0", "--plain", "--out", str(tmp_path / "fits"))
    assert fits.exit_code == 0 and "no whole number" not in fits.stdout and "q5_0 " in fits.stdout


def test_every_fault_is_one_sentence(recipe: Path, tmp_path: Path) -> None:
    """Each before anything is written."""
    out = str(tmp_path / "out")
    gguf = str(made("random"))
    for arguments, says in {
        ("echo",): "models.echo: a model of engine echo has no weights here",
        ("nowhere",): "nowhere is no model of ",
        ("chat", "--type", "q9"): "--type q9 is not one of q2_k, ",
        ("chat", "--to", "gptq", "--bits", "3"): "--bits 3: gptq is made with 4 bits",
        ("chat", "--group", "64"): "--group is for gptq, and not for gguf",
        ("chat", "--no-act-order"): "--no-act-order is for gptq, and not for gguf",
        ("chat", "--to", "gptq", "--plain"): "--plain is for gguf, and not for gptq",
        ("chat", "--to", "exl2", "--calibration", "none.txt"): "--calibration is for gguf and gptq, and not for exl2",
        ("chat", "--to", "exl3", "--type", "q4_k"): "--type is for gguf, and not for exl3",
        (gguf, "--to", "gptq"): "gptq is made of a folder with safetensors, not of a GGUF file",
        (gguf, "--to", "exl2"): "exl2 is made of a folder with safetensors, not of a GGUF file",
        ("chat", "--eval", "--data", "none.txt"): "--data none.txt: ",
        ("chat", "--calibration", "none.txt"): "--calibration none.txt: ",
        ("chat", "--calibration", str(_asked(tmp_path))): "holds questions, and a text is wanted",
    }.items():
        done = hearth(recipe, *arguments, "--out", out)
        assert done.exit_code == 1 and says in done.stderr, (arguments, done.stderr)
        assert len(done.stderr.strip().splitlines()) == 1
    assert not Path(out).exists()


def _asked(folder: Path) -> Path:
    file = folder / "asked.jsonl"
    file.write_text('{"prompt": "a", "answer": "b"}', encoding="utf-8")
    return file


def test_what_one_engine_reads_is_compared_with_the_original_in_the_same_engine(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The converter and both evaluations stand in: a GPU is needed for them."""
    asked: list[tuple[str, str]] = []

    def write(form: str, folder: Path, out: Path, *_: object) -> dict[str, str]:
        shutil.copytree(folder, out)
        return {"model.safetensors": "0"}

    def score(path: Path, *_: object, engine: str, **__: object) -> evaluating.Scores:
        asked.append((path.name, engine))
        return evaluating.Scores(2, 1.0, [True, False], [b"a", b"b"], exact=False)

    monkeypatch.setattr(exllama, "lacking", lambda *_: None)
    monkeypatch.setattr(exllama, "write", write)
    monkeypatch.setattr(evaluating, "score", score)
    source = made("random", family="qwen3", format="safetensors")
    done = hearth(recipe, "chat", "--to", "exl2", "--out", str(tmp_path / "out"), "--eval")
    assert done.exit_code == 0, done.stderr
    assert asked == [(source.name, "exllamav2"), ("out", "exllamav2")]
    assert "both computed by exllamav2; before is" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    # Kept for the next format of the same engine, and for no other.
    assert hearth(recipe, "chat", "--to", "exl2", "--bits", "3", "--out", str(tmp_path / "b3"), "--eval").exit_code == 0
    assert hearth(recipe, "chat", "--to", "exl3", "--out", str(tmp_path / "v3"), "--eval").exit_code == 0
    assert asked[2:] == [("b3", "exllamav2"), (source.name, "exllamav3"), ("v3", "exllamav3")]


@needs_torch
def test_gptq_is_written_as_engines_read_it(recipe: Path, tmp_path: Path) -> None:
    text = tmp_path / "calibration.txt"
    text.write_text("The server answers the question of the client. " * 12, encoding="utf-8")
    out = tmp_path / "gptq"
    done = hearth(
        recipe, "chat", "--to", "gptq", "--out", str(out), "--calibration", str(text), "--eval", "--data", str(text)
    )
    assert done.exit_code == 0, done.stderr
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    assert (config["quant_method"], config["bits"], config["desc_act"]) == ("gptq", 4, True)
    from safetensors import safe_open

    with safe_open(out / "model-00001-of-00003.safetensors", "numpy") as first:
        assert "model.embed_tokens.weight" in first.keys()  # noqa: SIM118 - no mapping
    with safe_open(out / "model-00002-of-00003.safetensors", "numpy") as layer:
        assert layer.get_slice("model.layers.0.self_attn.q_proj.qweight").get_dtype() == "I32"
        assert layer.get_slice("model.layers.0.self_attn.q_norm.weight").get_dtype() == "F16"
    figures = json.loads((out / "quantized.json").read_text(encoding="utf-8"))["evaluated"][0]
    assert figures["agreement"] > 0.3
    index = json.loads((out / "model.safetensors.index.json").read_text(encoding="utf-8"))["weight_map"]
    assert len(index) == len(set(index)) and set(index.values()) == {file.name for file in out.glob("*.safetensors")}
    assert not list(tmp_path.glob(".gptq*"))
