"""Lists and tables: prices, contacts, courses."""

from training import vocabulary as say
from training.pages.page import Draw, Page


def _email(person: str, company: str) -> str:
    first, last = person.lower().split(" ", 1)
    return f"{first}.{last}@{company.split()[0].lower()}.example"


def price_list(draw: Draw) -> list[Page]:
    shop = draw.company()
    goods = draw.sample(say.GOODS, 24)
    return [_prices(draw, shop, goods[at : at + 8]) for at in (0, 8, 16)]


def _prices(draw: Draw, shop: str, goods: list[str]) -> Page:
    page, layout, kept = Page(), draw.randrange(5), goods[:-1]
    if draw.random() < 0.5:
        page.add(f"{shop}: price list, valid from ").fact(
            draw.date(), *draw.maybe("From when are the prices valid?", "")
        )
        page.add("\n\n")
    head = ("| Item | Article no. | Price | In stock |\n|---|---|---|---|\n", "item;number;price;stock\n", "", "", "")[
        layout
    ]
    page.add(head)
    for item in kept:
        number, price, stock = f"{draw.randrange(1000, 99999)}", draw.money(), f"{draw.randrange(0, 250)}"
        asked_price = draw.maybe(f"How much is the {item}?", f"What does the {item} cost?", f"price of the {item}")
        asked_stock = draw.maybe(f"How many of the {item} are in stock?", f"stock of {item}")
        asked_number = draw.maybe(f"What is the article number of the {item}?", f"Which number has the {item}?")
        which = draw.randrange(5)
        asked_price, asked_stock, asked_number = (
            asked_price if which < 3 else [],
            asked_stock if which == 3 else [],
            asked_number if which == 4 else [],
        )
        name = item.capitalize() if draw.random() < 0.7 else item
        match layout:
            case 0 | 1:
                before, gap, after = ("| ", " | ", " |\n") if layout == 0 else ("", ";", "\n")
                page.add(f"{before}{name}{gap}").fact(number, *asked_number).add(gap).fact(price, *asked_price)
                page.add(gap).fact(stock, *asked_stock).add(after)
            case 2:
                page.add(f"{name} (no. ").fact(number, *asked_number).add(") — ").fact(price, *asked_price).add("\n")
            case 3:
                page.add(f"- {name}, {draw.choice(say.COLOURS)}: ").fact(price, *asked_price).add(", ")
                page.fact(stock, *asked_stock).add(" left\n")
            case _:
                page.add(f"The {item} costs ").fact(price, *asked_price).add(
                    draw.of(". ", f" and comes in {draw.choice(say.COLOURS)}. ", ", delivery included. ")
                )
    free = draw.money(20, 150)
    if draw.random() < 0.5:
        page.add("\nDelivery is free from ").fact(
            free, *draw.maybe("From which amount is delivery free?", "free delivery from")
        )
        page.add(".\n")
    return page.unanswered(f"How much is the {goods[-1]}?")


def contacts(draw: Draw) -> list[Page]:
    company = draw.company()
    people, roles = draw.people(15), draw.sample(say.ROLES, 15)
    return [_contact_sheet(draw, company, people[at : at + 5], roles[at : at + 5]) for at in (0, 5, 10)]


