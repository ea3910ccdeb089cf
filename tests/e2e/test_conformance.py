"""The conformance recipe as anybody serves it: models that Hearth makes itself, behind a key, with a long context."""

from pathlib import Path

import pytest
from openai import AuthenticationError, OpenAI

from server.models.made.automaton import TEXT
from tests.live import serving
from tests.pictures import picture, url

RECIPE = Path(__file__).parents[2] / "recipes" / "conformance.yaml"


def test_its_models_are_made_on_the_first_start_and_answer(tmp_path: Path) -> None:
    with serving(RECIPE, tmp_path / "data") as live:
        client = OpenAI(base_url=f"{live.url}/v1", api_key="sk-local-test", max_retries=0)
        listed = {model.id: model.model_extra or {} for model in client.models.list()}
        assert set(listed) == {"automaton", "random", "sight", "embed", "rerank", "clerk"}
        assert listed["automaton"]["context_length"] == listed["random"]["context_length"] == 65536
        said = client.chat.completions.create(model="automaton", messages=[{"role": "user", "content": "Hello"}])
        assert said.choices[0].message.content == TEXT
        shown = {"type": "image_url", "image_url": {"url": url(picture("red"))}}
        seen = client.chat.completions.create(model="sight", messages=[{"role": "user", "content": [shown]}])
        assert seen.choices[0].message.content == "The picture is mostly red."
        schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
        bound = client.chat.completions.create(
            model="random",
            messages=[{"role": "user", "content": "Hello"}],
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": schema | {"additionalProperties": False}},
            },
        )
        assert bound.choices[0].message.content in ('{"ok": true}', '{"ok": false}', '{"ok":true}', '{"ok":false}')
        assert len(client.embeddings.create(model="embed", input="Hello").data[0].embedding) == 384
        with pytest.raises(AuthenticationError):
            OpenAI(base_url=f"{live.url}/v1", api_key="sk-wrong", max_retries=0).models.list()
