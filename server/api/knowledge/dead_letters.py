"""`/v1/knowledge/{collection}/dead_letters`: refused messages, listed, tried again, discarded."""

import re
from typing import Any

from litestar import Request, delete, post, route

from server.api.decode import ignored
from server.api.document import documented
from server.api.knowledge.wire import (
    KnowledgeDeadLetter,
    KnowledgeDeadLetterDeleted,
    KnowledgeDeadLetterList,
    KnowledgeDeadLetterRetried,
)
from server.api.listing import READ, ListQuery, asked, ends, page
from server.api.reply import Reply, json
from server.errors import Conflict, NotFound
from server.knowledge import Current, DeadLetter, Poison
from server.runtime import Runtime

_LETTERS = ["/v1/knowledge/{collection:str}/dead_letters", "/knowledge/{collection:str}/dead_letters"]
_LETTER = [f"{path}/{{letter_id:str}}" for path in _LETTERS]
_RETRY = [f"{path}/retry" for path in _LETTER]
_FAULTS = ("400", "401", "403", "404", "405", "429", "500", "503")
_CHANGE_FAULTS = ("400", "401", "403", "404", "405", "409", "429", "500", "503", "504")
_PREFIX = "letter-"


@route(
    _LETTERS,
    http_method=READ,
    status_code=200,
    opt={"needs": "admin"},
    operation_class=documented(
        None, KnowledgeDeadLetterList, query=ListQuery, summary="List the messages that were refused", faults=_FAULTS
    ),
)
async def list_letters(request: Request[Any, Any, Any], collection: str) -> Reply:
    query, unknown = asked(request, ListQuery)
    current = _current(request, collection)
    every = [shown_letter(collection, each) for each in await current.letters.every()]
    found, has_more = page(every, query, lambda each: each.id)
    listed = KnowledgeDeadLetterList(found, *ends([each.id for each in found]), has_more)
    return json(listed, headers=ignored(unknown))


@post(
    _RETRY,
    status_code=200,
    opt={"needs": "admin"},
    operation_class=documented(
        None, KnowledgeDeadLetterRetried, summary="Take in a message that was refused before", faults=_CHANGE_FAULTS
    ),
)
async def retry_letter(request: Request[Any, Any, Any], collection: str, letter_id: str) -> Reply:
    current = _current(request, collection)
    number = _number(letter_id)
    found = await current.letters.find(number)
    if found is None:
        raise _unknown(letter_id)
    letter, message = found
    if not letter.whole:
        raise Conflict("Only how the message begins is kept, so it cannot be tried again: send it anew.")
    runtime: Runtime = request.app.state["runtime"]
    _ = runtime.declared(collection)  # open, or the fault that says why not
    try:
        taken = await current.retry(letter.source, message)
    except Poison as reason:
        await current.letters.explain(number, str(reason))
        raise Conflict(f"The message is refused again: {reason}.") from reason
    await current.letters.discard(number)
    return json(KnowledgeDeadLetterRetried(letter_id, "taken" if taken else "outdated"))


@delete(
    _LETTER,
    status_code=200,
    opt={"needs": "admin"},
    operation_class=documented(
        None, KnowledgeDeadLetterDeleted, summary="Discard a message that was refused", faults=_FAULTS
    ),
)
async def delete_letter(request: Request[Any, Any, Any], collection: str, letter_id: str) -> Reply:
    if not await _current(request, collection).letters.discard(_number(letter_id)):
        raise _unknown(letter_id)
    return json(KnowledgeDeadLetterDeleted(letter_id, deleted=True))


def shown_letter(collection: str, of: DeadLetter) -> KnowledgeDeadLetter:
    """One letter as the wire tells it."""
    name = f"{_PREFIX}{of.id}"
    return KnowledgeDeadLetter(
        name, collection, of.source, of.partition, of.offset, of.key, of.reason, of.excerpt, of.whole, int(of.at)
    )


def _current(request: Request[Any, Any, Any], collection: str) -> Current:
    runtime: Runtime = request.app.state["runtime"]
    current = runtime.shelf(collection).current
    if current is None:
        raise NotFound(f"The collection `{collection}` follows nothing.", param="collection")
    return current


def _number(letter_id: str) -> int:
    found = re.fullmatch(rf"{_PREFIX}([1-9][0-9]{{0,17}})", letter_id)
    if found is None:
        raise _unknown(letter_id)
    return int(found[1])


def _unknown(letter_id: str) -> NotFound:
    return NotFound(f"There is no dead letter `{letter_id[:100]}`.", param="letter_id")


ROUTES = [list_letters, retry_letter, delete_letter]
