"""Starts a command where it sees only some files: `python -I -S confine.py FD COMMAND...`.

Takes a description from the file descriptor FD (see `harness.runners.protection`). The command gets namespaces of its
own for mounts, processes, System V and POSIX communication, and unless it needs the network for that too, with a
loopback that leads to no one else. So it sees no other process, and all that it started ends with it. It can write to
no file but those that it is given, and to places that are empty when it begins and gone when it ends. In place of some
directories there are empty ones, and of one of them only chosen parts are there. It keeps no capability by which this
could be undone, and cannot put keys into the kernel or read its log. This file imports the standard library alone, and
is a program, not a module.

Source: mount_namespaces(7), pid_namespaces(7), ipc_namespaces(7), network_namespaces(7), user_namespaces(7),
capabilities(7), proc_pid_mountinfo(5), seccomp(2), keyrings(7), the kernel's overlayfs.rst; the capabilities that are
kept are those that a container of Docker has, without those that make devices or change the root.
"""

import ctypes
import errno
import fcntl
import json
import os
import re
import signal
import socket
import stat
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWIPC, CLONE_NEWNET = (
    0x00020000, 0x10000000, 0x20000000, 0x08000000, 0x40000000)  # fmt: skip
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_RELATIME = 2, 4, 8, 1 << 21
# The flags of a mount that a user namespace may not clear, as `mountinfo` names them.
FLAGS = {b"nosuid": MS_NOSUID, b"nodev": MS_NODEV, b"noexec": MS_NOEXEC, b"noatime": 1024, b"nodiratime": 2048,
         b"relatime": MS_RELATIME}  # fmt: skip
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
CAP_SYS_ADMIN, CAPABILITIES = 21, 64
# chown, dac_override, fowner, fsetid, kill, setgid, setuid, net_bind_service, ipc_lock, sys_nice, sys_resource
KEPT = (0, 1, 3, 4, 5, 6, 7, 10, 14, 23, 24)
CAPABILITY_VERSION = 0x20080522
# What a process of root could use to act outside of its namespaces.
SYSTEM = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/sys")
DEVICES, NOTHING, QUEUES = "/dev", "/dev/null", "/dev/mqueue"
OF_A_MOUNT, OF_ALL, OF_ITSELF = 0o755, 0o1777, 0o700
# A mount that cannot be reached by its path any more, as another one lies over it or its place is not this user's.
UNREACHED = (errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.EACCES)
# By machine: the name of its calls for seccomp; the numbers of add_key, request_key, keyctl and syslog; and of seccomp
# itself. Keys and the log of the kernel outlive a process, and no namespace divides them.
CALLS = {
    "x86_64": (0xC000003E, (248, 249, 250, 103), 317),
    "aarch64": (0xC00000B7, (217, 218, 219, 116), 277),
    "riscv64": (0xC00000F3, (217, 218, 219, 116), 277),
    "loongarch64": (0xC0000102, (217, 218, 219, 116), 277),
}
# Devices of characters that hold what is written to them, or reach the machine: of memory but null, zero, full, random
# and urandom; terminals and consoles but a process's own; virtual machines, loops, networks and what else has the
# number 10 but remote memory; keyboards; screens. Source: the kernel's devices.txt.
REACHING, HARMLESS = {1, 4, 5, 7, 10, 13, 29, 108}, {(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)}
REMOTE_MEMORY = "/dev/infiniband"
TERMINALS = "/dev/pts"
OTHER_CALLS = 0x40000000  # from here on x86_64 has the calls of x32
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06  # instructions of a filter
ALLOWED, REFUSED = 0x7FFF0000, 0x00050000 | errno.EPERM
FILTER, AS_FAST_AS_BEFORE = 1, 1 << 2
GET_FLAGS, SET_FLAGS, UP, LOOPBACK = 0x8913, 0x8914, 1, b"lo"
FAILED = 125  # the exit code where the command was not started

C = ctypes.CDLL(None, use_errno=True)


def main(description: str, command: Sequence[str]) -> None:
    """Ends as the command ends: with its exit code, or by the signal that ended it."""
    with os.fdopen(int(description)) as file:
        seen = json.load(file)
    end_with(seen["parent"])
    reading, writing = os.pipe()
    own_namespaces(seen)
    if not os.fork():
        os.close(reading)
        first_process(seen, command, writing)
    os.close(writing)
    with os.fdopen(reading) as ended:
        status = ended.read()
    os.wait()  # what the command left behind has ended then
    if not status:
        os._exit(FAILED)
    code = os.waitstatus_to_exitcode(int(status))
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code not in (signal.SIGKILL, signal.SIGSTOP) else None
        os.kill(os.getpid(), -code)
    os._exit(code)


def end_with(parent: int | None) -> None:
    """Ends this process when the one that started it ends."""
    C.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        sys.exit("the process that started this one is gone")


