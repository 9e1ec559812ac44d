"""Ways to fool the judge of collected runs: an honest reference and subject, and what is done to the subject's files.

Where a way changes a line, the end of its file is made to fit, unless that is the way: the worst case is a person who
knows the format.
"""

import dataclasses
import functools
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.base.digest import canonical_json, digest_bytes, digest_each, digest_file, digest_json, digest_tensors
from harness.base.errors import CertifyError
from harness.base.records import write_json
from harness.cases.case import Case
from harness.certify.case_options import judged_by
from harness.certify.judging import judge_collected
from harness.collect.files import write_tensors
from harness.evidence.bundle import Bundle, finish_bundle
from harness.evidence.collected_run import outcome_of, read_collected_record
from harness.evidence.judge import Outcome
from harness.levels.certificate import Certificate, Level
from harness.runs.collected import FIRST_GRADIENT, PARTS, RECORD, ROWS
from harness.runs.files import OUTCOME, TIMING, TRACE
from harness.runs.trace import read_trace
from harness.standards import Standard
from qwen3_model.parallel_config import ParallelConfig
from tests.support.bundles import edit_json
from tests.support.collected import STEPS, Trainer, collected_case, drawn, edit_record, train

COMMAND = ("certify", "judge", "CASE")
OF_RANK_0 = f"{ROWS}/0.jsonl"
CHIP = {"soc": "910B3", "cann": "8.1", "driver": "25"}
Line = dict[str, Any]
ONE_PROCESS = ParallelConfig()


@dataclass
class Scene:
    """A collected reference and a collected subject, and what came out of them."""

    root: Path
    layout: ParallelConfig = ONE_PROCESS  # of the case
    against: Path | None = None  # a baseline, in place of the collected reference
    others: tuple[Path, ...] = ()  # further runs of the subject
    refused: str = ""
    bundle: Bundle | None = None
    certificate: Certificate | None = None

    @property
    def reference(self) -> Path:
        return self.root / "reference"

    @property
    def subject(self) -> Path:
        return self.root / "subject"

    def judge(self, *others: Path) -> Level | None:
        """The level; None where the evidence is refused, or nothing is judged."""
        case, standards = judged_as(self.layout)
        try:
            self.bundle, self.certificate = judge_collected(
                case,
                standards,
                [self.against or self.reference],
                [self.subject, *self.others, *others],
                self.root / "out",
                COMMAND,
            )
        except CertifyError as error:
            self.refused = str(error)
            return None
        return self.certificate.level

    def outcome(self, spoil: "Fooling") -> Level | None:
        """What comes out after something was spoiled."""
        try:
            spoil(self)
        except CertifyError as error:
            self.refused = str(error)
            return None
        return self.judge()

    @property
    def failing(self) -> set[str]:
        assert self.bundle is not None
        return {one.criterion for one in self.bundle.findings if one.outcome in (Outcome.FAIL, Outcome.ERROR)}


Fooling = Callable[[Scene], object]


@functools.cache
def judged_as(layout: ParallelConfig) -> tuple[Case, tuple[Standard, ...]]:
    """The case in a layout, and what it is judged by."""
    parallel = {name: value for name, value in vars(layout).items() if value != getattr(ONE_PROCESS, name)}
    return judged_by(collected_case().with_changes(parallel=parallel), ())


def honest_scene(root: Path) -> Scene:
    train(root / "reference", Trainer(run="reference-1", trainer="hugging-face"))
    train(root / "subject", Trainer(gradient=True))
    return Scene(root)


def copy_of(honest: Scene, root: Path) -> Scene:
    return Scene(Path(shutil.copytree(honest.root, root, symlinks=True)))


def again(how: Trainer) -> Fooling:
    """The subject collected in another way."""

    def spoil(scene: Scene) -> None:
        shutil.rmtree(scene.subject)
        train(scene.subject, how)

    return spoil


