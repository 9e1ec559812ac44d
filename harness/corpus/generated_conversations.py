"""The default conversations: short tasks that the project writes itself, the same on every machine and version.

A question with one right answer, in one or two turns, some under an instruction of the system. Answers differ in
length, so that a mean over tokens is no mean over answers or rows.
"""

import functools
from collections.abc import Callable, Mapping

from harness.corpus.generated import Choices, lexicon

CONVERSATIONS, SEED = 2048, "conversations 1"
TURNS = 2
# Instructions of the system, and what each makes of an answer.
INSTRUCTIONS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("Use capitals.", str.upper),
    ("End with OK.", lambda answer: f"{answer} OK"),
    ("Be polite.", lambda answer: f"Gladly: {answer}"),
)
SYSTEM_IN = 3  # one conversation in so many has an instruction
Messages = tuple[Mapping[str, str], ...]


@functools.cache
def generated_conversations() -> tuple[Messages, ...]:
    """All conversations, in order."""
    return tuple(_conversation(Choices(f"{SEED}/{number}")) for number in range(CONVERSATIONS))


def _conversation(choices: Choices) -> Messages:
    messages = list[Mapping[str, str]]()
    changed: Callable[[str], str] = unchanged
    if choices.below(SYSTEM_IN) == 0:
        instruction, changed = INSTRUCTIONS[choices.below(len(INSTRUCTIONS))]
        messages.append({"role": "system", "content": instruction})
    for _ in range(1 + choices.zipf(TURNS)):
        question, answer = TASKS[choices.below(len(TASKS))](choices)
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": changed(answer)})
    return tuple(messages)


def unchanged(answer: str) -> str:
    """Without an instruction."""
    return answer


def _word(choices: Choices, kind: str) -> str:
    words = lexicon()[kind]
    return words[choices.zipf(len(words))]


def _spelled(choices: Choices) -> tuple[str, str]:
    word = _word(choices, "nouns")
    return f"Spell {word}.", "-".join(word)


def _repeated(choices: Choices) -> tuple[str, str]:
    word, times = _word(choices, "verbs"), 1 + choices.below(4)
    return f"Say {word} {times} times.", " ".join([word] * times)


def _sum(choices: Choices) -> tuple[str, str]:
    one, other = choices.below(90), choices.below(90)
    return f"{one}+{other}?", str(one + other)


def _larger(choices: Choices) -> tuple[str, str]:
    one, other = choices.below(900), choices.below(900)
    return f"Larger: {one} or {other}?", str(max(one, other))


def _phrase(choices: Choices) -> tuple[str, str]:
    noun, adjective = _word(choices, "nouns"), _word(choices, "adjectives")
    return f"Is the {noun} {adjective}?", f"Yes, the {noun} is {adjective}."


TASKS: tuple[Callable[[Choices], tuple[str, str]], ...] = (_spelled, _repeated, _sum, _larger, _phrase)
