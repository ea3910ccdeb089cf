"""aider, the coding assistant of the command line: it has to print what the model says, and say what went wrong."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from cases import KEY, TEXT, URL, case, run

AIDER = Path(sys.executable).with_name("aider")
_OPTIONS = (
    *("--no-git", "--yes", "--no-check-update", "--no-show-release-notes", "--no-analytics", "--no-pretty"),
    *("--no-show-model-warnings", "--no-detect-urls", "--no-gitignore", "--map-tokens", "0"),
)


def aider(*asked: str, model: str = "automaton", key: str = KEY) -> tuple[int, str]:
    """Its exit code, and what it printed with blanks as single spaces."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "notes.py").write_text("PORT = 8080\n", encoding="utf-8")
        done = subprocess.run(
            [AIDER, *_OPTIONS, "--model", f"openai/{model}", "--openai-api-base", URL, "--openai-api-key", key, *asked],
            cwd=folder,
            env=os.environ | {"HOME": folder},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    return done.returncode, re.sub(r"\s+", " ", done.stdout + done.stderr)


@case
def prints_a_streamed_answer() -> None:
    code, said = aider("--message", "Hello")
    assert code == 0 and TEXT in said, said


@case
def prints_a_whole_answer() -> None:
    code, said = aider("--no-stream", "--message", "Hello")
    assert code == 0 and TEXT in said, said


@case
def sends_a_file() -> None:
    code, said = aider("--edit-format", "diff", "--message", "What is the port?", "notes.py")
    assert code == 0 and TEXT in said, said


@case
def asks_without_editing() -> None:
    code, said = aider("--chat-mode", "ask", "--message", "Hello", "notes.py")
    assert code == 0 and TEXT in said, said


@case
def counts_tokens() -> None:
    _, said = aider("--message", "Hello")
    assert re.search(r"Tokens: .* sent, .* received", said), said


@case
def tells_of_a_wrong_key() -> None:
    _, said = aider("--message", "Hello", key="sk-wrong")
    assert "AuthenticationError" in said, said


@case
def tells_of_a_model_that_is_not_there() -> None:
    _, said = aider("--message", "Hello", model="automatn")
    assert "NotFoundError" in said and "automaton" in said, said


@case
def tells_of_too_long_a_conversation() -> None:
    _, said = aider("--message", "word " * 20_000, model="late")
    assert "ContextWindowExceeded" in said or "token limit" in said, said


run()
