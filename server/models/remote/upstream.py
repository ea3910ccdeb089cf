"""HTTP to the server of one remote model: a pool of connections, and faults in words; knows nothing of answers."""

from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec

from config.model import RemoteModel as RemoteSpec
from server.errors import DeadlineExceeded, HearthError, ModelUnavailable
from server.models.remote.events import Sent, events
from server.models.remote.faults import Teller

_IDLE_S = 60.0
_RETRY_S = 5.0
_json = msgspec.json.Encoder()


class Upstream:
    """An async context manager, which makes no connection by itself. Requests may come from any task of one loop.

    Every method raises UpstreamFault for what the server refuses, ModelUnavailable where it cannot be reached, and
    DeadlineExceeded where it is silent for longer than the recipe lets it.
    """

    def __init__(self, name: str, spec: RemoteSpec) -> None:
        self._name = name
        self._spec = spec
        self._secret = None if spec.secret is None else spec.secret.get_secret_value()
        self.teller = Teller(name, spec.url, self._secret)
        self._client: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        trusted = httpx.create_ssl_context()
        trusted.load_default_certs()  # beside the usual authorities those of this machine
        spec = self._spec
        headers = {"user-agent": "hearth"}
        if self._secret is not None:
            headers["authorization"] = f"Bearer {self._secret}"
        self._client = httpx.AsyncClient(
            base_url=spec.url,
            headers=headers,
            verify=trusted,
            trust_env=spec.proxies,
            timeout=httpx.Timeout(spec.read_timeout.total_seconds(), connect=spec.connect_timeout.total_seconds()),
            limits=httpx.Limits(
                max_connections=None, max_keepalive_connections=spec.parallel, keepalive_expiry=_IDLE_S
            ),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def get(self, path: str) -> Any:
        """The JSON at `path`."""
        async with self._answer("GET", path, None) as response:
            return self._decoded(await self._whole(response))

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON that answers `body`."""
        async with self._answer("POST", path, body) as response:
            return self._decoded(await self._whole(response))

    @asynccontextmanager
    async def stream(self, path: str, body: dict[str, Any]) -> AsyncGenerator[AsyncGenerator[list[Sent], None], None]:
        """The events that answer `body`; entering waits until the server has accepted it. Leaving early closes it.

        A server that answers with one whole JSON instead is heard as one event.
        """
        async with self._answer("POST", path, body) as response:
            media = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if media == "text/event-stream":
                yield self._heard(events(response.aiter_bytes()))
            else:
                whole = await self._whole(response)
                self._decoded(whole)
                yield _alone(whole)

    @asynccontextmanager
    async def _answer(
        self, method: str, path: str, body: dict[str, Any] | None
    ) -> AsyncGenerator[httpx.Response, None]:
        """An answer with status 200, whose body is still on its way."""
        assert self._client is not None, "entered before it is used"
        content, headers = (None, None) if body is None else (_json.encode(body), {"content-type": "application/json"})
        request = self._client.build_request(method, path, content=content, headers=headers)
        try:
            response = await self._client.send(request, stream=True)
        except httpx.HTTPError as error:
            raise self._fault(error) from error
        try:
            if response.status_code != 200:
                raise self.teller.refused(response.status_code, response.headers, await self._whole(response))
            yield response
        finally:
            await response.aclose()

    async def _whole(self, response: httpx.Response) -> bytes:
        try:
            return await response.aread()
        except httpx.HTTPError as error:
            raise self._fault(error) from error

    async def _heard(self, batches: AsyncGenerator[list[Sent], None]) -> AsyncGenerator[list[Sent], None]:
        try:
            async with aclosing(batches):
                async for batch in batches:
                    yield batch
        except httpx.HTTPError as error:
            raise self._fault(error) from error

    def _decoded(self, body: bytes) -> Any:
        try:
            return msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self.teller.broken("answered with something that is no JSON") from error

    def _fault(self, error: httpx.HTTPError) -> HearthError:
        match error:
            case httpx.ConnectError() | httpx.ConnectTimeout() | httpx.ProxyError():
                return ModelUnavailable(
                    f"The server behind the model `{self._name}` cannot be reached: {self.teller.reason(error)}.",
                    retry_after=_RETRY_S,
                )
            case httpx.TimeoutException():
                silence = self._spec.read_timeout
                return DeadlineExceeded(f"The server behind the model `{self._name}` said nothing for {silence}.")
            case _:
                return self.teller.broken(f"broke off: {self.teller.reason(error)}")


async def _alone(whole: bytes) -> AsyncGenerator[list[Sent], None]:
    yield [Sent("", whole)]
