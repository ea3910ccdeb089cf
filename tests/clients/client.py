"""Which clients there are, and what their locks say; runs and installs nothing."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Client:
    """`name` is its folder in `home`, `package` the one whose version is told, in that folder's lock."""

    name: str
    title: str
    package: str
    home: Path = HERE

    @property
    def folder(self) -> Path:
        return self.home / self.name

    @property
    def is_node(self) -> bool:
        return (self.folder / "package.json").exists()

    @property
    def lock(self) -> Path:
        return self.folder / ("package-lock.json" if self.is_node else "requirements.txt")

    @property
    def version(self) -> str:
        """As the lock pins it. Raises KeyError where the lock has no such package."""
        return self.pinned()[self.package]

    def pinned(self) -> dict[str, str]:
        """Every package of the lock with its version."""
        text = self.lock.read_text(encoding="utf-8")
        if self.is_node:
            packages = json.loads(text)["packages"]
            return {path.rpartition("node_modules/")[2]: each["version"] for path, each in packages.items() if path}
        return dict(re.findall(r"^([\w.\-]+)==(\S+)$", text, re.MULTILINE))


CLIENTS = (
    Client("openai-python-1", "openai for Python, 1.x", "openai"),
    Client("openai-python-2", "openai for Python, 2.x", "openai"),
    Client("openai-python-3", "openai for Python, 3.x", "openai"),
    Client("openai-npm", "openai for JavaScript", "openai"),
    Client("ai-sdk", "ai SDK with its OpenAI-compatible package", "ai"),
    Client("anthropic-python", "anthropic for Python", "anthropic"),
    Client("anthropic-npm", "anthropic for JavaScript", "@anthropic-ai/sdk"),
    Client("langchain", "LangChain", "langchain-openai"),
    Client("llamaindex", "LlamaIndex", "llama-index-llms-openai-like"),
    Client("pydantic-ai", "pydantic-ai", "pydantic-ai-slim"),
    Client("instructor", "instructor", "instructor"),
    Client("litellm", "litellm", "litellm"),
    Client("codex", "Codex CLI", "@openai/codex"),
    Client("claude-code", "Claude Code", "@anthropic-ai/claude-code"),
    Client("aider", "aider", "aider-chat"),
)
