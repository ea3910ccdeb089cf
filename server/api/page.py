"""`/docs`: the OpenAPI document as a page to read and to try, whole in one file because machines are offline.

The page is made in the browser from the same document that clients read, so it cannot say anything else.
"""

from typing import Any

from litestar import Request, route
from litestar.enums import HttpMethod

from server.api.document import documented
from server.api.page_html import PAGE
from server.api.reply import Reply

_HEADERS = {
    # Nothing from elsewhere, and nobody may put the page into a frame of theirs.
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


@route(
    "/docs",
    http_method=[HttpMethod.GET, HttpMethod.HEAD],
    status_code=200,
    operation_class=documented(None, "text/html", summary="This document as a page", faults=()),
)
async def docs(request: Request[Any, Any, Any]) -> Reply:
    return Reply(PAGE, media_type="text/html; charset=utf-8", headers=_HEADERS)


ROUTES = [docs]
