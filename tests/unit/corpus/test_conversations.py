"""Conversations: read from a file, rendered by a chat template, packed into rows, with only the answers counted."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.base.errors import InputError
from harness.cases.case import Case, load_case, parse_case
from harness.cases.data import Corpus
from harness.certify.case_options import with_fields
from harness.corpus.batches import draw_batches
from harness.corpus.conversations import Rendered, packed, read_conversations, rendered
from harness.corpus.tokenizers import ChatByteTokenizer
from qwen3_model.chat import ChatTemplate
from tests.support.examples import shorter

EOD, BEGIN, END = 256, 257, 258
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "2+2?"},
    {"role": "assistant", "content": "4"},
    {"role": "user", "content": "Sure?"},
    {"role": "assistant", "content": "Yes, 4"},
]


def written(directory: Path, *lines: Any) -> Path:
    path = directory / "talks.jsonl"
    path.write_text("\n".join(one if isinstance(one, str) else json.dumps({"messages": one}) for one in lines) + "\n")
    return path


def case(path: Path | None = None, **data: Any) -> Case:
    shipped = load_case("qwen3-tiny-sft-fp32")
    corpus = shipped.data.corpus if path is None else Corpus(kind="conversations", path=str(path))
    few = shorter(shipped, 3, warmup_steps=1, lr_zero_steps=2, gradient_accumulation_steps=1)
    asked = {"corpus": corpus.model_dump(), "global_batch_size": 2, "sweep_vocabulary": False, **data}
    return with_fields(few, {"data": asked})


def answers_of(tokens: np.ndarray, mask: np.ndarray) -> str:
    return ChatByteTokenizer().decode(tokens[1:][mask > 0])


def test_only_answers_count_each_with_its_end(tmp_path: Path) -> None:
    batches = draw_batches(case(written(tmp_path, TALK), packing="paragraph"))
    for tokens, mask in zip(batches.tokens[0], batches.loss_mask[0], strict=True):
        assert answers_of(tokens, mask) == "4<|im_end|>Yes, 4<|im_end|>"
        assert (tokens[1:][mask > 0] == END).sum() == 2


def test_an_answer_that_repeats_the_question_is_found_at_its_own_place(tmp_path: Path) -> None:
    echo = [{"role": "user", "content": "4"}, {"role": "assistant", "content": "4"}]
    batches = draw_batches(case(written(tmp_path, echo), packing="paragraph"))
    text = "<|im_start|>user\n4<|im_end|>\n<|im_start|>assistant\n"
    place = len(ChatByteTokenizer().encode([text])[0])
    assert np.flatnonzero(batches.loss_mask[0, 0]).tolist() == [place - 1, place]


def test_a_row_holds_whole_conversations_each_with_its_end(tmp_path: Path) -> None:
    short = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    batches = draw_batches(case(written(tmp_path, short)))
    length = len(ChatByteTokenizer().encode(["<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"])[0])
    row = batches.tokens[0, 0]
    ends = np.flatnonzero(row == EOD)[: len(row) // (length + 1)]
    assert len(ends) > 1 and np.all(np.diff(ends) == length + 1)
    assert np.all(row[ends[:-1] + 1] == BEGIN) and np.all(row[(len(row) // (length + 1)) * (length + 1) :] == EOD)
    alone = draw_batches(case(written(tmp_path, short), packing="paragraph")).tokens[0, 0]
    assert np.flatnonzero(alone == BEGIN).tolist() == np.flatnonzero(row[:length] == BEGIN).tolist()


def test_a_conversation_longer_than_a_row_is_cut_and_the_next_row_begins_another() -> None:
    long = Rendered(ids=np.arange(1, 10, dtype=np.int32), answers=np.ones(9, np.bool_))
    other = Rendered(ids=np.array([20, 21], np.int32), answers=np.array([False, True]))
    tokens, counts, epochs = packed([long, other], EOD, 3, 5, several=True)
    assert tokens.tolist() == [[1, 2, 3, 4, 5, 6], [20, 21, EOD, EOD, EOD, EOD], [1, 2, 3, 4, 5, 6]]
    assert counts.tolist() == [[True] * 5, [True] + [False] * 4, [True] * 5]
    assert epochs == 2


def test_an_end_that_occurs_inside_a_conversation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="The token 258, which ends a conversation, occurs inside of one"):
        draw_batches(case(written(tmp_path, TALK), eod=END))


def test_a_template_that_changes_earlier_messages_is_refused(tmp_path: Path) -> None:
    counting = "{{ messages | length }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    template = ChatTemplate(templates={"default": counting}, special_tokens={})
    found = read_conversations(Corpus(kind="conversations", path=str(written(tmp_path, TALK))))
    with pytest.raises(InputError, match=r"Conversation 1 of talks\.jsonl: message 3 is not found"):
        rendered(found, ChatByteTokenizer(), template)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{}", 'expected {"messages"'),
        ("no json", 'expected {"messages"'),
        ('{"messages": [{"role": "user"}]}', 'expected {"messages"'),
        ('{"messages": [{"role": "assistant", "content": 4}]}', 'expected {"messages"'),
        ('{"messages": []}', 'expected {"messages"'),
        ('{"messages": [{"role": "user", "content": "x"}]}', "nothing would count"),
    ],
)
def test_a_line_that_is_no_conversation_is_named(tmp_path: Path, line: str, words: str) -> None:
    path = written(tmp_path, TALK, line)
    with pytest.raises(InputError) as refused:
        read_conversations(Corpus(kind="conversations", path=str(path)))
    assert f"{path}, line 2:" in str(refused.value) and words in str(refused.value)


def test_an_empty_file_and_one_that_is_not_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match="holds no conversation"):
        read_conversations(Corpus(kind="conversations", path=str(tmp_path / "empty.jsonl")))
    with pytest.raises(InputError, match="cannot be read"):
        read_conversations(Corpus(kind="conversations", path=str(tmp_path / "none.jsonl")))


def test_the_generated_conversations_are_those_that_the_shipped_case_names() -> None:
    for name in ("qwen3-tiny-sft-fp32", "qwen3-tiny-sft-positions-fp32"):
        shipped = load_case(name)
        assert read_conversations(shipped.data.corpus).sha256 == shipped.data.corpus.sha256


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task": "pretrain"}, "a case of task 'finetune', and no other, reads conversations"),
        ({"parallel": {"data_parallel": 2}}, "reset_attention_mask and reset_position_ids are for one rank"),
        ({"data": {"tokenizer": {"kind": "qwen"}}}, "reset_attention_mask and reset_position_ids need eod"),
        ({"data": {"cut_vocabulary": True}}, "not for conversations"),
    ],
)
def test_a_case_that_cannot_be_fine_tuned_is_refused(change: dict[str, Any], words: str) -> None:
    content = load_case("qwen3-tiny-sft-fp32").model_dump()
    changed = {key: {**content[key], **one} if key == "data" else one for key, one in change.items()}
    with pytest.raises(InputError) as refused:
        parse_case({**content, **changed}, "mine.yaml")
    assert words in str(refused.value)


def test_what_ends_a_document_is_what_the_tokenizer_says() -> None:
    pretrained = load_case("qwen3-tiny-fp32")
    asked = {"reset_position_ids": True, "eod": 5}
    with pytest.raises(InputError, match=r"data\.eod is 5, and .* has documents that end with 256"):
        draw_batches(pretrained.with_changes(data={**pretrained.data.model_dump(), **asked}))


def test_bytes_with_chatml_are_decoded_as_they_were_encoded() -> None:
    tokenizer, text = ChatByteTokenizer(), "<|im_start|>user\nä?<|im_end|>\n<|im_start|>"
    (ids,) = tokenizer.encode([text])
    assert tokenizer.decode(ids) == text and ids[0] == BEGIN and ids.max() == END
    assert tokenizer.decode(np.append(ids, EOD)) == text + "<eod>"
    assert len(tokenizer.encode([""])[0]) == 0


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('"content": "4"', '"content": "4", "content": "5"', "'content' is stated twice"),
        ('"content": "4"', r'"content": "\ud83d"', "half of a surrogate pair"),
        ('"role": "user"', r'"role": "\udc00"', "half of a surrogate pair"),
    ],
)
def test_a_conversation_that_cannot_be_read_in_one_way_is_named(tmp_path: Path, old: str, new: str, why: str) -> None:
    path = written(tmp_path, TALK, json.dumps({"messages": TALK}).replace(old, new, 1))
    with pytest.raises(InputError, match=f"talks.jsonl, line 2: .*{why}"):
        read_conversations(Corpus(kind="conversations", path=str(path)))
