"""The house keeps its order: each room imports lower floors only, and the gateway starts without heavy libraries."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

FLOORS = [
    {"config"},
    {"server.errors", "server.telemetry"},
    {"server.state", "server.worker", "server.place", "server.uploads"},
    {"server.models", "server.files"},
    {"server.knowledge"},
    {"server.tools", "server.vector_stores", "server.gauges"},
    {"server.runtime"},
    {"server.routing"},
    {"server.chat"},
    {"server.policies"},
    {"server.api"},
    {"server.connection"},
    {
        *("server.app", "server.serving", "server.asking", "server.checking", "server.ingesting", "server.pulling"),
        *(
            "server.building",
            "server.tooling",
            "server.reloading",
            "server.keys",
            "server.searching",
            "server.offering",
            "server.policing",
            "server.backups",
            "server.quantizing",
            "server.evaluating",
            "server.knowing",
            "server.recipe_option",
            "server.answered",
            "server.__main__",
        ),
    },
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def modules() -> list[str]:
    files = [*(ROOT / "config").rglob("*.py"), *(ROOT / "server").rglob("*.py")]
    return sorted(".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files)


def room(module: str) -> str | None:
    parts = module.split(".")
    if parts[0] == "config":
        return "config"
    return ".".join(parts[:2]) if len(parts) > 1 and parts[1] != "__init__" else None


def imported(module: str) -> set[str]:
    """Everything of ours that `module` imports, in functions and for type checkers too."""
    tree = ast.parse(ROOT.joinpath(*module.split(".")).with_suffix(".py").read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            base = node.module or ""
            found |= {f"{base}.{alias.name}" for alias in node.names} if base in ("server", "config") else {base}
    return {name for name in found if name.split(".")[0] in ("server", "config")}


@pytest.mark.parametrize("module", modules())
def test_a_room_imports_lower_floors_only(module: str) -> None:
    own = room(module)
    if own is None:
        return
    assert own in FLOOR, f"{own} has no floor: give it one in FLOORS"
    for name in imported(module):
        other = room(name)
        if other is None or other == own:
            continue
        assert other in FLOOR, f"{module} imports {other}, which has no floor"
        same_top = FLOOR[own] == FLOOR[other] == len(FLOORS) - 1
        assert FLOOR[other] < FLOOR[own] or same_top, (
            f"{module} (floor {FLOOR[own]}) imports {name} (floor {FLOOR[other]})"
        )


def test_no_two_modules_import_each_other_in_a_circle() -> None:
    known = set(modules())
    graph = {module: {name for name in imported(module) if name in known} for module in known}
    done: set[str] = set()

    def walk(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"circle: {' -> '.join((*trail, module))}"
        if module not in done:
            for name in graph[module]:
                walk(name, (*trail, module))
            done.add(module)

    for module in known:
        walk(module, ())


def test_the_gateway_starts_without_heavy_libraries() -> None:
    heavy = [
        "torch",
        "transformers",
        "openvino",
        "lancedb",
        "safetensors",
        "tokenizers",
        "trafilatura",
        "langchain_core",
        "mcp",
        "docstring_parser",
        "PIL",
    ]
    code = f"import sys, server.app; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
