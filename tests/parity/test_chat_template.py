"""Conversations as text: the same characters as `apply_chat_template` of transformers, and refusals in words."""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from qwen3_model.chat import ChatTemplate, ChatTemplateError
from tests.support.tokenizers import trained

# What Qwen3's does, in words of its own: system first, tools as JSON lines, calls and answers of tools in tags, what
# was thought before the last question left out, and an empty thought where thinking is off.
QWEN = """\
{%- macro turn(role, text) %}
    {{- '<|im_start|>' ~ role ~ '\\n' ~ text ~ '<|im_end|>\\n' }}
{%- endmacro %}
{%- set opening = messages[0].content if messages[0].role == 'system' else '' %}
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if opening %}
        {{- opening + '\\n\\n' }}
    {%- endif %}
    {{- "# Tools\\n\\nFunctions that may be called:\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- '\\n</tools>\\n\\nCall one as <tool_call>\\n{"name": ..., "arguments": ...}\\n</tool_call><|im_end|>\\n' }}
{%- elif opening %}
    {{- turn('system', opening) }}
{%- endif %}
{%- set found = namespace(last=messages|length - 1, open=true) %}
{%- for message in messages[::-1] %}
    {%- set asks = message.role == "user" and message.content is string %}
    {%- if found.open and asks and not message.content.startswith('<tool_response>') %}
        {%- set found.open = false %}
        {%- set found.last = messages|length - 1 - loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'system' and loop.first %}
        {%- continue %}
    {%- endif %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role in ['user', 'system'] %}
        {{- turn(message.role, content) }}
    {%- elif message.role == 'assistant' %}
        {%- set thought = '' %}
        {%- if message.reasoning_content is string %}
            {%- set thought = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if loop.index0 > found.last and (loop.last or thought) %}
            {{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' }}
        {%- endif %}
        {{- content.lstrip('\\n') }}
        {%- for call in message.tool_calls or [] %}
            {%- if not loop.first or content %}
                {{- '\\n' }}
            {%- endif %}
            {%- set call = call.function if call.function else call %}
            {{- '<tool_call>\\n{"name": "' ~ call.name ~ '", "arguments": ' }}
            {{- call.arguments if call.arguments is string else call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' + content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- else %}
        {{- raise_exception('a turn of ' ~ message.role ~ ' is not known') }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""
# Blocks without signs for white space, functions of the clock, JSON with options, roles of tokens, a marked answer.
PLAIN = """\
{{ bos_token }}{{ pad_token }}
  {% for message in messages %}
    {% if message.role == 'stop' %}
      {% break %}
    {% endif %}
