"""A model whose files are broken says which and why, at once, and every other model serves."""

import shutil
from pathlib import Path

import pytest

from tests.live import serving, wait_for
from tests.making import made


def test_a_file_cut_off_while_copied_is_named_and_the_others_serve(tmp_path: Path) -> None:
    whole = made("automaton", quant="q8_0")
    good, broken = tmp_path / "good.gguf", tmp_path / "broken.gguf"
    shutil.copyfile(whole, good)
    broken.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "models:\n"
        "  good: {engine: openvino, source: good.gguf, context: 512}\n"
        "  broken: {engine: openvino, source: broken.gguf, context: 512}\n"
        "version: 1\n",
        encoding="utf-8",
    )
    with serving(recipe, tmp_path / "data", until="/healthz") as live, live.client() as client:

        def settled() -> bool:
            models = client.get("/health").json()["models"]
            return bool(models["good"]["state"] == "ready" and models["broken"]["state"] == "failed")

        wait_for(settled, "the models did not settle", live.log, live.process)
        state = client.get("/health").json()["models"]["broken"]
        assert str(broken) in state["error"]
        assert state["restarts"] == 0, "it would fail again"
        said = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
        refused = client.post("/v1/chat/completions", json=said | {"model": "broken"})
        assert refused.status_code == 503
        assert "broken.gguf" in refused.json()["error"]["message"]
        served = client.post("/v1/chat/completions", json=said | {"model": "good", "temperature": 0})
        assert served.json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize("bad", ["{% for %}", "{{ messages | nothing }}"])
def test_a_chat_template_that_does_not_compile_is_named(bad: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(made("automaton", format="safetensors"), folder)
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        (folder / name).unlink(missing_ok=True)
    (folder / "chat_template.jinja").write_text(bad, encoding="utf-8")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("version: 1\nmodels: {m: {engine: openvino, source: model, context: 512}}\n", encoding="utf-8")
    with serving(recipe, tmp_path / "data", until="/healthz") as live, live.client() as client:
        failed = lambda: client.get("/health").json()["models"]["m"]["state"] == "failed"  # noqa: E731
        wait_for(failed, "the model did not fail", live.log, live.process)
        error = client.get("/health").json()["models"]["m"]["error"]
        assert error.startswith(f"{folder}: the chat template does not compile: line 1")
