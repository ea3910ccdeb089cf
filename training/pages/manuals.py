"""Manuals of devices: what they are, how they are cared for, what their error codes mean."""

from training import vocabulary as say
from training.pages.page import Draw, Page


def manual(draw: Draw) -> list[Page]:
    device, model, maker = draw.choice(say.DEVICES), draw.model(), draw.company()
    called = draw.of(f"the {model}", f"the {device}", f"the {device} {model}")
    return [
        _specification(draw, device, model, maker, called),
        _maintenance(draw, device, called),
        _faults(draw, device, model),
    ]


def _specification(draw: Draw, device: str, model: str, maker: str, called: str) -> Page:
    values = [
        ("Weight", f"{draw.randrange(1, 90)}.{draw.randrange(10)} kg", "How much does {} weigh?", "weight of {}"),
        (
            "Rated power",
            f"{draw.randrange(2, 40) * 50} W",
            "How much power does {} draw?",
            "What is the rated power of {}?",
        ),
        (
            "Dimensions",
            f"{draw.randrange(20, 99)} x {draw.randrange(20, 99)} x {draw.randrange(20, 99)} cm",
            "What are the dimensions of {}?",
            "How big is {}?",
        ),
        ("Noise", f"{draw.randrange(28, 80)} dB", "How loud is {}?", "What noise level does {} have?"),
        (
            "Mains voltage",
            f"{draw.choice((110, 120, 220, 230, 240))} V",
            "Which voltage does {} need?",
            "voltage of {}",
        ),
        (
            "Operating temperature",
            f"{draw.randrange(-20, 6)} to {draw.randrange(30, 60)} °C",
            "At which temperatures may {} be used?",
            "What is the operating temperature of {}?",
        ),
        (
            "Warranty",
            draw.of("2 years", "24 months", "36 months", "5 years"),
            "How long is the warranty of {}?",
            "How long is {} under warranty?",
        ),
        (
            "Tank capacity",
            f"{draw.randrange(1, 30)}.{draw.randrange(10)} litres",
            "How much fits in the tank of {}?",
            "What is the tank capacity?",
        ),
        (
            "Cable length",
            f"{draw.randrange(1, 6)}.{draw.randrange(10)} m",
            "How long is the cable?",
            "cable length of {}",
        ),
        (
            "Wireless",
            f"{draw.of('2.4', '5')} GHz",
            "Which frequency does the wireless of {} use?",
            "What band does {} use?",
        ),
    ]
    draw.shuffle(values)
    told, missing = values[: draw.randrange(5, 8)], values[8:]
    page = Page()
    if draw.random() < 0.6:
        page.add(draw.of(f"# {device.capitalize()} {model}\n\n", f"{model} user manual\n\n"))
    page.add(f"The {model} is a {device} made by ").fact(maker, f"Who makes {called}?", "Who is the manufacturer?")
    page.add(draw.of(". It is meant for indoor use.\n\n", ".\n\n", ". Read this manual before first use.\n\n"))
    layout = draw.randrange(4)
    if layout == 0:
        page.add("| Property | Value |\n|---|---|\n")
    for name, value, *questions in told:
        asked = draw.maybe(*(question.format(called) for question in questions))
        before, after = (("| %s | ", " |\n"), ("- %s: ", "\n"), ("%s: ", "\n"), ("%s ........ ", "\n"))[layout]
        page.add(before % name).fact(value, *asked).add(after)
    return page.unanswered(*(draw.choice(each[2:]).format(called) for each in missing[:1]))


