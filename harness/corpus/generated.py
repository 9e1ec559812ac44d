"""The default corpus: a text that the project writes itself, the same bytes on every machine and under every version.

Encyclopedic paragraphs about invented subjects, a few lines of program, and lines in other scripts. Words follow Zipf's
law, a document keeps to its subject and repeats its names, and sentences have a grammar, so a model has something to
learn: single letters, then words, then what a document is about. Every choice is a whole number from a counter-based
generator; nothing is rounded.

Source: G. K. Zipf, "Human behavior and the principle of least effort", 1949.
"""

import functools
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.base.yaml_files import read_yaml
from harness.runs.drawing import words

DOCUMENTS, SEED = 1024, "corpus 1"
PARAGRAPHS, SENTENCES = (5, 13), (3, 8)  # of a document and of a paragraph: at least, and fewer than
SUBJECTS = 24  # nouns, verbs and places that a document prefers
BLOCK = 4096  # words of the generator that are drawn at a time

LINKS = ("and", "but", "while", "because", "although", "when", "so", "where")
PATTERNS = (
    "The N of P V in Y .", "The A N V the N R the N .", "P V a A N , L the N V R P .", "In Y , the N V by P .",
    "D , the A N R P V .", "It V the N , which V R the A N .", "L the N V the N , P V a N .", "The N V Q N R P in Y .",
    "A N and a A N V R the N of P .", "P , a A N R the N , V the A N D .", "They V the N D R the N .",
    "Q of the N V ; Q V R the A N .", '" The N V , " P wrote in Y , " and the A N V . "',
)  # fmt: skip
# Scripts by their letters, most frequent first: a row of text in each reaches tokens that English does not.
SCRIPTS = (
    (0x4E00, 3000, 0, ""), (0xAC00, 2300, 3, " "), (0x0430, 32, 6, " "), (0x0E01, 46, 5, " "), (0x0627, 36, 5, " "),
    (0x05D0, 27, 5, " "), (0x3041, 83, 4, ""), (0x30A1, 83, 4, ""), (0x0905, 53, 4, " "), (0x03B1, 25, 6, " "),
    (0x0531, 38, 5, " "), (0x10D0, 33, 5, " "),
)  # fmt: skip


class Choices:
    """Whole numbers, one after the other, of a label's sequence."""

    def __init__(self, label: str) -> None:
        self._numbers = itertools.chain.from_iterable(
            words(label, begin, BLOCK).tolist() for begin in itertools.count(0, BLOCK)
        )

    def below(self, bound: int) -> int:
        """Each number below a bound as often as another."""
        return int(next(self._numbers) >> 32) * bound >> 32

    def zipf(self, count: int) -> int:
        """A rank below `count`: rank r about as often as 1 / (r + 1)."""
        # A uniform number of binary digits, then a uniform number of so many: within a rank's power of two all are
        # alike, which is Zipf's law with steps.
        while True:
            digits = self.below((count + 1).bit_length())
            rank = (1 << digits) + self.below(1 << digits) - 1
            if rank < count:
                return rank

    def one_of(self, some: Sequence[str]) -> str:
        return some[self.below(len(some))]


@functools.cache
def lexicon() -> Mapping[str, tuple[str, ...]]:
    """The words of each kind, and the parts of names, in the order of their file."""
    return {kind: tuple(text.split()) for kind, text in read_yaml(Path(__file__).with_suffix(".yaml")).value.items()}


@dataclass(frozen=True)
class Subject:
    """What a document is about: its own names, and the words of each kind in the order of their frequency in it."""

    names: tuple[str, ...]
    nouns: tuple[str, ...]
    verbs: tuple[str, ...]
    adjectives: tuple[str, ...]
    year: int


def documents(*, scripts: bool) -> tuple[str, ...]:
    """All documents, in order; without `scripts`, the same without the lines in other scripts."""
    return tuple(_document(Choices(f"{SEED}/{number}"), scripts) for number in range(DOCUMENTS))


