"""Prose: rules of a firm, minutes, frequent questions, recipes."""

from training import vocabulary as say
from training.pages.page import Draw, Page


def rules(draw: Draw) -> list[Page]:
    company = draw.company()
    days, weeks = f"{draw.randrange(20, 36)} days", f"{draw.randrange(2, 13)} weeks"
    boss = draw.of("the team lead", "the personnel department", "the manager", "the office")
    leave = Page().add(draw.of("## Leave\n\n", "")).add(f"Employees of {company} have ")
    leave.fact(
        days, *draw.maybe("How many days of leave do employees have?", f"How much holiday is there at {company}?")
    )
    leave.add(" of paid leave a year. Leave is asked for at least ").fact(weeks, "How early must leave be requested?")
    leave.add(" ahead, in writing, and is granted by ").fact(
        boss, *draw.maybe("Who grants leave?", "Who approves holidays?")
    )
    until = draw.of("31 March", "the end of April", "30 June")
    leave.add(". Days that are left over may be taken until ").fact(until, "Until when can remaining leave be taken?")
    leave.add(" of the next year. Anyone who is ill calls in before ").fact(
        draw.clock(), "Until what time must one report sick?"
    )
    leave.add("; a doctor's note is needed from the ").fact(
        draw.of("second day", "third day", "fourth day"), "From which day is a doctor's note needed?"
    ).add(" on.")
    leave.unanswered("How long is parental leave?", "How many hours is the working week?")
    travel = (
        Page()
        .add(draw.of("## Travel\n\n", ""))
        .add("For journeys by car ")
        .fact(draw.of("0.30 euros", "42 cents", "0.38 francs"), "How much is paid for a kilometre by car?")
    )
    travel.add(" a kilometre are paid. Hotels may cost up to ").fact(draw.money(70, 220), "How much may a hotel cost?")
    travel.add(" a night. Receipts are handed in within ").fact(
        f"{draw.randrange(10, 90)} days", "By when must receipts be handed in?"
    )
    travel.add(" after the journey at ").fact(
        draw.of("the accounts office", "reception", "expenses@firm.example"), "Where are receipts handed in?"
    )
    travel.add(". Flights under ").fact(f"{draw.randrange(3, 9) * 100} km", "Which flights are not allowed?")
    travel.add(" are not paid; the train is used instead.").unanswered("Who books the train tickets?")
    goods = (
        Page()
        .add(draw.of("## Returns\n\n", ""))
        .add("Goods can be sent back within ")
        .fact(
            f"{draw.randrange(10, 100)} days",
            *draw.maybe("How long can goods be returned?", "Within what time can I send something back?"),
        )
    )
    goods.add(draw.of(" of receipt", " after delivery")).add(". Return postage is paid by ").fact(
        draw.of("the customer", "the shop", company), "Who pays for the return?"
    )
    goods.add(". Refunds arrive after about ").fact(
        f"{draw.randrange(3, 20)} working days", "How long does a refund take?"
    )
    goods.add(". Not taken back are ").fact(
        draw.of("opened food", "cut cloth", "gift cards", "underwear"), "What cannot be returned?"
    )
    goods.add(". Returns go to ").fact(draw.address(), "To which address are returns sent?", "Where do I send returns?")
    goods.add(".").unanswered("How long is the guarantee?")
    return [leave, travel, goods]


def minutes(draw: Draw) -> list[Page]:
    return [_meeting(draw, topic) for topic in draw.sample(say.TOPICS, 3)]


def _meeting(draw: Draw, topic: str) -> Page:
    people = draw.people(4)
    page = Page().add(
        draw.of(f"Minutes: {topic}\n", f"# Meeting on {topic}\n", f"Notes from the meeting about {topic}\n")
    )
    page.add("Date: ").fact(
        draw.date(), *draw.maybe(f"When was the meeting on {topic}?", f"On what date was {topic} discussed?")
    )
    page.add("\nPlace: ").fact(
        draw.of("room 4", "the canteen", "the library", "online", "the Oslo office"), "Where was the meeting held?"
    )
    page.add("\nPresent: ").fact(", ".join(people[:3]), "Who was present?", "Who took part in the meeting?").add("\n\n")
    page.fact(people[0], *draw.maybe("Who opened the meeting?", "Who was in the chair?")).add(" opened the meeting. ")
    amount = draw.money(900, 90_000)
    page.add(f"For {topic}, a budget of ").fact(
        amount, f"What is the budget for {topic}?", f"How much money is there for {topic}?"
    )
    page.add(" was agreed. ").fact(
        people[1], *draw.maybe(f"Who takes care of {topic}?", f"Who is in charge of {topic}?")
    )
    page.add(" takes charge and reports back by ").fact(
        draw.date(), *draw.maybe("By when is a report due?", "Until when must the report be given?")
    )
    page.add(". ").add(people[2]).add(" objected because ").fact(
        draw.of(
            "the costs are not known", "the time is too short", "the staff had not been asked", "two offers are missing"
        ),
        f"Why did {people[2]} object?",
        f"What was {people[2]}'s objection?",
    )
    page.add(". The next meeting is on ").fact(
        f"{draw.choice(say.DAYS)} at {draw.clock()}", "When is the next meeting?"
    ).add(".\n")
    return page.unanswered(
        *draw.maybe(f"What did {people[3]} say?", "Who wrote the minutes?", "How long did the meeting take?")
    )


