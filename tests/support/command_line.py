"""The command line in this process: exit code and what was printed; a traceback is a failure."""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from harness import cli


@dataclass(frozen=True)
class Result:
    """What a command left. `err` is on one line, however it was wrapped."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """All that was printed, on one line."""
        return " ".join(f"{self.out} {self.err}".split())


Call = Callable[..., Result]


def caller(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *before: str) -> Call:
    """Calls `certify BEFORE...` with more arguments."""

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["certify", *before, *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main()
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return Result(int(left.value.code or 0), printed.out, " ".join(printed.err.split()))

    return call
