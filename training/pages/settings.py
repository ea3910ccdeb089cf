"""What machines write and read: settings and logs."""

from training import vocabulary as say
from training.pages.page import Draw, Page


def settings(draw: Draw) -> list[Page]:
    services = draw.sample(say.SERVICES, 3)
    return [_settings_file(draw, service) for service in services]


def _settings_file(draw: Draw, service: str) -> Page:
    host = f"{draw.word()}.{draw.of('internal', 'example.net', 'lan', 'example.org')}"
    values: list[tuple[str, str, tuple[str, ...]]] = [
        (
            "port",
            str(draw.randrange(1024, 49151)),
            ("Which port does {} listen on?", "What port does {} use?", "{} port"),
        ),
        ("host", host, ("Which host does {} run on?", "What is the host name of {}?")),
        (
            "log_level",
            draw.of("debug", "info", "warning", "error"),
            ("What is the log level of {}?", "log level of {}"),
        ),
        (
            "timeout",
            draw.of("5s", "30s", "2m", "90s", "120", "10000ms"),
            ("What is the timeout of {}?", "How long does {} wait?"),
        ),
        ("workers", str(draw.randrange(1, 65)), ("How many workers does {} have?", "How many workers run for {}?")),
        (
            "database",
            f"{draw.word()}_{draw.of('prod', 'db', 'main', 'stage')}",
            ("Which database does {} use?", "database of {}"),
        ),
        (
            "max_upload",
            draw.of("10MB", "25 MiB", "512k", "2GB", "100MB"),
            ("How large may uploads be?", "What is the upload limit of {}?"),
        ),
        (
            "cache_dir",
            f"/var/cache/{draw.word()}",
            ("Where does {} keep its cache?", "What is the cache folder of {}?"),
        ),
        ("user", draw.word(), ("Which user does {} run as?", "As which user does {} run?")),
        ("retries", str(draw.randrange(1, 12)), ("How often does {} retry?", "How many retries does {} make?")),
        (
            "backup_schedule",
            f"{draw.randrange(60)} {draw.randrange(24)} * * *",
            ("When are backups of {} made?", "What is the backup schedule?"),
        ),
        (
            "admin_email",
            f"{draw.word()}@{draw.word()}.example",
            ("Who is told about faults of {}?", "What is the admin's e-mail address?"),
        ),
        (
            "rate_limit",
            f"{draw.randrange(1, 100) * 10}/min",
            ("What is the rate limit of {}?", "How many requests may a client make to {}?"),
        ),
    ]
    draw.shuffle(values)
    told, missing = values[: draw.randrange(6, 10)], values[-2:]
    page, layout = Page(), draw.randrange(4)
    page.add(
        (f"{service}:\n", f"[{service}]\n", f"# environment of {service}\n", f"# {service}.toml\n[server]\n")[layout]
    )
    for name, value, questions in told:
        asked = draw.maybe(*(question.format(f"the {service} service") for question in questions))
        asked = [
            question if draw.random() < 0.5 else question.replace(f"the {service} service", service)
            for question in asked
        ]
        if draw.random() < 0.25:
            page.add(
                draw.of(
                    "  # do not change without asking\n", "  # default\n", f"  # raised in {draw.choice(say.MONTHS)}\n"
                )
            )
        upper = f"{service}_{name}".upper().replace("-", "_")
        quoted = draw.random() < 0.4
        before = (f"  {name}: ", f"{name} = ", f"{upper}=", f"{name} = ")[layout] + ('"' if quoted else "")
        page.add(before).fact(value, *asked).add('"\n' if quoted else "\n")
    return page.unanswered(*(draw.choice(questions).format(service) for _, _, questions in missing[:1]))


def log(draw: Draw) -> list[Page]:
    return [_log_part(draw) for _ in range(3)]


def _log_part(draw: Draw) -> Page:
    page = Page()
    hour, minute = draw.randrange(0, 20), draw.randrange(0, 50)
    day = f"20{draw.randrange(18, 31)}-{draw.randrange(1, 13):02}-{draw.randrange(1, 29):02}"
    services = draw.sample(say.SERVICES, 9)
    hosts = [f"{draw.word()}{draw.randrange(1, 30):02}" for _ in range(9)]
    layout = draw.randrange(3)
    for service, host in zip(services[:8], hosts, strict=False):
        minute += draw.randrange(0, 6)
        hour, minute = hour + minute // 60, minute % 60
        clock = f"{hour:02}:{minute:02}:{draw.randrange(60):02}"
        level = draw.of("INFO", "WARN", "ERROR")
        event = draw.randrange(6)
        count, took = str(draw.randrange(3, 9000)), f"{draw.randrange(2, 900)}.{draw.randrange(10)}s"
        when = {
            0: (f"When did the backup of {service} finish?", f"At what time was the {service} backup done?"),
            1: (f"When did {service} fail to connect?", f"When did {service} lose its connection?"),
            2: (f"When was {service} restarted?", f"When did {service} restart?"),
            3: (f"When was the disk of {host} full?", f"When did {host} run out of space?"),
            4: (f"When did the login on {host} fail?",),
            5: (f"When was {service} upgraded?",),
        }[event]
        page.add((f"{day} ", "[", "")[layout]).fact(clock, *(draw.maybe(*when) if draw.random() < 0.5 else []))
        page.add(
            (
                f" {level} {service}: ",
                f"] {level.lower()} ({service}) ",
                f" {host} {service}[{draw.randrange(99, 9999)}]: ",
            )[layout]
        )
        match event:
            case 0:
                page.add("backup finished, ").fact(count, f"How many files were in the backup of {service}?").add(
                    " files in "
                )
                page.fact(took, *draw.maybe(f"How long did the backup of {service} take?")).add("\n")
            case 1:
                page.add("cannot connect to ").fact(
                    host,
                    *draw.maybe(f"Which host could {service} not reach?", f"What did {service} fail to connect to?"),
                )
                page.add(": ").fact(
                    draw.of("connection refused", "timed out", "no route to host", "name not found"),
                    f"Why could {service} not connect?",
                ).add("\n")
            case 2:
                page.add("restarted by ").fact(draw.choice(say.FIRST).lower(), f"Who restarted {service}?").add("\n")
            case 3:
                page.add(f"disk of {host} is ").fact(
                    f"{draw.randrange(85, 101)}%", f"How full is the disk of {host}?"
                ).add(" full\n")
            case 4:
                page.add("login failed for user ").fact(
                    draw.word(), f"Whose login failed on {host}?", f"Which user could not log in on {host}?"
                )
                page.add(f" on {host}\n")
            case _:
                page.add("upgraded to version ").fact(
                    f"{draw.randrange(0, 9)}.{draw.randrange(20)}.{draw.randrange(20)}",
                    *draw.maybe(f"To which version was {service} upgraded?", f"What version does {service} run?"),
                ).add("\n")
    return page.unanswered(f"When was {services[8]} restarted?")
