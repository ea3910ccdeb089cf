"""Engines by name; each one's libraries are imported when it is created, in the worker that runs it."""

from pathlib import Path

from config.model import EchoModel, LocalModel, ReaderModel, WorkerSpec
from server.models.choice import Choice, choose
from server.models.engine import Engine, Progress
from server.models.hub import Access, located


def create(
    spec: WorkerSpec, data: Path, progress: Progress = lambda _: None, access: Access | None = None
) -> tuple[Engine, Choice]:
    """The engine that `spec` declares, not loaded yet, and why it is this one. `data` is the data directory.

    Fetches weights from the hub, by `access`, where the recipe allows it. Raises ValueError or OSError, naming the
    file, where no engine can serve them.
    """
    if isinstance(spec, EchoModel):
        from server.models.engines.echo import EchoEngine

        return EchoEngine(spec), Choice("echo")
    cache = data / "cache"
    files = located(spec.source, data, download=spec.download, progress=progress, access=access)
    if isinstance(spec, ReaderModel):
        from server.models.engines.reader.engine import ReaderEngine

        return ReaderEngine(spec, files, cache), Choice("reader")
    choice = choose(spec, files, data=data)
    return _local(choice.engine, spec, files, data, progress, access), choice


def _local(engine: str, spec: LocalModel, files: Path, data: Path, progress: Progress, access: Access | None) -> Engine:
    cache = data / "cache"
    if engine == "llamacpp":
        from server.models.engines.llamacpp.engine import LlamaCppEngine

        return LlamaCppEngine(spec, files, cache)
    draft = spec.draft
    drafter = None
    if draft is not None and not draft.is_ngram:
        drafter = located(draft, data, download=spec.download, progress=progress, access=access)
    if engine in ("exllamav2", "exllamav3"):
        from server.models.engines.exllama.engine import ExLlamaEngine

        return ExLlamaEngine(engine, spec, files, data, drafter)
    if engine == "transformers":
        from server.models.engines.transformers.engine import TransformersEngine

        return TransformersEngine(spec, files)
    match spec.task:
        case "embed":
            from server.models.engines.encoders.embedder import EmbedEngine

            return EmbedEngine(spec, files, cache)
        case "rerank":
            from server.models.engines.encoders.reranker import RerankEngine

            return RerankEngine(spec, files, cache)
    from server.models.engines.paged import PagedEngine

    return PagedEngine(spec, files, drafter, cache)
