"""What the chat templates of widely used families do, each in a template of our own: nothing a client says is lost.

Each is written here from what the family's model card documents of its prompt: the marks around turns, what it raises
on, and what it does with systems, calls and results.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest

from server.models.dialect import Dialect, Tools
from server.models.engine import Card, Message, ToolCall
from server.models.template_files import of_folder
from server.models.tool_formats import ToolSpec

LLAMA_3 = """{{- bos_token }}
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content | trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set system = '' %}{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}
{%- if tools is not none %}{{- 'Environment: ipython\\n' }}{%- endif %}
{{- system + '<|eot_id|>' }}
{%- if tools is not none %}
    {%- set asked = messages[0].content | trim %}{%- set messages = messages[1:] %}
    {{- '<|start_header_id|>user<|end_header_id|>\\n\\n' }}
    {%- for tool in tools %}{{- tool | tojson(indent=4) + '\\n\\n' }}{%- endfor %}
    {{- asked + '<|eot_id|>' }}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls | length == 1 %}
            {{- raise_exception('Only single tool-calls at once!') }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' + call.name + '", "parameters": ' }}
        {{- call.arguments | tojson + '}<|eot_id|>' }}
    {%- else %}
        {{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' }}
        {%- if message.content is mapping or message.content is iterable %}{{- message.content | tojson }}
        {%- else %}{{- message.content }}{%- endif %}{{- '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""

QWEN_3 = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- '# Tools\\n<tools>' }}{%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{%- endfor %}
    {{- '\\n</tools>\\nWithin <tool_call></tool_call>.<|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(asking=true, last=messages | length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages | length - 1) - loop.index0 %}
    {%- if ns.asking and message.role == 'user' and message.content is string
        and not (message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.asking = false %}{%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {%- set thought = message.reasoning_content if message.reasoning_content is string else '' %}
        {%- if not thought and '</think>' in content %}
            {%- set thought = content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if loop.index0 > ns.last and thought %}{{- '<think>\\n' + thought + '\\n</think>\\n\\n' }}{%- endif %}
        {{- content }}
        {%- for call in message.tool_calls or [] %}
            {%- if call.function %}{%- set call = call.function %}{%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' + call.name + '", "arguments": ' }}
            {%- if call.arguments is string %}{{- call.arguments }}{%- else %}{{- call.arguments | tojson }}{%- endif %}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' + content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}"""

MISTRAL_3 = """{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content %}{%- set turns = messages[1:] %}
{%- else %}{%- set turns = messages %}{%- endif %}
{%- set asked = turns | selectattr('role', 'equalto', 'user') | list %}
{%- set ns = namespace(index=0) %}
{%- for message in turns %}
    {%- if not (message.role == 'tool' or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message.role == 'user') != (ns.index % 2 == 0) %}
            {{- raise_exception('After the optional system message, roles must alternate user/assistant/user/...') }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in turns %}
    {%- if message.role == 'user' %}
        {%- if tools is not none and message == asked[-1] %}
            {{- '[AVAILABLE_TOOLS] ' + tools | tojson + '[/AVAILABLE_TOOLS]' }}
        {%- endif %}
        {%- if loop.last and system is defined %}{{- '[INST] ' + system + '\\n\\n' + message.content + '[/INST]' }}
        {%- else %}{{- '[INST] ' + message.content + '[/INST]' }}{%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- '[TOOL_CALLS] [' }}
        {%- for call in message.tool_calls %}
            {%- set out = call.function | tojson %}
            {%- if not call.id is defined or call.id | length != 9 %}
                {{- raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}
            {%- endif %}
            {{- out[:-1] + ', "id": "' + call.id + '"}' }}{%- if not loop.last %}{{- ', ' }}{%- endif %}
        {%- endfor %}
        {{- ']' + eos_token }}
    {%- elif message.role == 'assistant' %}{{- ' ' + message.content | trim + eos_token }}
    {%- elif message.role == 'tool' %}
        {%- if not message.tool_call_id is defined or message.tool_call_id | length != 9 %}
            {{- raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}
        {%- endif %}
        {{- '[TOOL_RESULTS] {"content": ' + message.content | string + ', "call_id": "' + message.tool_call_id }}
        {{- '"}[/TOOL_RESULTS]' }}
    {%- else %}{{- raise_exception('Only user, assistant and tool roles!') }}{%- endif %}
{%- endfor %}"""

GEMMA_2 = """{{ bos_token }}
{%- if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for message in messages %}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- if message.role == 'assistant' %}{%- set role = 'model' %}{%- else %}{%- set role = message.role %}{%- endif %}
    {{- '<start_of_turn>' + role + '\\n' + message.content | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{%- endif %}"""

PHI_3 = """{% for message in messages %}
{%- if message.role == 'system' %}{{ '<|system|>\\n' + message.content + '<|end|>\\n' }}
{%- elif message.role == 'user' %}{{ '<|user|>\\n' + message.content + '<|end|>\\n' }}
{%- elif message.role == 'assistant' %}{{ '<|assistant|>\\n' + message.content + '<|end|>\\n' }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"""

SMOLLM_2 = """{% for message in messages %}{% if loop.first and messages[0].role != 'system' %}
{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

DEEPSEEK_R1 = """{% set ns = namespace(first=false, tool=false, system='') %}
{%- for message in messages %}{% if message['role'] == 'system' %}{% set ns.system = message['content'] %}{% endif %}
{%- endfor %}{{ bos_token }}{{ ns.system }}
{%- for message in messages %}
    {%- if message['role'] == 'user' %}{%- set ns.tool = false -%}{{ '<｜User｜>' + message['content'] }}{%- endif %}
    {%- if message['role'] == 'assistant' and message['content'] is none %}
        {%- set ns.tool = false -%}
        {%- for tool in message['tool_calls'] %}
            {%- if not ns.first %}
                {{- '<｜Assistant｜><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + tool['type'] + '<｜tool▁sep｜>' }}
                {%- set ns.first = true -%}
            {%- else %}{{- '\\n<｜tool▁call▁begin｜>' + tool['type'] + '<｜tool▁sep｜>' }}{%- endif %}
            {{- tool['function']['name'] + '\\n```json\\n' + tool['function']['arguments'] + '\\n```' }}
            {{- '<｜tool▁call▁end｜>' }}
        {%- endfor %}{{- '<｜tool▁calls▁end｜>' }}
    {%- endif %}
    {%- if message['role'] == 'assistant' and message['content'] is not none %}
        {%- if ns.tool %}
            {{- '<｜tool▁outputs▁end｜>' + message['content'] + '<｜end▁of▁sentence｜>' }}
            {%- set ns.tool = false -%}
        {%- else %}
            {%- set content = message['content'] %}
            {%- if '</think>' in content %}{%- set content = content.split('</think>')[-1] %}{%- endif %}
            {{- '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}
        {%- endif %}
    {%- endif %}
    {%- if message['role'] == 'tool' %}
        {%- if not ns.tool %}{{- '<｜tool▁outputs▁begin｜>' }}{%- set ns.tool = true %}{%- endif %}
        {{- '<｜tool▁output▁begin｜>' + message['content'] + '<｜tool▁output▁end｜>' }}
    {%- endif %}
{%- endfor -%}
{%- if ns.tool %}{{- '<｜tool▁outputs▁end｜>' }}{%- endif %}
{%- if add_generation_prompt and not ns.tool %}{{- '<｜Assistant｜><think>\\n' }}{%- endif %}"""


@dataclass(frozen=True)
class Family:
    """`tools` is how its calls are written and read; `ends` how a prompt ends, after which the model answers."""

    template: str
    tools: str
    ends: str


FAMILIES = {
    "llama 3": Family(LLAMA_3, "llama3", "<|start_header_id|>assistant<|end_header_id|>\n\n"),
    "qwen 3": Family(QWEN_3, "hermes", "<|im_start|>assistant\n"),
    "mistral 3": Family(MISTRAL_3, "mistral", "[/INST]"),
    "gemma 2": Family(GEMMA_2, "json", "<start_of_turn>model\n"),
    "phi 3": Family(PHI_3, "json", "<|assistant|>\n"),
    "smollm 2": Family(SMOLLM_2, "json", "<|im_start|>assistant\n"),
    "deepseek r1": Family(DEEPSEEK_R1, "json", "<｜Assistant｜><think>\n"),
}
TOOLS = Tools([ToolSpec("weather", {"type": "object", "properties": {"city": {"type": "string"}}}, "Tells it.")])
SYSTEM = Message("system", "Be brief.")


def dialect(name: str) -> Dialect:
    special = {"bos_token": "<s>", "eos_token": "</s>"}
    return Dialect(Card("chat", "", 512, rendered=True, template=FAMILIES[name].template, special=special))


def in_order(prompt: str, *texts: str) -> bool:
    at = 0
    for text in texts:
        at = prompt.find(text, at)
        if at < 0:
            return False
        at += len(text)
    return True


def called(*cities: str, start: str = "call_0123456789abcdef") -> list[Message]:
    calls = [ToolCall(f"{start}{n}", "weather", f'{{"city": "{city}"}}') for n, city in enumerate(cities)]
    results = [
        Message("tool", f"sunny in {city}", tool_call_id=call.id) for city, call in zip(cities, calls, strict=True)
    ]
    return [Message("user", "How is it there?"), Message("assistant", "", tool_calls=calls), *results]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_turn_is_in_the_prompt_in_its_order(name: str) -> None:
    talk = [SYSTEM, Message("user", "One?"), Message("assistant", "Two."), Message("user", "Three?")]
    prompt = dialect(name).render(talk)
    assert in_order(prompt, "One?", "Two.", "Three?")
    assert "Be brief." in prompt and prompt.count("Be brief.") == 1
    assert prompt.endswith(FAMILIES[name].ends)
    assert dialect(name).tools.name == FAMILIES[name].tools


@pytest.mark.parametrize("name", FAMILIES)
def test_tools_are_told_with_and_without_a_system_message(name: str) -> None:
    for talk in ([Message("user", "Hello")], [SYSTEM, Message("user", "Hello")]):
        prompt = dialect(name).render(talk, TOOLS)
        assert '"weather"' in prompt and "Tells it." in prompt and "Hello" in prompt
        assert ("Be brief." in prompt) == (len(talk) > 1)


@pytest.mark.parametrize("name", FAMILIES)
def test_calls_and_results_of_a_conversation_are_in_its_prompt(name: str) -> None:
    prompt = dialect(name).render([SYSTEM, *called("Rome")], TOOLS)
    assert in_order(prompt, "How is it there?", "weather", '"Rome"', "sunny in Rome")
    after = [SYSTEM, *called("Rome"), Message("assistant", "It is sunny."), Message("user", "Thanks! And now?")]
    assert in_order(dialect(name).render(after, TOOLS), '"Rome"', "sunny in Rome", "It is sunny.", "Thanks! And now?")


@pytest.mark.parametrize("name", FAMILIES)
def test_several_calls_of_a_turn_are_in_its_prompt_each_with_its_result(name: str) -> None:
    prompt = dialect(name).render([*called("Rome", "Oslo"), Message("user", "Go on.")], TOOLS)
    for text in ('"Rome"', '"Oslo"', "sunny in Rome", "sunny in Oslo", "Go on."):
        assert text in prompt, text
    assert in_order(prompt, '"Rome"', "sunny in Rome", "sunny in Oslo", "Go on.")


def test_a_system_that_a_template_refuses_begins_the_users_first_turn() -> None:
    prompt = dialect("gemma 2").render([SYSTEM, Message("user", "Hello")])
    assert prompt == "<s><start_of_turn>user\nBe brief.\n\nHello<end_of_turn>\n<start_of_turn>model\n"


def test_calls_that_a_template_does_not_know_are_written_as_the_model_was_told_to() -> None:
    prompt = dialect("gemma 2").render(called("Rome", "Oslo"))
    assert (
        '<start_of_turn>model\n[{"name": "weather", "arguments": {"city": "Rome"}}, '
        '{"name": "weather", "arguments": {"city": "Oslo"}}]<end_of_turn>\n'
        "<start_of_turn>user\nResult of weather:\nsunny in Rome\n\nResult of weather:\nsunny in Oslo<end_of_turn>\n"
    ) in prompt


def test_one_call_at_a_time_stands_before_its_result() -> None:
    prompt = dialect("llama 3").render(called("Rome", "Oslo"))
    assert in_order(prompt, '"Rome"', "sunny in Rome", '"Oslo"', "sunny in Oslo")


def test_ids_of_other_servers_become_ids_that_mistral_takes() -> None:
    talk = called("Rome", start="toolu_01A09q90qw90lq917835lq9")
    prompt = dialect("mistral 3").render(talk)
    [number] = {part.split('"')[0] for part in prompt.split('id": "')[1:]}
    assert len(number) == 9 and number.isalnum()
    kept = called("Rome", start="abcdefgh")
    assert "abcdefgh0" in dialect("mistral 3").render(kept)


def test_arguments_are_text_for_templates_that_put_them_into_text() -> None:
    prompt = dialect("deepseek r1").render(called("Rome"))
    assert 'weather\n```json\n{"city": "Rome"}\n```' in prompt
    assert "<｜tool▁output▁begin｜>sunny in Rome<｜tool▁output▁end｜>" in prompt


def test_thinking_of_earlier_turns_is_left_to_the_template() -> None:
    talk = [
        Message("user", "One?"),
        Message("assistant", "Two.", reasoning="Hm, one."),
        *called("Rome")[:1],
        Message("assistant", "", tool_calls=called("Rome")[1].tool_calls, reasoning="I look."),
        called("Rome")[2],
    ]
    prompt = dialect("qwen 3").render(talk)
    assert "Hm, one." not in prompt and "<think>\nI look.\n</think>" in prompt
    off = dialect("qwen 3").render([Message("user", "One?")], options={"enable_thinking": False})
    assert off.endswith("<think>\n\n</think>\n\n")


TALK = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
WITH_TOOLS = "tools: {{ tools | length }} <tool_call>\n" + TALK


def test_a_template_for_tools_beside_the_default_one_is_taken_for_tools(tmp_path: Path) -> None:
    named = [{"name": "default", "template": TALK}, {"name": "tool_use", "template": WITH_TOOLS}]
    both = of_folder(tmp_path, named)
    (tmp_path / "chat_template.jinja").write_text(TALK, encoding="utf-8")
    assert of_folder(tmp_path, named) == TALK, "a file of its own goes before"
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text(WITH_TOOLS, encoding="utf-8")
    assert of_folder(tmp_path, None) == both
    spoken = Dialect(Card("chat", "", 512, rendered=True, template=both))
    assert spoken.render([Message("user", "Hello")]) == "user: Hello\n"
    assert spoken.render([Message("user", "Hello")], TOOLS) == "tools: 1 <tool_call>\nuser: Hello\n"
    assert spoken.tools.name == "hermes"
    assert of_folder(tmp_path / "nowhere", [{"name": "rag", "template": "x"}]) is None
