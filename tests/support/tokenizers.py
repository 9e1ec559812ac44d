"""Small tokenizers trained on real text, and the characters that every engine knows."""

import unicodedata
from pathlib import Path
from typing import Any

import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from harness.corpus.fast_bpe import GPT2_SPLIT, QWEN_SPLIT

SOURCES = sorted(Path(transformers.__file__).parent.glob("*.py"))


def is_known(character: str) -> bool:
    """Whether every version of Unicode since 3.2 knows it: each engine for regular expressions has its own version."""
    return unicodedata.ucd_3_2_0.category(character) not in {"Cn", "Cs"}


def split_by(pattern: str) -> Any:
    if pattern == GPT2_SPLIT:
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def trained(pattern: str = QWEN_SPLIT, form: str | None = None) -> Tokenizer:
    """A small byte-level BPE over the sources, with an added token of each kind."""
    tokenizer = Tokenizer(models.BPE())
    if form is not None:
        tokenizer.normalizer = getattr(normalizers, form)()
    tokenizer.pre_tokenizer = split_by(pattern)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=2000, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([path.read_text("utf-8") for path in SOURCES[:5]], trainer)
    tokenizer.add_special_tokens(["<|endoftext|>", "<bos>"])
    tokenizer.add_tokens([AddedToken("<added>", normalized=True), AddedToken("\u00e1dded", normalized=True)])
    return tokenizer


def template(single: str) -> Any:
    return processors.TemplateProcessing(single=single, special_tokens=[("<bos>", 2001), ("<|endoftext|>", 2000)])
