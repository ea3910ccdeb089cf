"""Examples for the OpenAPI document: requests, and answers as they look. The document fills in `model`."""

from typing import Any

USAGE = {
    "prompt_tokens": 21,
    "completion_tokens": 7,
    "total_tokens": 28,
    "prompt_tokens_details": {"cached_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0},
}

REQUESTS: dict[str, dict[str, Any]] = {
    "ChatRequest": {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 16},
    "CompletionRequest": {"prompt": "Once upon a time", "max_tokens": 16},
    "EmbeddingsRequest": {"input": ["How do I rotate a key?", "Keys are rotated monthly."]},
    "RerankRequest": {
        "query": "How do I rotate a key?",
        "documents": ["Keys are rotated monthly.", "The cat sleeps."],
        "top_n": 1,
    },
    "MessagesRequest": {"max_tokens": 16, "messages": [{"role": "user", "content": "Say hello."}]},
    "CountTokensRequest": {"messages": [{"role": "user", "content": "Say hello."}]},
    "CreateResponse": {"input": "Say hello.", "max_output_tokens": 16},
}
"""By the name of the body's type."""

REPLIES: dict[str, dict[str, Any]] = {
    "ChatCompletion": {
        "id": "chatcmpl-6c9d2a3f0b8e4d5c9a1b2c3d4e5f6a7b",
        "object": "chat.completion",
        "created": 1796083200,
        "model": "chat",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "Hello! How can I help?",
                    "refusal": None,
                    "annotations": [],
                },
                "finish_reason": "stop",
                "logprobs": None,
            }
        ],
        "usage": USAGE,
        "system_fingerprint": "fp_5d77cd8a11",
    },
    "Completion": {
        "id": "cmpl-6c9d2a3f0b8e4d5c9a1b2c3d4e5f6a7b",
        "object": "text_completion",
        "created": 1796083200,
        "model": "chat",
        "choices": [{"text": ", there was a house.", "index": 0, "logprobs": None, "finish_reason": "stop"}],
        "system_fingerprint": "fp_5d77cd8a11",
        "usage": USAGE,
    },
    "ErrorReply": {
        "error": {
            "message": "There is no model `chta`. Did you mean chat?",
            "type": "not_found_error",
            "param": "model",
            "code": "model_not_found",
        }
    },
    "Alive": {"status": "ok"},
}
"""By the name of the answer's type."""
