"""WikiText: no article is lost or invented, no letter changes, and a file is written completely or not at all."""

import gzip
import io
import json
import os
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.digest import digest_bytes, digest_file
from harness.base.errors import InputError
from harness.corpus.documents import text_documents
from harness.corpus.wikitext import Article, read_articles, read_lines, restore, write_jsonl
from tests.support.command_line import caller

SAMPLE = (
    ' \n = Snow = \n \n It snows at 0 @.@ 5 degrees , a two @-@ part story . \n He said " no " ( twice ) . \n'
    " \n = = Ice = = \n \n Ice 's old . \n \n = Hell = Heaven = \n \n <unk> is fire . \n = 1 / s = \n end \n"
)
WORDS = st.sampled_from(
    ["a", "B7", "@-@", "@,@", "@.@", ",", ".", '"', "(", ")", "'s", "n't", "$", "%", "=", "<unk>", "–", "é", "'", "/"]
)
LINES = st.lists(st.one_of(WORDS, st.text(st.characters(exclude_categories=["Cs"]), max_size=6)), max_size=12).map(
    " ".join
)


UNQUOTED = st.lists(WORDS.filter(lambda word: word != '"'), max_size=12).map(" ".join)


def articles(text: str, raw: bool = False) -> list[Article]:
    return list(read_articles(text.splitlines(keepends=True), raw=raw))


def letters(text: str) -> str:
    return "".join(c for c in text if c.isalnum())


def test_articles_start_at_titles_and_not_at_sections_or_formulas() -> None:
    assert [article.title for article in articles(SAMPLE)] == ["Snow", "Hell = Heaven"]


def test_the_text_is_restored_by_the_documented_rules() -> None:
    snow, heaven = articles(SAMPLE)
    assert snow.text == (
        'Snow\n\nIt snows at 0.5 degrees, a two-part story.\n\nHe said "no" (twice).\n\nIce\n\nIce\'s old.'
    )
    assert heaven.text == "Hell = Heaven\n\n<unk> is fire.\n\n= 1 / s =\n\nend"


@pytest.mark.parametrize(
    ("line", "restored"),
    [
        (" 1 @,@ 500 – 2 @,@ 000 km ( $ 5 [ 6 % ] ) ! ", "1,500 – 2,000 km ($5 [6%])!"),
        (' it does n\'t , we \'ll see : " yes " ; " no " ', 'it doesn\'t, we\'ll see: "yes"; "no"'),
        (' a single " stays ', 'a single " stays'),
        (" dogs ' tails ", "dogs ' tails"),
        (" a / b ", "a / b"),
        ("", ""),
    ],
)
def test_a_paragraph_is_restored(line: str, restored: str) -> None:
    assert restore(line) == restored


@given(LINES, st.booleans())
def test_restoring_keeps_every_letter(line: str, heading: bool) -> None:
    assert letters(restore(line, heading=heading)) == letters(line)


@given(UNQUOTED)
def test_restoring_text_without_quotes_twice_changes_nothing_more(line: str) -> None:
    assert restore(restore(line)) == restore(line)


