"""Which files a glob names, and that no link leads out."""

import os
from pathlib import Path

import pytest

from server.knowledge.sources.files import scan, scan_folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    base = tmp_path / "base"
    for name in ("a.md", "b.txt", "sub/c.md", "sub/deep/d.md", ".hidden/e.md", ".f.md", "sub/[x].md"):
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")
    return base


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("**/*.md", ["a.md", "sub/[x].md", "sub/c.md", "sub/deep/d.md"]),
        ("*.md", ["a.md"]),
        ("*", ["a.md", "b.txt"]),
        ("**", ["a.md", "b.txt", "sub/[x].md", "sub/c.md", "sub/deep/d.md"]),
        ("*/*.md", ["sub/[x].md", "sub/c.md"]),
        ("**/deep/**/*.md", ["sub/deep/d.md"]),
        ("**/[cd].md", ["sub/c.md", "sub/deep/d.md"]),
        ("?.*", ["a.md", "b.txt"]),
        (".*", [".f.md"]),
        ("**/.hidden/*", [".hidden/e.md"]),
        ("*/[[]x].md", ["sub/[x].md"]),
    ],
)
def test_a_glob_names_files(tree: Path, glob: str, expected: list[str]) -> None:
    found = scan(str(tree / glob))
    assert [file.uri for file in found.files] == expected
    assert found.whole
    assert all(file.path == (tree / file.uri).resolve() for file in found.files)


def test_a_hidden_folder_is_entered_where_it_is_named(tree: Path) -> None:
    assert [file.uri for file in scan(str(tree / ".hidden" / "*")).files] == ["e.md"]


def test_a_glob_without_wildcards_is_one_file(tree: Path) -> None:
    assert [file.uri for file in scan(str(tree / "sub" / "c.md")).files] == ["c.md"]
    assert scan(str(tree / "gone.md")).files == ()


def test_a_missing_folder_is_told_and_does_not_count_as_empty(tmp_path: Path) -> None:
    found = scan(str(tmp_path / "gone" / "*.md"))
    assert (found.files, found.whole) == ((), False)
    assert "does not exist" in found.skipped[0].reason


def test_links_inside_are_read_once_and_links_out_are_refused(tree: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.md"
    secret.write_text("secret", encoding="utf-8")
    (tree / "out.md").symlink_to(secret)
    (tree / "again.md").symlink_to(tree / "a.md")
    (tree / "broken.md").symlink_to(tree / "nothing.md")
    (tree / "circle.md").symlink_to(tree / "circle.md")
    found = scan(str(tree / "*.md"))
    assert [file.uri for file in found.files] == ["a.md"]
    reasons = {each.uri: each.reason for each in found.skipped}
    assert "out of the folder" in reasons["out.md"]
    assert {"broken.md", "circle.md", "out.md"} == set(reasons)


def test_linked_folders_stay_closed_so_loops_end(tree: Path, tmp_path: Path) -> None:
    (tree / "loop").symlink_to(tree, target_is_directory=True)
    (tree / "outside").symlink_to(tmp_path, target_is_directory=True)
    assert [file.uri for file in scan(str(tree / "**" / "a.md")).files] == ["a.md"]


def test_a_base_that_is_itself_a_link_is_followed(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(tree, target_is_directory=True)
    assert [file.uri for file in scan(str(tmp_path / "alias" / "*.md")).files] == ["a.md"]


def test_a_folder_gives_all_that_is_not_hidden(tree: Path) -> None:
    assert [file.uri for file in scan_folder(tree).files] == [
        "a.md",
        "b.txt",
        "sub/[x].md",
        "sub/c.md",
        "sub/deep/d.md",
    ]
    assert [file.uri for file in scan_folder(tree / "a.md").files] == ["a.md"]


def test_a_name_that_is_not_utf_8_is_told(tree: Path) -> None:
    Path(os.fsdecode(os.fsencode(tree) + b"/\xff.md")).write_text("x", encoding="utf-8")
    found = scan(str(tree / "*.md"))
    assert [file.uri for file in found.files] == ["a.md"]
    assert "UTF-8" in found.skipped[0].reason
