"""A model as the gateway holds it, wherever it computes."""

from server.models.model import Model
from server.models.remote import RemoteModel

Served = Model | RemoteModel
"""One that a worker of this machine computes, or one of another server."""