def rewrite(path: Path, change: Callable[[list[Line]], object], *, fits: bool = True) -> None:
    """Other lines in a file: header, steps and end of a trace, or steps and end of rows."""
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    change(lines)
    written = [(canonical_json(line) + "\n").encode() for line in lines]
    if fits and "lines" in lines[-1]:
        lines[-1]["lines"] = digest_bytes(b"".join(written[:-1]))
        written[-1] = (canonical_json(lines[-1]) + "\n").encode()
    path.write_bytes(b"".join(written))


def lines_of(name: str, change: Callable[[list[Line]], object], *, fits: bool = True) -> Fooling:
    return lambda scene: rewrite(scene.subject / name, change, fits=fits)


def header(**changes: Any) -> Fooling:
    return lines_of(TRACE, lambda lines: lines[0].update(changes))


def how(**changes: Any) -> Fooling:
    """Another statement of how the run was collected."""
    return lines_of(TRACE, lambda lines: lines[0]["provenance"]["collected"].update(changes))


def step(number: int, *, fits: bool = True, **changes: Any) -> Fooling:
    return lines_of(TRACE, lambda lines: lines[number].update(changes), fits=fits)


def every_step(change: Callable[[Line], object]) -> Fooling:
    return lines_of(TRACE, lambda lines: [change(line) for line in lines[1:-1]])


def rows(number: int, **changes: Any) -> Fooling:
    """Another line in the rows of the only rank."""
    return lines_of(OF_RANK_0, lambda lines: lines[number - 1].update(changes))


def row(number: int, old: str, new: str, digest: str | None = None) -> Fooling:
    """Another number of a row, or another digest."""

    def change(lines: list[Line]) -> None:
        found = lines[number - 1]["rows"]
        own = found.pop(old)
        found[new] = own if digest is None else digest

    return lines_of(OF_RANK_0, change)


def text_of(name: str, old: bytes, new: bytes) -> Fooling:
    """Other bytes in the first line that has some, with an end that fits."""

    def spoil(scene: Scene) -> None:
        path = scene.subject / name
        *lines, end = path.read_bytes().replace(old, new, 1).splitlines(keepends=True)
        content = {**json.loads(end), "lines": digest_bytes(b"".join(lines))}
        path.write_bytes(b"".join([*lines, (canonical_json(content) + "\n").encode()]))

    return spoil


def record(*, seal: bool = True, **changes: Any) -> Fooling:
    return lambda scene: edit_record(scene.subject, seal=seal, **changes)


def both_started(text: str) -> Fooling:
    return lambda scene: [edit_record(one, started=text) for one in (scene.reference, scene.subject)]


def on(device: str, ascend: Any = None, *, stated: str | None = None, seal: bool = True) -> Fooling:
    """A record of another device and chip; `stated` is what the trace states."""

    def spoil(scene: Scene) -> None:
        environment = json.loads((scene.subject / RECORD).read_bytes())["environment"]
        machine = {**environment["machine"], **({"ascend": ascend} if ascend else {})}
        record(seal=seal, environment={**environment, "device": device, "machine": machine})(scene)
        if stated is not None:
            how(device=stated)(scene)

    return spoil


def both(*acts: Fooling) -> Fooling:
    return lambda scene: [act(scene) for act in acts]


def cut(name: str, count: int) -> Fooling:
    """The last bytes of a file are gone."""
    return lambda scene: (scene.subject / name).write_bytes((scene.subject / name).read_bytes()[:-count])


def emptied(name: str) -> Fooling:
    return lambda scene: (scene.subject / name).write_bytes(b"")


def gone(name: str) -> Fooling:
    return lambda scene: (scene.subject / name).unlink()


def of_holes(name: str) -> Fooling:
    """20 GB that take no disk."""
    return lambda scene: os.truncate(scene.subject / name, 20 << 30)


def linked(name: str) -> Fooling:
    """The same file, as a link."""

    def spoil(scene: Scene) -> None:
        path = scene.subject / name
        path.rename(scene.root / "aside")
        path.symlink_to(scene.root / "aside")

    return spoil


