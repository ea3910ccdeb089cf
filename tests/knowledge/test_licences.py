"""A document says its licence, its source says it for those that do not, and a collection refuses by it."""

from pathlib import Path

import pytest

from config.knowledge import CollectionSpec, FilesSource, LicenceSpec
from server.errors import InvalidValue
from server.knowledge import Collection, Document
from server.knowledge.extract import extract, fingerprint, read_document
from tests.knowledge.hashing import HashEmbedder


@pytest.mark.parametrize(
    ("name", "text", "licence"),
    [
        ("a.md", "---\nlicence: CC0-1.0\n---\nx", "CC0-1.0"),
        ("a.md", "---\nlicense: MIT OR CC0-1.0\n---\nx", "MIT OR CC0-1.0"),
        ("a.md", "---\nlicence: CC BY 4.0\n---\nx", "CC BY 4.0"),
        ("a.md", "<!-- SPDX-License-Identifier: CC-BY-4.0 -->\nx", "CC-BY-4.0"),
        ("a.html", "<!-- SPDX-License-Identifier: CC-BY-4.0 --><p>x", "CC-BY-4.0"),
        ("a.py", "#!/usr/bin/python\n# SPDX-License-Identifier: MIT\n", "MIT"),
        ("a.c", "/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */\n", "GPL-2.0 WITH Linux-syscall-note"),
        ("a.txt", "\n" * 30 + "SPDX-License-Identifier: MIT", None),
        ("a.md", "---\nlicence: [MIT]\n---\nx", None),
        ("a.txt", "x", None),
    ],
)  # fmt: skip
def test_a_document_says_its_licence(name: str, text: str, licence: str | None) -> None:
    assert read_document(text.encode(), "id", name, {}).licence == licence


def test_a_file_beside_it_says_the_licence_and_its_change_is_a_change(tmp_path: Path) -> None:
    path, beside = tmp_path.resolve() / "a.md", tmp_path.resolve() / "a.md.license"
    path.write_text("---\nlicence: MIT\n---\nx", encoding="utf-8")
    before = fingerprint(path)
    beside.write_text("SPDX-FileCopyrightText: us\n\nSPDX-License-Identifier: CC0-1.0\n", encoding="utf-8")
    found = extract(path, "a.md", "test", {})
    assert (found.licence, found.hash) == ("CC0-1.0", fingerprint(path))
    assert found.hash != before


def collection(tmp_path: Path, allow: tuple[str, ...] | None, default: str | None = None) -> Collection:
    source = FilesSource.model_construct(files=str(tmp_path / "docs" / "*"), licence=default)
    policy = None if allow is None else LicenceSpec(allow=allow)
    spec = CollectionSpec(embed="embed", sources=(source,), licence=policy)
    return Collection("handbook", spec, HashEmbedder(), tmp_path / "data")


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "free.md").write_text("---\nlicence: CC0-1.0\n---\nFree words.", encoding="utf-8")
    (folder / "theirs.md").write_text("---\nlicence: MIT\n---\nTheir words.", encoding="utf-8")
    (folder / "odd.md").write_text("---\nlicence: ask us\n---\nOdd words.", encoding="utf-8")
    (folder / "bare.md").write_text("Bare words.", encoding="utf-8")
    (folder / "free.md.license").write_text("SPDX-License-Identifier: CC0-1.0", encoding="utf-8")
    return folder


async def held(of: Collection) -> dict[str, str | None]:
    return {each.uri: each.licence for each in await of.documents()}


@pytest.mark.anyio
async def test_only_what_is_allowed_comes_in_and_the_rest_is_listed_with_its_reason(tmp_path: Path, docs: Path) -> None:
    async with collection(tmp_path, ("CC0-1.0",)) as of:
        report = await of.sync()
        assert await held(of) == {"free.md": "CC0-1.0"}
        reasons = {each.uri: each.reason for each in report.skipped}
        assert reasons == {
            "bare.md": "it names no licence; allowed here: CC0-1.0",
            "free.md.license": "it tells the licence of free.md",
            "odd.md": "its licence 'ask us' is no SPDX expression: 'us' is not expected; allowed here: CC0-1.0",
            "theirs.md": "its licence MIT is not allowed; allowed here: CC0-1.0",
        }
        hits = (await of.search("words")).hits
        assert [(hit.uri, hit.licence, hit.page) for hit in hits] == [("free.md", "CC0-1.0", None)]


@pytest.mark.anyio
async def test_a_source_says_the_licence_of_those_that_name_none(tmp_path: Path, docs: Path) -> None:
    async with collection(tmp_path, ("CC0-1.0", "CC-BY-4.0"), "CC-BY-4.0") as of:
        await of.sync()
        assert await held(of) == {"bare.md": "CC-BY-4.0", "free.md": "CC0-1.0"}
        again = await of.sync()
        assert (again.unchanged, again.chunks) == (("bare.md", "free.md"), 0)


@pytest.mark.anyio
async def test_another_default_or_policy_is_a_change_of_what_it_touches_alone(tmp_path: Path, docs: Path) -> None:
    async with collection(tmp_path, None) as of:
        await of.sync()
        assert await held(of) == {"bare.md": None, "free.md": "CC0-1.0", "odd.md": "ask us", "theirs.md": "MIT"}
        await of.upsert([Document(id="pushed", uri="pushed", filename="pushed", text="Pushed words.")])
    async with collection(tmp_path, None, "CC0-1.0") as of:
        report = await of.sync()
        assert (report.updated, report.chunks) == (("bare.md",), 1)
    async with collection(tmp_path, ("CC0-1.0",), "CC0-1.0") as of:
        report = await of.sync()
        assert sorted(report.deleted) == ["odd.md", "pushed", "theirs.md"]
        assert report.chunks == 0
        assert await held(of) == {"bare.md": "CC0-1.0", "free.md": "CC0-1.0"}
    async with collection(tmp_path, None, "MIT") as of:
        report = await of.sync()
        assert (report.updated, report.added) == (("bare.md",), ("odd.md", "theirs.md"))


@pytest.mark.anyio
async def test_what_is_pushed_or_streamed_is_refused_by_its_licence(tmp_path: Path, docs: Path) -> None:
    document = Document(id="one", uri="one", filename="one", text="Words.", licence="MIT")
    async with collection(tmp_path, ("CC0-1.0",)) as of:
        with pytest.raises(InvalidValue, match="licence MIT is not allowed"):
            await of.upsert([document])
        refused = (await of.apply("kafka:changes", [document], [])).refused
        assert [(each.uri, "MIT is not allowed" in each.reason) for each in refused] == [("one", True)]
        assert await held(of) == {}
