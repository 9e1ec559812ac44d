"""What to send where a run did not work: one archive of a run's directory, without weights, inputs and secrets.

Takes what states the case, the machine and how each run ended, and the end of each log. What identifies people and
hosts, and values of variables that may be secret, are replaced in every text.
"""

import getpass
import gzip
import io
import re
import socket
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness.base.errors import InputError

# What is taken of a run's directory, by its name; all are text.
TAKEN = (
    "case.json", "environment.json", "source.json", "findings.json", "manifest.json", "outcome.json", "trace.jsonl",
    "timing.jsonl", "taps.json", "diagnosis.json", "*.log", "log.txt",
)  # fmt: skip
LONGEST = 512 * 1024  # bytes of a text; of a longer one its end
MOST = 2000  # files
SECRET = re.compile(r"(?i)\b([\w-]*(?:token|secret|password|passwd|api[_-]?key|credential)[\w-]*)(\s*[=:]\s*)(\S+)")
ADDRESS = re.compile(r"\b(?!127\.0\.0\.1\b)(?:\d{1,3}\.){3}\d{1,3}\b")


def texts_of(directory: Path) -> Iterator[tuple[str, str]]:
    """Path within a run's directory, and text, of everything that is taken of it.

    Raises:
        InputError: it is no directory, or has nothing of a run.
    """
    if not directory.is_dir():
        raise InputError(f"There is no directory {directory}. Give that of a run, such as certify-runs/NAME or output.")
    found = sorted({path for pattern in TAKEN for path in directory.rglob(pattern)})
    plain = [path for path in found if path.is_file() and not path.is_symlink()]
    if not plain:
        raise InputError(f"{directory} has nothing of a run. Give the directory of one, such as certify-runs/NAME.")
    for path in plain[:MOST]:
        yield path.relative_to(directory).as_posix(), _end_of(path)


def _end_of(path: Path) -> str:
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - LONGEST))
        text = file.read().decode("utf-8", errors="replace")
    return text if size <= LONGEST else f"[the last {LONGEST} of {size} bytes]\n{text}"


def without_secrets(text: str) -> str:
    """A text without the names of this host, its user and the user's home, addresses, and values of secrets."""
    text = SECRET.sub(r"\1\2REMOVED", text)
    text = text.replace(str(Path.home()), "HOME") if Path.home() != Path("/") else text
    for name, instead in ((socket.gethostname(), "HOST"), (getpass.getuser(), "USER")):
        if name and name != "root":
            text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", instead, text)
    return ADDRESS.sub("ADDRESS", text)


def write_archive(texts: Mapping[str, str], archive: Path) -> None:
    """Writes texts as files of a `.tar.gz`; the same texts give the same bytes.

    Raises:
        InputError: there is such a file.
    """
    if archive.exists():
        raise InputError(f"{archive} exists. Remove it, or give another --out.")
    archive.parent.mkdir(parents=True, exist_ok=True)
    with (
        archive.open("xb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as members,
    ):
        for name, text in sorted(texts.items()):
            content = without_secrets(text).encode()
            member = tarfile.TarInfo(f"{archive.name.removesuffix('.tar.gz')}/{name}")
            member.size = len(content)
            members.addfile(member, io.BytesIO(content))
