"""Tells a message that asks for no fact (a greeting, thanks, "who are you?") from a question. Rules and examples."""

import re

_word = re.compile(r"\w+")


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


_FILLER = _words("""
a about again all am an and are at be can could d did do does for how i in is it just ll m me my of oh on please re
s so t than that the there this to too up us ve very was we well what which who will with would
""")
_COURTESY = _words("""
afternoon bonjour bye cheers ciao cool danke day evening everyone fine good goodbye goodnight great greetings hallo
hello help hey hi hiya hola howdy later lovely merci moin morning much nice night ok okay perfect salut see thank
thanks thx welcome yo 你好 谢谢
""")
_YOU = _words("u you your yours yourself")
_OF_YOU = _words("""
ai alive assistant bot called chat chatbot chatgpt computer doing feel feeling generative going human introduce kind
language llm machine made meet model name person real robot talk tell work
""")
"""Words that ask for no fact of the documents when they are said of the one addressed."""

EXAMPLES = (
    "hello", "good morning", "how are you?", "thank you very much", "goodbye", "who are you?", "what can you do?",
    "what can you help me with?", "are you a language model?", "tell me about yourself", "nice to meet you",
)  # fmt: skip
"""What a message may also be near to in meaning."""

NEAR = 0.8
"""The cosine to an example from which on a message is taken for one more of them."""

LONGEST = 8
"""In words: what is longer is a question."""


def asks_nothing(message: str) -> bool:
    """Whether no word of `message` asks for anything but the one addressed."""
    said = set(_word.findall(message.lower()))
    spared = _OF_YOU | _YOU if said & _YOU else frozenset()
    return not said - _FILLER - _COURTESY - spared
