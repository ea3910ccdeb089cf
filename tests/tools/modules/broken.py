"""Cannot be imported."""

import does_not_exist_anywhere  # type: ignore[import-not-found]  # noqa: F401
