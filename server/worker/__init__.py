"""Supervised child processes that answer calls: bytes in, bytes out; knows nothing of models or tools."""

from server.worker.call import Call, CallExpired, WorkerLost
from server.worker.service import Item, Service
from server.worker.supervisor import Worker, WorkerFailed, WorkerLimits, WorkerUnavailable

__all__ = [
    "Call",
    "CallExpired",
    "Item",
    "Service",
    "Worker",
    "WorkerFailed",
    "WorkerLimits",
    "WorkerLost",
    "WorkerUnavailable",
]
