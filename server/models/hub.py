"""Where a model's files are: on this machine, or fetched from the Hugging Face hub when the recipe allows it.

Knows the hub's protocol through huggingface_hub, which is imported only when there is something to ask; what is on disk
is `server.models.kept`'s.
"""

import difflib
import functools
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from rich.filesize import decimal

from config.model import Source
from server.models import cold_weights, kept
from server.models.cold_weights import Cold
from server.models.engine import Progress
from server.models.hub_access import Access, HubAway, HubError, on_disk, online, told
from server.models.kept import found

__all__ = ["Access", "HubAway", "HubError", "Plan", "Wanted", "fetched", "found", "located", "planned"]

_PATIENCE = 10.0
"""Seconds the hub has for a first answer."""

_EVERY = 2.0
"""Seconds between two lines of progress."""

_COMPANY = frozenset(
    {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "chat_template.jinja",
        "chat_template.json",
        "preprocessor_config.json",
        "processor_config.json",
        "additional_chat_templates/tool_use.jinja",
        "modules.json",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
        "1_Pooling/config.json",
        "model.safetensors.index.json",
    }
)
"""What engines read beside the weights. Pickles (.bin, .pt) are programs, and are never fetched."""

_WEIGHTS = re.compile(r"[A-Za-z0-9][\w.-]*\.safetensors")
_STANDARD = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")


@dataclass(frozen=True)
class Wanted:
    """One file of a plan; `sum` is "sha256:HEX" or "git:HEX", as the hub says it."""

    name: str
    bytes: int
    sum: str


@dataclass(frozen=True)
class Plan:
    """What fetching a source means, as the hub describes it: said before the first byte of the weights is fetched."""

    source: Source
    commit: str
    licence: str | None
    files: tuple[Wanted, ...]

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    def __str__(self) -> str:
        count = f"{len(self.files)} file{'s' if len(self.files) > 1 else ''}"
        licence = f"licence {self.licence}" if self.licence else "no licence said"
        return f"{self.source}: {count}, {decimal(self.bytes)}, {licence}, revision {self.commit[:12]}"


def located(
    source: Source,
    data: Path,
    *,
    download: bool,
    progress: Progress,
    access: Access | None = None,
    cold: Cold | None = None,
) -> Path:
    """The .gguf file or folder of `source`, made, brought back from cold storage, or fetched where it is not on disk
    and `download` allows it, first. What is the user's own does not move there while this process lives.

    `data` is the data directory, in which fetched weights are kept. `progress` is told size and licence before a
    download, and how far it is. `access` None takes the environment's. Blocks, may take hours. Raises HubError, and
    what `cold_weights.opened` does.
    """
    if source.is_made:
        from server.models.made import build

        progress(f"making {source}")
        return build(source, data)
    if cold_weights.is_local(source):
        cold_weights.opened(source.path, cold, progress)
        return source.path
    here = found(source, data)
    if here is not None:
        return here
    if not download:
        raise HubError(f"{source} is not on disk; fetch it with `hearth pull`, or set download: true in the recipe")
    access = access or Access.of(os.environ)
    progress(f"asking {urlsplit(access.endpoint).hostname} for {source}")
    plan = planned(source, access)
    progress(f"fetching {plan}")
    return fetched(plan, data, _lines(plan.bytes, progress), access=access)


def planned(source: Source, access: Access) -> Plan:
    """Ask the hub what `source` is: its commit, licence, and the files an engine needs. Raises HubError."""
    import huggingface_hub

    repository, revision, file = source.repository
    with told(source, access), online(access):
        api = huggingface_hub.HfApi(endpoint=access.endpoint, token=access.token, library_name="hearth")
        try:
            info = api.model_info(repository, revision=revision or kept.MAIN, files_metadata=True, timeout=_PATIENCE)
        except (ValueError, TypeError, KeyError) as error:  # what the library raises on an answer it cannot read
            raise HubError(f"{source}: {access.endpoint} does not answer as the Hugging Face hub does") from error
    if info.sha is None or not kept.COMMIT.fullmatch(info.sha):
        raise HubError(f"{source}: {access.endpoint} names no commit")
    siblings = {each.rfilename: each for each in info.siblings or ()}
    names = _of_file(source, file, siblings) if file else _of_folder(source, siblings)
    return Plan(source, info.sha, _licence(info), tuple(_wanted(source, siblings[name]) for name in names))


def fetched(plan: Plan, data: Path, received: Callable[[int], None], *, access: Access) -> Path:
    """Fetch what is not on disk yet, check every sum, and put it in place; the .gguf file or folder.

    `received` is told how many of the plan's bytes are here, after every piece, and at least twice a second while
    another process fetches from the same repository. A cut download goes on where it stopped. Raises HubError.
    """
    repository, revision, file = plan.source.repository
    home = kept.home_of(repository, data)
    folder, arriving = home / plan.commit, home / f".fetching-{plan.commit}"
    with on_disk(plan.source, data), kept.alone(home, functools.partial(received, 0)):
        manifest = kept.read(folder) or kept.Manifest(repository, plan.commit, plan.licence, False, {})
        missing = [each for each in plan.files if not _is_held(each, folder, manifest)]
        _check_space(plan.source, missing, arriving)
        done = plan.bytes - sum(each.bytes for each in missing)
        received(done)
        for each in missing:
            _take(plan, each, arriving / each.name, functools.partial(_Meter, received, done), access)
            done += each.bytes
        checking = functools.partial(received, done)
        files = manifest.files | {each.name: _checked(plan, each, arriving / each.name, checking) for each in missing}
        for each in missing:
            (folder / each.name).parent.mkdir(parents=True, exist_ok=True)
            (arriving / each.name).replace(folder / each.name)
        whole = manifest.folder or file is None
        kept.write(folder, kept.Manifest(repository, plan.commit, plan.licence, whole, files))
        kept.record(home, revision or kept.MAIN, plan.commit)
        shutil.rmtree(arriving, ignore_errors=True)
    return folder / file if file else folder


