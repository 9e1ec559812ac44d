"""From jsonl to Megatron files: `certify data preprocess` against the loop that other tools use, in one run.

    python benchmarks/preprocess.py [--text FILE] [--tokenizer-dir DIR] [--megabytes N] [--rounds N] [--workers N]
        [--against library|plain|megatron-core ...]
    python benchmarks/preprocess.py --memory | --one-thread

Three whole processes take turns over one file, with the same tokenizer and the same number of workers; their files must
be equal byte for byte:

- certify: `certify data preprocess`.
- plain: the loop of mindformers' preprocess_indexed_dataset.py, reimplemented because the script is not in the wheel: a
  pool whose workers tokenize a line at a time, and a parent that writes each document. It is faster than the script,
  which sends the tokenizer to the worker with every chunk of lines.
- megatron-core: the same pool, written by megatron-core's IndexedDatasetBuilder.

The text is that of --text (WikiText by article), else the Python sources of the installed packages: real text that is
on the machine, each file once. Without --tokenizer-dir, Qwen's vocabulary is taken from the installed dashscope.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.corpus.indexed import open_indexed
from harness.corpus.preprocess import PreprocessOptions, preprocess
from harness.corpus.qwen import find_qwen_vocabulary, write_qwen_tokenizer
from harness.corpus.tokenizers import HuggingFaceTokenizer, TokenIds
from harness.corpus.wikitext import write_jsonl

CONTESTANTS = ("certify", "library", "plain", "megatron-core")
MEMORY_MEGABYTES = (1, 32, 1024)
LINES_A_CHUNK = 32


def main() -> None:
    """Prints tokens per second of each, the ratios, and how they were measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--tokenizer-dir", type=Path)
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--memory", action="store_true", help="Measure memory over growing inputs instead of speed.")
    parser.add_argument("--one-thread", action="store_true", help="Measure encoding alone, by CPU time of one thread.")
    parser.add_argument("--against", nargs="+", choices=CONTESTANTS[1:], default=list(CONTESTANTS[1:]))
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--prefix", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contestant:
        (by_library if arguments.contestant == "library" else loop)(arguments)
        return
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        if arguments.tokenizer_dir is None:
            arguments.tokenizer_dir = directory / "qwen"
            write_qwen_tokenizer(find_qwen_vocabulary(), arguments.tokenizer_dir)
        chosen = compare_memory if arguments.memory else compare_encoders if arguments.one_thread else compare_speed
        chosen(arguments, directory)


def compare_speed(arguments: argparse.Namespace, directory: Path) -> None:
    """Runs all in rounds, each round in another order."""
    source, contestants = directory / "source.jsonl", ("certify", *arguments.against)
    described = write_source(arguments, source, arguments.megabytes)
    print(f"{described}; {arguments.workers} workers; tokenizer {arguments.tokenizer_dir.name}")
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    tokens = 0
    for number in range(arguments.rounds):
        digests = {}
        for name in np.roll(contestants, number):
            prefix = directory / f"{name}-{number}"
            begun = time.perf_counter()
            subprocess.run(command(arguments, str(name), source, prefix), check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - begun)
            written = Path(f"{prefix}_text_document")
            digests[name] = [digest(Path(f"{written}{suffix}")) for suffix in (".bin", ".idx")]
            tokens = len(open_indexed(written).tokens)
            for suffix in (".bin", ".idx"):
                Path(f"{written}{suffix}").unlink()
        if any(found != digests["certify"] for found in digests.values()):
            raise SystemExit(f"the files differ: {digests}")
        shown = ", ".join(f"{name} {seconds[name][-1]:.1f} s" for name in contestants)
        print(f"round {number + 1}: {shown}; equal byte for byte", flush=True)
    for name in contestants:
        print(f"{name:<14} {tokens / statistics.median(seconds[name]):>12,.0f} tokens/s (median of {arguments.rounds})")
    for other in arguments.against:
        ratios = [a / b for a, b in zip(seconds[other], seconds["certify"], strict=True)]
        print(f"certify is {statistics.median(ratios):.2f} times as fast as {other} (whole processes)")


