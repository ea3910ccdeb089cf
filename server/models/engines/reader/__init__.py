"""The reader: answers quoted from the passages it is given."""
