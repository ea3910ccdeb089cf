"""A process that is killed anywhere in its writes leaves what the next one brings to the same rows."""

import subprocess
import sys
from pathlib import Path

from tests.knowledge.sources.brokers import redis_server

ROOT = Path(__file__).parents[2]
POINTS = 5
_PATIENCE_S = 300


def test_a_process_that_is_killed_at_any_write_ends_with_the_same_rows(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        command = [sys.executable, "-m", "tests.knowledge.killed", str(tmp_path), url, str(POINTS)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    told = done.stdout.splitlines()
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert int(told[0].split()[0]) > 50
    assert len(told) == 1 + POINTS
    assert all(line.endswith(": the same rows") for line in told[1:])