def piped(name: str) -> Fooling:
    """A pipe, whose reader waits for ever."""

    def spoil(scene: Scene) -> None:
        (scene.subject / name).unlink()
        os.mkfifo(scene.subject / name)

    return spoil


def time_of_a_step(text: str) -> Fooling:
    """Another text in the place of a number of seconds."""

    def spoil(scene: Scene) -> None:
        first, *others = (scene.subject / TIMING).read_text().splitlines(keepends=True)
        number = json.loads(first)["step"]
        (scene.subject / TIMING).write_text("".join([f'{{"step": {number}, "seconds": {text}}}\n', *others]))

    return spoil


def as_another_run(directory: Path) -> None:
    """Another random number and other times of every step: what a second run has."""
    edit_record(directory, nonce="7" * 64)
    lines = [json.loads(line) for line in (directory / TIMING).read_bytes().splitlines()]
    moved = [json.dumps({**one, "seconds": one["seconds"] + 0.01}) + "\n" for one in lines]
    (directory / TIMING).write_text("".join(moved))


def reference_as_subject(scene: Scene) -> None:
    shutil.rmtree(scene.subject)
    shutil.copytree(scene.reference, scene.subject)


def disguised_reference_as_subject(scene: Scene) -> None:
    reference_as_subject(scene)
    as_another_run(scene.subject)


def over_two_ranks(act: Callable[[Path], object]) -> Fooling:
    """A run of two ranks, whose files are changed."""

    def spoil(scene: Scene) -> None:
        scene.layout = ParallelConfig(data_parallel=2)
        again(Trainer(ranks=2))(scene)
        act(scene.subject)

    return spoil


TWO_HALVES = ParallelConfig(model_parallel=2)
PARTS_OF_0, PARTS_OF_1 = f"{PARTS}/0.jsonl", f"{PARTS}/1.jsonl"
SPLIT, ALIKE = "model.layers.0.self_attn.q_proj.weight", "model.norm.weight"  # over both ranks; whole on each


def over_two_halves(act: Fooling, how: Trainer | None = None) -> Fooling:
    """A run of two ranks that hold the halves of most weights; what is done to it."""

    def spoil(scene: Scene) -> None:
        scene.layout = TWO_HALVES
        again(dataclasses.replace(how or Trainer(), layout=TWO_HALVES))(scene)
        act(scene)

    return spoil


def part(name: str, when: str = "initial", *, rank: int = 0, fits: bool = True, **changes: Any) -> Fooling:
    """Other content in the line of a rank's part of a weight."""

    def change(lines: list[Line]) -> None:
        (found,) = (line for line in lines if (line.get("name"), line.get("when")) == (name, when))
        found.update(changes)

    return lines_of(f"{PARTS}/{rank}.jsonl", change, fits=fits)


def without(name: str, *whens: str) -> Fooling:
    """A rank does not state a part of a weight."""
    return lines_of(
        PARTS_OF_0, lambda lines: lines.__setitem__(slice(None), [one for one in lines if not is_of(one, name, whens)])
    )


def is_of(line: Line, name: str, whens: tuple[str, ...]) -> bool:
    return line.get("name") == name and line.get("when") in whens


def one_more(scene: Scene) -> None:
    """A part of a weight that the case does not have, at the beginning and at the end."""

    def change(lines: list[Line]) -> None:
        found = [line for line in lines if line.get("name") == ALIKE]
        lines[-1:-1] = [{**line, "name": "more"} for line in found]

    rewrite(scene.subject / PARTS_OF_0, change)


def part_twice(scene: Scene) -> None:
    rewrite(scene.subject / PARTS_OF_0, lambda lines: lines.insert(2, lines[1]))


def parts_of_another_run(scene: Scene) -> None:
    """Those of a run with other initial weights."""
    other = {"weights": lambda held: {name: weight + np.float32(1) for name, weight in held.items()}}
    train(scene.root / "other", Trainer(layout=TWO_HALVES, **other))
    for name in (PARTS_OF_0, PARTS_OF_1):
        shutil.copyfile(scene.root / "other" / name, scene.subject / name)


