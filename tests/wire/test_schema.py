"""Schemathesis over the served document: no route answers anything the document does not say, whatever is sent."""

import subprocess
import sys
from pathlib import Path

from tests.live import Live

CHECKS = Path(__file__).with_name("schemathesis.toml")


def test_every_route_keeps_to_its_document(wire: Live, tmp_path: Path) -> None:
    command = [
        *(Path(sys.executable).with_name("schemathesis"), "--config-file", CHECKS, "run", f"{wire.url}/openapi.json"),
        *("--max-examples", "8", "--seed", "1", "--generation-database", "none", "--workers", "1"),
        *("--phases", "examples,coverage,fuzzing", "--request-timeout", "30"),
        *("--exclude-path", "/v1/models/sse"),  # a stream without an end, which would be waited for
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout[-12000:] + done.stderr[-2000:]
