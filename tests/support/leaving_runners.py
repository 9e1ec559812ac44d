"""A subject whose first run leaves something for its second, in every way that is known; and one that uses helpers.

`LEFT` is what is tried: for each a row in docs/design/trust.md. What the second run found stays in its own directory.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import pwd
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy

from harness.runners.confine import CALLS
from harness.runners.protocol import Numbers
from tests.support.fake_runners import Fake
from tests.support.hostile_runners import job_of_this_process, out

FOUND, NAME, KEY = "found.json", "certify-left-behind", 0x4C454654
PORT, HELPERS = 47_911, "MS_FAKE_HELPERS"  # the variable names a file with the addresses of helpers
C = ctypes.CDLL(None, use_errno=True)
CREATE, REMOVE = 0o1000 | 0o600, 0
DAEMON = """
import os, socket, sys, time
if os.fork() or os.setsid() or os.fork(): os._exit(0)
kind, address = sys.argv[1:]
one = socket.socket(socket.AF_INET if kind == 'port' else socket.AF_UNIX)
one.bind(('127.0.0.1', int(address)) if kind == 'port' else address.replace('@', chr(0)))
one.listen()
time.sleep(60)
"""
Leave, Find = Callable[[], object], Callable[[], object]


def well(result: int) -> int:
    """The result of a call.

    Raises:
        OSError: it failed.
    """
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def in_place(place: Callable[[], Path | str], name: str = NAME) -> tuple[Leave, Find]:
    """A file in a directory, which goes when it is found."""

    def path() -> Path:
        return Path(place()) / name

    def find() -> bool:
        there = path().exists()
        path().unlink(missing_ok=True)
        return there

    return lambda: path().write_text("numbers"), find


def noted() -> Path:
    """A file that was there before, in the working directory."""
    return Path.cwd() / "notes"


def times() -> bool:
    return noted().stat().st_mtime_ns == KEY


def attribute() -> bool:
    return os.getxattr(noted(), "user.left") == b"numbers"


def key(ring: int) -> tuple[Leave, Find]:
    """A key in the kernel, in the ring of the user or of the session."""
    add, _, control, _ = CALLS[os.uname().machine][1]
    search, unlink = 10, 9

    def find() -> bool:
        found = well(C.syscall(control, search, ring, b"user", NAME.encode(), 0))
        C.syscall(control, unlink, found, ring)
        return True

    return lambda: well(C.syscall(add, b"user", NAME.encode(), b"numbers", 7, ring)), find


def of_system_v(get: Callable[..., int], control: Callable[..., int], *more: int) -> tuple[Leave, Find]:
    """Something that is found by its number."""

    def find() -> bool:
        found = well(get(KEY, *(0 for _ in more), 0))
        control(found, *([0] if get is C.semget else []), REMOVE, None)
        return True

    return lambda: well(get(KEY, *more, CREATE)), find


def queue() -> tuple[Leave, Find]:
    name = f"/{NAME}".encode()

    def find() -> bool:
        well(C.mq_open(name, os.O_RDONLY))
        C.mq_unlink(name)
        return True

    return lambda: well(C.mq_open(name, os.O_CREAT | os.O_RDWR, 0o600, None)), find


def daemon(kind: str, address: Callable[[], str]) -> tuple[Leave, Find]:
    """A process that was started so that it has no parent, in a session of its own, and answers at an address."""

    def leave() -> None:
        subprocess.run([sys.executable, "-c", DAEMON, kind, address()], check=True, stdin=subprocess.DEVNULL)

    return leave, lambda: reached(kind, address())


def reached(kind: str, address: str) -> bool:
    with socket.socket(socket.AF_INET if kind == "port" else socket.AF_UNIX) as one:
        one.settimeout(5)
        one.connect(("127.0.0.1", int(address)) if kind == "port" else address.replace("@", "\0"))
    return True


def locked() -> bool:
    with noted().open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def lock() -> None:
    script = "import fcntl, sys, time; f = open(sys.argv[1]); fcntl.flock(f, 2); print(flush=True); time.sleep(60)"
    command = [sys.executable, "-c", script, str(noted())]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    assert started.stdout is not None
    started.stdout.readline()


def printed_by_kernel() -> bool:
    """Whether the log of the kernel has the name, as what crashed or as what was written there."""
    text = ctypes.create_string_buffer(1 << 20)
    well(C.klogctl(3, text, len(text)))
    return NAME[:15].encode() in text.raw


def crash() -> None:
    """The kernel notes the name of what it ends."""
    script = f"import ctypes; ctypes.CDLL(None).prctl(15, b'{NAME[:15]}', 0, 0, 0); ctypes.string_at(0)"
    subprocess.run([sys.executable, "-c", script], check=False, stderr=subprocess.DEVNULL)


def on_console(mode: str) -> bool:
    """Whether the memory of the first console begins with the name, or it was written there."""
    with open("/dev/vcs1", mode) as console:
        return bool(console.write(NAME)) if mode == "w" else console.read(len(NAME)) == NAME


# The places of the machine, which a test without namespaces leaves alone.
OF_THE_MACHINE: Mapping[str, tuple[Leave, Find]] = {
    "home, as the list of users has it": in_place(lambda: pwd.getpwuid(os.getuid()).pw_dir),
    "a package": in_place(lambda: Path(numpy.__file__).parent),
    "bytecode of this program": in_place(lambda: Path(sys.modules["harness"].__path__[0]) / "__pycache__"),
    "the interpreter": in_place(lambda: sys.prefix),
    "logs of the machine": in_place(lambda: "/var/log"),
    "the root, or places for mounts": in_place(lambda: "/mnt"),
    "places of services": in_place(lambda: "/run"),
    "a control group": (
        lambda: os.mkdir(f"/sys/fs/cgroup/pids/{NAME}"), lambda: os.path.exists(f"/sys/fs/cgroup/pids/{NAME}")),
    "the name of the machine": (lambda: socket.sethostname(NAME), lambda: socket.gethostname() == NAME),
    "the log of the kernel": (lambda: Path("/dev/kmsg").write_text(NAME), printed_by_kernel),
    "the log of the kernel, by a process that crashes": (crash, printed_by_kernel),
    "the memory of a console": (lambda: on_console("w"), lambda: on_console("r")),
    "core dumps": in_place(lambda: "/var/crash"),
    "work for services": in_place(lambda: "/var/spool"),
    "a key of the user": key(-4),
    "a key of the session": key(-3),
}  # fmt: skip
LEFT: Mapping[str, tuple[Leave, Find]] = {
    "`/tmp`": in_place(lambda: "/tmp"),
    "`/var/tmp`": in_place(lambda: "/var/tmp"),
    "`/dev/shm`": in_place(lambda: "/dev/shm"),
    "home": in_place(Path.home),
    "the directory of `TMPDIR`": in_place(tempfile.gettempdir),
    "the working directory": in_place(Path.cwd),
    "a cache that a variable names": in_place(lambda: os.environ["MS_COMPILER_CACHE_PATH"]),
    "its bundle": in_place(out),
    "the runs of its bundle": in_place(lambda: out() / "runs"),
    "its inputs": in_place(lambda: out() / "inputs"),
    "next to its bundle": in_place(lambda: out().parent, f"{NAME}-there"),
    "the time of a file": (lambda: os.utime(noted(), ns=(KEY, KEY)), times),
    "the mode of a file": (lambda: noted().chmod(0o640), lambda: noted().stat().st_mode & 0o777 == 0o640),
    "an attribute of a file": (lambda: os.setxattr(noted(), "user.left", b"numbers"), attribute),
    "a lock that a process holds": (lock, locked),
    "shared memory of System V": of_system_v(C.shmget, C.shmctl, 4096),
    "a queue of System V": of_system_v(C.msgget, C.msgctl),
    "semaphores of System V": of_system_v(C.semget, C.semctl, 1),
    "a queue of POSIX": queue(),
    "a daemon at a port": daemon("port", lambda: str(PORT)),
    "a daemon at an abstract socket": daemon("abstract", lambda: f"@{NAME}"),
    "a daemon at a socket in `/tmp`": daemon("path", lambda: f"/tmp/{NAME}-{os.getuid()}.socket"),
    **OF_THE_MACHINE,
}  # fmt: skip


class LeavesAndFinds(Fake):
    """Its first run leaves something in each way, and its second looks for it."""

    omitted: Mapping[str, object] = {}

    def at_step(self, numbers: Numbers) -> Numbers:
        job = job_of_this_process()
        done = dict[str, object]()
        for name, (leave, find) in LEFT.items():
            if name in self.omitted:
                continue
            try:
                done[name] = bool(find()) if job.run.endswith("2") else leave() is not False
            except (OSError, subprocess.SubprocessError) as error:
                done[name] = False
                print(f"{name}: {error}", flush=True)
        (Path(job.directory) / FOUND).write_text(json.dumps(done))
        return numbers


class LeavesLittle(LeavesAndFinds):
    """The same without what would stay on the machine."""

    omitted = OF_THE_MACHINE


class UsesHelpers(Fake):
    """Tries to reach processes that were there before."""

    def at_step(self, numbers: Numbers) -> Numbers:
        done = dict[str, bool]()
        for kind, address in json.loads(os.environ[HELPERS]).items():
            done[kind] = False
            with contextlib.suppress(OSError):
                done[kind] = reached(kind, address)
        (Path(job_of_this_process().directory) / FOUND).write_text(json.dumps(done))
        return numbers


class WritesElsewhere(Fake):
    """Writes where only the judge may."""

    def at_step(self, numbers: Numbers) -> Numbers:
        (out() / "elsewhere").write_text("x")
        return numbers


class ReadsOutputs(Fake):
    """Reads what another run left in the places for weights and logs."""

    def at_step(self, numbers: Numbers) -> Numbers:
        job = job_of_this_process()
        places = [out().with_name(f"{out().name}-weights"), out().with_name("logs")]
        found = sorted(path.name for place in places for path in place.rglob("*"))
        (Path(job.directory) / FOUND).write_text(json.dumps(found))
        if job.logs:
            (Path(job.logs) / "own.log").write_text("x")
        return numbers
