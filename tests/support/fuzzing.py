"""Damaged and hostile files for every loader: each is read, or refused with an error of this project.

`python -m tests.support.fuzzing 10000` reads so many, and prints every input that ended otherwise. The command line
turns an error of this project into exit code 2, and anything else into 4, so what passes here has a documented code.
"""

import copy
import functools
import gzip
import io
import json
import math
import os
import shutil
import sys
import tarfile
import tempfile
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import yaml
from safetensors.numpy import save_file
from tensorboard.summary import Writer

from harness.attestation import Role, keygen, load_trust, read, sign
from harness.base.ascend import devices, shown, versions
from harness.base.digest import canonical_json, digest_file, digest_json
from harness.base.errors import CertifyError
from harness.base.records import read_json, write_json
from harness.cases.case import DEFAULT_CASE, load_case, shipped_cases
from harness.cases.data import Corpus
from harness.certify.judging import read_given
from harness.certify.uv_environments import versions_of
from harness.certify.versions import constraints
from harness.corpus.conversations import read_conversations
from harness.corpus.indexed import open_indexed
from harness.corpus.wikitext import read_articles, read_lines
from harness.diagnosis.dump_export import export, save_array
from harness.diagnosis.dumps import DUMP, read_dump
from harness.diagnosis.dumps import TENSORS as DUMPED_TENSORS
from harness.evidence.bundle import read_bundle
from harness.evidence.bundle_files import ATTESTATIONS, PAGE
from harness.evidence.floor import read_study
from harness.evidence.page import rendered
from harness.evidence.provenance import BASELINE
from harness.evidence.timing import read_timing
from harness.levels.certificate import Level
from harness.levels.recorded import read_signed_baseline, recording_of
from harness.levels.rule import certify
from harness.levels.stated import STATED_DIR, load_stated
from harness.levels.submission import Submission
from harness.logs import read_import
from harness.logs.imports import import_log
from harness.nightly import NIGHT_FORMAT, CellResult, CellState, Night
from harness.nightly.history import NIGHT, NIGHTS, nights
from harness.nightly.matrix import load_matrix
from harness.nightly.parts import read_part
from harness.power.record import read_power
from harness.report.token_text import read_token_text
from harness.runs.evaluation import EVALUATION, read_evaluation
from harness.runs.inputs import read_tensors, read_weights
from harness.runs.places import places
from harness.runs.trace import read_trace
from harness.standards import STANDARDS_DIR, load_standard
from qwen3_model.weights import WeightsError, check_safetensors, load_safetensors
from tests.support import logs
from tests.support.ascend_machines import Machine, smi
from tests.support.bundles import AT, write_example, write_page_of
from tests.support.collected import example_baseline, train
from tests.support.examples import ROOT, inference_case, small_case
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

