"""OpenAI's Responses API, over HTTP and WebSocket, as the Open Responses specification has it."""

from server.api.responses import routes, websocket

ROUTES = [
    routes.create_response,
    routes.show_response,
    routes.delete_response,
    routes.cancel_response,
    routes.list_input_items,
    routes.compact_response,
    routes.count_input_tokens,
    websocket.respond,
]
