"""The inputs of an inference case, drawn from the part of a corpus that its weights were not trained on.

They are token rows, prompts, texts, passages without their last word, and passages with several endings, one of them
right. A corpus with too little text left is an error.
"""

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.base.errors import InputError
from harness.base.records import write_json
from harness.cases.case import Case
from harness.cases.sections import Inference
from harness.corpus.documents import read_documents
from harness.corpus.tokenizer_files import write_tokenizer
from harness.corpus.tokenizers import TextTokenizer, load_tokenizer
from harness.runs.evaluation import EVALUATION, TOKENIZER, Evaluation, GivenPrompt, Passage, Question
from harness.runs.inputs import seeded
from qwen3_model.chat import ChatTemplate, ChatTemplateError

WORD = re.compile(r"\S+")
BLOCK = re.compile(r"\n\s*\n")
LONGEST, SHORTEST = 400, 120  # characters of a text
CONTEXT, LONGEST_ENDING = 200, 56  # characters of a passage before its last word or ending: 256 tokens of single bytes
CONTEXT_WORDS, ENDING_WORDS, ENDINGS = 8, 6, 4
CONVERSATIONS: tuple[tuple[dict[str, str], ...], ...] = (
    ({"role": "user", "content": "What is a model?"},),
    (
        {"role": "system", "content": "Answer in one word."},
        {"role": "user", "content": "Is water wet?"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "  And  ice?\n"},
    ),
    ({"role": "user", "content": '你好，<b>世界</b> & "quotes"\n\n```x = 1```'},),
)


def draw_evaluation(case: Case, directory: Path) -> None:
    """Draws a case's evaluation and writes it, with its tokenizer, into a directory of inputs.

    Raises:
        InputError: corpus or tokenizer cannot be used, or too little of the corpus is left.
    """
    tokenizer = load_tokenizer(case.data.tokenizer)
    trained, texts = _split(case, tokenizer)
    stream = np.concatenate([part for one in tokenizer.encode(texts) for part in (one, np.array([tokenizer.eod]))])
    if int(stream.max()) >= case.model.vocab_size:
        raise InputError(
            f"The corpus holds the token id {int(stream.max())}, outside the model's vocabulary of "
            f"{case.model.vocab_size}. Choose a case with a larger model.vocab_size."
        )
    write_tokenizer(case, tokenizer, directory / TOKENIZER)
    conversations = dict(_rendered(directory / TOKENIZER, tokenizer, case.model.max_position_embeddings))
    write_json(directory / EVALUATION, _evaluation(case, trained, texts, stream, tokenizer, conversations))


def _split(case: Case, tokenizer: TextTokenizer) -> tuple[str, list[str]]:
    """The text that training reads, up to the end of its last document if others follow; and the held-out documents, or
    the held-out end of the only one."""
    documents = read_documents(case.data.corpus)
    texts, rows = list(documents.texts), case.training.steps * case.data.global_batch_size
    if not case.trains_weights:
        return "", texts
    used = rows * case.data.seq_length + 1
    ends = np.cumsum([len(ids) + 1 for ids in tokenizer.encode(texts)])
    if used > ends[-1]:
        raise InputError(
            f"{documents.description} has {int(ends[-1])} tokens, and training uses {used}: no text is left for the "
            "evaluation. Use fewer training.steps, or a longer corpus."
        )
    first = int(np.searchsorted(ends, used)) + 1
    if texts[first:]:
        return "\n".join(texts[:first]), texts[first:]
    # A token has at least one character, except for the bytes of a longer character; those make the rest shorter.
    tokens = int(ends[-1]) - used
    rest = texts[-1][len(texts[-1]) - tokens :] if tokens else ""
    if not rest.strip():
        raise InputError(
            f"{documents.description}: no text is left for the evaluation. "
            "Use fewer training.steps, or a longer corpus."
        )
    return "\n".join([*texts[:-1], texts[-1][: len(texts[-1]) - tokens]]), [rest]


def _evaluation(
    case: Case,
    trained: str,
    texts: Sequence[str],
    stream: npt.NDArray[Any],
    tokenizer: TextTokenizer,
    conversations: Mapping[int, tuple[int, ...]],
) -> Evaluation:
    """Text that also occurs word for word in the training text, such as the header of a licence, is not used."""
    section = case.inference_section
    blocks = [block for text in texts for block in _blocks(text)]
    pieces = [piece for piece in _pieces(blocks) if piece not in trained]
    passages = [one for one in _passages(blocks) if one.context + one.word not in trained]
    halves = [(context, ending) for context, ending in _halves(blocks) if context + ending not in trained]
    random = seeded(f"{case.initialization.seed}/questions")
    chosen = _spread(pieces, section.texts, "texts")
    ids = tokenizer.encode(chosen)
    last_words = _spread(passages, section.documents, "passages with a last word")
    questions = tuple(_questions(_spread(halves, section.documents, "passages with an ending"), random))
    scored = [one.word for one in last_words] + [ending for one in questions for ending in one.endings]
    _check_lengths(scored, case.model.max_position_embeddings, tokenizer)
    return Evaluation(
        rows=_rows(stream, tokenizer.encode([trained])[0], section.rows, case.data.seq_length),
        prompts=tuple(_slices(stream, section.prompts)),
        stop_token=Counter(stream.tolist()).most_common(1)[0][0],
        texts=tuple(chosen),
        passages=tuple(last_words),
        questions=questions,
        conversations=tuple(CONVERSATIONS[number] for number in conversations),
        text_tokens=sum(map(len, ids)),
        unigram_nats=_entropy(ids),
        given=tuple(_given(stream, section)),
        conversation_tokens=tuple(conversations.values()),
    )


