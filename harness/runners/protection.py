"""What keeps a run of the subject from the answers: the runs of the other sides, and those that were recorded before.

With namespaces of its own a run sees its directory, which it may write, and its inputs, which it may read. It sees
neither other runs nor other processes. Whatever else it writes goes to places that are empty when it begins and gone
when it ends, so no later run finds anything of it. Where a machine permits no namespaces, the subject's runs come first
and end before another side's run begins.
"""

import contextlib
import ctypes
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.base.code import ROOMS, ROOT
from harness.runners import confine
from harness.runners.job import Job
from harness.runners.profile import CPU
from harness.runners.registry import file_of
from harness.runs.files import TRACE
from harness.runs.trace import PROTECTIONS, Protection, RunOutcome

SUBJECT, OTHERS = "subject", ("reference-", "oracle-", "floor-")  # how the names of another side's runs begin
RECORDED, MADE = ("baselines", "reports"), "certify-runs"  # where recorded answers lie
BUNDLE = "case.json"  # what makes a directory one
KEPT_TENSORS = "tensors.safetensors"  # of a run, in its own directory until it has ended
# Where any process may write, and where services of the machine keep what a process printed or how it crashed: each run
# has empty ones. The first is always there. `/run` has the sockets of services, which could start a process elsewhere.
TEMPORARY, HOME = Path("/tmp"), Path("/tmp/home")
PRIVATE = tuple(map(Path, (
    "/tmp", "/var/tmp", "/dev/shm", "/run", "/var/run", "/var/log", "/var/crash", "/var/lib/systemd/coredump",
    "/var/spool",
)))  # fmt: skip
# Where programs write that were given another place for it: by these variables; and CANN's logs, with its settings.
CACHES = ("ASCEND_CACHE_PATH", "ASCEND_PROCESS_LOG_PATH", "ASCEND_WORK_PATH", "CUDA_CACHE_PATH",
          "MS_COMPILER_CACHE_PATH", "TORCHINDUCTOR_CACHE_DIR")  # fmt: skip
LOGS = Path("/var/log/npu")
SHARED = frozenset({"XDG_CACHE_HOME", "XDG_RUNTIME_DIR"})  # variables that name places of all runs
OWN = {"HOME": str(HOME), "TMPDIR": str(TEMPORARY)}
PROBE_SECONDS = 30
PROBE = """
import os, socket
open('/tmp/probe', 'w').close()
with socket.create_server(('127.0.0.1', 0)) as one:
    socket.create_connection(one.getsockname()).close()
print(os.listdir('.'), os.getpid())
"""
PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, kw_only=True)
class Guard:
    """The protection of the runs in a directory. `why` states why there is no stronger one; empty for `namespaces`.

    `answers` are directories with recorded runs, besides those that are known; `needed` are files that the runs read
    and that may lie in one of them; into `outputs` runs write weights and logs, which no other run sees. `ended` is
    called with each job whose run has ended, before another run begins.
    """

    kind: Protection
    why: str = ""
    answers: tuple[Path, ...] = ()
    needed: tuple[Path, ...] = ()
    outputs: tuple[Path, ...] = ()
    ended: Callable[[Job], None] = lambda job: None


