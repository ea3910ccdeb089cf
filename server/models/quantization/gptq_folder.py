"""A Hugging Face folder to one of GPTQ, 4 bits, layer by layer; a run that was cut goes on after the last whole layer.

Each layer is fitted to the inputs that it gets from the quantised layers before it (`gptq`). One file of weights is
written for each layer, so nothing is held twice. Embedding, head and norms stay 16-bit floats.
"""

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.models.engines.paged.folder import Folder, folder_name
from server.models.engines.paged.weights import Tensor, tensors
from server.models.engines.sampling import vocabulary
from server.models.header import config
from server.models.quantization.fault import QuantizeError, Told
from server.models.quantization.gptq import Rounded, few_threads, rounded
from server.models.quantization.work import alone, digest, sha256, sync

BITS = 4
GROUPS = (128, 64, 32)
"""Inputs that share a scale."""
_MULTIPLE = 32
"""What exllamav2 wants the sizes of a matrix to be a multiple of."""
_WINDOW, _MOST_WINDOWS = 512, 128
_STAGES = (("q", "k", "v"), ("o",), ("gate", "up"), ("down",))
"""Matrices with the same input, in the order in which it comes by them."""
_COMPANY = ("*.json", "*.jinja", "tokenizer.model", "LICENSE*", "NOTICE*")
_MISSING = "gptq needs torch and transformers; run: pip install 'hearth[transformers]'"
_FORMAT = 2
"""To be raised with every change of what is written, so that a cut run of other code is not gone on with."""


def identity(folder: Path, text: str, *, group: int | None, act_order: bool) -> str:
    """Changes with whatever decides what is written."""
    files = {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in sorted(folder.glob("*.*"))}
    return digest([_FORMAT, files, text, group, act_order, _WINDOW, _MOST_WINDOWS])


def write(
    folder: Path, out: Path, text: str, told: Told, *, group: int | None = None, act_order: bool
) -> dict[str, str]:
    """The model of `folder` as GPTQ at `out`, which is not there yet; `text` is what it is fitted to.

    `group` inputs share a scale; None is the largest of 128, 64 and 32 that fits. Returns the SHA-256 of each file of
    weights. Raises QuantizeError or WeightsError.
    """
    try:
        import torch
        import transformers
    except ImportError:
        raise QuantizeError(_MISSING) from None
    if not folder.is_dir():
        raise QuantizeError(f"{folder}: gptq is made of a folder with safetensors, not of a GGUF file")
    original = Folder(folder, keep_floats=True)
    asked, group = group, _group(folder, original, group)
    work = out.with_name(f".{out.name}.quantizing")
    with alone(work), torch.inference_mode(), few_threads(original.shape.hidden):
        _begin(work, identity(folder, text, group=asked, act_order=act_order))
        windows = _windows(folder, original, text)
        told("loading the model", 0, 1)
        transformers.utils.logging.disable_progress_bar()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        model.config.use_cache = False
        calls = _first_inputs(model, windows, told)
        for number, layer in enumerate(model.model.layers):
            file = work / _file(number + 1, original.shape.layers)
            layer.to(device)
            pass_ = _Pass(layer, calls, device)
            if (found := _finished(file)) is not None:
                _put_back(layer, number, found)
            else:
                made = _layer(pass_, number, group, told, original.shape.layers, act_order=act_order)
                _keep(file, {**made, **_rest(original, number)})
            pass_.through()
            layer.to("meta")
        _keep(work / _file(0, original.shape.layers), _rest(original, None))
        sums = _finish(folder, work, group, act_order=act_order)
        work.joinpath("lock").unlink()
        work.replace(out)
        sync(out.parent)
    return sums


def dequantised(folder: Path, into: Path, told: Told) -> None:
    """A folder of GPTQ weights as one of float32, which any engine reads; exact."""
    from safetensors.torch import load_file, save_file

    into.mkdir(parents=True, exist_ok=True)
    files = sorted(folder.glob("*.safetensors"))
    for number, file in enumerate(files):
        told("unpacking", number, len(files))
        held = load_file(file)
        stems = [name.removesuffix(".qweight") for name in held if name.endswith(".qweight")]
        plain = {name: each.float() for name, each in held.items() if name.rpartition(".")[0] not in stems}
        plain |= {name: each.float() for name, each in held.items() if name.endswith(".bias")}
        for stem in stems:
            parts = {part: held[f"{stem}.{part}"] for part in ("qweight", "qzeros", "scales", "g_idx")}
            plain[f"{stem}.weight"] = Rounded.of(parts).weights().contiguous()
        save_file(plain, into / file.name, metadata={"format": "pt"})
    for file in folder.iterdir():
        if file.suffix in (".json", ".jinja", ".model") and not file.name.endswith(".index.json"):
            shutil.copyfile(file, into / file.name)
    said = config(into)
    said.pop("quantization_config", None)
    said["torch_dtype"] = "float32"
    (into / "config.json").write_text(json.dumps(said, indent=2), encoding="utf-8")