# ---- which files ---------------------------------------------------------------------------------------------------


def _of_file(source: Source, file: str, siblings: Mapping[str, Any]) -> Sequence[str]:
    names = kept.shards(file)
    for name in names:
        if name not in siblings:
            ggufs = sorted(each for each in siblings if each.endswith(".gguf"))
            raise HubError(f"{source}: the repository has no {name}; {_near(name, ggufs)}")
    return names


def _of_folder(source: Source, siblings: Mapping[str, Any]) -> Sequence[str]:
    weights = [name for name in siblings if _WEIGHTS.fullmatch(name)]
    # Some repositories hold the same weights twice, for another library under another name.
    weights = [name for name in weights if _STANDARD.fullmatch(name)] or weights
    if weights and "config.json" in siblings:
        return sorted(_COMPANY & siblings.keys()) + sorted(weights)
    ggufs = sorted(name for name in siblings if name.endswith(".gguf"))
    if ggufs:
        raise HubError(f"{source}: the repository holds .gguf files, of which one must be named; {_near('', ggufs)}")
    missing = " and no ".join(["*.safetensors"] * (not weights) + ["config.json"] * ("config.json" not in siblings))
    pickles = any(name.endswith((".bin", ".pt", ".pth")) for name in siblings)
    why = "; its weights are pickles, which are programs and are not fetched" if pickles and not weights else ""
    raise HubError(f"{source}: the repository has no {missing}{why}")


def _near(name: str, ggufs: list[str]) -> str:
    if not ggufs:
        return "it has no .gguf file at all"
    near = difflib.get_close_matches(name, ggufs, n=4, cutoff=0.5) or ggufs[:8]
    return f"it has {', '.join(near)}{' and others' if len(near) < len(ggufs) else ''}"


def _wanted(source: Source, sibling: Any) -> Wanted:
    large = sibling.lfs
    if large is not None:
        return Wanted(sibling.rfilename, large.size, f"sha256:{large.sha256}")
    if sibling.size is None or not sibling.blob_id:
        raise HubError(f"{source}: the hub says no sum for {sibling.rfilename}, so it could not be checked")
    return Wanted(sibling.rfilename, sibling.size, f"git:{sibling.blob_id}")


def _licence(info: Any) -> str | None:
    card = info.card_data
    if card is None:
        return None
    said = card.get("license")
    named = card.get("license_name") if said == "other" else None
    return str(named or said) if said else None


# ---- fetching ------------------------------------------------------------------------------------------------------


def _is_held(wanted: Wanted, folder: Path, manifest: kept.Manifest) -> bool:
    held = manifest.files.get(wanted.name)
    file = folder / wanted.name
    return held is not None and held.sum == wanted.sum and file.is_file() and file.stat().st_size == wanted.bytes


def _take(plan: Plan, wanted: Wanted, file: Path, meter: Any, access: Access) -> None:
    """Fetch one file to `file`, from where an earlier attempt stopped.

    `hf_hub_download` gives every attempt a file of its own and starts over; `http_get`, which it calls, can go on.
    """
    import huggingface_hub
    from huggingface_hub.file_download import http_get

    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists() and file.stat().st_size > wanted.bytes:
        file.unlink()
    repository = plan.source.repository[0]
    url = huggingface_hub.hf_hub_url(repository, wanted.name, revision=plan.commit, endpoint=access.endpoint)
    token = access.token or huggingface_hub.get_token()
    headers = {"Accept-Encoding": "identity"} | ({"authorization": f"Bearer {token}"} if token else {})
    with told(plan.source, access), online(access), file.open("ab") as content:
        here = content.tell()
        if here < wanted.bytes:
            # Each attempt follows the redirect anew: the store's signed addresses run out, and no token goes there.
            http_get(url, content, resume_size=here, headers=headers, tqdm_class=meter)
        content.flush()
        os.fsync(content.fileno())


class _Meter:
    """What `http_get` takes for its progress bar: it only counts."""

    def __init__(self, received: Callable[[int], None], before: int, *, initial: int = 0, **_: object) -> None:
        self._received = received
        self._count = before + initial

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def update(self, count: int) -> None:
        self._count += count
        self._received(self._count)


def _checked(plan: Plan, wanted: Wanted, file: Path, alive: Callable[[], None]) -> kept.Held:
    total = kept.sum_of(file, wanted.sum.partition(":")[0], lambda _: alive())
    if total != wanted.sum:
        file.unlink()
        raise HubError(
            f"{plan.source}: {wanted.name} arrived broken: its sum is {total}, the hub says {wanted.sum}; "
            "it was thrown away, so try again"
        )
    return kept.held(file, total)


def _check_space(source: Source, missing: Sequence[Wanted], arriving: Path) -> None:
    arrived = sum(file.stat().st_size for file in arriving.rglob("*") if file.is_file()) if arriving.exists() else 0
    needed = sum(each.bytes for each in missing) - arrived
    free = shutil.disk_usage(arriving.parent).free
    if needed > free:
        raise HubError(
            f"{source} needs {decimal(needed)} and the disk of {arriving.parent} has {decimal(free)} free; "
            "make room, or choose another folder with server.data"
        )


def _lines(total: int, progress: Progress) -> Callable[[int], None]:
    """A sink for bytes received that tells `progress` a line now and then."""
    last = [float("-inf")]

    def received(count: int) -> None:
        now = time.monotonic()
        if now - last[0] >= _EVERY:
            last[0] = now
            progress(f"downloading {100 * count // max(total, 1)} % of {decimal(total)}")

    return received
