"""The language of a collection's documents, told by their commonest words; it decides how words lose their endings."""

from collections import Counter
from collections.abc import Iterable, Mapping

from server.knowledge.fuse import words

DEFAULT = "English"

_COMMON: Mapping[str, str] = {
    "Danish": "og i at det er en til på som af for med der de den ikke har et fra var",
    "Dutch": "de het een van en in is dat op te zijn met voor niet aan er door ook als bij",
    "English": "the of and to in is that it for as was on with are by this be from or an",
    "Finnish": "ja on ei että se oli hän mutta ovat kun myös tai joka sen kuin ole vain niin sekä jos",
    "French": "le la les des et est une du que dans qui pour pas sur au par plus avec ce sont",
    "German": "der die und das ist nicht ein eine mit von den zu sich auf für dem des im als auch",
    "Hungarian": "a az és hogy nem egy is ez volt csak meg van mint vagy de azt már még el lesz",
    "Italian": "il di che la e per un una non è con sono del della i le da nel più come",
    "Norwegian": "og i det er på som en til av for med at de ikke har den et fra om var",
    "Portuguese": "o a de que e do da em um uma para não com os as no na por mais se",
    "Romanian": "și de în la a cu pe nu este că o din pentru un care mai sunt au ce se",
    "Russian": "и в не на что он с как это по но к из у за то все от так его",
    "Spanish": "de la el que y en los las un una por con no para es se del su al lo",
    "Swedish": "och i att det är en på som för med av den till inte har de ett om var från",
    "Turkish": "ve bir bu için ile de da olarak daha en çok gibi ne kadar olan var ama sonra değil ya",
}  # fmt: skip
"""Of each language for which LanceDB stems, the words that stand in nearly every text of it."""
_SETS = {language: frozenset(text.split()) for language, text in _COMMON.items()}
_LEAST = 0.1
"""The share of words that has to be common ones of a language before it is taken for that language."""
_AHEAD = 1.2


def language_of(texts: Iterable[str]) -> str:
    """LanceDB's name of the language most of `texts` is in; English where none is clearly ahead.

    Nothing is stemmed in scripts that English lacks, so English does no harm to Chinese or Greek.
    """
    counts = Counter(word for text in texts for word in words(text.lower()))
    total = sum(counts.values())
    shares = sorted(((sum(counts[word] for word in common), name) for name, common in _SETS.items()), reverse=True)
    (best, name), (second, _) = shares[0], shares[1]
    if total == 0 or best < _LEAST * total or best < _AHEAD * second:
        return DEFAULT
    return name