def own_namespaces(seen: Any) -> None:
    """Namespaces for what this process starts; without the right to have them, those of a user namespace."""
    flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | (0 if seen["network"] else CLONE_NEWNET)
    if capabilities() >> CAP_SYS_ADMIN & 1:
        return check(not C.unshare(flags), "namespaces")
    user, group = os.geteuid(), os.getegid()
    check(not C.unshare(flags | CLONE_NEWUSER), "user namespaces")
    for name, content in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        Path("/proc/self", name).write_text(content)
    return None


def first_process(seen: Any, command: Sequence[str], writing: int) -> None:
    """The first process of the namespace: all others in it end with it."""
    end_with(None)
    if not seen["network"]:
        raise_loopback()
    arrange(seen)
    keep_capabilities()
    refuse_calls()
    started = os.fork()
    if not started:
        os.close(writing)
        os.execv(command[0], list(command))
    while True:
        ended, status = os.wait()
        if ended == started:
            os.write(writing, str(status).encode())
            os._exit(0)


def raise_loopback() -> None:
    """The loopback of a new namespace is down at first."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        name = LOOPBACK.ljust(16, b"\0")
        (flags,) = struct.unpack_from("H", fcntl.ioctl(one, GET_FLAGS, name + bytes(24)), 16)
        fcntl.ioctl(one, SET_FLAGS, name + struct.pack("H", flags | UP) + bytes(22))


def arrange(seen: Any) -> None:
    """Mounts what the command sees."""
    here = os.getcwd()
    # Each is opened before anything lies over it.
    places = [(name, "private", -1) for name in seen["private"] if os.path.isdir(name)]
    for kind in ("copied", "stays"):
        places += [(name, kind, os.open(name, os.O_PATH)) for name in seen[kind] if os.path.exists(name)]
    parts = [(name, os.open(name, os.O_PATH), True) for name in seen["written"]]
    parts += [(name, os.open(name, os.O_PATH), False) for name in seen["read"]]
    mount("none", "/", MS_REC | MS_PRIVATE)
    whole = all_read_only()
    aside = room_aside(seen["private"][0])
    for name, kind, held in sorted(places, key=lambda place: place[0].count("/")):
        put(name, kind, held, aside, whole)
    os.close(aside)
    os.makedirs(seen["home"], OF_ITSELF, exist_ok=True)
    if os.path.isdir(QUEUES):
        mount("mqueue", QUEUES, MS_NOSUID | MS_NODEV | MS_NOEXEC, "mqueue")
    for path in filter(os.path.exists, seen["kept"]):
        mount(path, path, MS_BIND | MS_REC)
        read_only(path)
    for path in filter(os.path.lexists, seen["hidden"]):
        hide(path)
    inside = Path(seen["inside"])
    inside.mkdir(parents=True, exist_ok=True)
    mount("certify", seen["inside"], 0, "tmpfs", f"mode={OF_A_MOUNT:o},size=1m")
    for name, held, written in parts:
        bring(name, held)
        read_only(name, written=written)
        os.close(held)
    read_only(seen["inside"])
    mount("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "proc")
    for path in filter(os.path.exists, SYSTEM):
        mount(path, path, MS_BIND | MS_REC)
        read_only(path)
    for path in reaching_devices():
        mount(NOTHING, path, MS_BIND)
    if os.path.isdir(TERMINALS):
        mount("devpts", TERMINALS, MS_NOSUID | MS_NOEXEC, "devpts", "newinstance,ptmxmode=0666,mode=620")
    # What was the working directory may be hidden now, and an open one would lead there.
    os.chdir(here if os.path.isdir(here) else "/")


def all_read_only() -> list[str]:
    """Makes every mount read-only; the places of all. Their flags come from a list: a server of files may be gone."""
    flags = dict[bytes, int]()
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields = line.split(b" ")
        path = re.sub(rb"\\(\d{3})", lambda found: bytes([int(found[1], 8)]), fields[4])
        flags[path] = sum(FLAGS.get(name, 0) for name in fields[5].split(b","))  # of several, the last is on top
    for path, kept in flags.items():
        if C.mount(b"none", path, None, ctypes.c_ulong(MS_REMOUNT | MS_BIND | MS_RDONLY | kept), None):
            check(ctypes.get_errno() in UNREACHED, f"{os.fsdecode(path)} read-only")
    return [os.fsdecode(path) for path in flags]


def room_aside(place: str) -> int:
    """A directory for what is written into copies: under a place that another mount will lie over."""
    mount("certify", place, MS_NOSUID | MS_NODEV, "tmpfs", f"mode={OF_ITSELF:o}")
    return os.open(place, os.O_PATH)


def put(name: str, kind: str, held: int, aside: int, whole: Sequence[str]) -> None:
    """Puts an empty directory, a copy, or what was there, in a place."""
    if kind == "private":
        os.makedirs(name, exist_ok=True)  # it may have lain in a place that is empty now
        return mount("certify", name, MS_NOSUID | MS_NODEV, "tmpfs", f"mode={OF_ALL:o}")
    if not os.path.lexists(name) or kind == "stays":
        bring(name, held)
    if kind == "copied" and not any(other.startswith(f"{name}/") for other in whole):
        copy(name, held, aside)
    return os.close(held)


def copy(name: str, held: int, aside: int) -> None:
    """Has what is written into a directory go elsewhere. Where the kernel gives no such mount it stays read-only."""
    room = f"/proc/self/fd/{aside}/{held}"
    for part in ("new", "work"):
        os.makedirs(f"{room}/{part}")
    data = f"lowerdir=/proc/self/fd/{held},upperdir={room}/new,workdir={room}/work"
    for more in ("", ",userxattr"):  # the latter in a user namespace
        if not C.mount(b"certify", os.fsencode(name), b"overlay", ctypes.c_ulong(0), (data + more).encode()):
            return


def bring(name: str, held: int) -> None:
    """Has something be in its place that was opened before another mount lay over it."""
    there = Path(name)
    if not os.path.lexists(name):
        there.parent.mkdir(parents=True, exist_ok=True)
        there.mkdir() if stat.S_ISDIR(os.fstat(held).st_mode) else there.touch()
    mount(f"/proc/self/fd/{held}", name, MS_BIND | MS_REC)


def reaching_devices() -> Iterator[str]:
    """The devices by which a process could read, keep or change more than is its own."""
    for place, directories, names in os.walk(DEVICES):
        directories[:] = [name for name in directories if f"{place}/{name}" not in (TERMINALS, REMOTE_MEMORY)]
        for path in (f"{place}/{name}" for name in names):
            status = os.lstat(path)
            number = os.major(status.st_rdev), os.minor(status.st_rdev)
            character = stat.S_ISCHR(status.st_mode) and number[0] in REACHING and number not in HARMLESS
            if stat.S_ISBLK(status.st_mode) or character:
                yield path


def hide(path: str) -> None:
    """Puts nothing in the place of a file or of what a directory holds."""
    if os.path.isdir(path):
        mount("certify", path, MS_RDONLY, "tmpfs", f"mode={OF_A_MOUNT:o},size=1m")
    elif os.path.isfile(path):
        mount(NOTHING, path, MS_BIND)


def mount(source: str, target: str, flags: int, kind: str | None = None, data: str | None = None) -> None:
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    check(not C.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]), f"mount {target}")


def read_only(path: str, *, written: bool = False) -> None:
    """With the other flags that its mount has, which a user namespace may not clear."""
    has = os.statvfs(path).f_flag
    kept = has & (MS_NOSUID | MS_NODEV | MS_NOEXEC | os.ST_NOATIME | os.ST_NODIRATIME)
    kept |= MS_RELATIME if has & os.ST_RELATIME else 0
    mount("none", path, MS_REMOUNT | MS_BIND | (0 if written else MS_RDONLY) | kept)


def capabilities() -> int:
    """The effective capabilities of this process, as bits."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff"))


