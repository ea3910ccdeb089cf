"""What is shared by engines that choose tokens themselves brings none of their runtimes."""

import subprocess
import sys

from tests.making import made
from tests.making.oracle import needs_torch


def _loaded(code: str) -> str:
    code = f"import sys\n{code}\nprint([name for name in ('openvino', 'torch') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    return done.stdout.splitlines()[-1]


def test_the_transformers_engine_is_imported_without_a_runtime() -> None:
    assert _loaded("import server.models.engines.transformers.engine") == "[]"


@needs_torch
def test_a_model_that_transformers_computes_leaves_openvino_unloaded() -> None:
    folder = str(made("random", format="safetensors"))
    spec = {"engine": "transformers", "source": folder, "context": 64}
    code = (
        "from pathlib import Path\n"
        "from config.model import LocalModel\n"
        "from server.models.engines import create\n"
        f"engine, _ = create(LocalModel.model_validate({spec!r}, context={{}}), Path('data'))\n"
        "engine.load(lambda _: None)"
    )
    assert _loaded(code) == "['torch']"
