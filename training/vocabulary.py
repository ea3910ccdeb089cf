"""Names and things that the made-up pages speak of; all people, companies and products are invented."""


def _listed(text: str) -> tuple[str, ...]:
    return tuple(each.strip() for each in text.replace("\n", ",").split(",") if each.strip())


FIRST = _listed("""
Amara, Bruno, Chiara, Dmitri, Elif, Farid, Greta, Hamza, Ines, Jonas, Kavya, Liam, Mei, Nadia, Oskar, Priya, Quentin,
Rosa, Sven, Tomoko, Umar, Vera, Wanda, Xenia, Yusuf, Zoe, Anton, Beatriz, Carlos, Dalia, Erik, Fatima, Gustav, Helena,
Ivan, Joyce, Kofi, Lena, Marek, Noor, Olga, Pablo, Ruth, Samir, Tess, Ulrike, Victor, Willem, Yara, Zoran
""")
LAST = _listed("""
Abara, Bergstrom, Castell, Dvorak, Eriksen, Fontaine, Grabowski, Haddad, Ibarra, Jansen, Kowalski, Lindqvist, Moreau,
Nakamura, Okafor, Petrov, Quiroga, Rossi, Schuster, Tanaka, Ustinov, Vasquez, Weber, Xu, Yilmaz, Zimmer, Adeyemi,
Brandt, Conti, Delgado, Engel, Farkas, Gruber, Holm, Ivarsson, Joshi, Keller, Larsen, Mbeki, Novak, Ortega, Park,
Ranganathan, Silva, Thorne, Varga, Whitaker, Young, Zhao, Almeida
""")
CITIES = _listed("""
Aarhus, Bergen, Bologna, Bristol, Cork, Dresden, Eindhoven, Fribourg, Gdansk, Ghent, Graz, Haifa, Izmir, Kyoto, Leeds,
Lille, Linz, Lyon, Malmo, Nantes, Oslo, Porto, Quito, Riga, Salzburg, Tampere, Turin, Utrecht, Valencia, Warsaw,
Zagreb
""")
STREETS = _listed("""
Harbour Road, Mill Lane, Station Street, Linden Avenue, Church Hill, Market Square, Bridge Street, Park Row,
Canal Walk, Orchard Close, Foundry Way, Observatory Drive, Quay Street, Abbey Gardens, Windmill Path
""")
SYLLABLES = _listed("""
ar, bel, cor, dan, el, fen, gal, hol, in, jor, kel, lum, mar, nor, or, pel, quin, ros, sol, tar, ul, ven, wex, yor,
zen, bri, cal, dra, fin, gri, lo, mo, ni, pri, ra, sta, tri, va
""")
COMPANY_KINDS = _listed(
    "Systems, Instruments, Foods, Logistics, Energy, Media, Robotics, Textiles, Tools, Labs, Bikes, Optics"
)
DEVICES = _listed("""
coffee machine, dishwasher, heat pump, label printer, network switch, air purifier, sewing machine, lawn mower,
security camera, wireless router, bread oven, water softener, projector, electric kettle, washing machine,
standing desk, document scanner, e-bike, thermostat, solar inverter, rice cooker, vacuum cleaner, dehumidifier,
3D printer, smoke detector
""")
PARTS = _listed("""
water filter, drip tray, air filter, drive belt, battery, brush roll, door seal, cooling fan, print head, sensor lens,
drain hose, power supply, blade, nozzle, chain, spray arm, dust bag, cartridge, gasket, antenna
""")
GOODS = _listed("""
oak shelf, desk lamp, wool blanket, ceramic mug, steel bottle, garden hose, paint roller, hex key set, tool box,
extension cable, door handle, picture frame, cutting board, bread knife, tea strainer, yoga mat, bike pump,
tent peg set, sleeping bag, head torch, rain jacket, felt slippers, notebook, fountain pen, ink cartridge, paper tray,
seed box, watering can, bird feeder, hammock, chess set, wall clock, candle holder, laundry basket, coat rack, mirror,
doormat, wooden stool, folding chair, cork board, spice rack, apron, oven glove, whisk, rolling pin, soup ladle,
salad bowl
""")
COLOURS = _listed("red, blue, green, black, white, grey, yellow, orange, brown, silver, teal, cream")
SERVICES = _listed("""
billing, search, gateway, mailer, catalogue, inventory, scheduler, telemetry, archive, login, payments, reports,
notifications, image-proxy, webhooks, indexer
""")
ROLES = _listed("""
head of sales, site manager, accountant, IT support, head of purchasing, reception, personnel officer, warehouse lead,
press officer, data protection officer, safety officer, workshop supervisor, event coordinator, quality engineer,
customer service, treasurer, archivist, facility manager
""")
TOPICS = _listed("""
the office move, the new website, the annual budget, the summer party, the supplier contract, the security audit,
the hiring plan, the customer survey, the warehouse software, the trade fair, the training week, the energy report
""")
MONTHS = _listed("January, February, March, April, May, June, July, August, September, October, November, December")
DAYS = _listed("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday")
COURSES = _listed("""
pottery, first aid, Spanish, bookkeeping, welding, yoga, photography, beekeeping, public speaking, carpentry, drawing,
sourdough baking, bicycle repair, chess, life drawing, choir, fencing, gardening
""")
DISHES = _listed("""
lentil soup, mushroom risotto, onion tart, fish stew, potato gratin, plum cake, flat bread, tomato sauce,
rice pudding, bean chilli, carrot salad, apple crumble
""")
INGREDIENTS = _listed("""
flour, butter, sugar, red lentils, rice, onions, potatoes, cream, carrots, tomatoes, apples, plums, yoghurt,
chickpeas, grated cheese, olive oil, mushrooms, white beans
""")
