"""The evaluation shares no text with training, is the same each time, and is an error where too little text is left."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.base.errors import EvidenceError, InputError
from harness.base.records import write_json
from harness.cases.case import Case
from harness.corpus import tokenizer_files
from harness.corpus.batches import draw_batches
from harness.corpus.held_out import CONVERSATIONS, draw_evaluation
from harness.corpus.tokenizer_files import EOD, byte_tokenizer
from harness.runs.evaluation import EVALUATION, TOKENIZER, Evaluation, digest_evaluation, read_evaluation
from tests.support.examples import inference_case

SENTENCE = "Line {n} of the report says that on day {n} snow fell on the hill and was gone by the evening of day {n}."


def corpus(lines: int) -> str:
    """Blocks of their own: each line holds its number."""
    return "\n\n".join(SENTENCE.format(n=n) for n in range(lines)) + "\n"


def case_of(directory: Path, text: str, documents: int = 6, steps: int = 8, **section: Any) -> Case:
    path = directory / "corpus.txt"
    path.write_text(text, encoding="utf-8")
    case = inference_case(documents, texts=4, rows=2, prompts=(3, 9), **section)
    return case.with_changes(
        data={**case.data.model_dump(), "corpus": {"kind": "text", "path": str(path)}, "seq_length": 16},
        training={**case.training.model_dump(), "steps": steps},
    )


def drawn(case: Case, directory: Path) -> Evaluation:
    directory.mkdir()
    draw_evaluation(case, directory)
    return read_evaluation(directory)


def texts_of(evaluation: Evaluation) -> list[str]:
    """Every text of an evaluation; tokens are decoded as bytes."""
    rows = [bytes(token for token in row if token < 256).decode() for row in (*evaluation.rows, *evaluation.prompts)]
    passages = [one.context + one.word for one in evaluation.passages]
    questions = [one.context + ending for one in evaluation.questions for ending in one.endings]
    return [*rows, *evaluation.texts, *passages, *questions]


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return case_of(tmp_path, corpus(60))


def test_the_evaluation_shares_no_text_with_training(case: Case, tmp_path: Path) -> None:
    tokens = draw_batches(case).tokens
    trained = bytes(token for step in tokens for row in step for token in row if token < 256).decode()
    texts = texts_of(drawn(case, tmp_path / "inputs"))
    last = max(n for n in range(60) if f"Line {n} " in trained)
    numbers = {n for n in range(60) for text in texts if f"Line {n} of the report says" in text}
    assert numbers and min(numbers) > last


def test_the_same_case_draws_the_same_evaluation(case: Case, tmp_path: Path) -> None:
    first, again = (drawn(case, tmp_path / name) for name in ("one", "two"))
    assert first == again
    assert digest_evaluation(tmp_path / "one") == digest_evaluation(tmp_path / "two")


def test_another_seed_draws_other_questions(case: Case, tmp_path: Path) -> None:
    other = case.with_changes(initialization={**case.initialization.model_dump(), "seed": 7})
    assert drawn(case, tmp_path / "one").questions != drawn(other, tmp_path / "two").questions


def test_the_evaluation_has_the_sizes_of_the_case(case: Case, tmp_path: Path) -> None:
    found, section = drawn(case, tmp_path / "inputs"), case.inference
    assert section is not None
    assert [len(row) for row in found.rows] == [case.data.seq_length] * section.rows
    assert [len(prompt) for prompt in found.prompts] == list(section.prompts)
    assert (len(found.texts), len(found.passages), len(found.questions)) == (section.texts, *[section.documents] * 2)
    assert found.conversations == CONVERSATIONS
    assert found.text_tokens == sum(len(text.encode()) for text in found.texts)
    assert 0 < found.unigram_nats < 5.6


def test_prompts_are_given_of_every_length_around_a_border_and_of_the_cases_own(tmp_path: Path) -> None:
    case = case_of(tmp_path, corpus(60), borders=(16, 4), decoded_tokens=5)
    found = drawn(case, tmp_path / "inputs")
    assert [len(one.prompt) for one in found.given] == [3, 4, 5, 9, 15, 16, 17]
    assert {len(one.then) for one in found.given} == {5}
    held_out = corpus(60).encode()
    assert all(bytes([*one.prompt, *one.then]) in held_out for one in found.given)


def test_without_a_border_no_prompt_is_given(tmp_path: Path) -> None:
    found = drawn(case_of(tmp_path, corpus(60), borders=()), tmp_path / "inputs")
    assert found.given == () and [*found.fed()][:2] == ["prompt 0", "prompt 1"]


def test_the_tokens_of_each_conversation_are_those_of_its_text(case: Case, tmp_path: Path) -> None:
    found = drawn(case, tmp_path / "inputs")
    texts = [bytes(tokens).decode() for tokens in found.conversation_tokens]
    assert texts[0] == "<|im_start|>user\nWhat is a model?<|im_end|>\n<|im_start|>assistant\n"
    assert [*found.fed()][-3:] == ["conversation 0", "conversation 1", "conversation 2"] and len(texts) == 3


def test_a_conversation_is_no_longer_than_the_positions_of_the_model(case: Case, tmp_path: Path) -> None:
    longest = max(map(len, drawn(case, tmp_path / "all").conversation_tokens))
    short = case.with_changes(
        model={"size": "tiny", "max_position_embeddings": longest},
        inference={**case.inference_section.model_dump(), "max_new_tokens": 16},
    )
    found = drawn(short, tmp_path / "short")
    assert len(found.conversations) == len(found.conversation_tokens) == 2
    assert max(map(len, found.conversation_tokens)) < longest


def test_a_tokenizer_without_a_chat_template_is_an_error(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer_files, "CHAT_TEMPLATE", "{{ messages[0].nothing.at_all }}")
    with pytest.raises(InputError, match="cannot render conversations"):
        drawn(case, tmp_path / "inputs")


def test_an_evaluation_that_was_drawn_earlier_is_read(case: Case, tmp_path: Path) -> None:
    drawn(case, tmp_path / "inputs")
    path = tmp_path / "inputs" / EVALUATION
    content = json.loads(path.read_text())
    for later in ("given", "conversation_tokens"):
        del content[later]
    write_json(path, content)
    found = read_evaluation(tmp_path / "inputs")
    assert (found.given, found.fed()) == (None, {}) and found.conversations == CONVERSATIONS


def test_a_question_has_its_own_ending_among_others(case: Case, tmp_path: Path) -> None:
    for question in drawn(case, tmp_path / "inputs").questions:
        assert len(set(question.endings)) == len(question.endings) == 4
        assert question.context + question.endings[question.right] in corpus(60)
        wrong = [end for n, end in enumerate(question.endings) if n != question.right]
        assert all(question.context + ending not in corpus(60) for ending in wrong)


def test_a_passage_continues_with_its_word(case: Case, tmp_path: Path) -> None:
    for passage in drawn(case, tmp_path / "inputs").passages:
        assert passage.context == passage.context.rstrip() and passage.word.strip().isalpha()
        assert passage.context + passage.word in corpus(60)


@pytest.mark.parametrize(
    ("lines", "changes", "message"),
    [
        (2, {}, "no text is left for the evaluation"),
        (4, {}, "The held-out text has"),
        (60, {"documents": 500}, "passages with a last word, the case needs 500"),
        (60, {"steps": 200}, "no text is left for the evaluation"),
    ],
)
def test_too_little_held_out_text_is_an_error(
    tmp_path: Path, lines: int, changes: dict[str, int], message: str
) -> None:
    case = case_of(tmp_path, corpus(lines), **changes)
    with pytest.raises(InputError, match=message) as error:
        drawn(case, tmp_path / "inputs")
    assert "Use fewer training.steps" in str(error.value)


def test_passages_that_are_all_the_same_are_an_error(tmp_path: Path) -> None:
    case = case_of(tmp_path, corpus(12) + (SENTENCE + "\n\n") * 60)
    with pytest.raises(InputError, match="too few distinct passages"):
        drawn(case, tmp_path / "inputs")


def test_text_that_repeats_training_text_is_not_used(tmp_path: Path) -> None:
    head = SENTENCE.format(n="of the licence")
    blocks = [block for line in corpus(60).split("\n\n") for block in (head, line)]
    texts = texts_of(drawn(case_of(tmp_path, "\n\n".join(blocks)), tmp_path / "inputs"))
    assert texts and head not in texts


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inference": None}, "task 'inference' and the section inference belong together"),
        ({"task": "pretrain"}, "task 'inference' and the section inference belong together"),
        ({"data": {"corpus": {"kind": "megatron", "path": "A"}}}, "an evaluation needs one"),
        ({"data": {"packing": "paragraph"}}, "leaves no text that is not used for training"),
        ({"inference": {"max_new_tokens": 100_000}}, "reach position 100007"),
        ({"parallel": {"data_parallel": 2}}, "an inference case has one rank"),
    ],
)
def test_an_invalid_inference_case_is_an_error(changes: dict[str, Any], message: str) -> None:
    case = inference_case()
    sections = {
        key: {**getattr(case, key).model_dump(), **value} if key in ("data", "inference") and value else value
        for key, value in changes.items()
    }
    with pytest.raises(InputError) as error:
        case.with_changes(**sections)
    assert message in str(error.value)


def test_the_digest_covers_the_evaluation_and_its_tokenizer(case: Case, tmp_path: Path) -> None:
    drawn(case, tmp_path / "inputs")
    before = digest_evaluation(tmp_path / "inputs")
    for name in (EVALUATION, f"{TOKENIZER}/tokenizer.json"):
        path = tmp_path / "inputs" / name
        kept = path.read_bytes()
        path.write_bytes(kept.replace(b"a", b"b", 1))
        assert digest_evaluation(tmp_path / "inputs") != before
        path.write_bytes(kept)
    assert digest_evaluation(tmp_path / "inputs") == before
    (tmp_path / "inputs" / EVALUATION).unlink()
    with pytest.raises(EvidenceError):
        digest_evaluation(tmp_path / "inputs")


def test_in_the_byte_tokenizer_every_byte_is_its_own_id() -> None:
    vocabulary = byte_tokenizer({256: EOD})["model"]["vocab"]
    assert sorted(vocabulary.values()) == list(range(256)) and len(json.dumps(vocabulary)) > 256
    assert all(len(letter) == 1 and not letter.isspace() for letter in vocabulary)


def test_an_ending_longer_than_the_models_positions_is_an_error(tmp_path: Path) -> None:
    """Otherwise lm-eval would stop with an assertion in the middle of a run."""
    case = case_of(tmp_path, corpus(60), max_new_tokens=8)
    short = case.with_changes(model={**case.model.to_hf(), "max_position_embeddings": 20})
    with pytest.raises(InputError, match=r"tokens, such as .*, and the model has 20 positions\. Choose"):
        drawn(short, tmp_path / "inputs")


def test_no_ending_is_mostly_whitespace(tmp_path: Path) -> None:
    """Six words of a table may be two hundred characters long."""
    blocks = corpus(60).split("\n\n")
    blocks[::2] = [block.replace("evening of", " " * 60 + "evening of") for block in blocks[::2]]
    evaluation = drawn(case_of(tmp_path, "\n\n".join(blocks)), tmp_path / "inputs")
    assert max(len(ending) for one in evaluation.questions for ending in one.endings) < 60