def _maintenance(draw: Draw, device: str, called: str) -> Page:
    page = Page().add(draw.of("## Maintenance\n\n", "Care and cleaning\n\n", ""))
    parts = draw.sample(say.PARTS, 5)
    for part in parts[:3]:
        every = draw.of(
            f"{draw.randrange(2, 12)} weeks",
            f"{draw.randrange(2, 18)} months",
            "month",
            "year",
            f"{draw.randrange(2, 60) * 50} operating hours",
        )
        verb, done = draw.choice((("clean", "cleaned"), ("replace", "replaced"), ("check", "checked")))
        asked = f"How often must the {part} be {done}?", f"How often do I have to {verb} the {part}?"
        match draw.randrange(3):
            case 0:
                page.add(f"{verb.capitalize()} the {part} every ").fact(every, *draw.maybe(*asked)).add(". ")
            case 1:
                page.add(f"The {part} has to be {done} every ").fact(every, *draw.maybe(*asked)).add(
                    draw.of(", or sooner in dusty rooms. ", ". Switch the device off first. ", ". ")
                )
            case _:
                page.add("Every ").fact(every, *draw.maybe(*asked)).add(f", the {part} must be {done}. ")
    page.add("\n\n")
    tool = draw.of("a soft cloth", "lukewarm water", "a dry brush", "mild soap", "citric acid", "compressed air")
    page.add(f"Clean the {parts[3]} with ").fact(
        tool, *draw.maybe(f"What should I clean the {parts[3]} with?", f"How do I clean the {parts[3]}?")
    )
    danger = draw.of("the seals", "the coating", "the sensor", "the display")
    page.add(f". Never use solvents: they damage {danger}.\n\n")
    button = draw.of("Reset", "Power", "Mode", "Start", "Menu")
    hold = f"{draw.randrange(3, 16)} seconds"
    page.add(f"To reset {called} to factory settings, hold the ").fact(
        f"{button} button",
        *draw.maybe(f"Which button resets {called}?", "Which button do I press for a factory reset?"),
    )
    page.add(" for ").fact(
        hold, *draw.maybe("How long must the button be held for a reset?", "how long to hold for reset")
    )
    page.add(draw.of(" until the light blinks", "", " while the device is on")).add(".\n")
    return page.unanswered(f"How often must the {parts[4]} be replaced?")


def _faults(draw: Draw, device: str, model: str) -> Page:
    page = Page().add(draw.of("## Error codes\n\n", "Troubleshooting\n\n", f"What the {model} reports\n\n"))
    codes = draw.sample([f"{letter}{number:02}" for letter in "EFH" for number in range(1, 60)], 7)
    causes = draw.sample(
        (
            "the tank is empty",
            "the door is not closed",
            "the motor is overheated",
            "no network connection",
            "the filter is clogged",
            "water leaks into the base",
            "the sensor is dirty",
            "the battery is nearly empty",
            "the supply voltage is too low",
            "a part was fitted the wrong way round",
            "the lid is open",
            "paper jam",
            "the pump is blocked",
            "the clock is not set",
        ),
        6,
    )
    cures = draw.sample(
        (
            "fill the tank",
            "close the door until it clicks",
            "let the device cool for 30 minutes",
            "restart the router",
            "rinse the filter",
            "unplug the device and call service",
            "wipe the sensor",
            "charge the battery for two hours",
            "use another socket",
            "refit the part",
            "close the lid",
            "remove the paper",
            "flush the pump",
            "set the clock",
        ),
        6,
    )
    layout = draw.randrange(3)
    if layout == 0:
        page.add("| Code | Meaning | What to do |\n|---|---|---|\n")
    for code, cause, cure in zip(codes[:6], causes, cures, strict=True):
        meaning = draw.maybe(f"What does error {code} mean?", f"What does {code} mean?", f"{code} meaning")
        doing = draw.maybe(
            f"What should I do when {code} is shown?", f"How do I fix error {code}?", f"How to clear {code}?"
        )
        first, second = ([meaning, []], [[], doing], [[], []], [meaning, doing])[draw.randrange(4)]
        before, middle, after = (
            (f"| {code} | ", " | ", " |\n"),
            (f"- {code}: ", "; ", ".\n"),
            (f"{code} means that ", ". In that case, ", ".\n"),
        )[layout]
        page.add(before).fact(cause, *first).add(middle).fact(cure, *second).add(after)
    return page.unanswered(f"What does error {codes[6]} mean?")
