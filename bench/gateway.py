"""What the gateway costs beside a raw ASGI app, and the hop to a worker beside the same engine called in process."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, contextmanager
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import msgspec
import uvloop

from bench import client, raw
from bench.live import Live, free_port, hearth, listens, process
from bench.table import Figure, report
from config.model import EchoModel
from config.telemetry import TelemetrySpec
from server.models.engine import Delta, Event, Generate, Message
from server.models.engines.echo import EchoEngine
from server.models.model import Model
from server.models.service import EngineConfig
from server.telemetry import Telemetry
from server.worker import Worker

_STREAMS = 32
_TOKENS = 200
_PACE = 50.0
_RECIPE = f"""\
version: 1
models:
  fast: {{engine: echo}}
  paced: {{engine: echo, tokens_per_second: {_PACE:g}}}
"""
_ANSWERS = "server.models.service:EngineService"
_PATH = "/v1/chat/completions"
_ITS_OWN_HEADERS = (b"date", b"server", b"connection", b"transfer-encoding")
