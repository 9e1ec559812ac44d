"""Subjects that try to see the answers, or to change what they are judged by.

Each finds the directory of its bundle as anyone could who reads this program: from the job in the frames of its
process. What it reached stays in its own directory.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType

from harness.runners.job import Job
from harness.runners.protocol import Numbers
from tests.support.fake_runners import Fake

REACHED = "reached.json"
# waits until the process that started it has ended
WAIT = """
import os, sys, time
while os.getppid() == int(sys.argv[2]):
    time.sleep(0.05)
time.sleep(1)
open(sys.argv[1], "w").write("left behind")
"""


def job_of_this_process() -> Job:
    """The job that this process carries out."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if isinstance(job := frame.f_locals.get("job"), Job):
            return job
        frame = frame.f_back
    raise AssertionError("no job in this process")


def out() -> Path:
    return Path(job_of_this_process().directory).parents[1]


def names(path: Path) -> list[str]:
    return sorted(one.name for one in path.iterdir())


def written(path: Path) -> bool:
    """Whether a file could be written; what it held is put back."""
    before = path.read_bytes() if path.exists() else None
    path.write_bytes(b"hostile")
    path.write_bytes(before) if before is not None else path.unlink()
    return True


def opened(path: Path) -> bool:
    """Whether a file could be written; nothing is."""
    os.close(os.open(path, os.O_WRONLY))
    return True


def unmounted(path: Path) -> bool:
    return ctypes.CDLL(None, use_errno=True).umount2(os.fsencode(path), 2) == 0


def remounted(path: Path) -> bool:
    remount, bind = 32, 4096
    return ctypes.CDLL(None, use_errno=True).mount(b"none", os.fsencode(path), None, remount | bind, None) == 0


def in_new_namespaces(path: Path) -> bool:
    """Whether what hides a place can be taken away by who is root in namespaces of his own."""
    script = 'unshare --user --map-root-user --mount sh -c \'umount "$0" || umount -l "$0"\' '
    return subprocess.run(["sh", "-c", f"{script}{path}"], capture_output=True, check=False).returncode == 0


def killed(parent: int) -> bool:
    os.kill(parent, signal.SIGKILL)
    return True


def through_processes(path: Path) -> list[str]:
    """What a path is in the eyes of each process that can be seen, other than this one and its first."""
    roots = [root for root in Path("/proc").glob("[0-9]*/root") if root.parent.name not in ("1", str(os.getpid()))]
    found = []
    for root in roots:
        with contextlib.suppress(OSError):
            found += names(root / path.relative_to("/"))
    return found


def memories() -> list[str]:
    """The other processes whose memory could be written; nothing is."""
    found = []
    for path in Path("/proc").glob("[0-9]*/mem"):
        with contextlib.suppress(OSError):
            if path.parent.name not in ("1", str(os.getpid())) and opened(path):
                found.append(path.parent.name)
    return found


# what is tried: for each a sentence in docs/design/trust.md
TRIES: Mapping[str, Callable[[], object]] = {
    "list the other runs": lambda: [n for n in names(out() / "runs") if not n.startswith("subject")],
    "list the tensors": lambda: names(out() / "tensors"),
    "read the case": lambda: len((out() / "case.json").read_bytes()),
    "read the reference's trace": lambda: len((out() / "runs/reference-1/trace.jsonl").read_bytes()),
    "read a recorded bundle": lambda: names(out().parent / "earlier"),
    "read baselines": lambda: names(Path.cwd() / "baselines"),
    "read them through the working directory": lambda: names(Path("baselines")),
    "read them through another process": lambda: through_processes(out() / "runs"),
    "write into the memory of another process": memories,
    "write the case": lambda: written(out() / "case.json"),
    "write the standards": lambda: written(out() / "standards" / "official.json"),
    "write its inputs": lambda: written(out() / "inputs" / "batches.safetensors"),
    "write into this program": lambda: written(Path(sys.modules["harness"].__path__[0]) / "planted.py"),
    "write into a package": lambda: written(Path(sys.modules["numpy"].__path__[0]) / "planted.py"),
    "unmount what hides the runs": lambda: unmounted(out()),
    "make its inputs writable": lambda: remounted(out() / "inputs"),
    "unmount it in namespaces of its own": lambda: in_new_namespaces(out()),
    "end the judge": lambda: killed(int(sys.argv[2])) if int(sys.argv[2]) > 1 else killed(parent_of_all()),
    "set the clock of the machine": lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()) is None,
    "write the settings of the kernel": lambda: opened(Path("/proc/sys/kernel/core_pattern")),
}  # fmt: skip


def parent_of_all() -> int:
    """The process that started all, which a namespace of processes does not show."""
    raise ProcessLookupError("none is seen")


def tried(*omitted: str) -> dict[str, object]:
    """What each try gave; False where it was refused."""
    found: dict[str, object] = {}
    for name, attempt in TRIES.items():
        if name in omitted:
            continue
        try:
            found[name] = attempt()
        except OSError as error:
            found[name] = False
            print(f"{name}: {error}", flush=True)
    return found


class Tries(Fake):
    """Tries everything once."""

    harmful = ("end the judge", "set the clock of the machine")

    def at_step(self, numbers: Numbers) -> Numbers:
        found = tried(*(() if sys.argv[2:3] == ["1"] else self.harmful))
        (Path(job_of_this_process().directory) / REACHED).write_text(json.dumps(found))
        return numbers


class LeavesAProcess(Fake):
    """Leaves a process behind that writes into the directory of the bundle later."""

    def at_step(self, numbers: Numbers) -> Numbers:
        subprocess.Popen(
            [sys.executable, "-c", WAIT, str(out() / "case.json"), str(os.getpid())], start_new_session=True
        )
        return numbers


class LeavesALink(Fake):
    """Leaves links where others write or read later."""

    def at_step(self, numbers: Numbers) -> Numbers:
        directory = Path(job_of_this_process().directory)
        (directory / "outcome.json.part").symlink_to(out() / "source.json")
        os.mkfifo(directory / "timing.fifo")
        return numbers


class RewritesCase(Fake):
    """Asks less of itself."""

    def at_step(self, numbers: Numbers) -> Numbers:
        path = out() / "case.json"
        content = json.loads(path.read_text())
        content["training"]["floor_repeats"] = 0
        content["data"]["corpus"]["kind"] = "generated"
        path.write_text(json.dumps(content, sort_keys=True, separators=(",", ":")) + "\n")
        return numbers


class Copies(Fake):
    """Trains nothing: its numbers are those of the reference, if it finds them."""

    def train_step(self, tokens: object, loss_mask: object) -> Numbers:
        trained = super().train_step(tokens, loss_mask)  # type: ignore[arg-type]
        job = job_of_this_process()
        path = out() / "runs" / job.run.replace("subject", "reference") / "trace.jsonl"
        with contextlib.suppress(OSError, IndexError):
            line = json.loads(path.read_text().splitlines()[self.step])
            return Numbers(loss=line["loss"], grad_norm=line["grad_norm"], learning_rate=line["learning_rate"],
                           tokens=line["tokens"])  # fmt: skip
        return Numbers(loss=trained.loss * 1.5, grad_norm=trained.grad_norm, learning_rate=trained.learning_rate,
                       tokens=trained.tokens)  # fmt: skip
