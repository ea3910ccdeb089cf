"""`hearth serve` refuses what cannot work before anything starts."""

import os
import subprocess
import sys
from pathlib import Path

from tests.live import free_port
from tests.making import made


def test_models_that_do_not_fit_this_machine_are_refused_with_the_numbers(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    # Far more tokens of keys and values than any machine holds.
    recipe.write_text(
        "version: 1\n"
        f"models: {{m: {{engine: openvino, source: {made('automaton')}, context: 1000, cache_tokens: 90000000000}}}}\n",
        encoding="utf-8",
    )
    told = {"HEARTH__SERVER__LISTEN": f"127.0.0.1:{free_port()}", "HEARTH__SERVER__DATA": str(tmp_path / "data")}
    command = [sys.executable, "-m", "server", "serve", str(recipe)]
    done = subprocess.run(command, env=os.environ | told, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "models.m: needs" in done.stdout
    assert "are free" in done.stdout and "cache_tokens" in done.stdout
    assert not (tmp_path / "data").exists(), "nothing was started"
