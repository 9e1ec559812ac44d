"""The tokenizer of a case as a directory in its inputs: that of bytes is written, any other is copied, or converted if
it is in the older form of `vocab.json` and `merges.txt`."""

import shutil
from pathlib import Path
from typing import Any

from harness.base.records import write_json
from harness.cases.case import Case
from harness.corpus.tokenizers import ChatByteTokenizer, HuggingFaceTokenizer, TextTokenizer, directory_of

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "vocab.json",
    "merges.txt", "added_tokens.json",
)  # fmt: skip
NEEDED_FILES = ("tokenizer.json", "tokenizer_config.json")  # of a directory that is complete without config.json
# ChatML, as in the Qwen models, for tokenizers that have no template of their own.
CHAT_TEMPLATE = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
FAST, EOD = "PreTrainedTokenizerFast", "<eod>"


def write_tokenizer(case: Case, tokenizer: TextTokenizer, directory: Path) -> None:
    """Writes the files of a case's tokenizer; with those of bytes, ChatML as their chat template."""
    directory.mkdir(parents=True, exist_ok=True)
    if case.data.tokenizer.kind != "bytes":
        with directory_of(case.data.tokenizer) as source:
            if not all((source / name).is_file() for name in NEEDED_FILES) and isinstance(
                tokenizer, HuggingFaceTokenizer
            ):
                tokenizer.save(directory)
                return
            for name in TOKENIZER_FILES:
                if (source / name).is_file():
                    shutil.copyfile(source / name, directory / name)
        return
    names = {tokenizer.eod: EOD}
    if isinstance(tokenizer, ChatByteTokenizer):
        names |= tokenizer.names
    config = {"chat_template": CHAT_TEMPLATE, "clean_up_tokenization_spaces": False, "tokenizer_class": FAST}
    special = {"eos_token": EOD, "pad_token": EOD}
    write_json(directory / "tokenizer.json", byte_tokenizer(names))
    write_json(directory / "tokenizer_config.json", {**config, **special})


def byte_tokenizer(names: dict[int, str]) -> dict[str, Any]:
    """A `tokenizer.json` that maps each UTF-8 byte to its own id: byte-level BPE without merges.

    Args:
        names: the special tokens by id.

    Source: the byte-level alphabet of GPT-2, `bytes_to_unicode` in transformers, models/gpt2/tokenization_gpt2.py.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": id_, "content": name, **flags} for id_, name in names.items()],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": {letters[byte]: byte for byte in range(256)}, "merges": [],
        },
    }  # fmt: skip
