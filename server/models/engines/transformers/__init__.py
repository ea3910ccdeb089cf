"""Generation by the library transformers: any folder it reads, and the oracle of the tests."""
