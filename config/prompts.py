"""What an embedding model wants before a text, so that queries and documents meet; knows no model."""

from pydantic import Field

from config.section import Section


class Prompts(Section):
    """The texts that go before queries and documents, as the model was trained with them; many models want none."""

    query: str = Field(default="", max_length=2000, description='Before a query, such as "search_query: ".')
    document: str = Field(default="", max_length=2000, description='Before a document, such as "search_document: ".')
