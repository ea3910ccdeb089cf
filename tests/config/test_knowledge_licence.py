"""Licences in a recipe are SPDX expressions, and what is none is refused where it stands."""

import pytest
from pydantic import ValidationError

from config.knowledge import CollectionSpec, LicenceSpec


def test_licences_of_a_collection_and_its_streams_are_read() -> None:
    source = {"kafka": "localhost:9092", "topic": "changes", "licence": "MIT OR CC0-1.0"}
    spec = CollectionSpec.model_validate(
        {
            "embed": "embed",
            "sources": [source],
            "licence": {"allow": ["CC0-1.0", "GPL-2.0-only WITH GCC-exception-2.0"]},
        }
    )
    assert spec.sources[0].licence == "MIT OR CC0-1.0"
    assert spec.licence == LicenceSpec(allow=("CC0-1.0", "GPL-2.0-only WITH GCC-exception-2.0"))
    assert CollectionSpec(embed="embed").licence is None


@pytest.mark.parametrize(
    ("licence", "says"),
    [
        ({"allow": []}, "at least 1 item"),
        ({"allow": ["CC BY"]}, "no licence as SPDX writes it"),
        ({"allow": ["MIT OR CC0-1.0"]}, "more than one licence"),
        ({"allow": [1]}, "string"),
        ({"deny": ["MIT"]}, "deny"),
    ],
)
def test_a_wrong_policy_is_refused(licence: object, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        CollectionSpec.model_validate({"embed": "embed", "licence": licence})
