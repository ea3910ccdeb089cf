"""Twenty functions, and how people ask for each: phrases with slots, and what may stand in a slot."""

from typing import Any

Schema = dict[str, Any]


def _text(description: str, **more: Any) -> Schema:
    return {"type": "string", "description": description, **more}


def _whole(description: str, **more: Any) -> Schema:
    return {"type": "integer", "description": description, **more}


def _number(description: str, **more: Any) -> Schema:
    return {"type": "number", "description": description, **more}


def _switch(description: str) -> Schema:
    return {"type": "boolean", "description": description}


def _tool(name: str, description: str, required: str, /, **properties: Schema) -> Schema:
    parameters = {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


TOOLS = [
    _tool(
        "get_weather",
        "Get the weather forecast for a city.",
        "city",
        city=_text("The city to get the forecast for"),
        unit=_text("Temperature unit", enum=["celsius", "fahrenheit"]),
        days=_whole("How many days to forecast", minimum=1, maximum=14),
    ),
    _tool(
        "book_table",
        "Book a table at a restaurant.",
        "restaurant guests",
        restaurant=_text("Name of the restaurant"),
        guests=_whole("Number of guests"),
        time=_text("Time of the booking as HH:MM"),
    ),
    _tool(
        "send_email",
        "Send an e-mail to someone.",
        "to body",
        to=_text("E-mail address of the recipient", format="email"),
        body=_text("Text of the mail"),
    ),
    _tool(
        "convert_currency",
        "Convert an amount of money from one currency to another.",
        "amount from_currency to_currency",
        amount=_number("The amount of money to convert"),
        from_currency=_text("Currency to convert from"),
        to_currency=_text("Currency to convert to"),
    ),
    _tool(
        "set_alarm", "Set an alarm clock.", "time", time=_text("When to ring, HH:MM"), label=_text("Name of the alarm")
    ),
    _tool(
        "play_music",
        "Play music by an artist or of a genre.",
        "artist",
        artist=_text("Artist or band to play"),
        volume=_whole("Loudness from 0 to 100", minimum=0, maximum=100),
        shuffle=_switch("Whether to shuffle the songs"),
    ),
    _tool(
        "search_flights",
        "Search for flights between two cities.",
        "origin destination date",
        origin=_text("City of departure"),
        destination=_text("City of arrival"),
        date=_text("Day of departure", format="date"),
        cabin=_text("Class of travel", enum=["economy", "business", "first"]),
    ),
    _tool(
        "create_task",
        "Add a task to the to-do list.",
        "title",
        title=_text("What is to be done"),
        priority=_text("How urgent it is", enum=["low", "medium", "high"]),
    ),
    _tool(
        "translate_text",
        "Translate a text into another language.",
        "text target_language",
        text=_text("The text to translate"),
        target_language=_text("Language to translate into"),
    ),
    _tool(
        "get_directions",
        "Get directions and travel time between two places.",
        "start end",
        start=_text("Where the trip starts"),
        end=_text("Where the trip ends"),
        mode=_text("Means of transport", enum=["driving", "walking", "cycling", "transit"]),
    ),
    _tool(
        "order_pizza",
        "Order a pizza for delivery.",
        "size topping",
        size=_text("Size of the pizza", enum=["small", "medium", "large"]),
        topping=_text("Topping of the pizza"),
        quantity=_whole("How many pizzas"),
    ),
    _tool(
        "track_package",
        "Track the delivery of a parcel.",
        "tracking_number",
        tracking_number=_text("Tracking number of the parcel"),
    ),
    _tool(
        "set_light",
        "Switch or dim the lights of a room.",
        "room",
        room=_text("The room of the lights"),
        brightness=_whole("Brightness in percent", minimum=0, maximum=100),
        color=_text("Colour of the light", enum=["white", "red", "blue", "green"]),
    ),
    _tool(
        "calculate_tip",
        "Calculate the tip for a restaurant bill.",
        "bill",
        bill=_number("Total of the bill"),
        percent=_number("Tip in percent"),
        people=_whole("Number of people who split it"),
    ),
    _tool(
        "find_movie",
        "Find movies to watch by genre or actor.",
        "genre",
        genre=_text("Genre of the movie", enum=["comedy", "drama", "horror", "action", "romance"]),
        year=_whole("Year it came out"),
    ),
    _tool(
        "create_invoice",
        "Create an invoice for a customer.",
        "customer amount",
        customer=_text("Name of the customer"),
        amount=_number("Amount in euros"),
        due_date=_text("Day by which it is to be paid", format="date"),
    ),
    _tool(
        "check_server_status",
        "Check whether a server is up and how it is doing.",
        "hostname",
        hostname=_text("Host name of the server"),
        port=_whole("Port number"),
    ),
    _tool(
        "add_contact",
        "Save a person in the address book.",
        "name phone",
        name=_text("Full name of the person"),
        phone=_text("Phone number"),
    ),
    _tool(
        "run_sql_report",
        "Run a sales report for a region and quarter.",
        "region quarter",
        region=_text("Sales region", enum=["north", "south", "east", "west"]),
        quarter=_text("Quarter of the year", enum=["Q1", "Q2", "Q3", "Q4"]),
    ),
    _tool(
        "water_plants",
        "Turn on the irrigation of the garden.",
        "minutes",
        minutes=_whole("For how many minutes to water"),
        zone=_text("Part of the garden", enum=["lawn", "beds", "greenhouse"]),
    ),
]
"""In OpenAI's form."""

PHRASES = {
    "get_weather": [
        "What's the weather in {city}?",
        "Will it rain in {city}?",
        "Weather for {city} for the next {days} days, please",
        "How warm is it in {city} in {unit}?",
        "Give me a {days} day forecast for {city}",
        "I'm travelling to {city}, what will the weather be like?",
        "Tell me the forecast for {city} in degrees {unit}.",
    ],
    "book_table": [
        "Book a table for {guests} at {restaurant}",
        "Reserve a table at {restaurant} for {guests} people at {time}",
        "We are {guests} and want to eat at {restaurant} at {time}.",
        "Can you get us a table at {restaurant}? We're {guests} guests.",
        "I'd like to have dinner at {restaurant} with {guests} people",
        "Please make a reservation at {restaurant}, {time}, {guests} guests",
    ],
    "send_email": [
        "Send an email to {to} saying {body}",
        "Mail {to}: {body}",
        'Write an e-mail to {to} with the text "{body}"',
        "Please email {to} that {body}",
        "Send {to} a mail that says {body}",
    ],
    "convert_currency": [
        "Convert {amount} {from_currency} to {to_currency}",
        "How much is {amount} {from_currency} in {to_currency}?",
        "What are {amount} {from_currency} worth in {to_currency}?",
        "Change {amount} {from_currency} into {to_currency}, please.",
        "I have {amount} {from_currency}, how many {to_currency} do I get?",
    ],
    "set_alarm": [
        "Set an alarm for {time}",
        "Wake me up at {time}",
        "Set the alarm to {time} tomorrow",
        "Please let the alarm ring at {time}",
        'Set an alarm called "{label}" for {time}',
        "I need an alarm at {time}.",
    ],
    "play_music": [
        "Play some {artist}",
        "I want to hear songs by {artist}",
        "Put on {artist} at volume {volume}",
        "Play music by {artist} and shuffle the songs{shuffle}",
        "Could you play {artist}?",
        "Let's listen to {artist}, loudness {volume}.",
    ],
    "search_flights": [
        "Find flights from {origin} to {destination} on {date}",
        "I want to fly from {origin} to {destination} on {date}",
        "Search {cabin} class flights from {origin} to {destination} on {date}.",
        "Are there any flights to {destination} from {origin} on {date}?",
        "I need a flight on {date} from {origin} to {destination}, {cabin} class",
    ],
    "create_task": [
        "Add a task to {title}",
        "Add {title} to my to-do list",
        'Create a {priority} priority task "{title}"',
        "Put {title} on my to-do list with {priority} priority",
        "New task: {title}",
        "I have to {title}, add it to my tasks",
    ],
    "translate_text": [
        'Translate "{text}" into {target_language}',
        'How do you say "{text}" in {target_language}?',
        "Translate to {target_language}: {text}",
        'What is "{text}" in {target_language}?',
        "Please translate '{text}' to {target_language}",
    ],
    "get_directions": [
        "How do I get from {start} to {end}?",
        "Directions from {start} to {end}",
        "Show me the way from {start} to {end} by {mode}",
        "How long does it take from {start} to {end} when {mode}?",
        "Navigate from {start} to {end}",
    ],
    "order_pizza": [
        "Order a {size} pizza with {topping}",
        "I'd like {quantity} {size} pizzas with {topping}",
        "Get me a {size} {topping} pizza",
        "Can I have a {size} pizza with {topping}, please?",
        "Order {quantity} {size} pizzas, topping {topping}",
    ],
    "track_package": [
        "Where is my package {tracking_number}?",
        "Track parcel {tracking_number}",
        "When will my delivery {tracking_number} arrive?",
        "My tracking number is {tracking_number}, where is the parcel?",
        "Status of package {tracking_number}",
    ],
    "set_light": [
        "Dim the lights in the {room} to {brightness} percent",
        "Turn the {room} lights {color}",
        "Make the light in the {room} {color}",
        "Set the {room} lights to {brightness}%",
        "Switch on the lights in the {room}",
    ],
    "calculate_tip": [
        "What's the tip on a bill of {bill} dollars at {percent} percent?",
        "Calculate a {percent}% tip for a {bill} dollar bill",
        "The bill is {bill} euros, we are {people} people, how much tip?",
        "How much should I tip on {bill}?",
        "Tip for {bill} at {percent}%, split between {people} people",
    ],
    "find_movie": [
        "Find me a {genre} movie",
        "I want to watch a {genre} film from {year}",
        "Which {genre} movies came out in {year}?",
        "Recommend a good {genre} movie",
        "Any {genre} films I could watch tonight?",
    ],
    "create_invoice": [
        "Create an invoice for {customer} over {amount} euros",
        "Bill {customer} {amount} euros, due on {due_date}",
        "Make an invoice of {amount} euros for {customer}",
        "Invoice {customer} for {amount} euros, to be paid by {due_date}",
        "Please write an invoice to {customer} for {amount} EUR",
    ],
    "check_server_status": [
        "Is {hostname} up?",
        "Check the status of {hostname}",
        "Is the server {hostname} running on port {port}?",
        "Check whether {hostname} is reachable on port {port}",
        "How is {hostname} doing?",
    ],
    "add_contact": [
        "Add {name} to my contacts, the phone number is {phone}",
        "Save the number {phone} for {name}",
        "New contact: {name}, {phone}",
        "Put {name} with the phone number {phone} in my address book",
    ],
    "run_sql_report": [
        "Run the sales report for the {region} region in {quarter}",
        "Show me sales of the {region} in {quarter}",
        "{quarter} sales report for {region}, please",
        "How were sales in the {region} region in {quarter}?",
    ],
    "water_plants": [
        "Water the garden for {minutes} minutes",
        "Turn on the irrigation in the {zone} for {minutes} minutes",
        "Water the {zone} for {minutes} minutes",
        "Please run the sprinklers for {minutes} minutes",
        "Irrigate the {zone} for {minutes} minutes",
    ],
}

_CITIES = [
    (name, name) for name in ("Lisbon", "Oslo", "New York", "Nairobi", "Buenos Aires", "Toronto", "Prague", "Seoul")
]
_DATES = [
    ("2027-03-14", "2027-03-14"),
    ("March 14, 2027", "2027-03-14"),
    ("5 June 2027", "2027-06-05"),
    ("2027-08-01", "2027-08-01"),
]
_SPELLED = [("two", 2), ("4", 4), ("six", 6), ("8", 8)]
_PEOPLE = [(name, name) for name in ("Maria Lopez", "John Carter", "Aisha Khan", "Peter Novak")]


def _same(*words: str) -> list[tuple[str, Any]]:
    return [(word, word) for word in words]


VALUES: dict[str, dict[str, list[tuple[str, Any]]]] = {
    "get_weather": {"city": _CITIES, "days": [("3", 3), ("five", 5), ("7", 7)], "unit": _same("celsius", "fahrenheit")},
    "book_table": {
        "restaurant": _same("Luigi's", "The Golden Fork", "Blue Lagoon", "Chez Pierre"),
        "guests": _SPELLED,
        "time": [("19:30", "19:30"), ("7 pm", "19:00"), ("20:00", "20:00"), ("8:15 pm", "20:15")],
    },
    "send_email": {
        "to": _same("bob@example.org", "sales@acme.com", "j.doe@mail.net"),
        "body": _same("the meeting is moved to room five", "I will call back later", "the report is finished"),
    },
    "convert_currency": {
        "amount": [("100", 100), ("2,500", 2500), ("49.99", 49.99), ("3k", 3000)],
        "from_currency": _same("dollars", "GBP", "Swiss francs", "yen"),
        "to_currency": _same("euros", "USD", "Canadian dollars", "rupees"),
    },
    "set_alarm": {
        "time": [("6:30", "06:30"), ("7 am", "07:00"), ("05:45", "05:45"), ("9:15 pm", "21:15")],
        "label": _same("gym", "medicine", "school run"),
    },
    "play_music": {
        "artist": _same("Miles Davis", "The Beatles", "Billie Eilish", "Radiohead", "Johann Sebastian Bach"),
        "volume": [("30", 30), ("55", 55), ("80", 80)],
        "shuffle": [("", True)],
    },
    "search_flights": {
        "origin": _CITIES,
        "destination": _CITIES,
        "date": _DATES,
        "cabin": _same("business", "first", "economy"),
    },
    "create_task": {
        "title": _same("buy milk", "call the dentist", "renew my passport", "clean the garage"),
        "priority": _same("low", "medium", "high"),
    },
    "translate_text": {
        "text": _same("good morning", "where is the station", "I am hungry", "see you tomorrow"),
        "target_language": _same("Spanish", "Japanese", "French", "Italian"),
    },
    "get_directions": {
        "start": _same("Central Station", "the airport", "Main Street 5", "Times Square"),
        "end": _same("City Hall", "the zoo", "Baker Street", "the harbour"),
        "mode": _same("walking", "cycling", "driving", "transit"),
    },
    "order_pizza": {
        "size": _same("small", "medium", "large"),
        "topping": _same("mushrooms", "salami", "ham", "olives", "pineapple"),
        "quantity": [("two", 2), ("3", 3), ("four", 4)],
    },
    "track_package": {
        "tracking_number": _same("1Z999AA10123456784", "JD014600003SE", "00340434161094", "LX123456789DE")
    },
    "set_light": {
        "room": _same("kitchen", "living room", "bathroom", "hallway"),
        "brightness": [("20", 20), ("45", 45), ("80", 80)],
        "color": _same("red", "blue", "green", "white"),
    },
    "calculate_tip": {
        "bill": [("84.50", 84.5), ("120", 120), ("63.20", 63.2)],
        "percent": [("15", 15), ("18", 18), ("20", 20)],
        "people": [("three", 3), ("4", 4), ("5", 5)],
    },
    "find_movie": {
        "genre": _same("comedy", "drama", "horror", "action"),
        "year": [("1999", 1999), ("2012", 2012), ("1985", 1985)],
    },
    "create_invoice": {
        "customer": _same("Acme Ltd", "Maria Lopez", "Northwind Traders", "Bakery Huber"),
        "amount": [("450", 450), ("1,299.90", 1299.9), ("80", 80)],
        "due_date": _DATES,
    },
    "check_server_status": {
        "hostname": _same("db1.example.com", "web-02.internal.net", "mail.acme.org"),
        "port": [("443", 443), ("5432", 5432), ("8080", 8080)],
    },
    "add_contact": {"name": _PEOPLE, "phone": _same("+44 20 7946 0958", "555-201-3344", "0170 5558899")},
    "run_sql_report": {"region": _same("north", "south", "east", "west"), "quarter": _same("Q1", "Q2", "Q3", "Q4")},
    "water_plants": {"minutes": [("10", 10), ("fifteen", 15), ("30", 30)], "zone": _same("lawn", "beds", "greenhouse")},
}
"""What may be said for each slot, and the value that it is."""

NOTHING = [
    "Who painted the Mona Lisa?",
    "Why is the sky blue?",
    "What is the capital of Mongolia?",
    "Tell me a joke",
    "Explain how photosynthesis works",
    "When did the Second World War end?",
    "How tall is Mount Everest?",
    "What is the difference between a virus and a bacterium?",
    "Summarise the plot of Hamlet",
    "What is the boiling point of ethanol?",
    "Who wrote Faust?",
    "How many bones does a human have?",
]
"""What none of the functions is for."""
