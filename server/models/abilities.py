"""What each engine honours of an OpenAI request; names the parameters and knows no engine's code.

An engine's Card says this of itself once it is loaded. It stands here for all of them, so that a refusal can name an
engine that would do.
"""

from server.models.infill import Infill

SAMPLING = frozenset(
    [
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "seed",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "ignore_eos",
    ]
)
IDS = frozenset(["min_tokens", "stop_token_ids", "return_token_ids"])
"""For engines that choose tokens themselves: llama.cpp's interface tells no ids and asks for none."""
STRUCTURED = frozenset(["response_format", "tools", "tool_choice", "grammar"])

ABILITIES: dict[str, frozenset[str]] = {
    "openvino": SAMPLING | STRUCTURED | IDS | {"echo", "prompt_logprobs", "draft"},
    "llamacpp": SAMPLING | STRUCTURED,
    "exllamav2": SAMPLING | STRUCTURED | IDS | {"echo", "prompt_logprobs", "draft", "adapter"},
    "exllamav3": SAMPLING | STRUCTURED | IDS | {"echo", "prompt_logprobs", "draft", "adapter"},
    "transformers": SAMPLING | STRUCTURED | IDS | {"echo", "prompt_logprobs"},
    "reader": STRUCTURED - {"grammar"},
    "echo": frozenset(),
    "remote": SAMPLING | STRUCTURED | IDS - {"return_token_ids"} | {"parts"},
}
"""By the word a recipe writes, for task: chat."""


def infilling(honours: frozenset[str], infill: Infill | None) -> frozenset[str]:
    """`honours` of a model of that engine, which takes a `suffix` where it has the tokens for it."""
    return honours if infill is None else honours | {"suffix"}


def able(*parameters: str) -> list[str]:
    """The engines that honour all of `parameters`."""
    return [engine for engine, honoured in ABILITIES.items() if honoured.issuperset(parameters)]
