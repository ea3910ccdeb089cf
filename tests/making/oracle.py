"""Whether the oracle, transformers over torch, is on this machine, and the mark of tests that need it."""

from importlib.util import find_spec

import pytest

MISSING = [name for name in ("torch", "transformers") if find_spec(name) is None]

needs_torch = pytest.mark.skipif(
    bool(MISSING),
    reason=f"NOT TESTED: {' and '.join(MISSING)} not installed: run scripts/setup transformers",
)
