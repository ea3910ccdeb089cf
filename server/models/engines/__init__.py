"""Engines by name; each one's libraries are imported when it is created, in the worker that runs it."""

from pathlib import Path

from config.model import EchoModel, LocalModel, ReaderModel, WorkerSpec
from server.models.choice import Choice, choose
from server.models.cold_weights import Cold
from server.models.engine import Engine, Progress
from server.models.hub import Access, located


def create(
    spec: WorkerSpec,
    data: Path,
    progress: Progress = lambda _: None,
    access: Access | None = None,
    cold: Cold | None = None,
) -> tuple[Engine, Choice]:
    """The engine that `spec` declares, not loaded yet, and why it is this one. `data` is the data directory.

    Fetches weights from the hub, by `access`, where the recipe allows it, and from `cold` storage. Raises ValueError or
    OSError, naming the file, where no engine can serve them.
    """
    if isinstance(spec, EchoModel):
        from server.models.engines.echo import EchoEngine

        return EchoEngine(spec), Choice("echo")
    cache = data / "cache"
    files = located(spec.source, data, download=spec.download, progress=progress, access=access, cold=cold)
    if isinstance(spec, ReaderModel):
        from server.models.engines.reader.engine import ReaderEngine

        return ReaderEngine(spec, files, cache), Choice("reader")
    choice = choose(spec, files, data=data)
    drafter = None
    if spec.draft is not None and not spec.draft.is_ngram and choice.engine != "llamacpp":
        drafter = located(spec.draft, data, download=spec.download, progress=progress, access=access, cold=cold)
    sight = None
    if spec.projector is not None:
        sight = located(spec.projector, data, download=spec.download, progress=progress, access=access, cold=cold)
    return _local(choice.engine, spec, files, data, drafter, sight), choice


def _local(engine: str, spec: LocalModel, files: Path, data: Path, drafter: Path | None, sight: Path | None) -> Engine:
    cache = data / "cache"
    if engine == "llamacpp":
        from server.models.engines.llamacpp.engine import LlamaCppEngine

        return LlamaCppEngine(spec, files, cache, sight)
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