@functools.cache
def obstacle() -> str:
    """Why runs get no namespaces on this machine; empty where they do."""
    if sys.platform != "linux":
        return f"{sys.platform} has no namespaces"
    with tempfile.TemporaryDirectory(prefix="certify-") as name:
        there = Path(name)
        (there / "seen").mkdir()
        (there / "unseen").mkdir()
        seen = description(
            there, written=[there / "seen"], read=[], hidden=[], kept=own_files(), stays=below(PRIVATE, own_places())
        )
        try:
            with start([sys.executable, "-I", "-S", "-c", PROBE], seen, cwd=there, stdout=subprocess.PIPE) as started:
                out, said = started.communicate(timeout=PROBE_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
    if started.returncode or out.split() != [b"['seen']", b"2"]:
        return (said or out).decode(errors="replace").strip() or f"exit code {started.returncode}"
    return ""


def description(
    inside: Path,
    *,
    written: Iterable[Path],
    read: Iterable[Path],
    hidden: Iterable[Path],
    kept: Iterable[Path],
    private: Iterable[Path] = PRIVATE,
    stays: Iterable[Path] = (),
    copied: Iterable[Path] = (),
    network: bool = False,
) -> dict[str, Any]:
    """What a confined command sees: of the directory `inside` only the paths it writes and reads; empty places for
    what is `hidden`; all other files for reading only. It writes to the `private` places, which are empty but for what
    `stays` of them, and into directories that are `copied`. What is `kept` stays as it is even there. `network`: it has
    that of the machine."""
    named = {"written": written, "read": read, "hidden": hidden, "kept": kept, "stays": stays, "copied": copied}
    lists = {key: [str(path) for path in paths] for key, paths in named.items()}
    places = list(dict.fromkeys(os.path.realpath(path) for path in private if path.is_dir()))
    return {"inside": str(inside), **lists, "private": places, "home": str(HOME), "network": network}


def start(command: Sequence[str], seen: Mapping[str, Any], **options: Any) -> "subprocess.Popen[bytes]":
    """Starts a command so that it sees only this."""
    held = os.memfd_create("certify")
    try:
        os.write(held, json.dumps({**seen, "parent": os.getpid()}).encode())
        os.lseek(held, 0, os.SEEK_SET)
        first = [sys.executable, "-I", "-S", confine.__file__, str(held)]
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen([*first, *command], pass_fds=(held,), **given)
    finally:
        os.close(held)


def own_files() -> list[Path]:
    """What the runs and this program compute with: its code, and the packages of its interpreter."""
    paths = [Path(found) for name in ("stdlib", "purelib", "platlib") if (found := sysconfig.get_path(name))]
    paths += [Path(json.__file__).parents[1]]  # of the interpreter from which a virtual environment was made
    return sorted({path.resolve() for path in (*paths, *(ROOT / room for room in ROOMS))})


def seen_by(job: Job, guard: Guard, environment: Mapping[str, str]) -> dict[str, Any]:
    """What a confined run sees that has these variables."""
    directory = Path(job.directory)
    out = directory.parents[1]
    inputs = Path(job.inputs)
    read = [inputs, *([weights] if not (weights := Path(job.weights)).is_relative_to(inputs) else [])]
    needed = (out, *guard.needed, *own_files())
    hidden = [path for place in recorded_answers(out, guard.answers) for path in without(place, needed)]
    caches = (Path(environment[name]) for name in CACHES if environment.get(name))
    private = [*PRIVATE, *guard.outputs, *(path for path in caches if not path.is_relative_to(directory))]
    file = file_of(job.runner)
    used = [*own_places(), *guard.needed, *_named_in(environment), *([Path(job.python)] if job.python else [])]
    used += file.parent.glob("*.py") if file else []  # should it lie in a private place itself
    copied = [path for path in (Path.cwd(), LOGS) if path.is_dir() and path not in (Path("/"), *private)]
    return description(
        out,
        written=[directory, *_outputs(job)],
        read=read,
        hidden=hidden,
        kept=own_files(),
        private=private,
        stays=[path for path in below(private, used) if path not in copied],
        copied=copied,
        network=not alone(job),
    )


def alone(job: Job) -> bool:
    """Whether a confined run has a network of its own. Processes on several machines meet over the network; those on
    several NPUs may, by the interface that HCCL chooses."""
    return job.nodes is None and (job.ranks == 1 or job.device == CPU)


def confined_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of a run, which a confined one has so that what they name is its own."""
    return {**{name: value for name, value in environment.items() if name not in SHARED}, **OWN}


def own_places() -> list[Path]:
    """Where this process finds its code: it may lie in a place that is empty for a confined one."""
    prefixes = (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.executable, os.path.realpath(sys.executable))
    here = [Path.cwd()] if Path.cwd().is_dir() else []
    return [*own_files(), *here, *(Path(path) for path in (*prefixes, *sys.path) if path)]


def below(places: Iterable[Path], used: Iterable[Path]) -> list[Path]:
    """What is there of the paths used, and the interpreters among them whole, if it lies in one of the places."""
    real = [Path(os.path.realpath(place)) for place in places]
    found = set[Path]()
    for path in used:
        for one in (path, Path(os.path.realpath(path))):
            whole = one.parents[1] if one.parent.name == "bin" and one.is_file() else one
            if any(place in whole.parents for place in real) and whole.exists():
                found.add(whole)
    return sorted(found)


def _named_in(environment: Mapping[str, str]) -> list[Path]:
    """The paths that variables name, as lists or by themselves, without those of which a run has its own."""
    values = (value for name, value in environment.items() if name not in {*OWN, *SHARED, *CACHES})
    words = (word for value in values for word in re.split(r"[:;, ]", value))
    return [Path(word) for word in words if word.startswith("/")]


def _outputs(job: Job) -> list[Path]:
    """The directories besides its own into which a run writes, each made. One of its name is emptied: the logs of the
    first run lie around it, which could have put something there, or a link."""
    found = [Path(path) for path in (job.logs, job.checkpoint) if path]
    for path in found:
        if path.name == job.run:
            path.unlink() if path.is_symlink() else shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True, exist_ok=True)
    return found


def recorded_answers(out: Path, more: Iterable[Path]) -> Iterator[Path]:
    """The directories in which recorded runs are: of this program, of the working directory, and next to the output."""
    known = [where / name for where in (ROOT, Path.cwd()) for name in (*RECORDED, MADE)]
    yield from sorted({path.resolve() for path in (*known, *more) if path.is_dir()})
    for path in sorted(out.parent.iterdir()):
        # os.path, as a directory of another user is no error for it
        if path != out and not path.is_symlink() and os.path.exists(path / BUNDLE):
            yield path


def without(place: Path, needed: Iterable[Path]) -> Iterator[Path]:
    """What is hidden of a place so that what is needed stays: the place, or all in it that does not hold that."""
    inside = [path for path in needed if path.is_relative_to(place)]
    if not inside:
        yield place
    elif place not in inside:
        for path in sorted(place.iterdir()):
            yield from without(path, inside)


def weakest_of(job: Job, guard: Guard, before: Protection | None) -> Protection | None:
    """The protection of a run that begins now; `before` is that of an earlier attempt. None for another side's run."""
    if job.side != SUBJECT:
        return None
    now = guard.kind
    if now != "namespaces" and _others_there(Path(job.directory)):
        now = "none"
    return now if before is None else min(now, before, key=PROTECTIONS.index)


def is_apart(job: Job, protection: Protection | None, before: RunOutcome | None) -> bool | None:
    """Whether no later run finds anything that a run leaves which begins now; `before` is how an earlier attempt ended.
    None for another side's run."""
    if protection is None:
        return None
    return protection == "namespaces" and alone(job) and (before is None or bool(before.apart))


def _others_there(directory: Path) -> bool:
    """Whether runs of another side are next to a run."""
    return any(path.name.startswith(OTHERS) and (path / TRACE).exists() for path in directory.parent.iterdir())


class Strays:
    """The processes that runs leave behind: the kernel hands those without a parent to this process. Those that it had
    before, and others of its session, are none: each run begins a session, and no process can join another one."""

    def __init__(self) -> None:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._before = _children()

    def end(self, runs: Iterable[int]) -> None:
        """Ends all of them; `runs` are the processes of those that go on."""
        own = self._before | set(runs)
        while strays := {one for one in _children() - own if _session(one) != os.getsid(0)}:
            for process in strays:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(process, 0)


def _session(process: int) -> int:
    try:
        return os.getsid(process)
    except ProcessLookupError:
        return os.getsid(0)  # it is gone


def _children() -> set[int]:
    """The processes of which this one is the parent, also those that ended and were not waited for."""
    found = set[int]()
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found |= set(map(int, path.read_text().split()))
    return found
