"""The default corpus: the same bytes everywhere, and like a text that people wrote."""

import re
from collections import Counter
from typing import Any

import numpy as np
import pytest

from harness.base.errors import InputError
from harness.cases.case import load_case, shipped_cases
from harness.cases.data import Corpus
from harness.corpus.documents import generated_documents, read_documents

FROZEN = {
    "generated": "437838e55ea11fca10873f0ba42353d9d609d1d532eb6d07d90341e5016c41fd",
    "generated-english": "41b400864f8d47dbabbf5d07f599374c20ee755fd460e02df22fd443ccc8da03",
}


@pytest.mark.parametrize("kind", FROZEN)
def test_it_is_the_same_bytes_on_every_machine(kind: Any) -> None:
    assert read_documents(Corpus(kind=kind)).sha256 == FROZEN[kind]


@pytest.mark.parametrize("name", [name for name in shipped_cases() if not load_case(name).data.corpus.of_conversations])
def test_the_shipped_cases_name_it_by_digest(name: str) -> None:
    corpus = load_case(name).data.corpus
    assert corpus == Corpus(kind=corpus.kind, sha256=FROZEN[corpus.kind])


def test_without_other_scripts_every_letter_is_english_and_every_other_line_stays() -> None:
    whole, english = (read_documents(Corpus(kind=kind)).texts for kind in ("generated", "generated-english"))
    for text, left in zip(whole, english, strict=True):
        assert left.isascii() and left.split() == [word for word in text.split() if word.isascii()]


def test_no_document_is_like_another() -> None:
    texts = generated_documents().texts
    assert len(set(texts)) == len(texts) > 1000 and min(map(len, texts)) > 300


def test_words_follow_zipfs_law_as_those_of_a_written_text_do() -> None:
    counts = np.array(sorted(Counter(re.findall(r"[a-z]+", " ".join(generated_documents().texts))).values())[::-1])
    ranks = np.arange(1, 401)
    slope = np.polyfit(np.log(ranks), np.log(counts[:400]), 1)[0]
    assert -1.4 < slope < -0.6


def test_the_corpus_of_an_earlier_version_is_refused_with_the_version_that_reads_it() -> None:
    with pytest.raises(InputError, match=r"version 0\.1\.0"):
        read_documents(Corpus(kind="transformers-sources"))
