"""A conversation as the text that a model was trained on: the chat template of a Hugging Face tokenizer directory.

Takes messages and gives text, as `apply_chat_template` of transformers does with `tokenize=False`: the same sandbox,
the same filters and functions, the same choice where a directory has several templates. Needs neither transformers nor
a tokenizer. A missing template and a conversation that the template rejects are one error, `ChatTemplateError`.

Source: transformers 4.57.1, `utils/chat_template_utils.py` and `tokenization_utils_base.py`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, Template, TemplateError, TemplateSyntaxError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import CallBlock, Node
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

CONFIG_FILE = "tokenizer_config.json"
LEGACY_TOKENS_FILE = "special_tokens_map.json"
TEMPLATE_FILE = "chat_template.jinja"
NAMED_TEMPLATES = "additional_chat_templates"
SPECIAL_TOKENS = (
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
    "additional_special_tokens",
)  # fmt: skip
# Errors that a template raises on messages it was not written for.
REFUSALS = (TemplateError, TypeError, ValueError, ArithmeticError, AttributeError)

Message = Mapping[str, Any]


class ChatTemplateError(ValueError):
    """There is no template, or it rejects the messages; the error text states which and why."""


@dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """The templates of a tokenizer by name, and its special tokens, which templates can use by their roles.

    A directory with a single template has it as `default`.
    """

    templates: Mapping[str, str]
    special_tokens: Mapping[str, Any]

    @classmethod
    def from_directory(cls, directory: str | Path) -> "ChatTemplate":
        """The templates of a directory: its `.jinja` files, else what `tokenizer_config.json` holds.

        Special tokens are those that the files state; a tokenizer class of transformers may define more.

        Raises:
            ChatTemplateError: there is no template, or a file cannot be read.
        """
        directory = Path(directory)
        config = _read_json(directory / CONFIG_FILE)
        templates = dict(_template_files(directory)) or _templates_of(config, directory)
        if not templates:
            raise ChatTemplateError(
                f"{directory} has no chat template: neither {TEMPLATE_FILE} nor chat_template in {CONFIG_FILE}"
            )
        if "added_tokens_decoder" not in config:
            config = config | _read_json(directory / LEGACY_TOKENS_FILE)
        return cls(templates=templates, special_tokens=_special_tokens(config))

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = False,
        name: str | None = None,
        **values: Any,
    ) -> str:
        """The text of a conversation.

        Args:
            messages: Each with `role`, `content` and any other field that the template reads.
            tools: JSON schemas of the functions that the model may call.
            documents: Documents for retrieval.
            add_generation_prompt: Whether the text ends with the start of an assistant message.
            name: Which of several templates; without it `tool_use` where there are tools, else `default`.
            **values: Further variables of the template, such as `enable_thinking`; they override special tokens.

        Raises:
            ChatTemplateError: there are no messages, no such template, it is broken, or it rejects the messages.
        """
        if not messages:
            raise ChatTemplateError("a conversation needs a message")
        values = {**self.special_tokens, **values}
        template = _compiled(self._choose(name, tools is not None))
        try:
            return template.render(
                messages=messages,
                tools=tools,
                documents=documents,
                add_generation_prompt=add_generation_prompt,
                **values,
            )
        except REFUSALS as error:
            raise ChatTemplateError(f"the chat template rejects the conversation: {error}") from error

    def _choose(self, name: str | None, with_tools: bool) -> str:
        names = [name] if name is not None else ["tool_use", "default"] if with_tools else ["default"]
        for one in names:
            if one in self.templates:
                return self.templates[one]
        raise ChatTemplateError(f"there is no chat template {names[-1]!r} among {', '.join(sorted(self.templates))}")


def _read_json(path: Path) -> dict[str, Any]:
    """The fields of a file; none where there is no file."""
    if not path.is_file():
        return {}
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ChatTemplateError(f"{path} cannot be read: {error}") from error
    if not isinstance(fields, dict):
        raise ChatTemplateError(f"{path}: expected a JSON object, got {type(fields).__name__}")
    return fields


def _template_files(directory: Path) -> Iterator[tuple[str, str]]:
    if (directory / TEMPLATE_FILE).is_file():
        yield "default", _read(directory / TEMPLATE_FILE)
    for path in sorted((directory / NAMED_TEMPLATES).glob("*.jinja")):
        yield path.stem, _read(path)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ChatTemplateError(f"{path} cannot be read: {error}") from error


def _templates_of(config: Mapping[str, Any], directory: Path) -> dict[str, str]:
    """The `chat_template` of a configuration: a text, or a list of names and texts."""
    found = config.get("chat_template")
    if found is None:
        return {}
    if isinstance(found, str):
        return {"default": found}
    try:
        named = {one["name"]: one["template"] for one in found}
    except (TypeError, KeyError):
        named = {}
    if not named or not all(isinstance(text, str) for pair in named.items() for text in pair):
        raise ChatTemplateError(f"{directory / CONFIG_FILE}: chat_template is neither a text nor a list of named ones")
    return named


def _special_tokens(config: Mapping[str, Any]) -> dict[str, Any]:
    """Each stated token as its text; an entry is a text, a record with `content`, or a list of either."""
    return {role: _text(config[role]) for role in SPECIAL_TOKENS if config.get(role)}


def _text(token: Any) -> Any:
    if isinstance(token, list):
        return [_text(one) for one in token]
    return token["content"] if isinstance(token, dict) else token


class Generation(Extension):
    """`{% generation %} ... {% endgeneration %}` marks the model's own text, which is rendered unchanged."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.tags = {"generation"}

    def parse(self, parser: Parser) -> Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return CallBlock(self.call_method("content"), [], [], body).set_lineno(line)

    def content(self, caller: Macro) -> str:
        return str(caller())


@lru_cache
def _compiled(template: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _raise, "strftime_now": _now}
    try:
        return environment.from_string(template)
    except TemplateSyntaxError as error:
        raise ChatTemplateError(f"the chat template is broken at line {error.lineno}: {error.message}") from error


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja2's own filter escapes what is special in HTML
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> None:
    raise TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)