def keep_capabilities() -> None:
    """Gives up all capabilities but `KEPT`, for ever."""
    there, kept = capabilities(), sum(1 << number for number in KEPT)
    for number in set(range(CAPABILITIES)) - set(KEPT):
        C.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)  # an error where the kernel has no such capability, or it is gone
    left = there & kept
    halves = (left & 0xFFFFFFFF, left >> 32)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)(*(part for half in halves for part in (half, half, 0)))
    check(not C.capset(header, sets), "capset")
    check(not C.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def refuse_calls() -> None:
    """Refuses the calls by which a process leaves keys in the kernel or reads its log, and those of other machines."""
    machine = os.uname().machine
    check(machine in CALLS, f"the numbers of the calls of {machine}")
    name, refused, seccomp = CALLS[machine]
    lines = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, name), (RETURN, 0, 0, REFUSED), (LOAD, 0, 0, 0)]
    for how, number in ((AT_LEAST, OTHER_CALLS), *((EQUAL, one) for one in refused)):
        lines += [(how, 0, 1, number), (RETURN, 0, 0, REFUSED)]
    code = b"".join(struct.pack("HBBI", *line) for line in (*lines, (RETURN, 0, 0, ALLOWED)))
    held = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("H6xP", len(code) // 8, ctypes.addressof(held))
    check(not C.syscall(seccomp, FILTER, AS_FAST_AS_BEFORE, program), "seccomp")


def check(well: bool, what: str) -> None:
    """Ends this process where a call failed."""
    if not well:
        print(f"{what}: {os.strerror(ctypes.get_errno())}", file=sys.stderr, flush=True)
        os._exit(FAILED)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
