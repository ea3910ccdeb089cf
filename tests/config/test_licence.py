"""SPDX expressions are read, and what they allow is told."""

import pytest

from config.licence import NotALicence, parsed

CC = ("CC0-1.0", "CC-BY-4.0")


@pytest.mark.parametrize(
    ("text", "allowed", "answer"),
    [
        ("CC0-1.0", CC, True),
        ("cc-by-4.0", CC, True),
        ("MIT", CC, False),
        ("MIT OR CC0-1.0", CC, True),
        ("MIT AND CC0-1.0", CC, False),
        ("MIT and CC0-1.0 or CC-BY-4.0", CC, True),  # AND binds closer
        ("MIT AND (CC0-1.0 OR CC-BY-4.0)", CC, False),
        ("(CC0-1.0) AND ((CC-BY-4.0 OR MIT))", CC, True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", ("GPL-2.0-only",), False),
        ("GPL-2.0-only with Classpath-exception-2.0", ("GPL-2.0-only WITH Classpath-exception-2.0",), True),
        ("GPL-2.0+", ("GPL-2.0+",), True),
        ("LicenseRef-ours", ("LicenseRef-ours",), True),
        ("DocumentRef-x:LicenseRef-ours", ("LicenseRef-ours",), False),
    ],
)
def test_an_expression_is_allowed_where_one_may_use_it(text: str, allowed: tuple[str, ...], answer: bool) -> None:
    assert parsed(text).is_allowed(allowed) is answer


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "a licence is missing at its end"),
        ("MIT OR", "missing at its end"),
        ("OR MIT", "missing before 'OR'"),
        ("MIT WITH", "missing at its end"),
        ("CC BY 4.0", "'BY' is not expected"),
        ("(MIT", "not closed"),
        ("MIT)", "')' is not expected"),
        ("MIT; see file", "'; see file' is not expected"),
        ("(" * 100, "nested deeper"),
        ("x" * 501, "longer than 500"),
    ],
)
def test_what_is_no_expression_says_where(text: str, says: str) -> None:
    with pytest.raises(NotALicence) as refused:
        parsed(text)
    assert says in str(refused.value)
