"""The tables of state.db for messages: which are in force, how far each partition is, the refused ones."""

from server.state import Tables

TABLES = Tables(
    "knowledge",
    (
        "CREATE TABLE knowledge_claim (collection TEXT NOT NULL, source TEXT NOT NULL, document TEXT NOT NULL, "
        "part TEXT NOT NULL, place INTEGER NOT NULL, version INTEGER, "
        "PRIMARY KEY (collection, source, document)) WITHOUT ROWID",
        "CREATE TABLE knowledge_position (collection TEXT NOT NULL, source TEXT NOT NULL, part TEXT NOT NULL, "
        "place INTEGER NOT NULL, PRIMARY KEY (collection, source, part)) WITHOUT ROWID",
        "CREATE TABLE knowledge_dead_letter (id INTEGER PRIMARY KEY AUTOINCREMENT, collection TEXT NOT NULL, "
        "source TEXT NOT NULL, part TEXT NOT NULL, place INTEGER NOT NULL, key TEXT, reason TEXT NOT NULL, "
        "excerpt TEXT NOT NULL, at REAL NOT NULL, UNIQUE (collection, source, part, place))",
        "ALTER TABLE knowledge_dead_letter ADD COLUMN media TEXT",
        "ALTER TABLE knowledge_dead_letter ADD COLUMN value BLOB",
        "ALTER TABLE knowledge_dead_letter ADD COLUMN whole INTEGER NOT NULL DEFAULT 0",
    ),
)
