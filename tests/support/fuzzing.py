"""Damaged and hostile files for every loader: each is read, or refused with an error of this project.

`python -m tests.support.fuzzing 10000` reads so many, and prints every input that ended otherwise. The command line
turns an error of this project into exit code 2, and anything else into 4, so what passes here has a documented code.
"""

import json
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from safetensors.numpy import save_file
from tensorboard.summary import Writer

from harness.attestation import keygen, load_trust, read, sign
from harness.base.errors import CertifyError
from harness.base.records import read_json
from harness.cases.case import DEFAULT_CASE, load_case, shipped_cases
from harness.cases.data import Corpus
from harness.corpus.conversations import read_conversations
from harness.corpus.indexed import open_indexed
from harness.corpus.wikitext import read_articles, read_lines
from harness.evidence.bundle import read_bundle
from harness.evidence.bundle_files import PAGE
from harness.evidence.page import rendered
from harness.evidence.timing import read_timing
from harness.levels.rule import certify
from harness.levels.submission import Submission
from harness.logs.imports import import_log
from harness.nightly.matrix import load_matrix
from harness.report.token_text import read_token_text
from harness.runs.inputs import read_tensors, read_weights
from harness.runs.trace import read_trace
from harness.standards import STANDARDS_DIR, load_standard
from qwen3_model.weights import WeightsError, load_safetensors
from tests.support import logs
from tests.support.bundles import AT, write_example, write_page_of
from tests.support.examples import ROOT, small_case
from tests.support.fooling import forge
from tests.support.megatron import write_data_set
from tests.support.signing import CLAIM

ALLOWED = (CertifyError, WeightsError)  # the command line prints both as what the user can fix
BYTES = (b"\0", b"\xff", b"\n", b"-", b"9", b"1e999", b"{", b"[", b'"', b":", b"'", b"!!int ", b"&a ", b"*a", b"<<: ")
PIECES = (
    b"null", b"true", b"-1", b"0", b"1e308", b"-1e999", b"NaN", b"Infinity", b"1" * 400, b"9" * 19, b"[]", b"{}", b'""',
    b'"\\ud800"', b"\xed\xa0\x80", b"2026-02-30", b"9999-12-31", b"[/x]", b"[" * 5000, b"{" * 100, b"../../x",
    b"!!python/name:os",
    "\u2028\u202e".encode(), b"10000000000000", b"\xef\xbb\xbf", b"=", b"~", b"0x", b"1:2", b"a" * 10_000,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Loader:
    """What reads a file under a directory of samples, and the file that is damaged before each reading."""

    name: str
    file: Path
    load: Callable[[], object]


def damaged(content: bytes, random: np.random.RandomState) -> bytes:
    """A file after one to three of: other bytes, a cut, a repetition, a hostile piece at any place or for a word."""
    data = bytearray(content)
    for _ in range(random.randint(1, 4)):
        at, to = sorted(random.randint(0, len(data) + 1, 2).tolist())
        kind = random.randint(0, 7)
        if kind == 0 and data:
            data[min(at, len(data) - 1)] = random.randint(0, 256)
        elif kind == 1:
            del data[at : at + random.randint(1, 64)]
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            data[at:at] = data[at : min(to, at + 4096)]
        elif kind == 4:
            data[at:at] = BYTES[random.randint(0, len(BYTES))]
        else:
            end = at
            while end < len(data) and data[end] not in b' ,:}]\n"':
                end += 1
            data[at:end] = PIECES[random.randint(0, len(PIECES))]
    return bytes(data)


def loaders(root: Path) -> list[Loader]:
    """Every loader with a good file of its own under a directory."""
    return [*_written(root), *_of_runs(root), *_of_bundle(root / "bundle")]


def _written(root: Path) -> Iterator[Loader]:
    """What people write."""

    def file(name: str, content: str) -> Path:
        (root / name).write_text(content, encoding="utf-8")
        return root / name

    case = file("case.yaml", shipped_cases()[DEFAULT_CASE].read_text(encoding="utf-8"))
    yield Loader(name="case", file=case, load=lambda: load_case(str(case)))
    inference = file("inference.yaml", shipped_cases()["qwen3-tiny-inference"].read_text(encoding="utf-8"))
    yield Loader(name="case of inference", file=inference, load=lambda: load_case(str(inference)))
    guide = file("guide.yaml", (ROOT / "qwen3_model/configs/pretrain_qwen3_32b_4k.yaml").read_text(encoding="utf-8"))
    yield Loader(name="mindformers YAML", file=guide, load=lambda: load_case(str(guide)))
    strict = (STANDARDS_DIR / "strict-fp32.yaml").read_text(encoding="utf-8")
    standard = file("standard.yaml", strict.replace("name: strict-fp32", "name: stricter", 1))
    yield Loader(name="standard", file=standard, load=lambda: load_standard(str(standard)))
    keygen(root / "dana")
    key = {"person": "Dana", "public_key": "dana.pub", "roles": ["developer"], "valid_from": "2026-01-01",
           "valid_until": "2026-12-31"}  # fmt: skip
    trust = file("trust.yaml", yaml.safe_dump({"keys": [key]}))
    yield Loader(name="trust", file=trust, load=lambda: load_trust(trust))
    pub = root / "dana.pub"
    yield Loader(name="public key", file=pub, load=lambda: load_trust(trust))
    matrix = file("matrix.yaml", yaml.safe_dump({"name": "all", "cells": [{"case": DEFAULT_CASE, "limit": "10m"}]}))
    yield Loader(name="matrix", file=matrix, load=lambda: load_matrix(matrix))
    talk = {"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "I."}]}
    jsonl = file("talks.jsonl", f"{json.dumps(talk)}\n" * 3)
    corpus = Corpus(kind="conversations", path=str(jsonl))
    yield Loader(name="jsonl", file=jsonl, load=lambda: read_conversations(corpus))
    tokens = file("wiki.tokens", " \n = Title = \n \n A sentence @-@ of <unk> . \n \n = = Section = = \n \n More . \n")
    yield Loader(name="WikiText", file=tokens, load=lambda: list(read_articles(read_lines(tokens), raw=False)))


def _of_runs(root: Path) -> Iterator[Loader]:
    """What programs write."""
    prefix = write_data_set(root / "megatron")
    yield Loader(name=".idx", file=Path(f"{prefix}.idx"), load=lambda: open_indexed(prefix))
    for name, text in (
        ("mindformers", "".join(logs.mindformers_2(step, 5.0) + "\n" for step in range(1, 6))),
        ("megatron", "".join(logs.megatron(step, 5.0) + "\n" for step in range(1, 6))),
        ("trainer_state.json", json.dumps({"log_history": [{"loss": 5.0, "step": step} for step in range(1, 6)]})),
    ):
        path = root / (name if name.endswith("json") else f"{name}.log")
        path.write_text(text, encoding="utf-8")
        yield Loader(name=f"log of {name}", file=path, load=_import(path))
    writer = Writer(str(root / "events"))
    for step in range(1, 6):
        writer.add_scalar("loss", np.float32(5.0), step)
    writer.close()
    (events,) = (root / "events").iterdir()
    yield Loader(name="event file", file=events, load=_import(root / "events"))
    weights = root / "weights" / "model.safetensors"
    weights.parent.mkdir()
    save_file({"a": np.ones((4, 4), np.float32), "b": np.ones(3, np.float16)}, weights)
    yield Loader(name="safetensors", file=weights, load=lambda: read_tensors(weights))
    yield Loader(name="lazy safetensors", file=weights, load=lambda: dict(read_weights(weights)))
    yield Loader(name="checkpoint", file=weights, load=lambda: load_safetensors(weights.parent))
    tokenizer = root / "tokenizer" / "tokenizer.json"
    tokenizer.parent.mkdir()
    vocabulary = {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"id": 2, "content": "<s>"}],
                  "decoder": {"type": "ByteLevel"}}  # fmt: skip
    tokenizer.write_text(json.dumps(vocabulary, sort_keys=True, separators=(",", ":")) + "\n", encoding="utf-8")
    yield Loader(name="tokenizer", file=tokenizer, load=lambda: read_token_text(tokenizer.parent))
    statement = root / "statement.json"
    statement.write_bytes(sign(CLAIM, root / "dana.key"))
    yield Loader(name="statement", file=statement, load=lambda: read(statement.read_bytes()))