@given(st.lists(LINES, max_size=8).map("\n".join))
def test_concatenated_raw_articles_are_the_text(text: str) -> None:
    lines = text.split("\n")
    kept = [line + "\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
    assert "".join(article.text for article in read_articles(kept, raw=True)) == text.removeprefix("\ufeff")


def test_a_text_without_titles_is_one_article() -> None:
    assert articles("one\ntwo\n", raw=True) == [Article(title="", text="one\ntwo\n")]


def test_text_before_the_first_title_is_an_article_of_its_own() -> None:
    assert [article.title for article in articles("hello\n" + SAMPLE)] == ["", "Snow", "Hell = Heaven"]


def test_windows_line_ends_give_the_same_articles() -> None:
    windows = [line + "\r\n" for line in SAMPLE.split("\n")]
    assert list(read_articles(windows, raw=False)) == articles(SAMPLE)
    assert "".join(article.text for article in read_articles(windows, raw=True)) == "".join(windows)


def test_a_long_line_of_signs_takes_linear_time() -> None:
    line = " = x" + " =" * 200_000 + " y"
    assert [article.title for article in articles(line)] == [""]


@pytest.mark.parametrize("separator", ["\u2028", "\x0b", "\x0c", "\x85", "\r"])
def test_only_a_line_feed_ends_a_line(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(f"a{separator}b\nc".encode())
    assert list(read_lines(path)) == [f"a{separator}b\n", "c"]


def test_each_article_is_a_line_of_json_with_the_keys_of_the_tools(tmp_path: Path) -> None:
    (tmp_path / "wiki.tokens").write_text(SAMPLE, encoding="utf-8")
    written = write_jsonl(tmp_path / "wiki.tokens", tmp_path / "out.jsonl", raw=False)
    content = (tmp_path / "out.jsonl").read_bytes()
    records = [json.loads(line) for line in content.splitlines()]
    assert [list(record) for record in records] == [["src", "text", "type", "id", "title"]] * 2
    assert [(r["src"], r["type"], r["id"], r["title"]) for r in records] == [
        ("wiki.tokens", "Eng", "0", "Snow"),
        ("wiki.tokens", "Eng", "1", "Hell = Heaven"),
    ]
    assert (written.articles, written.bytes_read, written.bytes_written) == (2, len(SAMPLE.encode()), len(content))
    assert written.sha256 == digest_bytes(content)


def test_the_bytes_of_a_pipe_are_counted(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=(SAMPLE, "utf-8"))
    writer.start()
    written = write_jsonl(tmp_path / "pipe", tmp_path / "out.jsonl", raw=False)
    writer.join()
    assert written.bytes_read == len(SAMPLE.encode())


def test_an_existing_file_is_kept_unless_overwrite_is_set(tmp_path: Path) -> None:
    (tmp_path / "in").write_text(SAMPLE, encoding="utf-8")
    (tmp_path / "out.jsonl").write_text("kept")
    with pytest.raises(InputError, match=r"out\.jsonl exists"):
        write_jsonl(tmp_path / "in", tmp_path / "out.jsonl", raw=False)
    (tmp_path / "spoiled").write_bytes(b"a\n\xff")
    with pytest.raises(InputError, match="not UTF-8"):
        write_jsonl(tmp_path / "spoiled", tmp_path / "out.jsonl", raw=False, overwrite=True)
    assert (tmp_path / "out.jsonl").read_text() == "kept"
    written = write_jsonl(tmp_path / "in", tmp_path / "out.jsonl", raw=False, overwrite=True)
    assert digest_file(tmp_path / "out.jsonl") == written.sha256


def test_the_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "in").write_text(SAMPLE, encoding="utf-8")
    write_jsonl(tmp_path / "in", tmp_path / "out.jsonl", raw=False)
    assert (tmp_path / "out.jsonl").stat().st_mode == (tmp_path / "in").stat().st_mode


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n \n", "is empty"),
        (b"ab\nc\xffd\n", "not UTF-8: invalid start byte at byte 4, line 2"),
        (b"x" * 70_000 + b"\xe9\n", "not UTF-8: invalid continuation byte at byte 70000, line 1"),
        (b"a\nb\0c\n", "zero byte at byte 3, line 2"),
    ],
)
def test_an_invalid_text_is_an_error_and_nothing_is_written(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "in").write_bytes(content)
    with pytest.raises(InputError, match=message):
        write_jsonl(tmp_path / "in", tmp_path / "out.jsonl", raw=False)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("source", ["none", "."])
def test_a_source_that_cannot_be_read_is_an_error(tmp_path: Path, source: str) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        write_jsonl(tmp_path / source, tmp_path / "out.jsonl", raw=False)


def test_a_destination_without_a_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("a\n")
    with pytest.raises(InputError, match=r"out\.jsonl cannot be written: No such file or directory"):
        write_jsonl(tmp_path / "in", tmp_path / "none" / "out.jsonl", raw=False)


