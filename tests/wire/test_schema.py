"""Schemathesis over the served document: no route answers anything the document does not say, whatever is sent."""

import subprocess
import sys
from pathlib import Path

from tests.live import Live


def test_every_route_keeps_to_its_document(wire: Live, tmp_path: Path) -> None:
    command = [
        *(Path(sys.executable).with_name("schemathesis"), "run", f"{wire.url}/openapi.json"),
        *("--max-examples", "25", "--seed", "1", "--generation-database", "none", "--workers", "1"),
        *("--phases", "examples,coverage,fuzzing", "--checks", "all"),
        # Which model serves which task, and that somebody must have asked something, no schema can say.
        *("--exclude-checks", "positive_data_acceptance"),
        *("--request-timeout", "30"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout[-12000:] + done.stderr[-2000:]