def faq(draw: Draw) -> list[Page]:
    company = draw.company()
    entries = [
        (
            "How do I change my password?",
            "Open ",
            f"Settings > {draw.of('Account', 'Security', 'Profile')}",
            " and choose Change password.",
            ("Where can I change my password?", "How can the password be changed?"),
        ),
        (
            "Which payment methods do you take?",
            "We take ",
            draw.of("credit cards and bank transfer", "invoices only", "debit cards, PayPal and cash"),
            ".",
            ("How can I pay?", f"Which ways to pay does {company} accept?"),
        ),
        (
            "How long does delivery take?",
            "Parcels arrive within ",
            f"{draw.randrange(2, 15)} working days",
            " after payment.",
            ("When will my parcel arrive?", "How many days does shipping take?"),
        ),
        (
            "When can I reach you?",
            "Our hotline is open ",
            f"{draw.clock()} to {draw.clock()} on weekdays",
            ".",
            ("When is the hotline open?", "At which hours can I call?"),
        ),
        (
            "How do I cancel?",
            "Cancel in writing ",
            f"{draw.randrange(2, 12)} weeks before the end of the term",
            ".",
            ("How early must I cancel?", "What is the notice period?"),
        ),
        (
            "Where is my data kept?",
            "All data is kept in ",
            f"a data centre in {draw.choice(say.CITIES)}",
            " and nowhere else.",
            ("In which place is data stored?", "Where do you store data?"),
        ),
        (
            "How large can a file be?",
            "Files can have up to ",
            draw.of("2 GB", "500 MB", "25 MB", "10 GB"),
            " each.",
            ("What is the largest file I can upload?", "What is the maximum file size?"),
        ),
        (
            "How many users are included?",
            "The basic plan includes ",
            f"{draw.randrange(2, 60)} users",
            "; more can be added.",
            ("How many people can use the basic plan?", "How many users does the basic plan have?"),
        ),
        (
            "Is there a trial?",
            "Yes, you can try everything for ",
            f"{draw.randrange(7, 61)} days",
            " without paying.",
            ("How long is the trial period?", "How long can I test it for free?"),
        ),
        (
            "Who answers questions on invoices?",
            "Please write to ",
            f"{draw.word()}@{company.split()[0].lower()}.example",
            ".",
            ("Which address is for questions about invoices?", "Whom do I write to about an invoice?"),
        ),
        (
            "Which browsers work?",
            "It works in ",
            draw.of("Firefox 115 and later", "Chrome, Edge and Safari", "every current browser"),
            ".",
            ("Which browser do I need?", "Which browsers are supported?"),
        ),
        (
            "How do I restore a deleted file?",
            "Deleted files stay in the bin for ",
            f"{draw.randrange(5, 91)} days",
            " and can be put back.",
            ("How long are deleted files kept?", "How long does the bin keep files?"),
        ),
    ]
    draw.shuffle(entries)
    found = []
    for at in (0, 4, 8):
        page, layout = Page(), draw.randrange(3)
        for asked, before, answer, after, others in entries[at : at + 4]:
            page.add((f"**{asked}**\n", f"Q: {asked}\nA: ", f"### {asked}\n\n")[layout])
            page.add(before).fact(answer, *draw.maybe(asked, *others, most=2)).add(f"{after}\n\n")
        found.append(page)
    return found


def recipes(draw: Draw) -> list[Page]:
    return [_dish(draw, dish) for dish in draw.sample(say.DISHES, 3)]


def _dish(draw: Draw, dish: str) -> Page:
    page = (
        Page()
        .add(f"# {dish.capitalize()}\n\nServes ")
        .fact(str(draw.randrange(2, 13)), f"How many people does the {dish} serve?")
    )
    page.add(draw.of(". Ingredients:\n", "\n\n", "\nYou need:\n"))
    used = draw.sample(say.INGREDIENTS, 6)
    for thing in used[:5]:
        amount = draw.of(
            f"{draw.randrange(1, 20) * 50} g",
            f"{draw.randrange(2, 9)} dl",
            f"{draw.randrange(1, 6)} cups",
            f"{draw.randrange(2, 9)} tablespoons",
        )
        asked = draw.maybe(f"How much {thing} goes into the {dish}?", f"How much {thing} is needed for the {dish}?", "")
        page.add("- ").fact(amount, *asked).add(f" {thing}\n")
    heat, long = f"{draw.randrange(14, 25) * 10} °C", f"{draw.randrange(10, 120)} minutes"
    page.add(f"\nMix everything and bake the {dish} at ").fact(
        heat, f"At which temperature is the {dish} baked?", "How hot must the oven be?"
    )
    page.add(" for ").fact(long, f"How long does the {dish} bake?", f"How long must the {dish} stay in the oven?").add(
        ". Serve "
    )
    page.fact(draw.of("lukewarm", "cold", "hot", "at once"), *draw.maybe(f"How is the {dish} served?", "")).add(".\n")
    return page.unanswered(f"How much {used[5]} goes into the {dish}?")