def test_an_interrupt_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "in").write_text(SAMPLE * 10_000)

    def interrupt(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_jsonl(tmp_path / "in", tmp_path / "out.jsonl", raw=False, progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    peaks = []
    for size in (300, 6000):
        (tmp_path / "in").write_text(SAMPLE * size)
        tracemalloc.start()
        write_jsonl(tmp_path / "in", tmp_path / "out.jsonl", raw=False, overwrite=True)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2 * peaks[0]


def articles_of(text: str) -> list[tuple[str, str]]:
    return [(one.title, one.text) for one in read_articles(io.StringIO(text, newline=""), raw=False)]


WITH_BLANKS = (
    " \n = First Title = \n \n The first . \n \n = = Part = = \n \n More . \n \n = Second Title = \n \n The second . \n"
)
EXPECTED = [
    ("First Title", "First Title\n\nThe first.\n\nPart\n\nMore."),
    ("Second Title", "Second Title\n\nThe second."),
]


@pytest.mark.parametrize(
    "text",
    [
        WITH_BLANKS,
        "\ufeff" + WITH_BLANKS,
        "\ufeff" + WITH_BLANKS[2:],
        WITH_BLANKS[2:],
        WITH_BLANKS.replace("\n \n", "\n"),
        WITH_BLANKS[2:].replace("\n \n", "\n"),
        "\ufeff" + WITH_BLANKS[2:].replace("\n \n", "\n"),
        WITH_BLANKS.replace("\n", "\r\n"),
        WITH_BLANKS[2:].replace("\n \n", "\n").replace("\n", "\r\n"),
        WITH_BLANKS[2:].replace(" = \n \n", " = \n"),  # blank lines before headings alone
    ],
)
def test_copies_with_a_mark_or_without_blank_lines_have_the_same_articles(text: str) -> None:
    assert articles_of(text) == EXPECTED


@pytest.mark.parametrize("strip", [str.strip, lambda line: line.removeprefix(" ")])
@pytest.mark.parametrize("blank", [True, False])
def test_a_copy_without_the_space_before_each_line_has_the_same_articles(
    strip: Callable[[str], str], blank: bool
) -> None:
    lines = [strip(line) for line in SAMPLE.replace(" = 1 / s = \n", "").split("\n")]
    text = "\n".join(line for line in lines if blank or line.strip())
    found = articles(text)
    assert [article.title for article in found] == ["Snow", "Hell = Heaven"]
    assert found == articles(SAMPLE.replace(" = 1 / s = \n", ""))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("\ufeff = A = \n".encode("utf-16"), "a text in UTF-16. Convert it: iconv"),
        (gzip.compress(SAMPLE.encode()), "compressed by gzip. Decompress it: gunzip"),
        (b"PAR1\x15\x04", "a Parquet file"),
        (b"PK\x03\x04\x14\x00", "a ZIP archive. Unpack it"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "a Git LFS pointer"),
        (
            b'{"text": " = A = "}\n{"text": "b"}\n',
            "has JSON lines already. If each is a document, tokenize them: certify",
        ),
    ],
)
def test_a_file_that_is_no_text_is_named_with_what_to_do(content: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / "wiki.tokens").write_bytes(content)
    with pytest.raises(InputError) as refused:
        write_jsonl(tmp_path / "wiki.tokens", tmp_path / "out.jsonl", raw=False)
    assert why in str(refused.value) and str(tmp_path / "wiki.tokens") in str(refused.value)
    assert not (tmp_path / "out.jsonl").exists()
    with pytest.raises(InputError) as refused:
        text_documents(tmp_path / "wiki.tokens")
    assert why in str(refused.value)


def test_a_formula_is_no_title_where_titles_have_blank_lines() -> None:
    text = WITH_BLANKS.replace(" The second . \n", " It follows that \n = x + 1 = \n is so . \n")
    assert [title for title, _ in articles_of(text)] == ["First Title", "Second Title"]


def test_a_text_that_does_not_begin_with_a_title_is_no_list_of_articles_and_its_lines_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "a.tokens"
    source.write_text("Some words . \n = First Title = \n The first . \n = Second Title = \n The second . \n")
    done = caller(capsys, monkeypatch)("data", "jsonl", source, tmp_path / "a.jsonl")
    assert done.code == 0 and "1 articles" in done.said
    assert "look like one, but have no blank lines around them, and are text: '= First Title =', '= Second" in done.said