[{{ message.role }}] {% generation %}{{ message.content | trim }}{% endgeneration %}

  {% endfor %}
{{ {'b': 'é<&>', 'a': [1, none, true]} | tojson(indent=2, sort_keys=true) }}
{{ {'x': 1} | tojson(separators=(',', ':')) }} {{ {'x': 'é'} | tojson(ensure_ascii=true) }}
{{ strftime_now('%Y') }} {{ tools is none }} {{ documents is none }} {{ unheard_of }} {{ additional_special_tokens }}
"""

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": 'Wetter für "heute" <jetzt> & 天气',
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    },
    {"type": "function", "function": {"name": "clock", "parameters": {}}},
]


def said(*turns: str, system: str | None = None) -> list[dict[str, Any]]:
    """A conversation that a user begins."""
    opening = [{"role": "system", "content": system}] if system is not None else []
    roles = ("user", "assistant")
    return opening + [{"role": roles[n % 2], "content": text} for n, text in enumerate(turns)]


CALLS: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "How is it in 北京 and Köln?"},
    {
        "role": "assistant",
        "content": "<think>\nTwo cities.\n</think>\n\nI look.",
        "tool_calls": [
            {"type": "function", "function": {"name": "weather", "arguments": {"city": "北京"}}},
            {"name": "weather", "arguments": '{"city": "Köln"}'},
        ],
    },
    {"role": "tool", "content": "sunny"},
    {"role": "tool", "content": "rain"},
    {"role": "assistant", "content": "Sun, and rain.", "reasoning_content": "Now I know."},
]
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "a question": said("Hi!"),
    "a system message": said("Hi!", system="You are terse."),
    "an empty system message": said("Hi!", system=""),
    "several turns": said("1+1?", "2", "and 2+2?", "4", "thanks", system="Count."),
    "ends with an answer": said("1+1?", "2"),
    "thoughts before the last question": said("1+1?", "<think>\nhm\n</think>\n\n2", "sure?"),
    "thoughts after the last question": said("1+1?", "<think>\nhm\n</think>\n\n2"),
    "white space and markup": said("  a\n\n{{ b }} {% c %} <|im_end|> &amp; \t", "\n\nd\n"),
    "tools are called": CALLS,
    "a tool has the last word": CALLS[:5],
    "a later system message": [*said("Hi!", "Ho!"), {"role": "system", "content": "Stop."}],
    "no text": [{"role": "user", "content": None}, {"role": "assistant", "content": ""}],
}


def write(directory: Path, template: Any, **fields: Any) -> Path:
    """A tokenizer directory whose configuration holds this template and these fields."""
    PreTrainedTokenizerFast(tokenizer_object=trained()).save_pretrained(directory)
    file = directory / "tokenizer_config.json"
    config = json.loads(file.read_text("utf-8")) | {"chat_template": template} | fields
    file.write_text(json.dumps(config), "utf-8")
    return directory


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("qwen3"), QWEN, eos_token="<|im_end|>")


@pytest.fixture(scope="module")
def theirs(qwen3: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(qwen3, local_files_only=True)


@pytest.mark.parametrize("options", [
    {},
    {"add_generation_prompt": True},
    {"add_generation_prompt": True, "enable_thinking": False},
    {"add_generation_prompt": True, "enable_thinking": True, "tools": TOOLS},
    {"tools": TOOLS},
    {"tools": []},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_text_is_that_of_transformers(
    qwen3: Path, theirs: PreTrainedTokenizerBase, name: str, options: Mapping[str, Any]
) -> None:
    expected = theirs.apply_chat_template(CONVERSATIONS[name], tokenize=False, **options)
    assert ChatTemplate.from_directory(qwen3).render(CONVERSATIONS[name], **options) == expected


def test_a_question_reads_as_it_should(qwen3: Path) -> None:
    text = ChatTemplate.from_directory(qwen3).render(
        CONVERSATIONS["a system message"], add_generation_prompt=True, enable_thinking=False
    )
    assert text == (
        "<|im_start|>system\nYou are terse.<|im_end|>\n<|im_start|>user\nHi!<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )


def test_signs_filters_functions_and_special_tokens_are_those_of_transformers(tmp_path: Path) -> None:
    write(
        tmp_path, PLAIN, bos_token={"content": "<bos>", "__type": "AddedToken"}, pad_token="<|endoftext|>",
        additional_special_tokens=["<added>"],
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    messages = [*said(" one ", "two\n"), {"role": "stop", "content": ""}, {"role": "user", "content": "unseen"}]
    found = ChatTemplate.from_directory(tmp_path).render(messages)
    assert found == tokenizer.apply_chat_template(messages, tokenize=False)
    assert found.startswith("<bos><|endoftext|>\n[user] one\n[assistant] two\n") and "unseen" not in found
    assert f"\n{datetime.now():%Y} True True  ['<added>']" in found


def test_of_several_templates_tools_have_their_own_and_a_name_says_which(tmp_path: Path) -> None:
    named = [
        {"name": name, "template": f"{name}: {{{{ messages[0].content }}}}"} for name in ("default", "tool_use", "x")
    ]
    write(tmp_path, named)
    ours, tokenizer = ChatTemplate.from_directory(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    for tools in (None, [], TOOLS):
        assert ours.render(said("Hi"), tools=tools) == tokenizer.apply_chat_template(
            said("Hi"), tokenize=False, tools=tools
        )
    assert ours.render(said("Hi"), tools=TOOLS) == "tool_use: Hi"
    assert ours.render(said("Hi"), tools=TOOLS, name="x") == "x: Hi"
    with pytest.raises(ChatTemplateError, match="there is no chat template 'y' among default, tool_use, x"):
        ours.render(said("Hi"), name="y")


def test_files_of_templates_go_before_the_configuration(tmp_path: Path) -> None:
    write(tmp_path, "configured")
    (tmp_path / "chat_template.jinja").write_text("a file, ä: {{ messages[0].content }}", "utf-8")
    ours, tokenizer = ChatTemplate.from_directory(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert ours.render(said("Hi")) == tokenizer.apply_chat_template(said("Hi"), tokenize=False) == "a file, ä: Hi"
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("with tools", "utf-8")
    ours, tokenizer = ChatTemplate.from_directory(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    for tools in (None, TOOLS):
        assert ours.render(said("Hi"), tools=tools) == tokenizer.apply_chat_template(
            said("Hi"), tokenize=False, tools=tools
        )


def test_special_tokens_of_an_older_directory_are_read_from_their_own_file(tmp_path: Path) -> None:
    write(tmp_path, "{{ bos_token }}{{ eos_token }}", bos_token="<other>")
    file = tmp_path / "tokenizer_config.json"
    config = json.loads(file.read_text("utf-8"))
    del config["added_tokens_decoder"]
    file.write_text(json.dumps(config), "utf-8")
    stated = {"bos_token": {"content": "<bos>", "lstrip": False, "normalized": False}, "eos_token": "<|endoftext|>"}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(stated), "utf-8")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    found = ChatTemplate.from_directory(tmp_path).render(said("Hi"))
    assert found == tokenizer.apply_chat_template(said("Hi"), tokenize=False) == "<bos><|endoftext|>"


def test_a_directory_without_a_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ChatTemplateError, match=r"has no chat template: neither chat_template\.jinja nor chat_template"
    ):
        ChatTemplate.from_directory(tmp_path)
    write(tmp_path, None)
    with pytest.raises(ChatTemplateError, match="has no chat template"):
        ChatTemplate.from_directory(tmp_path)


@pytest.mark.parametrize(
    "wrong", [7, [], [{"name": "default"}], [{"name": "default", "template": 7}], {"default": "x"}]
)
def test_a_template_that_is_no_text_is_refused(tmp_path: Path, wrong: Any) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": wrong}), "utf-8")
    with pytest.raises(ChatTemplateError, match="chat_template is neither a text nor a list of named ones"):
        ChatTemplate.from_directory(tmp_path)


@pytest.mark.parametrize(("content", "said"), [("{", "cannot be read"), ("[]", "expected a JSON object, got list")])
def test_a_configuration_that_is_none_is_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "tokenizer_config.json").write_text(content, "utf-8")
    with pytest.raises(ChatTemplateError, match=said):
        ChatTemplate.from_directory(tmp_path)


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ raise_exception('Only user and assistant.') }}", "Only user and assistant"),
        ("{{ messages[0].content + none }}", "concatenate"),
        ("{{ messages[0].unknown.further }}", "no attribute 'unknown'"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ ().__class__.__mro__ }}", "unsafe"),
    ],
)
def test_what_a_template_refuses_is_one_error_that_says_why(template: str, why: str) -> None:
    ours = ChatTemplate(templates={"default": template}, special_tokens={})
    with pytest.raises(ChatTemplateError, match=f"the chat template rejects the conversation: .*{why}"):
        ours.render(said("Hi"))


@pytest.mark.parametrize(
    ("template", "why"),
    [("\n{% for %}", "line 2: Expected an expression"), ("{{ messages | unheard_of }}", "line 1: No filter named")],
)
def test_a_broken_template_is_refused_with_its_line(template: str, why: str) -> None:
    ours = ChatTemplate(templates={"default": template}, special_tokens={})
    with pytest.raises(ChatTemplateError, match=f"the chat template is broken at {why}"):
        ours.render(said("Hi"))


def test_a_role_that_is_not_known_is_refused(qwen3: Path) -> None:
    with pytest.raises(ChatTemplateError, match="a turn of critic is not known"):
        ChatTemplate.from_directory(qwen3).render([*said("Hi"), {"role": "critic", "content": "No."}])


def test_a_conversation_without_messages_is_refused(qwen3: Path) -> None:
    with pytest.raises(ChatTemplateError, match="needs a message"):
        ChatTemplate.from_directory(qwen3).render([])