def _blocks(text: str) -> Iterator[str]:
    yield from (block.strip("\n") for block in BLOCK.split(text) if block.strip())


def _pieces(blocks: Sequence[str]) -> Iterator[str]:
    """Texts made of adjacent blocks, each cut at the longest length."""
    text = ""
    for block in blocks:
        text = f"{text}\n\n{block}" if text else block
        if len(text) >= SHORTEST:
            yield text[:LONGEST]
            text = ""


def _passages(blocks: Sequence[str]) -> Iterator[Passage]:
    for block in blocks:
        words = list(WORD.finditer(block))[CONTEXT_WORDS:]
        last = next((match for match in reversed(words) if match.group().isalpha() and len(match.group()) > 2), None)
        if last is not None:
            context = block[: last.start()]
            bare = context.rstrip()
            yield Passage(context=bare[-CONTEXT:], word=context[len(bare) :] + last.group())


def _halves(blocks: Sequence[str]) -> Iterator[tuple[str, str]]:
    for block in blocks:
        words = list(WORD.finditer(block))
        if len(words) >= CONTEXT_WORDS + ENDING_WORDS:
            begin, end = words[-ENDING_WORDS - 1].end(), words[-1].end()
            if end - begin <= LONGEST_ENDING:
                yield block[:begin][-CONTEXT:], block[begin:end]


def _questions(halves: Sequence[tuple[str, str]], random: np.random.RandomState) -> Iterator[Question]:
    """Each passage with its own ending and three different endings of others."""
    for index, (context, own) in enumerate(halves):
        others = [halves[other][1] for other in random.permutation(len(halves)) if other != index]
        wrong = list(dict.fromkeys(ending for ending in others if ending != own))[: ENDINGS - 1]
        if len(wrong) < ENDINGS - 1:
            raise InputError("The corpus has too few distinct passages for questions. Use a longer corpus.")
        right = int(random.randint(ENDINGS))
        yield Question(context=context, endings=(*wrong[:right], own, *wrong[right:]), right=right)


def _check_lengths(scored: Sequence[str], positions: int, tokenizer: TextTokenizer) -> None:
    """A scored word or ending must fit whole into the model's positions; its context may be truncated."""
    tokens, longest = max((len(ids), text) for ids, text in zip(tokenizer.encode(scored), scored, strict=True))
    if tokens > positions:
        raise InputError(
            f"The held-out text has a word or an ending of {tokens} tokens, such as {longest!r}, and the model has "
            f"{positions} positions. Choose a larger model.max_position_embeddings."
        )


def _spread(found: Sequence[Any], count: int, what: str) -> list[Any]:
    """`count` of them, spread evenly over the held-out text."""
    if len(found) < count:
        raise InputError(
            f"The held-out text has {len(found)} {what}, the case needs {count}. Use fewer training.steps, fewer "
            "inference.texts or inference.documents, or a longer corpus."
        )
    return [found[index * len(found) // count] for index in range(count)]


def _rows(stream: npt.NDArray[Any], trained: npt.NDArray[Any], rows: int, length: int) -> tuple[tuple[int, ...], ...]:
    """The first rows of the held-out tokens that do not occur in the training tokens."""
    read = np.asarray(trained, np.int32).tobytes()
    cut = np.asarray(stream[: len(stream) // length * length], np.int32).reshape(-1, length)
    found = tuple(itertools.islice((tuple(map(int, row)) for row in cut if row.tobytes() not in read), rows))
    if len(found) < rows:
        raise InputError(f"The held-out text has {len(found)} rows of {length} tokens, the case needs {rows}.")
    return found


def _slices(stream: npt.NDArray[Any], lengths: Sequence[int]) -> Iterator[tuple[int, ...]]:
    for index, length in enumerate(lengths):
        begin = index * len(stream) // len(lengths)
        yield tuple(map(int, stream[begin : begin + length]))


def _given(stream: npt.NDArray[Any], section: Inference) -> Iterator[GivenPrompt]:
    for row in _slices(stream, [length + section.decoded_tokens for length in section.given_lengths]):
        yield GivenPrompt(prompt=row[: -section.decoded_tokens], then=row[-section.decoded_tokens :])


def _rendered(directory: Path, tokenizer: TextTokenizer, positions: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """The conversations that a model can read and answer, by number: their tokens by the template of a tokenizer
    directory, up to where the assistant begins."""
    try:
        template = ChatTemplate.from_directory(directory)
        texts = [template.render(one, add_generation_prompt=True) for one in CONVERSATIONS]
    except ChatTemplateError as error:
        raise InputError(
            f"The tokenizer cannot render conversations: {error}. Inference compares them; choose a tokenizer with a "
            "chat template."
        ) from None
    for number, ids in enumerate(tokenizer.encode(texts)):
        if len(ids) < positions:
            yield number, tuple(map(int, ids))


def _entropy(ids: Sequence[npt.NDArray[Any]]) -> float:
    counts = Counter(token for one in ids for token in one.tolist())
    total = sum(counts.values())
    return -math.fsum(count / total * math.log(count / total) for _, count in sorted(counts.items()))
