"""`/v1/policies`: what the server does by itself, when it did and when it will, and doing it now."""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, post, route
from msgspec import Meta

from server.api.decode import ignored
from server.api.document import documented
from server.api.listing import READ, asked
from server.api.reply import Reply, json
from server.policies import Keeper, Kept, Run


class PolicyRun(msgspec.Struct):
    """One run. `began` and `ended` are seconds since 1970; `outcome` is null while it goes on, and lost where the
    server ended in the middle of it. `attempt` is more than 1 where it repeated one that failed."""

    number: int
    began: float
    ended: float | None
    outcome: Literal["done", "failed", "lost"] | None
    summary: str | None
    figures: dict[str, float]
    details: list[str]
    error: str | None
    attempt: int


class PolicyState(msgspec.Struct):
    """`next` is when it runs next, in seconds since 1970; null for one that runs only when it is asked to."""

    object: Literal["policy"]
    name: str
    at: str | None
    every: str | None
    next: float | None
    running: bool
    progress: str | None
    last: PolicyRun | None


class PolicyList(msgspec.Struct):
    object: Literal["list"]
    data: list[PolicyState]


class PolicyHistory(msgspec.Struct):
    """A policy with its last runs, newest first."""

    policy: PolicyState
    runs: list[PolicyRun]


class HistoryQuery(msgspec.Struct):
    limit: Annotated[int, Meta(ge=1, le=200)] = 20


@route(
    "/v1/policies",
    http_method=READ,
    status_code=200,
    opt={"needs": "admin"},
    operation_class=documented(None, PolicyList, summary="What the server does by itself"),
)
async def list_policies(request: Request[Any, Any, Any]) -> Reply:
    keeper: Keeper = request.app.state["policies"]
    return json(PolicyList("list", [state_of(kept) for kept in keeper]))


@route(
    "/v1/policies/{name:str}",
    http_method=READ,
    status_code=200,
    opt={"needs": "admin"},
    operation_class=documented(None, PolicyHistory, query=HistoryQuery, summary="One policy and its last runs"),
)
async def show_policy(request: Request[Any, Any, Any], name: str) -> Reply:
    query, unknown = asked(request, HistoryQuery)
    keeper: Keeper = request.app.state["policies"]
    kept = keeper.of(name)
    runs = await keeper.runs(name, query.limit)
    return json(PolicyHistory(state_of(kept), [run_of(run) for run in runs]), headers=ignored(unknown))


@post(
    "/v1/policies/{name:str}/run",
    status_code=200,
    opt={"needs": "admin"},
    operation_class=documented(None, PolicyRun, summary="Run a policy now, and wait for its end"),
)
async def run_policy(request: Request[Any, Any, Any], name: str) -> Reply:
    """A run that failed is answered too: it says so. Whoever leaves does not end it."""
    keeper: Keeper = request.app.state["policies"]
    return json(run_of(await keeper.run(name)))


ROUTES = [list_policies, show_policy, run_policy]


def state_of(kept: Kept) -> PolicyState:
    spec = kept.policy.spec
    return PolicyState(
        object="policy",
        name=kept.policy.name,
        at=spec.at,
        every=None if spec.every is None else spec.model_dump(mode="json")["every"],
        next=None if kept.due is None else kept.due.at.timestamp(),
        running=kept.running is not None,
        progress=kept.told if kept.running is not None else None,
        last=None if kept.last is None else run_of(kept.last),
    )


def run_of(run: Run) -> PolicyRun:
    report = run.report
    return PolicyRun(
        number=run.number,
        began=run.began.timestamp(),
        ended=_seconds(run.ended),
        outcome=run.outcome,
        summary=None if report is None else report.summary,
        figures={} if report is None else dict(report.figures),
        details=[] if report is None else list(report.details),
        error=run.error,
        attempt=run.attempt,
    )


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
