"""How the Hugging Face hub is reached, and what goes wrong on the way, as one HubError with one sentence each.

Knows huggingface_hub, which is imported only when there is something to ask.
"""

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from config.model import Source
from server.models import kept
from server.worker import Away

_HUB = "https://huggingface.co"
_ROUTES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_file", "ssl_cert_dir")


class HubError(OSError):
    """Weights that could not be fetched: one sentence that names the source and says what to do."""


class HubAway(HubError, Away):
    """The hub does not answer, or is too busy to: it may do so later, and what has arrived is kept till then."""


@dataclass(frozen=True)
class Access:
    """How the hub is reached: its address, the token of gated repositories, and the way through proxies.

    A worker does not inherit these from its gateway; they are handed to those that may fetch.
    """

    endpoint: str = _HUB
    token: str | None = field(default=None, repr=False)
    offline: bool = False
    routes: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """From HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and the usual names of proxies and certificates."""
        offline = environment.get("HF_HUB_OFFLINE", "").lower() in ("1", "on", "yes", "true")
        routes = tuple((name, value) for name, value in environment.items() if name.lower() in _ROUTES)
        endpoint = environment.get("HF_ENDPOINT") or _HUB
        return cls(endpoint.rstrip("/"), environment.get("HF_TOKEN") or None, offline, routes)


@contextlib.contextmanager
def online(access: Access) -> Iterator[None]:
    """Let huggingface_hub out: workers are started with it shut, so that no library asks the hub behind our back."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, access.offline
    kept_routes = {name: os.environ.get(name) for name, _ in access.routes}
    os.environ.update(access.routes)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
        for name, value in kept_routes.items():
            if value is None:
                del os.environ[name]


@contextlib.contextmanager
def told(source: Source, access: Access) -> Iterator[None]:
    """What huggingface_hub raises, as one sentence."""
    import httpx2
    from huggingface_hub import errors

    repository, revision, _ = source.repository
    host = urlsplit(access.endpoint).netloc
    try:
        yield
    except errors.OfflineModeIsEnabled:
        raise HubError(f"{source} is not on disk, and HF_HUB_OFFLINE forbids asking the hub") from None
    except errors.GatedRepoError:
        token = "set HF_TOKEN to a token of an account" if access.token is None else "use the HF_TOKEN of an account"
        raise HubError(
            f"{source} is gated: accept its terms at {access.endpoint}/{repository} and {token} that has"
        ) from None
    except errors.RevisionNotFoundError:
        raise HubError(f"{source}: the repository has no revision {revision or kept.MAIN}") from None
    except errors.RepositoryNotFoundError:
        raise HubError(
            f"{source}: {host} knows no {repository}, or does not show it to everybody: check the name, and set "
            "HF_TOKEN where it is private"
        ) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status == 429 or status >= 500:
            raise HubAway(f"{source}: {host} answered with status {status}; what has arrived is kept") from None
        advice = "; check HF_TOKEN" if status in (401, 403) else ""
        raise HubError(f"{source}: {host} answered with status {status}{advice}") from None
    except httpx2.HTTPError as error:
        said = str(error) or type(error).__name__
        raise HubAway(
            f"{source}: {host} does not answer ({said}); what has arrived is kept, so try again when it does"
        ) from None


@contextlib.contextmanager
def on_disk(source: Source, data: Path) -> Iterator[None]:
    try:
        yield
    except HubError:
        raise
    except OSError as error:
        why = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error)
        raise HubError(f"{source} could not be written to {data / 'models'}: {why}") from error