def parts_of_the_repeat(scene: Scene) -> None:
    """A repeat with other final weights, and with the parts of the first run in place of its own."""
    repeat = Trainer(layout=TWO_HALVES, moves=lambda weight: weight + np.float32(0.02))
    scene.others = (train(scene.root / "repeat", repeat),)
    as_another_run(scene.others[0])
    for name in (PARTS_OF_0, PARTS_OF_1):
        shutil.copyfile(scene.subject / name, scene.others[0] / name)


def rank_as_another(scene: Scene) -> None:
    shutil.copyfile(scene.subject / PARTS_OF_0, scene.subject / PARTS_OF_1)
    rewrite(scene.subject / PARTS_OF_1, lambda lines: lines[0].update(rank=1))


def whole_weights_too(scene: Scene) -> None:
    """The digests of the case in the header, next to parts."""
    digests = digest_each(drawn().weights)
    header(initial=digests, weights=digest_json(digests))(scene)


def called_not_collected(scene: Scene) -> None:
    """No rank has a file, and the trace states that weights were not collected."""
    shutil.rmtree(scene.subject / PARTS)
    how(omitted=["weights"])(scene)


def rank_ends_early(directory: Path) -> None:
    def change(lines: list[Line]) -> None:
        del lines[-2]
        lines[-1]["last_step"] -= 1

    rewrite(directory / OF_RANK_0, change)


def rank_with_the_rows_of_another(directory: Path) -> None:
    first = json.loads((directory / ROWS / "1.jsonl").read_bytes().splitlines()[0])
    rewrite(directory / OF_RANK_0, lambda lines: lines[0]["rows"].update(dict.fromkeys(first["rows"], "0" * 32)))


def rank_too_many(directory: Path) -> None:
    shutil.copy(directory / OF_RANK_0, directory / ROWS / "2.jsonl")


def batches_of_the_case(directory: Path) -> None:
    """The trace states the digests of the case's batches, and a rank read another row."""
    rewrite(directory / OF_RANK_0, lambda lines: lines[2]["rows"].update({"0": "0" * 32}))
    rewrite(directory / TRACE, lambda lines: [line.update(batch=batch_of(line["step"])) for line in lines[1:-1]])


def batch_of(number: int) -> str:
    return digest_tensors({"tokens": drawn().tokens[number - 1], "loss_mask": drawn().mask[number - 1]})


def in_the_bundle(act: Callable[[Path], object]) -> Fooling:
    """What is done to a bundle after it was judged; it is sealed again."""

    def spoil(scene: Scene) -> None:
        if scene.judge() is None:
            raise AssertionError(scene.refused)
        act(scene.root / "out")
        finish_bundle(scene.root / "out")
        raise AssertionError("the bundle was accepted")

    return spoil


def json_of(name: str, **changes: Any) -> Callable[[Path], None]:
    return lambda bundle: edit_json(bundle / name, lambda content: content.update(changes))


def never_resumed(bundle: Path) -> None:
    """A run that was collected as a resumed one, and never was."""
    source = train(bundle.parent / "more", Trainer(arm="resumed", steps=resumed_steps(), length=STEPS))
    target = Path(shutil.copytree(source, bundle / "runs" / "subject-resumed"))
    write_json(target / OUTCOME, outcome_of(read_trace(target / TRACE), read_collected_record(target / RECORD)))


def resumed_steps() -> int:
    return collected_case().training.steps_of("resumed")


def another_gradient(scene: Scene) -> None:
    (scene.subject / FIRST_GRADIENT).write_bytes((scene.subject / FIRST_GRADIENT).read_bytes()[:-8] + b"\0" * 8)


def of_gradient(content: Mapping[str, Any] | bytes) -> Fooling:
    """Another gradient, which the end of the trace states."""

    def spoil(scene: Scene) -> None:
        path = scene.subject / FIRST_GRADIENT
        path.write_bytes(content) if isinstance(content, bytes) else write_tensors(path, content)
        rewrite(scene.subject / TRACE, lambda lines: lines[-1].update(kept=digest_file(path)))

    return spoil
