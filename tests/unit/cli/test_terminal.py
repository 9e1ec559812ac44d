"""What is printed comes from files, logs and runners: none of it acts on the terminal."""

import io

import pytest
from rich.table import Table

from harness.cli.terminal import error_console, out_console

HOSTILE = {
    "a cleared screen": "\x1b[2J",
    "a colour": "\x1b[1;32mReleased\x1b[0m",
    "a title of the window": "\x1b]0;Released\x07",
    "an escape of one byte": "\x9b31m",
    "a line that is written over": "FAIL\rPASS",
    "a sign that is taken back": "FAIL\b\b\b\bPASS",
    "another direction of writing": "\u202edesaeleR",
    "a line end that only some know": "a\u2028b",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("console", [out_console, error_console])
def test_no_text_acts_on_the_terminal(console: object, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(console, "_file", written)
    table = Table()
    table.add_column(text)
    table.add_row(text)
    console.print(text, markup=False, soft_wrap=True)  # type: ignore[attr-defined]
    console.print(table)  # type: ignore[attr-defined]
    found = written.getvalue()
    assert not set("\x1b\x07\x9b\r\b\u202e\u2028") & set(found) and "?" in found


def test_what_shows_is_printed_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(out_console, "_file", written)
    out_console.print("Qwen3\u3000\u901a\u8fc7 \u2713 caf\u00e9\nnext", markup=False, soft_wrap=True)
    assert written.getvalue() == "Qwen3\u3000\u901a\u8fc7 \u2713 caf\u00e9\nnext\n"
