"""Made-up pages of the kinds people have (manuals, price lists, settings, logs, contacts), with questions and answers.

Every page knows where its facts stand; questions that no page answers are among them. All is drawn from one seed.
"""

from collections.abc import Callable

from server.models.engines.reader.questions import Passage
from training.pages.manuals import manual
from training.pages.page import Draw, Page
from training.pages.prose import faq, minutes, recipes, rules
from training.pages.settings import log, settings
from training.pages.tables import contacts, price_list, timetable

DOCUMENTS = 900
"""Each of three pages, some of them joined; about 29 questions a document."""
JOINED = 0.4
"""The part of the documents whose first two pages are one long passage."""
KINDS: tuple[Callable[[Draw], list[Page]], ...] = (
    manual,
    price_list,
    contacts,
    settings,
    log,
    rules,
    minutes,
    faq,
    timetable,
    recipes,
)


def pages(seed: int, documents: int = DOCUMENTS) -> list[Passage]:
    found: list[Passage] = []
    for number in range(documents):
        draw = Draw(seed * 1_000_003 + number)
        make = KINDS[number % len(KINDS)]
        made = make(draw)
        if draw.random() < JOINED:
            made = [made[0].joined(made[1]), made[2]]
        found += [page.passage(f"{make.__name__} {number}") for page in made]
    return found
