"""WikiText: the articles of a `.tokens` file, with their text restored to its form before tokenisation.

The file has one paragraph per line, a blank line around each heading, an article's title as ` = Title = ` and a
section's as ` = = Section = = `. A line of that form between other lines is not a heading: formulas have that form too.
Some copies have no blank lines: if a file begins with a title that text follows at once, every line of that form is a
heading. Some have no space before each line: if a file begins with a title in that form, all its headings have it.
A byte order mark is no text.

The text is restored by these rules; `--raw` leaves it unchanged:

| in the file | restored |
| --- | --- |
| `two @-@ part`, `1 @,@ 500`, `0 @.@ 7` | `two-part`, `1,500`, `0.7` |
| a space before `,` `.` `;` `:` `!` `?` `)` `]` `%`, after `(` `[` `$` | removed |
| `he 's`, `did n't`, `do n't`, `I 'm`, `we 'll` | `he's`, `didn't`, `don't`, `I'm`, `we'll` |
| `" word "`, if the paragraph has an even number of `"` | `"word"` |
| ` = = Heading = = ` | `Heading` |
| blank lines, and the spaces around a paragraph | one empty line between paragraphs |
| `<unk>` | kept: the word is lost |

Dashes and slashes between spaces are kept: the file does not show their original spacing. Letters and digits never
change. Restoring a second time changes nothing, except for text with quotes, where an odd `"` may then find a partner.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.base.errors import InputError
from harness.base.whole_files import OVERWRITE, whole_file

# Possessive quantifiers try each run of signs once: the time must not grow with the square of a line's length.
HEADING = re.compile(r"^ ((?:= )++)(.+?)(?<! =)((?: =)++) ?$")
STRIPPED = re.compile(r"^((?:= )++)(.+?)(?<! =)((?: =)++) ?$")  # in a copy without the space before each line
TITLE = "= "  # the signs before a title; a section has more of them
BYTE_ORDER_MARK = "\ufeff"
JOINED = {"@-@": "-", "@,@": ",", "@.@": "."}
NO_SPACE_BEFORE = frozenset(",.;:!?)]%") | {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "n't"}
NO_SPACE_AFTER = frozenset("([$")
TYPE = "Eng"
PROGRESS_BYTES = 1 << 20
SHOWN = 3  # lines that may be titles
# How files begin that hold a text in another form, and what to do
OTHER_FILES = {
    b"\xff\xfe": "a text in UTF-16. Convert it: iconv -f UTF-16 -t UTF-8 {path}",
    b"\xfe\xff": "a text in UTF-16. Convert it: iconv -f UTF-16 -t UTF-8 {path}",
    b"\x1f\x8b": "compressed by gzip. Decompress it: gunzip --keep {path}",
    b"BZh": "compressed by bzip2. Decompress it: bunzip2 --keep {path}",
    b"\xfd7zXZ": "compressed by xz. Decompress it: unxz --keep {path}",
    b"\x28\xb5\x2f\xfd": "compressed by zstd. Decompress it: zstd -d {path}",
    b"PK\x03\x04": "a ZIP archive. Unpack it: unzip {path}",
    b"PAR1": "a Parquet file. Write its texts to a text file first.",
    b"version https://git-lfs": "a Git LFS pointer, not the file. Run 'git lfs pull' there.",
}


@dataclass(frozen=True, kw_only=True)
class Article:
    """One article: its title, empty where the file has none, and its text with the title's line."""

    title: str
    text: str


@dataclass(frozen=True, kw_only=True)
class WrittenJsonl:
    """What `write_jsonl` wrote; `sha256` is the digest of the file.

    `kept_as_text` are the first lines that have the form of a title and were not taken for one, if no two titles were
    found: then they may be titles.
    """

    articles: int
    bytes_read: int
    bytes_written: int
    sha256: str
    kept_as_text: tuple[str, ...] = ()


def read_articles(
    lines: Iterable[str], *, raw: bool, no_title: Callable[[str], object] = lambda line: None
) -> Iterator[Article]:
    """The articles in lines that include their line ends. Raw texts, concatenated, are the lines again, without a byte
    order mark.

    Args:
        lines: The lines.
        raw: Whether the text is left as it is.
        no_title: Called with each line that has the form of a title and is none, because other lines are next to it.
    """
    title, kept = "", list[tuple[str, bool]]()
    form, blank_around, lines = _begin(lines)
    for before, line, after in _with_neighbours(lines):
        heading = form.match(line.rstrip("\r\n"))
        if heading and blank_around and (before.strip() or after.strip()):
            if heading.group(1) == TITLE:
                no_title(line.strip())
            heading = None
        if heading and heading.group(1) == TITLE:
            yield from _article(title, kept, raw)
            title, kept = restore(heading.group(2)), []
        kept.append((line, heading is not None))
    yield from _article(title, kept, raw)


def _begin(lines: Iterable[str]) -> tuple[re.Pattern[str], bool, Iterator[str]]:
    """The form of headings and whether blank lines are around them, by the first line that is not blank; all lines."""
    rest, first = iter(lines), list[str]()
    for line in rest:
        first.append(line if first else line.removeprefix(BYTE_ORDER_MARK))
        if first[-1].strip():
            first += itertools.islice(rest, 1)
            break
    words = [line for line in first if line.strip()]
    begin = words[0].rstrip("\r\n") if words else ""
    form = STRIPPED if STRIPPED.match(begin) else HEADING
    heading = form.match(begin)
    followed = len(words) > 1
    return form, not (heading and heading.group(1) == TITLE and followed), itertools.chain(first, rest)