def compare_encoders(arguments: argparse.Namespace, directory: Path) -> None:
    """Encodes the same documents with the dictionary and by the library, each time with a tokenizer that is new."""
    source = directory / "source.jsonl"
    print(f"{write_source(arguments, source, arguments.megabytes)}; one thread")
    texts = [json.loads(line)["text"] for line in source.read_text(encoding="utf-8").splitlines()]
    rates: dict[str, list[float]] = {}
    for number in range(arguments.rounds):
        ids = {}
        for kind in np.roll([HuggingFaceTokenizer, LibraryTokenizer], number):
            tokenizer, begun = kind(arguments.tokenizer_dir), time.process_time()
            parts = [
                tokenizer.encode(texts[at : at + LINES_A_CHUNK], add_special_tokens=True)
                for at in range(0, len(texts), LINES_A_CHUNK)
            ]
            seconds = time.process_time() - begun
            ids[kind] = np.concatenate([one for part in parts for one in part])
            rates.setdefault(kind.__name__, []).append(len(ids[kind]) / seconds)
        if not np.array_equal(*ids.values()):
            raise SystemExit("the ids differ")
    for name, found in rates.items():
        print(f"{name:<20} {statistics.median(found):>12,.0f} tokens/s of CPU time (median of {arguments.rounds})")
    ratios = [ours / theirs for ours, theirs in zip(*rates.values(), strict=True)]
    print(f"the dictionary is {statistics.median(ratios):.2f} times as fast as encode_batch_fast; equal ids")


def compare_memory(arguments: argparse.Namespace, directory: Path) -> None:
    """The memory of `certify data preprocess`, parent and workers together, over growing inputs."""
    for megabytes in MEMORY_MEGABYTES:
        source, prefix = directory / f"{megabytes}.jsonl", directory / f"out-{megabytes}"
        described = write_source(arguments, source, megabytes)
        begun = time.perf_counter()
        process = subprocess.Popen(
            command(arguments, "certify", source, prefix), stdout=subprocess.DEVNULL, start_new_session=True
        )
        highest = 0
        while process.poll() is None:
            highest = max(highest, resident_bytes(process.pid))
            time.sleep(0.1)
        if process.returncode:
            raise SystemExit(f"certify data preprocess ended with exit code {process.returncode}")
        print(f"{described}: {highest / 1e6:,.0f} MB in {time.perf_counter() - begun:.1f} s", flush=True)
        for path in (source, Path(f"{prefix}_text_document.bin"), Path(f"{prefix}_text_document.idx")):
            path.unlink()


def command(arguments: argparse.Namespace, name: str, source: Path, prefix: Path) -> list[str]:
    """The command of a contestant."""
    workers, directory = str(arguments.workers), str(arguments.tokenizer_dir)
    if name == "certify":
        options = ["--input", str(source), "--output-prefix", str(prefix), "--tokenizer-dir", directory]
        return [sys.executable, "-m", "harness.cli", "data", "preprocess", *options, "--workers", workers, "--json"]
    options = ["--contestant", name, "--source", str(source), "--prefix", str(prefix), "--tokenizer-dir", directory]
    return [sys.executable, __file__, *options, "--workers", workers]


def write_source(arguments: argparse.Namespace, path: Path, megabytes: int) -> str:
    """Writes about as many megabytes of jsonl; returns a description of the text."""
    limit, size, documents, rounds = megabytes * 1_000_000, 0, 0, 0
    with path.open("wb") as file:
        while size < limit:
            rounds += 1
            for line in text_lines(arguments.text, path.with_suffix(".part")):
                file.write(line)
                size, documents = size + len(line), documents + 1
                if size >= limit:
                    break
    name = arguments.text.name if arguments.text else "Python sources"
    repeated = f", repeated {rounds} times" if rounds > 1 else ""
    return f"{size / 1e6:.1f} MB of jsonl, {documents:,} documents ({name}{repeated})"