VALUES: Sequence[Any] = (
    None, True, -1, 0, 1.5, 1e308, math.nan, 10**400, 2**63, "", "..", "a" * 300, [], {}, [None], [[]], [-1, "a"],
    {"a": 1}, {"": []}, [[[[[[[[[[]]]]]]]]]],
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Loader:
    """What reads a file under a directory of samples, and the file that is damaged before each reading."""

    name: str
    file: Path
    load: Callable[[], object]


def damaged(content: bytes, random: np.random.RandomState) -> bytes:
    """A file after one to three of: other bytes, a cut, a repetition, a hostile piece at any place or for a word. Of
    JSON, a third have values of another kind instead, and stay JSON."""
    if random.randint(3) == 0 and (changed := _with_other_values(content, random)) is not None:
        return changed
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


def _with_other_values(content: bytes, random: np.random.RandomState) -> bytes | None:
    """JSON, or a line of it, with one or two values changed; None if it is none."""
    lines = content.split(b"\n")
    at = random.randint(len(lines)) if len(lines) > 2 else None
    try:
        value = json.loads(content if at is None else lines[at])
    except ValueError:
        return None
    for _ in range(random.randint(1, 3)):
        holders = [one for one in _inside(value) if one]
        if not holders:
            return None
        holder = holders[random.randint(len(holders))]
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        holder[keys[random.randint(len(keys))]] = copy.deepcopy(VALUES[random.randint(len(VALUES))])
    written = json.dumps(value).encode()
    return written if at is None else b"\n".join([*lines[:at], written, *lines[at + 1 :]])


def _inside(value: Any) -> Iterator[Any]:
    """Every list and mapping of a value of JSON."""
    if isinstance(value, dict | list):
        yield value
        for one in value.values() if isinstance(value, dict) else value:
            yield from _inside(one)


def loaders(root: Path) -> list[Loader]:
    """Every loader with a good file of its own under a directory."""
    return [
        *_written(root), *_of_runs(root), *_of_bundle(root / "bundle"), *_archives(root), *_collected(root),
        *_of_studies(root), *_of_nights(root), *_of_machines(root / "machine"), *_of_dumps(root),
    ]  # fmt: skip


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


def _archives(root: Path) -> Iterator[Loader]:
    """Logs in archives, and tensors by their headers alone."""
    text = "".join(logs.megatron(step, 5.0) + "\n" for step in range(1, 6)).encode()
    with tarfile.open(root / "logs.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("worker_0.log")
        info.size, info.pax_headers = len(text), {"comment": "of a test"}
        tar.addfile(info, io.BytesIO(text))
    with zipfile.ZipFile(root / "logs.zip", "w") as file:
        file.writestr("worker_0.log", text)
    (root / "packed.log").write_bytes(gzip.compress(text, mtime=0))
    for name in ("logs.tar", "logs.zip", "packed.log"):
        yield Loader(name=f"archive {name}", file=root / name, load=_import(root / name))
    headers = root / "headers" / "model.safetensors"
    headers.parent.mkdir()
    save_file({"a": np.ones((4, 4), np.float32), "b": np.ones(3, np.float16)}, headers)
    yield Loader(name="header of safetensors", file=headers, load=lambda: check_safetensors(headers.parent))
    run = import_log([root / "packed.log"], None, None)
    write_json(root / "imported.json", run)
    yield Loader(name="imported run", file=root / "imported.json", load=lambda: read_import(root / "imported.json"))


def _collected(root: Path) -> Iterator[Loader]:
    """What the collector leaves, and a baseline with a statement about it, in lists that fit: a forger's."""
    place = train(root / "collected")
    for path in sorted(place.rglob("*")):
        if path.is_file():
            yield Loader(name=f"collected {path.name}", file=path, load=lambda: read_given(place))
    directory, trust = example_baseline(root / "recorded"), load_trust(root / "trust.yaml")
    baseline = directory / BASELINE
    statement = directory / ATTESTATIONS / "statement.json"
    statement.parent.mkdir()
    now = datetime.now(UTC).replace(microsecond=0)
    said = recording_of(read_signed_baseline(directory, None, now), Role.DEVELOPER, now)
    statement.write_bytes(sign(said, root / "dana.key"))

    def sealed() -> object:
        try:
            content = json.loads(baseline.read_bytes())
            content["files"] = {name: digest_file(directory / name) for name in content["files"]}
            content["seal"] = digest_json({key: value for key, value in content.items() if key != "seal"})
            baseline.write_text(canonical_json(content) + "\n", encoding="utf-8")
        except (ValueError, TypeError, KeyError, OSError, RecursionError):
            pass  # what cannot be sealed is read as it is
        return read_signed_baseline(directory, trust, now)

    traces = sorted(directory.glob("runs/*/trace.jsonl"))[:1]
    for path in (baseline, directory / "case.json", *traces, statement):
        yield Loader(name=f"baseline {path.name}", file=path, load=sealed)


def _of_studies(root: Path) -> Iterator[Loader]:
    """What studies record, and the levels that another project states."""
    place = root / "studies"
    place.mkdir()
    for name, source, read_one in (
        ("study of detection power", ROOT / "reports" / "power-qwen3-tiny-inference.json", read_power),
        ("study of a floor", STANDARDS_DIR / "floors" / "qwen3-tiny-fp32.json", read_study),
    ):
        path = Path(shutil.copy(source, place / f"{name}.json"))
        yield Loader(name=name, file=path, load=functools.partial(read_one, path))
    stated = Path(shutil.copytree(STATED_DIR, place / "stated"))
    for path in sorted(stated.glob("*.csv")):
        yield Loader(name=f"stated {path.name}", file=path, load=lambda: load_stated.__wrapped__(stated))
    inputs = write_example(place / "inference", case=inference_case()).path / "inputs"
    yield Loader(name="evaluation", file=inputs / EVALUATION, load=lambda: read_evaluation(inputs))


def _of_nights(root: Path) -> Iterator[Loader]:
    """What a night leaves for the next one, and what its command is given."""
    cell = CellResult(
        cell=DEFAULT_CASE,
        case=DEFAULT_CASE,
        device="CPU",
        layout="one process",
        required=Level.PRELIMINARY,
        state=CellState.NOT_RUN,
        reason="no machine",
        seconds=0.0,
    )
    night = Night(
        format=NIGHT_FORMAT,
        name="20260101-000000",
        matrix="a" * 64,
        revision=None,
        started="2026-01-01T00:00:00+00:00",
        ended=None,
        host="h",
        prerequisites={},
        cells=(cell,),
        total=1,
        part="1/2",
    )
    record = root / "history" / NIGHTS / night.name / NIGHT
    write_json(record, night)
    yield Loader(name="night", file=record, load=lambda: nights(root / "history"))
    part, exact = root / "part.txt", root / "constraints.txt"
    part.write_text("1/2")
    yield Loader(name="part", file=part, load=lambda: read_part(part.read_bytes().decode(errors="surrogateescape")))
    exact.write_text("numpy==2.1.0  # a comment\ntorch==2.9.0; python_version > '3.10'\n")

    def fresh() -> object:
        constraints.cache_clear()
        return versions_of(exact)

    yield Loader(name="constraints", file=exact, load=fresh)


def _of_machines(root: Path) -> Iterator[Loader]:
    """What the driver of NPUs prints, and the files of its packages."""
    (root / "bin").mkdir(parents=True)
    smi(root, Machine())

    def seen() -> object:
        before = os.environ["PATH"]
        os.environ["PATH"] = f"{root / 'bin'}{os.pathsep}{before}"
        try:
            return devices(), versions(), shown()
        finally:
            os.environ["PATH"] = before

    for path in sorted(root.glob("output-*")):
        yield Loader(name=f"npu-smi {path.name}", file=path, load=seen)


def _of_dumps(root: Path) -> Iterator[Loader]:
    """What msprobe dumped of a step: of some modules the tensors, of others what it states of them."""
    case = small_case()
    data, random = case.data, np.random.RandomState(1)
    every = [one for one in places(case.model, data.global_batch_size, data.seq_length) if one.shape]
    tensors = {f"forward.{one.name}": random.standard_normal(one.shape).astype(np.float32) for one in every}
    directory = export(tensors, root / "dump", "mindspore", save_array)
    files = sorted((directory / DUMPED_TENSORS).iterdir())
    for path in files[1::2]:
        path.unlink()

    def read() -> object:
        return read_dump(directory, case, unread)

    yield Loader(name="dump", file=directory / DUMP, load=read)
    yield Loader(name="dumped tensor", file=files[0], load=read)


def unread(path: Path) -> NoReturn:
    """In the place of what reads a tensor of PyTorch."""
    raise ValueError(f"{path} is of PyTorch")


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