def _contact_sheet(draw: Draw, company: str, people: list[str], roles: list[str]) -> Page:
    page, layout = Page(), draw.randrange(4)
    page.add(draw.of(f"# Contacts at {company}\n\n", f"{company}, who is who\n\n", ""))
    if layout == 0:
        page.add("| Name | Function | Phone | E-mail |\n|---|---|---|---|\n")
    for place, (person, role) in enumerate(zip(people, roles, strict=True)):
        phone, email, room = draw.phone(), _email(person, company), f"{draw.randrange(1, 6)}.{draw.randrange(10, 60)}"
        by_name = draw.random() < 0.6
        who = person if by_name else f"the {role}"
        asked_phone = draw.maybe(f"What is the phone number of {who}?", f"How can I call {who}?", f"{who} phone")
        asked_email = draw.maybe(
            f"What is the e-mail address of {who}?", f"email of {who}", f"Where can I write to {who}?"
        )
        asked_role = draw.maybe(f"What does {person} do?", f"What is {person}'s function?")
        asked_name = draw.maybe(f"Who is the {role}?", f"Who is responsible as {role}?", f"name of the {role}")
        asked_room = draw.maybe(f"In which room does {who} sit?", f"Where is {who}'s office?")
        kept = draw.sample(("phone", "email", "role", "name", "room"), 2)
        asked = {
            name: found if name in kept else []
            for name, found in zip(
                ("phone", "email", "role", "name", "room"),
                (asked_phone, asked_email, asked_role, asked_name, asked_room),
                strict=True,
            )
        }
        has_email = not (place == 0 and layout != 0)
        match layout:
            case 0:
                page.add("| ").fact(person, *asked["name"]).add(" | ").fact(role, *asked["role"]).add(" | ")
                page.fact(phone, *asked["phone"]).add(" | ").fact(email, *asked["email"]).add(" |\n")
            case 1:
                page.fact(person, *asked["name"]).add("\n").fact(role.capitalize(), *asked["role"]).add("\nPhone: ")
                page.fact(phone, *asked["phone"])
                if has_email:
                    page.add("\nE-mail: ").fact(email, *asked["email"])
                page.add("\nRoom: ").fact(room, *asked["room"]).add("\n\n")
            case 2:
                page.fact(person, *asked["name"]).add(" is ").fact(role, *asked["role"]).add(" and can be reached at ")
                page.fact(phone, *asked["phone"])
                if has_email:
                    page.add(" or by mail to ").fact(email, *asked["email"])
                page.add(f"; the office is in room {room}. ")
            case _:
                page.add("- ").fact(role.capitalize(), *asked["role"]).add(": ").fact(person, *asked["name"]).add(
                    ", tel. "
                )
                page.fact(phone, *asked["phone"])
                if has_email:
                    page.add(", ").fact(email, *asked["email"])
                page.add("\n")
        if not has_email:
            page.unanswered(f"What is the e-mail address of {person}?")
    return page.unanswered(f"What is the phone number of {draw.person()}?")


def timetable(draw: Draw) -> list[Page]:
    courses = draw.sample(say.COURSES, 15)
    place = draw.choice(say.CITIES)
    return [_courses(draw, place, courses[at : at + 5]) for at in (0, 5, 10)]


def _courses(draw: Draw, place: str, courses: list[str]) -> Page:
    page, layout = Page(), draw.randrange(3)
    page.add(draw.of(f"## Courses in {place}, autumn\n\n", f"Community centre {place}: timetable\n\n", ""))
    if layout == 0:
        page.add("| Course | Day | Time | Room | Teacher | Fee |\n|---|---|---|---|---|---|\n")
    for course in courses[:-1]:
        day, start, room = (
            draw.choice(say.DAYS),
            draw.clock(),
            f"{draw.of('Hall', 'Room', 'Studio')} {draw.randrange(1, 20)}",
        )
        teacher, fee = draw.person(), draw.money(20, 200)
        kept = draw.sample(range(5), 2)
        questions = [
            draw.maybe(f"On which day is the {course} course?", f"What day is {course}?"),
            draw.maybe(f"When does {course} start?", f"At what time is the {course} course?"),
            draw.maybe(f"Where is {course}?", f"In which room is the {course} course held?"),
            draw.maybe(f"Who teaches {course}?", f"Who gives the {course} course?"),
            draw.maybe(f"How much is the {course} course?", f"What does {course} cost?", f"fee for {course}"),
        ]
        asked = [found if place in kept else [] for place, found in enumerate(questions)]
        texts = (
            (f"| {course.capitalize()} | ", " | ", " | ", " | ", " | ", " |\n"),
            (f"{course.capitalize()}: ", ", ", ", ", ", with ", ", ", "\n"),
            (f"The {course} course is held on ", " at ", " in ", "; it is taught by ", " and costs ", ". "),
        )[layout]
        page.add(texts[0])
        for value, questions_of, after in zip((day, start, room, teacher, fee), asked, texts[1:], strict=True):
            page.fact(value, *questions_of).add(after)
    return page.unanswered(f"When is the {courses[-1]} course?")