def text_lines(text: Path | None, temporary: Path) -> Iterator[bytes]:
    """Lines of jsonl: the articles of a text, or one for each Python source that is installed."""
    if text is not None:
        write_jsonl(text, temporary, raw=False)
        with temporary.open("rb") as file:
            yield from file
        temporary.unlink()
        return
    for path in sorted(Path(sysconfig.get_path("purelib")).rglob("*.py")):
        content = path.read_text(encoding="utf-8", errors="replace")
        if content.strip():
            yield json.dumps({"text": content}, ensure_ascii=False).encode("utf-8", errors="replace") + b"\n"


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def resident_bytes(group: int) -> int:
    """Memory of all processes of a group; shared memory is counted once."""
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if int((process / "stat").read_text().rpartition(")")[2].split()[2]) == group:
                rollup = (process / "smaps_rollup").read_text().splitlines()
                total += next(int(line.split()[1]) * 1024 for line in rollup if line.startswith("Pss:"))
        except (OSError, StopIteration):
            continue  # the process has ended
    return total


class LibraryTokenizer(HuggingFaceTokenizer):
    """The same tokenizer, whose whole documents the `tokenizers` library encodes by its batch interface."""

    def encode(self, texts: Sequence[str], add_special_tokens: bool = False) -> list[TokenIds]:
        batch = self._tokenizer.backend_tokenizer.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
        return [np.asarray(one.ids, dtype=np.int32) for one in batch]


def by_library(arguments: argparse.Namespace) -> None:
    """`certify data preprocess` with the library's batch interface in place of the dictionary."""
    options = PreprocessOptions(source=arguments.source, output_prefix=arguments.prefix, workers=arguments.workers)
    preprocess(options, LibraryTokenizer(arguments.tokenizer_dir))


tokenize: Callable[[str], Any]


def load(directory: Path) -> None:
    """Loads the tokenizer of a worker."""
    global tokenize
    from transformers import AutoTokenizer

    tokenize = AutoTokenizer.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)


def encode(line: str) -> list[int]:
    """The ids of one line."""
    ids: list[int] = tokenize(json.loads(line)["text"])["input_ids"]
    return ids


def loop(arguments: argparse.Namespace) -> None:
    """The loop of the contestants that are not ours."""
    prefix = f"{arguments.prefix}_text_document"
    load(arguments.tokenizer_dir)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with (
        arguments.source.open(encoding="utf-8") as file,
        multiprocessing.get_context("fork").Pool(arguments.workers) as pool,
    ):
        documents = pool.imap(encode, file, LINES_A_CHUNK)
        if arguments.contestant == "plain":
            write_plainly(documents, prefix)
        else:
            write_with_megatron(documents, prefix)


def write_plainly(documents: Iterator[list[int]], prefix: str) -> None:
    """Writes each document when it arrives, and the index at the end."""
    lengths = []
    with open(f"{prefix}.bin", "wb") as data:
        for document in documents:
            ids = np.array(document, dtype=np.int32)
            data.write(ids.tobytes(order="C"))
            lengths.append(len(ids))
    with open(f"{prefix}.idx", "wb") as index:
        index.write(b"MMIDIDX\0\0" + np.array([1], "<u8").tobytes() + bytes([4]))
        index.write(np.array([len(lengths), len(lengths) + 1], "<u8").tobytes())
        index.write(np.array(lengths, "<i4").tobytes())
        index.write((np.cumsum([0, *lengths[:-1]]) * 4).astype("<i8").tobytes())
        index.write(np.arange(len(lengths) + 1, dtype="<i8").tobytes())


def write_with_megatron(documents: Iterator[list[int]], prefix: str) -> None:
    """Writes with megatron-core's builder."""
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=np.int32)
    for document in documents:
        builder.add_document(np.array(document, dtype=np.int32), [len(document)])
    builder.finalize(f"{prefix}.idx")


if __name__ == "__main__":
    main()