def _import(path: Path) -> Callable[[], object]:
    return lambda: import_log([path], None, None)


def _of_bundle(bundle: Path) -> Iterator[Loader]:
    """The files of a bundle, each in a manifest that fits it: a forger's."""
    write_page_of(write_example(bundle, case=small_case()))
    run = bundle / "runs" / "subject-1"
    yield Loader(name="trace", file=run / "trace.jsonl", load=lambda: read_trace(run / "trace.jsonl"))
    yield Loader(name="timing", file=run / "timing.jsonl", load=lambda: read_timing(run / "timing.jsonl"))
    yield Loader(name="page", file=bundle / PAGE, load=lambda: rendered(bundle))
    yield Loader(name="findings", file=bundle / "findings.json", load=lambda: read_json(bundle / "findings.json"))

    def forged() -> None:
        forge(bundle)
        certify(Submission(bundle=read_bundle(bundle)), AT)

    files = (
        "case.json", "inputs.json", "environment.json", "source.json", "start.json", "run.json", "findings.json",
        "standards/official.json", "runs/subject-1/trace.jsonl", "runs/subject-1/outcome.json",
        "inputs/batches.safetensors", "tensors/subject-1.safetensors",
    )  # fmt: skip
    for name in files:
        yield Loader(name=f"bundle {name}", file=bundle / name, load=forged)
    for name in ("manifest.json", "record.json"):
        yield Loader(name=f"bundle {name}", file=bundle / name, load=lambda: read_bundle(bundle))


def fuzz(root: Path, count: int, seed: int = 0) -> list[str]:
    """What ended otherwise than it should, of so many inputs over all loaders."""
    found, random = list[str](), np.random.RandomState(seed)
    every = loaders(root)
    kept = {loader.file: loader.file.read_bytes() for loader in every}
    for loader in every:
        loader.load()  # what is damaged is good
    # what reads a whole bundle takes a hundred times as long as what reads a file
    turns: Sequence[Loader] = [one for one in every for _ in range(1 if one.name.startswith("bundle") else 12)]
    for number in range(count):
        loader = turns[int(random.randint(len(turns)))]
        loader.file.write_bytes(content := damaged(kept[loader.file], random))
        try:
            loader.load()
        except ALLOWED:
            pass
        except Exception:  # this is what is looked for
            found.append(f"{loader.name}, input {number}: {content[:200]!r}\n{traceback.format_exc(limit=-3)}")
        finally:
            loader.file.write_bytes(kept[loader.file])
    return found


def main(count: int) -> int:
    """Prints what ended otherwise than it should, by loader."""
    root = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        found = fuzz(root, count)
    finally:
        shutil.rmtree(root)
    print("\n\n".join(found), Counter(one.partition(",")[0] for one in found), f"{len(found)} of {count}", sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