# ---- before it begins -----------------------------------------------------------------------------------------------


def _matrices(original: Folder) -> list[Tensor]:
    stages = {name for stage in _STAGES for name in stage}
    return [each for each in tensors(original.shape) if each.layer is not None and each.name in stages]


def _group(folder: Path, original: Folder, asked: int | None) -> int:
    """The group asked for, or the largest one that divides the inputs of every matrix. Raises QuantizeError."""
    sizes = [each.size for each in _matrices(original)]
    for rows, columns in sizes:
        if rows % _MULTIPLE or columns % _MULTIPLE:
            raise QuantizeError(f"{folder}: a matrix of {rows} x {columns} has no whole groups of {_MULTIPLE}")
    fitting = [group for group in GROUPS if all(columns % group == 0 for _, columns in sizes)]
    if asked is not None and asked not in fitting:
        raise QuantizeError(f"--group {asked}: a matrix of {folder.name} is no whole number of them; {fitting[0]} fits")
    return asked or fitting[0]


def _windows(folder: Path, original: Folder, text: str) -> list[list[int]]:
    ids = vocabulary.from_folder(folder, original.shape.vocabulary).encode(text, parse_special=False)
    size = min(_WINDOW, original.shape.context or _WINDOW)
    found = [ids[start : start + size] for start in range(0, len(ids), size)][:_MOST_WINDOWS]
    if not found:
        raise QuantizeError("--calibration: the text is empty")
    return found


def _begin(work: Path, plan: str) -> None:
    """Forget what an earlier run left of another plan."""
    noted = work / "plan"
    if noted.exists() and noted.read_text(encoding="utf-8") == plan:
        return
    for file in work.iterdir():
        if file.name != "lock":
            file.unlink()
    noted.write_text(plan, encoding="utf-8")
    sync(noted)


# ---- layers ---------------------------------------------------------------------------------------------------------


class _Reached(Exception):
    """The first layer has been called, which is all that was wanted."""


