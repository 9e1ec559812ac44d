"""The default corpus: the same bytes everywhere, and like a text that people wrote."""

import re
from collections import Counter

import numpy as np
import pytest

from harness.base.errors import InputError
from harness.cases.case import load_case, shipped_cases
from harness.cases.data import Corpus
from harness.corpus.documents import generated_documents, read_documents

FROZEN = "437838e55ea11fca10873f0ba42353d9d609d1d532eb6d07d90341e5016c41fd"


def test_it_is_the_same_bytes_on_every_machine() -> None:
    assert generated_documents().sha256 == FROZEN


@pytest.mark.parametrize("name", shipped_cases())
def test_the_shipped_cases_name_it_by_digest(name: str) -> None:
    assert load_case(name).data.corpus == Corpus(kind="generated", sha256=FROZEN)


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
