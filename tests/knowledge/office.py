"""Writes small PDF and DOCX files, byte by byte, for the tests of what reads them."""

import zipfile
from collections.abc import Mapping, Sequence
from io import BytesIO

_W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def pdf(
    pages: Sequence[Sequence[str]], bookmarks: Sequence[tuple[str, int]] = (), title: str = "", *, locked: bool = False
) -> bytes:
    """A PDF whose pages show these lines, top to bottom; `bookmarks` are titles and pages from 0."""
    objects: dict[int, bytes] = {}
    font, info, outlines = 3, 4, 5
    first_page, first_mark = 10, 10 + 2 * len(pages)
    kids = " ".join(f"{first_page + 2 * n} 0 R" for n in range(len(pages)))
    objects[1] = f"<< /Type /Catalog /Pages 2 0 R /Outlines {outlines} 0 R >>".encode()
    objects[2] = f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode()
    objects[font] = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>"
    objects[info] = f"<< /Title ({title}) >>".encode()
    last = first_mark + len(bookmarks) - 1
    objects[outlines] = (
        f"<< /Type /Outlines /First {first_mark} 0 R /Last {last} 0 R /Count {len(bookmarks)} >>".encode()
        if bookmarks
        else b"<< /Type /Outlines >>"
    )
    for n, lines in enumerate(pages):
        shown = "".join(f"BT /F1 11 Tf 72 {760 - 14 * at} Td ({line}) Tj ET\n" for at, line in enumerate(lines) if line)
        content = shown.encode("cp1252")
        objects[first_page + 2 * n] = (
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {first_page + 2 * n + 1} 0 R "
            f"/Resources << /Font << /F1 {font} 0 R >> >> >>"
        ).encode()
        objects[first_page + 2 * n + 1] = b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content)
    for n, (name, page) in enumerate(bookmarks):
        around = (f" /Prev {first_mark + n - 1} 0 R" if n else "") + (
            f" /Next {first_mark + n + 1} 0 R" if n + 1 < len(bookmarks) else ""
        )
        dest = f"/Dest [{first_page + 2 * page} 0 R /XYZ 0 792 0]"
        objects[first_mark + n] = f"<< /Title ({name}) /Parent {outlines} 0 R {dest}{around} >>".encode()
    return _file(objects, info, locked=locked)


def _file(objects: Mapping[int, bytes], info: int, *, locked: bool) -> bytes:
    raw = b"%PDF-1.4\n"
    places: dict[int, int] = {}
    for number, body in sorted(objects.items()):
        places[number] = len(raw)
        raw += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = len(raw)
    size = max(objects) + 1
    entries = [
        b"%010d %05d %c \n" % (places.get(n, 0), 0 if n in places else 65535, b"n" if n in places else b"f")
        for n in range(size)
    ]
    # No password makes a key that fits these: the file is locked for everybody.
    lock = b" /Encrypt << /Filter /Standard /V 1 /R 2 /O <%s> /U <%s> /P -4 >>" % (b"41" * 32, b"42" * 32)
    raw += b"xref\n0 %d\n%s" % (size, b"".join(entries))
    last = lock if locked else b""
    raw += b"trailer\n<< /Size %d /Root 1 0 R /Info %d 0 R /ID [<00> <00>]%s >>\n" % (size, info, last)
    return raw + b"startxref\n%d\n%%%%EOF\n" % table


def docx(body: str, parts: Mapping[str, str | bytes] | None = None, title: str = "") -> bytes:
    """A DOCX with this XML in its body, in the namespace `w`; `parts` are further files of it."""
    core = (
        '<cp:coreProperties xmlns:cp="http://schemas.openxmlformats.org/package/2006/metadata/core-properties" '
        f'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{title}</dc:title></cp:coreProperties>'
    )
    found = {"word/document.xml": xml("document", f"<w:body>{body}</w:body>"), "docProps/core.xml": core}
    file = BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (found | dict(parts or {})).items():
            archive.writestr(name, content)
    return file.getvalue()


def xml(root: str, body: str) -> str:
    """A part in the namespace `w`."""
    return f'<?xml version="1.0" encoding="UTF-8"?><w:{root} xmlns:w="{_W}">{body}</w:{root}>'


def paragraph(text: str, style: str = "", properties: str = "") -> str:
    """A paragraph of one run."""
    named = f'<w:pStyle w:val="{style}"/>' if style else ""
    return f'<w:p><w:pPr>{named}{properties}</w:pPr><w:r><w:t xml:space="preserve">{text}</w:t></w:r></w:p>'