def _first_inputs(model: Any, windows: Sequence[Sequence[int]], told: Told) -> list[tuple[Any, dict[str, Any]]]:
    """For each window the hidden states the first layer gets [1, tokens, hidden], and what else it is called with."""
    import torch

    calls: list[tuple[Any, dict[str, Any]]] = []

    def note(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs.pop("hidden_states")
        rest = {name: each for name, each in kwargs.items() if name != "past_key_values"}
        calls.append((hidden, {**rest, "use_cache": False}))
        raise _Reached

    hook = model.model.layers[0].register_forward_pre_hook(note, with_kwargs=True)
    for number, window in enumerate(windows):
        told("reading the calibration text", number, len(windows))
        try:
            model(input_ids=torch.tensor([window]))
        except _Reached:
            continue
    hook.remove()
    return calls


def _called(layer: Any, hidden: Any, rest: dict[str, Any], device: str) -> Any:
    made = layer(_moved(hidden, device), **{name: _moved(each, device) for name, each in rest.items()})
    return made[0] if isinstance(made, tuple) else made


def _moved(value: Any, device: str) -> Any:
    if isinstance(value, tuple):
        return tuple(_moved(each, device) for each in value)
    return value.to(device) if hasattr(value, "to") else value


def _linear(layer: Any, name: str) -> Any:
    module = layer
    for part in folder_name(name, 0).removesuffix(".weight").split(".")[3:]:
        module = getattr(module, part)
    return module


class _Pass:
    """One layer over all windows, each part of it computed as seldom as fitting allows.

    A stage ends where the inputs of its matrices are known, and what attention has made by then is kept, so it is not
    computed again for the stages behind it. `calls` are the windows' states, and those after the layer in the end.
    """

    def __init__(self, layer: Any, calls: list[tuple[Any, dict[str, Any]]], device: str) -> None:
        self._calls = calls
        self._device = device
        self._attended: list[Any] = []
        self.layer = layer

    def hessian(self, name: str) -> Any:
        """The mean of x x^T over all inputs of the matrix of this name, float32 [in, in]."""
        import torch

        module = _linear(self.layer, name)
        total = torch.zeros(module.in_features, module.in_features, device=self._device)
        count, attended = 0, []

        def note(_: Any, args: tuple[Any, ...]) -> None:
            nonlocal count
            rows = args[0].reshape(-1, module.in_features).float()
            total.addmm_(rows.t(), rows)
            count += len(rows)
            if name == "o":
                attended.append(args[0].to("cpu"))
            raise _Reached

        hook = module.register_forward_pre_hook(note)
        for at in range(len(self._calls)):
            with contextlib.suppress(_Reached):
                self._called(at)
        hook.remove()
        self._attended = attended or self._attended
        return total / count

    def through(self) -> None:
        """Replace each state by what the layer makes of it."""
        for at, (_, rest) in enumerate(self._calls):
            self._calls[at] = (self._called(at).to("cpu"), rest)

    def _called(self, at: int) -> Any:
        hidden, rest = self._calls[at]
        if not self._attended:
            return _called(self.layer, hidden, rest, self._device)
        attention = self.layer.self_attn
        usual = attention.forward
        attention.forward = lambda **_: (attention.o_proj(_moved(self._attended[at], self._device)), None)
        try:
            return _called(self.layer, hidden, rest, self._device)
        finally:
            attention.forward = usual


def _layer(pass_: _Pass, number: int, group: int, told: Told, layers: int, *, act_order: bool) -> dict[str, Any]:
    """Round the layer's matrices in place; returns them packed, by their names in files."""
    made: dict[str, Any] = {}
    for stage, names in enumerate(_STAGES):
        told(f"fitting layer {number}, {' '.join(names)}", len(_STAGES) * number + stage, len(_STAGES) * layers)
        hessian = pass_.hessian(names[0])
        for name in names:
            module = _linear(pass_.layer, name)
            try:
                found = rounded(module.weight.data.float().clone(), hessian.clone(), group, act_order=act_order)
            except ValueError as error:
                raise QuantizeError(f"layer {number}, {name}: {error}") from None
            module.weight.data = found.weights().to(module.weight.dtype)
            stem = folder_name(name, number).removesuffix(".weight")
            made |= {f"{stem}.{part}": each.cpu() for part, each in found.packed().items()}
    return made


# ---- files ----------------------------------------------------------------------------------------------------------


def _file(number: int, layers: int) -> str:
    return f"model-{number + 1:05}-of-{layers + 1:05}.safetensors"


def _finished(file: Path) -> dict[str, Any] | None:
    """The tensors of a layer that an earlier run wrote, where the file is what it was then."""
    from safetensors.torch import load_file

    mark = file.with_suffix(".sha256")
    if not (file.exists() and mark.exists()) or mark.read_text(encoding="utf-8") != sha256(file):
        return None
    found: dict[str, Any] = load_file(file)
    return found


def _put_back(layer: Any, number: int, found: dict[str, Any]) -> None:
    for name in (each for stage in _STAGES for each in stage):
        stem = folder_name(name, number).removesuffix(".weight")
        parts = {part: found[f"{stem}.{part}"] for part in ("qweight", "qzeros", "scales", "g_idx")}
        weight = _linear(layer, name).weight
        weight.data = Rounded.of(parts).weights().to(weight.device, weight.dtype)


def _rest(original: Folder, layer: int | None) -> dict[str, Any]:
    """What stays 16-bit floats, of a layer or, with None, of what the model has once."""
    import torch

    whole = {(each.name, each.layer) for each in _matrices(original)}
    kept = {}
    for each in tensors(original.shape):
        if each.layer == layer and (each.name, layer) not in whole and original.has(each.name, layer):
            name = folder_name(each.name, layer)
            kept[name] = torch.from_numpy(_halves(original.rows(each.name, layer, 0, each.size[0]), name))
    return kept


def _halves(values: NDArray[np.float32], name: str) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        made = values.astype(np.float16)
    if not np.isfinite(made).all():
        raise QuantizeError(f"the tensor {name} holds values that 16-bit floats of GPTQ's format cannot")
    return made


def _keep(file: Path, held: dict[str, Any]) -> None:
    """The file and its sum, each whole."""
    from safetensors.torch import save_file

    fresh = file.with_suffix(".new")
    save_file({name: each.contiguous() for name, each in held.items()}, fresh, metadata={"format": "pt"})
    sync(fresh)
    fresh.replace(file)
    file.with_suffix(".sha256").write_text(sha256(file), encoding="utf-8")


def _finish(folder: Path, work: Path, group: int, *, act_order: bool) -> dict[str, str]:
    """Index, configuration and tokenizer beside the weights; what only a cut run needs goes."""
    from safetensors import safe_open

    files = sorted(work.glob("*.safetensors"))
    places: dict[str, str] = {}
    for file in files:
        with safe_open(file, "pt") as held:
            places |= dict.fromkeys(held.keys(), file.name)
    sums = {file.name: file.with_suffix(".sha256").read_text(encoding="utf-8") for file in files}
    size = sum(file.stat().st_size for file in files)
    for file in _company(folder):
        shutil.copyfile(file, work / file.name)
    _write(work / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": places})
    method = {
        "quant_method": "gptq",
        "bits": BITS,
        "group_size": group,
        "desc_act": act_order,
        "sym": False,
        "checkpoint_format": "gptq",
        "damp_percent": 0.01,
        "true_sequential": True,
    }
    _write(work / "config.json", config(folder) | {"torch_dtype": "float16", "quantization_config": method})
    for file in [*work.glob("*.sha256"), work / "plan"]:
        file.unlink()
    return sums


def _company(folder: Path) -> Iterator[Path]:
    for pattern in _COMPANY:
        yield from (
            file for file in folder.glob(pattern) if file.name not in ("model.safetensors.index.json", "made.json")
        )


def _write(file: Path, value: object) -> None:
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
