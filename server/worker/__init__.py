"""Supervised child processes that answer calls: bytes in, bytes out; knows nothing of models or tools."""

from server.worker.call import Call, CallExpired, WorkerLost
from server.worker.service import AsyncService, Away, Item, Service
from server.worker.supervisor import Worker, WorkerFailed, WorkerLimits, WorkerUnavailable, inherited

__all__ = [
    "AsyncService",
    "Away",
    "Call",
    "CallExpired",
    "Item",
    "Service",
    "Worker",
    "WorkerFailed",
    "WorkerLimits",
    "WorkerLost",
    "WorkerUnavailable",
    "inherited",
]
