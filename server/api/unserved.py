"""Paths without a route: what of OpenAI's API this server does not have, and what was probably meant."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

_FAMILIES = {
    "audio/transcriptions": "no engine hears; send text to /v1/chat/completions",
    "audio/translations": "no engine hears; send text to /v1/chat/completions",
    "audio/speech": "no engine speaks; /v1/chat/completions answers in text",
    "audio": "no engine hears or speaks; /v1/chat/completions reads and writes text",
    "images": "no engine makes images; /v1/chat/completions answers in text",
    "videos": "no engine makes videos; /v1/chat/completions answers in text",
    "realtime": "no engine hears or speaks; /v1/chat/completions streams text",
    "moderations": "no model of a recipe judges texts; ask a chat model with a `response_format` for a verdict",
    "batches": "nothing is queued for later; send the requests at once, the server lets them wait their turn",
    "fine_tuning": "models are served, not trained; train elsewhere and name the result as `source` of a model",
    "fine-tunes": "models are served, not trained; train elsewhere and name the result as `source` of a model",
    "assistants": "OpenAI has given them up for responses; an assistant of the recipe is a model id, see /v1/models",
    "threads": "OpenAI has given them up for responses; /v1/responses goes on with `previous_response_id`",
    "conversations": "/v1/responses goes on with `previous_response_id`",
    "uploads": "a file is sent in one piece to /v1/files",
    "evals": "nothing is evaluated here; run the cases through /v1/chat/completions",
    "containers": "no code is run for clients; offer a tool of your own to /v1/chat/completions",
    "chatkit": "there are no hosted chats; use /v1/chat/completions",
    "skills": "there are no hosted skills; an assistant of the recipe is a model id, see /v1/models",
    "organization": "there is no organisation; keys and their limits stand in the recipe under `server.keys`",
    "projects": "there are no projects; keys and their limits stand in the recipe under `server.keys`",
    "usage": "nothing is billed; /metrics counts tokens by model",
    "edits": "OpenAI has given it up; use /v1/chat/completions",
    "engines": "OpenAI has given it up; see /v1/models",
    "complete": "Anthropic has given it up; use /v1/messages",
}
"""What follows /v1/ in paths of OpenAI's and Anthropic's that Hearth does not serve, and why, and what there is."""

_AKIN = 0.75


def reason(path: str) -> str | None:
    """Why Hearth does not serve a path that clients know from elsewhere; None for any other path."""
    rest = re.sub(r"^/(v1/)*", "", path)
    known = next((name for name in _FAMILIES if rest == name or rest.startswith(f"{name}/")), None)
    return None if known is None else f"Hearth does not serve {path}: {_FAMILIES[known]}."


def meant(path: str, routes: Iterable[str]) -> str | None:
    """Of the paths of `routes` without parameters, the one that `path` is nearly; None where none is near."""
    known = {route.casefold(): route for route in routes if "{" not in route}
    tidy = re.sub(r"/+", "/", path).rstrip("/").casefold()
    doubled = re.sub(r"^/(v1/)+", "/v1/", tidy)
    if doubled != path and doubled in known:
        return known[doubled]
    near = get_close_matches(tidy, known, n=1, cutoff=_AKIN)
    return known[near[0]] if near else None
