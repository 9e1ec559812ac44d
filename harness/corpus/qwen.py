"""Qwen3's tokenizer as a Hugging Face directory, made from the vocabulary that Qwen publishes for tiktoken.

The input is `qwen.tiktoken`: 151,643 lines of a token's bytes in base64 and its rank. The output is the tokenizer of
the Qwen3 base models. Any other input, and a directory that is not empty, is an error. No network is needed.

The `tokenizer.json`, `vocab.json` and `merges.txt` are those of Qwen's own repositories, byte for byte.

Source: `tokenizer.json` and `tokenizer_config.json` of Qwen/Qwen3-0.6B-Base.
"""

import base64
import binascii
import importlib.util
import itertools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.base.errors import InputError, MissingPrerequisite
from harness.corpus.fast_bpe import QWEN_SPLIT

VOCABULARY_SIZE = 151_643
MODEL_MAX_LENGTH = 131_072
END_OF_TEXT = "<|endoftext|>"
# In the order of their ids, which follow the vocabulary's.
SPECIAL_TOKENS = (
    END_OF_TEXT, "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
# Matched before a text is split, like the special tokens; but kept when special tokens are omitted from decoded text.
ADDED_TOKENS = (
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
    "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>",
)  # fmt: skip


def find_qwen_vocabulary() -> Path:
    """The path of `qwen.tiktoken` in the package dashscope, which is not imported.

    Raises:
        MissingPrerequisite: dashscope is not installed, or has no such file.
    """
    spec = importlib.util.find_spec("dashscope")
    for directory in (spec and spec.submodule_search_locations) or ():
        vocabulary = Path(directory) / "resources" / "qwen.tiktoken"
        if vocabulary.is_file():
            return vocabulary
    raise MissingPrerequisite(
        "Qwen's vocabulary is not on this machine: the package dashscope ships it. "
        "Install it with: pip install --no-deps dashscope"
    )


def write_qwen_tokenizer(vocabulary: Path, directory: Path) -> None:
    """Writes a directory for `AutoTokenizer.from_pretrained`: complete, or not at all.

    Raises:
        MissingPrerequisite: transformers is not installed.
        InputError: the vocabulary is not Qwen's; the directory is not empty or cannot be written.
    """
    try:
        from transformers import Qwen2TokenizerFast
    except ImportError:
        raise MissingPrerequisite(
            "Writing a tokenizer needs transformers. Install it with: pip install '.[torch]'"
        ) from None
    _check_empty(directory)
    wrapped = Qwen2TokenizerFast(
        tokenizer_object=_tokenizer(read_ranks(vocabulary)),
        unk_token=None,
        bos_token=None,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        model_max_length=MODEL_MAX_LENGTH,
        clean_up_tokenization_spaces=False,
        split_special_tokens=False,
        add_prefix_space=False,
        add_bos_token=False,
        errors="replace",
    )
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{directory.name}.", suffix=".partial", dir=directory.parent) as made:
            # not the directory of tempfile itself, which only its owner can read
            whole = Path(made) / directory.name
            wrapped.save_pretrained(whole)
            whole.replace(directory)
    except OSError as error:
        raise InputError(f"The tokenizer directory {directory} cannot be written: {error.strerror}.") from None


def read_ranks(vocabulary: Path) -> dict[bytes, int]:
    """Each token's bytes with its rank, which is its id; ranks count up from 0.

    Raises:
        InputError: the file cannot be read, has another format, or not the size of Qwen's.
    """
    try:
        lines = vocabulary.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"The vocabulary {vocabulary} cannot be read: {error.strerror}.") from None
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(lines):
        try:
            encoded, rank = line.split(b" ")
            token, found = base64.b64decode(encoded, validate=True), int(rank)
        except (ValueError, binascii.Error):
            raise InputError(
                f"{vocabulary}, line {number + 1}: expected a token in base64, a space and its rank, "
                f"got {line[:40]!r}. Give Qwen's qwen.tiktoken."
            ) from None
        if found != number or token in ranks or not token:
            raise InputError(
                f"{vocabulary}, line {number + 1}: the token {token!r} with rank {found} is empty or repeated, or its "
                f"rank is not {number}. Give Qwen's qwen.tiktoken."
            )
        ranks[token] = found
    missing = [value for value in range(256) if bytes([value]) not in ranks]
    if len(ranks) != VOCABULARY_SIZE or missing:
        raise InputError(
            f"{vocabulary} holds {len(ranks):,} tokens and lacks {len(missing)} of the 256 bytes; Qwen's vocabulary "
            f"has {VOCABULARY_SIZE:,} tokens and all bytes. Give Qwen's qwen.tiktoken."
        )
    return ranks


def _check_empty(directory: Path) -> None:
    try:
        if next(directory.iterdir(), None) is not None:
            raise InputError(f"{directory} is not empty. Choose another directory for the tokenizer.")
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{directory} cannot become the tokenizer's directory: {error.strerror}.") from None


def _tokenizer(ranks: Mapping[bytes, int]) -> Any:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    merges = [merge(token, ranks) for token in ranks if len(token) > 1]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={_visible(token): rank for token, rank in ranks.items()},
            merges=[(_visible(left), _visible(right)) for left, right in merges],
            # neither exists; written as in Qwen's file, so that the files are equal byte for byte
            continuing_subword_prefix="",
            end_of_word_suffix="",
        )
    )
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    # decoding uses no options and the constructor takes none, but Qwen's file states them
    decoder = decoders.ByteLevel()
    decoder.__setstate__(tokenizer.post_processor.__getstate__())
    tokenizer.decoder = decoder
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False) for text in ADDED_TOKENS])
    return tokenizer


def merge(token: bytes, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    """The last two pieces when a token's bytes are merged by rank; their merge gives the token.

    Raises:
        InputError: merging does not reach the token, so the vocabulary is not a byte-level BPE.
    """
    pieces = [token[place : place + 1] for place in range(len(token))]
    while len(pieces) > 2:
        joined = [ranks.get(left + right, len(ranks)) for left, right in itertools.pairwise(pieces)]
        place = joined.index(min(joined))
        if joined[place] == len(ranks):
            raise InputError(f"The token {token!r} of the vocabulary cannot be reached by merging. It is not Qwen's.")
        pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
    left, right = pieces
    return left, right


def _visible(token: bytes) -> str:
    return "".join(map(BYTE_CHARACTERS.__getitem__, token))


def _byte_characters() -> tuple[str, ...]:
    """The character that represents each byte in a byte-level vocabulary.

    Printable characters of Latin-1 represent themselves; the other bytes are, in order, U+0100 and up.
    Source: `bytes_to_unicode` of GPT-2's encoder.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = itertools.count(0x100)
    return tuple(chr(value if value in printable else next(others)) for value in range(256))


BYTE_CHARACTERS = _byte_characters()
