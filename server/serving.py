"""`hearth serve`: the listening socket, the log, the banner, and uvicorn around the application."""

import errno
import logging
import pickle
import resource
import socket
import subprocess
import sys

import uvicorn
from rich.console import Console

from config import Recipe
from server.app import create_app
from server.connection import Bounds, limited

log = logging.getLogger("hearth")
_BACKLOG = 2048
_OTHER_FILES = 512
"""Open files besides connections: workers, tables of the knowledge store, logs."""

_UNSENT_BYTES = 128 * 2**10
"""How much of an answer the system takes before the client has; the rest waits here, where it is seen and bounded."""


def run(recipe: Recipe, *, verbose: bool = False) -> int:
    """Serve until SIGINT or SIGTERM; returns the exit code. A port in use is found before anything starts."""
    console = Console(highlight=False, soft_wrap=True)
    _log_to_terminal(verbose)
    listen = recipe.server.listen
    try:
        listener = _bind(listen.host, listen.port)
    except OSError as error:
        why = "is in use by another program" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
        console.print(f"{recipe.path}: server.listen: {listen} {why}. Choose another with --listen HOST:PORT.")
        return 1
    if problems := _crowded(recipe):
        listener.close()
        console.print(problems, markup=False)
        return 1
    if not recipe.server.asks_for_keys and not _is_loopback(listener):
        log.warning("listening beyond this machine without server.keys: anyone who reaches %s may use it", listen)
    limits = recipe.server.limits
    bounds = Bounds(
        connections=_connections(limits.connections),
        header=limits.header_timeout.total_seconds(),
        body=limits.body_timeout.total_seconds(),
        write=limits.write_timeout.total_seconds(),
    )
    app = create_app(recipe)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=verbose,
        server_header=False,
        timeout_graceful_shutdown=5,
        loop="uvloop",
        http=limited(bounds, app.sockets),
        ws="websockets-sansio",
        ws_max_size=limits.body,
        lifespan="on",
    )
    server = _Server(config, recipe, console)
    server.run(sockets=[listener])
    return 0 if server.started else 3


def _connections(wanted: int) -> int:
    """As many connections as `wanted`, where the system allows this process so many open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _OTHER_FILES
    if hard != resource.RLIM_INFINITY and hard < needed:
        log.warning("the system allows %d open files, so at most %d connections", hard, max(1, hard - _OTHER_FILES))
        needed = hard
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    return max(1, min(wanted, needed - _OTHER_FILES))


def _crowded(recipe: Recipe) -> str:
    """What of the recipe's models does not fit this machine's memory, as `hearth check` says it; empty where all do.

    Beside this process: it asks engines' own packages, and none of them may be in the gateway.
    """
    command = [sys.executable, "-m", "server.models.fit"]
    return subprocess.run(command, input=pickle.dumps(recipe), stdout=subprocess.PIPE, check=True).stdout.decode()


class _Server(uvicorn.Server):
    """uvicorn, with a banner once it listens."""

    def __init__(self, config: uvicorn.Config, recipe: Recipe, console: Console) -> None:
        super().__init__(config)
        self._recipe = recipe
        self._console = console

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            self._console.print(banner(self._recipe, _url(sockets[0])))


def banner(recipe: Recipe, url: str) -> str:
    """The base URL, the models and one line to try."""
    ids = [*recipe.assistants, *recipe.models]
    first = next((name for name in ids if name in recipe.assistants or recipe.models[name].task == "chat"), None)
    lines = [f"\n[bold]Hearth[/bold] serves {recipe.path.name} on [bold]{url}/v1[/bold]", f"Models: {', '.join(ids)}"]
    if first is not None:
        key = " -H 'Authorization: Bearer YOUR_KEY'" if recipe.server.asks_for_keys else ""
        body = f'{{"model": "{first}", "messages": [{{"role": "user", "content": "How do I add my own documents?"}}]}}'
        lines.append(f"Try:    curl {url}/v1/chat/completions{key} -H 'Content-Type: application/json' -d '{body}'")
    return "\n".join(line.replace("[{", "\\[{") for line in lines) + "\n"


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # inherited by the connections
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


def _is_loopback(listener: socket.socket) -> bool:
    host = str(listener.getsockname()[0])
    return host.startswith("127.") or host == "::1"


def _log_to_terminal(verbose: bool) -> None:
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    for noisy in ("httpx", "httpcore", "uvicorn.error", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
