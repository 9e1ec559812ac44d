"""The section of conversations on the page of a case of fine-tuning."""

from pathlib import Path

import numpy as np
import pytest

from harness.cases.case import load_case
from harness.corpus.conversations import draw_chat_tokenizer
from harness.evidence.bundle import Bundle
from harness.report.finetuning import Piece, row_of
from harness.report.token_text import read_token_text
from harness.runs.evaluation import TOKENIZER
from tests.support.bundles import page_of, write_example


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_example(tmp_path_factory.mktemp("tuned"), case=load_case("qwen3-tiny-sft-fp32"))


def test_the_page_marks_what_counts_and_links_to_it(bundle: Bundle) -> None:
    page = page_of(bundle)
    assert '<a href="#conversations">' in page and page.count("<mark>") == 3  # a row each, of three that are shown
    assert "100.0% of the positions: answers, each with its end" in page
    assert "attention and positions" in page and "fine-tuning" in page


def test_a_row_is_text_without_its_padding(tmp_path: Path) -> None:
    case = load_case("qwen3-tiny-sft-fp32")
    draw_chat_tokenizer(case, tmp_path)
    tokens = np.array([257, ord("a"), 258, ord("b"), 258, 256, 256, 256], np.int32)
    row = row_of(1, tokens, np.array([0, 0, 1, 1, 0, 0, 0]), read_token_text(tmp_path / TOKENIZER))
    assert row.pieces == (
        Piece(text="<|im_start|>a<|im_end|>", counts=False),
        Piece(text="b<|im_end|>", counts=True),
        Piece(text="<eod>", counts=False),
    )
    assert row.title == "Row 1: 2 tokens of 6 in the loss, then 2 tokens of padding"