def _with_neighbours(lines: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    before, line = "", ""
    for number, after in enumerate(lines):
        if number:
            yield before, line, after
            before = line
        line = after
    if line:
        yield before, line, ""


def _article(title: str, lines: Sequence[tuple[str, bool]], raw: bool) -> Iterator[Article]:
    if not any(line.strip() for line, _ in lines):
        # text before the first title belongs to no article, but to the file
        if raw and lines:
            yield Article(title="", text="".join(line for line, _ in lines))
        return
    if raw:
        yield Article(title=title, text="".join(line for line, _ in lines))
        return
    paragraphs = (restore(line.rstrip("\r\n"), heading=heading) for line, heading in lines)
    yield Article(title=title, text="\n\n".join(filter(None, paragraphs)))


def restore(paragraph: str, *, heading: bool = False) -> str:
    """A paragraph or heading, restored by the rules above."""
    if heading and (match := HEADING.match(paragraph) or STRIPPED.match(paragraph)):
        paragraph = match.group(2)
    words = [word for word in paragraph.split(" ") if word]
    paired = words.count('"') % 2 == 0
    out, no_space, opened = list[str](), True, False
    for word in words:
        before, after = word in NO_SPACE_BEFORE, word in NO_SPACE_AFTER
        if word in JOINED:
            word, before, after = JOINED[word], True, True
        elif word == '"' and paired:
            before, after = opened, not opened
            opened = not opened
        out.append(word if before or no_space else f" {word}")
        no_space = after
    return "".join(out).strip(" ")


def read_lines(path: Path, progress: Callable[[int], object] = lambda done: None) -> Iterator[str]:
    """The lines of a UTF-8 text with their ends; only a line feed ends a line.

    Raises:
        InputError: the file cannot be read, is not UTF-8, or has a zero byte; the message names the position.
    """
    try:
        with path.open("rb") as file:
            done, reported = 0, 0
            for number, line in enumerate(file, 1):
                yield _decoded(line, path, number, done)
                done += len(line)
                if done - reported >= PROGRESS_BYTES:
                    progress(reported := done)
            progress(done)
    except OSError as error:
        raise InputError(f"The text {path} cannot be read: {error.strerror}.") from None


def _decoded(line: bytes, path: Path, number: int, offset: int) -> str:
    if not offset and (kind := next((kind for begin, kind in OTHER_FILES.items() if line.startswith(begin)), None)):
        raise InputError(f"{path} is {kind.format(path=path)}")
    if (zero := line.find(b"\0")) >= 0:
        raise InputError(f"{path} is not a text: there is a zero byte at byte {offset + zero}, line {number}.")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"The text {path} is not UTF-8: {error.reason} at byte {offset + error.start}, line {number}."
        ) from None


def no_json(lines: Iterator[str], source: Path) -> Iterator[str]:
    """The same lines, of a text.

    Raises:
        InputError: the first one is a JSON object.
    """
    for number, line in enumerate(lines):
        if not number and line.lstrip(BYTE_ORDER_MARK).startswith("{") and _is_object(line.lstrip(BYTE_ORDER_MARK)):
            raise InputError(
                f"{source} has JSON lines already. If each is a document, tokenize them: certify data preprocess "
                f"--input {source} --output-prefix {source.stem} --tokenizer-dir DIR. If each is a line of a text, "
                "write the text to a file first."
            )
        yield line


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def write_jsonl(
    source: Path,
    destination: Path,
    *,
    raw: bool,
    overwrite: bool = False,
    progress: Callable[[int], object] = lambda done: None,
) -> WrittenJsonl:
    """Writes one JSON object per article, with the keys of NVIDIA's and mindformers' tools: all articles, or no file.

    Raises:
        InputError: the source cannot be read or has no text, or the destination exists or cannot be written.
    """
    articles, read, written, sha = 0, 0, 0, hashlib.sha256()
    titles, kept_as_text = 0, list[str]()

    def count(done: int) -> None:
        nonlocal read
        progress(read := done)

    def note(line: str) -> None:
        if len(kept_as_text) < SHOWN:
            kept_as_text.append(line)

    with whole_file(destination, overwrite=overwrite, replace=OVERWRITE) as file:
        for article in read_articles(no_json(read_lines(source, count), source), raw=raw, no_title=note):
            if not article.text.strip():
                continue
            titles += article.title != ""
            record = {"src": source.name, "text": article.text, "type": TYPE, "id": str(articles)}
            line = json.dumps({**record, "title": article.title}, ensure_ascii=False).encode() + b"\n"
            file.write(line)
            sha.update(line)
            articles, written = articles + 1, written + len(line)
        if not articles:
            raise InputError(f"The text {source} is empty.")
    return WrittenJsonl(
        articles=articles,
        bytes_read=read,
        bytes_written=written,
        sha256=sha.hexdigest(),
        kept_as_text=tuple(kept_as_text) if titles < 2 else (),
    )
