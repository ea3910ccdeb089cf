"""`hearth policies`: what the server does by itself, as a running server tells it or as state.db remembers it."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from config import Recipe
from server.answered import told
from server.api.policies import PolicyList, PolicyRun, run_of, state_of
from server.errors import HearthError
from server.knowledge.tiering import tiers_of
from server.policies import Keeper, Kept, Run
from server.policies.declared import policies_of
from server.state import State

_ANSWER_S = 30.0
_WIDE = 200


def show(recipe: Recipe, key: str | None, out: Console, err: Console) -> int:
    """Print every policy with its next run and its last one; returns the exit code."""
    if not recipe.policies.declared:
        out.print(f"{recipe.path.name} declares no policies.")
        return 0
    try:
        try:
            listed = _listed(recipe, key)
        except httpx.ConnectError:
            err.print(
                f"No server answers at {recipe.server.listen}; unless one listens elsewhere, nothing runs by itself.",
                markup=False,
            )
            listed = asyncio.run(_remembered(recipe))
    except (httpx.HTTPError, HearthError) as error:
        err.print(str(error), markup=False)
        return 1
    if not out.is_terminal:
        out.width = _WIDE  # for whom reads it by program, a line stays a line
    table = Table("policy", "when", "next run", "last run", "report", box=None, pad_edge=False)
    for each in listed:
        when = each["at"] or (f"every {each['every']}" if each["every"] else "when asked")
        following = "now: " + (each["progress"] or "it has begun") if each["running"] else _time(each["next"])
        last = each["last"]
        report = "" if last is None else last["summary"] or last["error"] or ""
        table.add_row(
            each["name"], when, Text(following), Text("never" if last is None else _ended(last)), Text(report)
        )
    out.print(table)
    return 0


def run(recipe: Recipe, name: str, key: str | None, out: Console, err: Console) -> int:
    """Run one policy now, in the running server or, without one, here; returns the exit code."""
    with err.status(f"policy {name}") as status:
        try:
            try:
                ended = _run(recipe, key, name)
            except httpx.ConnectError:
                ended = msgspec.to_builtins(run_of(asyncio.run(_own(recipe, name, status))))
        except (httpx.HTTPError, HearthError) as error:
            err.print(str(error), markup=False)
            return 1
    if ended["outcome"] != "done":
        err.print(f"policy {name} failed: {ended['error']}", markup=False)
        return 1
    out.print(ended["summary"], markup=False)
    for detail in ended["details"]:
        out.print(f"  {detail}", markup=False)
    return 0


async def _own(recipe: Recipe, name: str, status: Status) -> Run:
    async with (
        State.open(recipe.server.data / "state.db") as state,
        Keeper.asked(policies_of(recipe, state, tiers_of(recipe, state)), state) as keeper,
    ):
        kept = keeper.of(name)
        following = asyncio.create_task(_follow(kept, status))
        try:
            return await keeper.run(name)
        finally:
            following.cancel()


async def _follow(kept: Kept, status: Status) -> None:
    while True:
        if kept.told is not None:
            status.update(f"policy {kept.policy.name}: {kept.told}")
        await asyncio.sleep(0.2)


async def _remembered(recipe: Recipe) -> list[Any]:
    async with (
        State.open(recipe.server.data / "state.db") as state,
        Keeper.asked(policies_of(recipe, state, tiers_of(recipe, state)), state) as keeper,
    ):
        return [msgspec.to_builtins(state_of(kept)) for kept in keeper]


def _listed(recipe: Recipe, key: str | None) -> Any:
    reply = httpx.get(_url(recipe, ""), headers=_headers(key), timeout=_ANSWER_S, trust_env=False)
    return msgspec.to_builtins(told(reply, PolicyList).data)


def _run(recipe: Recipe, key: str | None, name: str) -> Any:
    reply = httpx.post(_url(recipe, f"/{name}/run"), headers=_headers(key), timeout=None, trust_env=False)
    return msgspec.to_builtins(told(reply, PolicyRun))


def _url(recipe: Recipe, path: str) -> str:
    return f"{recipe.server.listen.url}/v1/policies{path}"


def _headers(key: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} if key else {}


def _ended(last: dict[str, Any]) -> str:
    return "running" if last["ended"] is None else f"{last['outcome']} {_time(last['ended'])}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{datetime.fromtimestamp(seconds, UTC).astimezone():%Y-%m-%d %H:%M:%S}"
