"""Source code is cut at its definitions, and every chunk says within which it lies."""

import ast
from pathlib import Path

import pytest

import server
from server.knowledge.counting import estimate
from server.knowledge.extract import read_document
from server.knowledge.extract.source_code import LANGUAGES, outline
from server.knowledge.outline import Kind
from server.knowledge.splitter import Limits, split

LIMITS = Limits(60, 10, 512)
OUR_FILES = sorted(Path(server.__file__).parent.glob("knowledge/*.py"))


def headings(code: str, suffix: str) -> list[tuple[int, str]]:
    return [(each.level, each.title) for each in outline(code, suffix) if each.kind is Kind.HEADING and each.title]


@pytest.mark.parametrize("path", OUR_FILES, ids=lambda path: path.name)
def test_real_python_has_the_definitions_its_parser_finds(path: Path) -> None:
    code = path.read_text(encoding="utf-8")
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    expected: list[tuple[int, str]] = []
    for node in ast.parse(code).body:
        if isinstance(node, kinds):
            expected.append((1, node.name))
        if isinstance(node, ast.ClassDef):
            expected += [(2, each.name) for each in node.body if isinstance(each, kinds)]
    assert headings(code, ".py") == expected


@pytest.mark.parametrize("path", OUR_FILES[:4], ids=lambda path: path.name)
def test_chunks_of_real_code_hold_all_of_it_in_its_places(path: Path) -> None:
    raw = path.read_bytes()
    found = read_document(raw, "id", path.name, {})
    chunks = split(found, LIMITS, estimate)
    assert all(found.text[chunk.start : chunk.end] == chunk.text for chunk in chunks)
    covered = {at for chunk in chunks for at in range(chunk.start, chunk.end)}
    assert all(at in covered or char.isspace() for at, char in enumerate(found.text))


PYTHON = '''"""Doc: class Fake: not one."""
import os

LIMIT = 3

# About keys.
@dataclass
class Keys:
    """class Inner: no"""

    size: int

    def rotate(
        self,
    ) -> None:
        text = """
def nothing():
"""
        def local():
            return 1

    async def close(self): ...

    after = 1

def last(): pass

print(last())
'''


def test_a_chunk_says_file_class_and_function() -> None:
    found = read_document(PYTHON.encode(), "id", "keys.py", {})
    chunks = split(found, Limits(200, 0, 512), estimate)
    assert [chunk.heading for chunk in chunks] == [
        (), ("Keys",), ("Keys", "rotate"), ("Keys", "close"), ("Keys",), ("last",), (),
    ]  # fmt: skip
    assert chunks[1].text.startswith("# About keys.\n@dataclass\nclass Keys:")
    assert chunks[2].context == "keys.py > Keys > rotate"
    assert chunks[4].text == "after = 1"
    assert chunks[6].text == "print(last())"


CODE = {
    ".ts": (
        "import x from 'y'\nexport default class Store<T> extends Base {\n  #size = 0\n"
        "  async get(key: string): Promise<T> {\n    if (key) {\n      return `class No {`\n    }\n  }\n}\n\n"
        "export function open(path: string) {\n  return 1\n}\n\nconst close = async (a) => {\n}\ntype Key = string\n",
        [(1, "Store"), (2, "get"), (1, "open"), (1, "close"), (1, "Key")],
    ),
    ".go": (
        "package main\n\n// Open opens.\nfunc Open(path string) error {\n\treturn nil\n}\n\n"
        "type Store struct {\n\tsize int\n}\n\nfunc (s *Store) Close() {}\n",
        [(1, "Open"), (1, "Store"), (1, "Close")],
    ),
    ".rs": (
        "pub struct Store { size: u8 }\n\nimpl<'a> Store {\n    /// Opens.\n"
        "    pub async fn open(p: &'a str) -> Self {\n"
        "        let c = '{';\n    }\n}\n\n#[test]\nfn works() {}\n",
        [(1, "Store"), (1, "impl<'a> Store"), (2, "open"), (1, "works")],
    ),
    ".java": (
        "package a;\n\n/* class No */\npublic final class Store {\n    private int size;\n\n    @Override\n"
        "    public List<String> open(String path) {\n        return call(path);\n    }\n\n"
        "    static class Inner {\n        void close() {\n        }\n    }\n}\n",
        [(1, "Store"), (2, "open"), (2, "Inner"), (3, "close")],
    ),
    ".c": (
        "#include <stdio.h>\n\nstruct store {\n    int size;\n};\n\nstatic int open_it(const char *path);\n\n"
        'int\nmain(void)\n{\n    return open_it("int no(void) {");\n}\n\nstatic int open_it(const char *path)\n{\n'
        "#ifdef X\n    while (1) {\n    }\n#endif\n    return 0;\n}\n",
        [(1, "store"), (1, "open_it")],
    ),
    ".cpp": (
        "namespace a {\n\nclass Store : public Base {\npublic:\n    ~Store() {\n    }\n    int open(int a) const {\n"
        "    }\n};\n\nint Store::close(int b) {\n}\n}\n",
        [(1, "a"), (1, "Store"), (2, "open"), (1, "Store::close")],
    ),
    ".sh": ("set -e\n# open() {\nopen() {\n  echo 1\n}\nfunction close {\n}\n", [(1, "open"), (1, "close")]),
    ".sql": (
        "-- create table no (\nCREATE TABLE IF NOT EXISTS keys (\n  id int\n);\n\ncreate or replace view old as\n"
        "select 1;\n",
        [(1, "keys"), (1, "old")],
    ),
    ".yaml": ("server:\n  port: 1\nmodels:\n- a\n", [(1, "server"), (1, "models")]),
    ".toml": ('a = 1\n[tool.x]\nb = "[no]"\n[[more]]\n', [(1, "tool.x"), (1, "more")]),
}


@pytest.mark.parametrize("suffix", CODE)
def test_definitions_are_found_in_each_language(suffix: str) -> None:
    code, expected = CODE[suffix]
    assert headings(code, suffix) == expected


@pytest.mark.parametrize("suffix", LANGUAGES)
@pytest.mark.parametrize("part", ["/*", '"', "'", '"""', "`", "a ", "* ", "\\", "class ", "(", " ", "{\n", "a.b,", "<"])
def test_hostile_code_is_read_in_one_pass(suffix: str, part: str) -> None:
    """An expression that goes back over it would not end within hours."""
    code = part * (20_000 // len(part))
    assert all(each.end <= len(code) for each in outline(code, suffix))