def _document(choices: Choices, scripts: bool) -> str:
    subject = Subject(
        names=tuple(_name(choices) for _ in range(5)),
        nouns=_preferred(choices, tuple(dict.fromkeys(lexicon()["nouns"]))),
        verbs=_preferred(choices, lexicon()["verbs"]),
        adjectives=_preferred(choices, lexicon()["adjectives"]),
        year=900 + choices.below(1100),
    )
    parts = [f"{subject.names[0]}\n"]
    for _ in range(PARAGRAPHS[0] + choices.below(PARAGRAPHS[1] - PARAGRAPHS[0])):
        kind = choices.below(12)
        if kind == 0:
            parts.append(_program(choices, subject))
        elif kind == 1:
            foreign = _foreign(choices, SCRIPTS[choices.zipf(len(SCRIPTS))])
            parts += [foreign] if scripts else []
        else:
            sentences = range(SENTENCES[0] + choices.below(SENTENCES[1] - SENTENCES[0]))
            parts.append(" ".join(_sentence(choices, subject) for _ in sentences))
    return "\n\n".join(parts) + "\n"


def _preferred(choices: Choices, some: Sequence[str]) -> tuple[str, ...]:
    """The words with some of them in front: what a document is about."""
    first = [choices.one_of(some) for _ in range(SUBJECTS)]
    return tuple(dict.fromkeys([*first, *some]))


def _name(choices: Choices) -> str:
    onsets, vowels, codas = (lexicon()[kind] for kind in ("onsets", "vowels", "codas"))
    syllables = range(1 + choices.below(3))
    word = "".join(choices.one_of(onsets) + choices.one_of(vowels) for _ in syllables) + choices.one_of(codas)
    return word.capitalize()


def _sentence(choices: Choices, subject: Subject) -> str:
    said = " ".join(_filled(choices, subject, PATTERNS[choices.zipf(len(PATTERNS))].split()))
    for sign in ".,;":
        said = said.replace(f" {sign}", sign)
    said = said.replace('" ', '"', 1).replace(', "', ',"').replace('" and', '" and').replace('. "', '."')
    said = re.sub(r"\b([Aa])(?= [aeiou])", r"\1n", said)
    return said[0].upper() + said[1:]


def _filled(choices: Choices, subject: Subject, pattern: Sequence[str]) -> Iterator[str]:
    for slot in pattern:
        match slot:
            case "N":
                yield subject.nouns[choices.zipf(len(subject.nouns))]
            case "V":
                yield subject.verbs[choices.zipf(len(subject.verbs))]
            case "A":
                yield subject.adjectives[choices.zipf(len(subject.adjectives))]
            case "P":
                yield subject.names[choices.zipf(len(subject.names))]
            case "R":
                yield lexicon()["prepositions"][choices.zipf(len(lexicon()["prepositions"]))]
            case "D":
                yield choices.one_of(lexicon()["adverbs"])
            case "L":
                yield choices.one_of(LINKS)
            case "Q":
                yield str(2 + choices.zipf(400))
            case "Y":
                yield str(subject.year + choices.below(60))
            case _:
                yield slot


def _program(choices: Choices, subject: Subject) -> str:
    """A function of a few lines."""
    name, first, second = (subject.nouns[choices.zipf(len(subject.nouns))] for _ in range(3))
    verb, number = subject.verbs[choices.zipf(len(subject.verbs))], choices.below(100)
    return (
        f"def {verb}_{name}({first}, {second}={number}):\n"
        f"    if {first} > {second}:\n"
        f"        return {first} - {second}\n"
        f"    return [{first} * index for index in range({number})]"
    )


def _foreign(choices: Choices, script: tuple[int, int, int, str]) -> str:
    """Words of letters of a script; a script without spaces has none."""
    begin, letters, longest, between = script
    found = [
        "".join(chr(begin + choices.zipf(letters)) for _ in range(1 + choices.below(longest or 12)))
        for _ in range(12 + choices.below(30))
    ]
    return between.join(found) + "."
