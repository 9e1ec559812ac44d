"""Starts a command where it sees only some files: `python -I -S confine.py FD COMMAND...`.

Takes a description from the file descriptor FD (see `harness.runners.protection`). The command gets namespaces of its
own for mounts and for processes, so it sees no other process, and all that it started ends with it. In place of some
directories there are empty ones, and of one of them only chosen parts are there. It keeps no capability by which this
could be undone. This file imports the standard library alone, and is a program, not a module.

Source: mount_namespaces(7), pid_namespaces(7), user_namespaces(7), capabilities(7); the capabilities that are kept are
those that a container of Docker has, without those that make devices or change the root.
"""

import ctypes
import json
import os
import signal
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID = 0x00020000, 0x10000000, 0x20000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_RELATIME = 2, 4, 8, 1 << 21
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
CAP_SYS_ADMIN, CAPABILITIES = 21, 64
# chown, dac_override, fowner, fsetid, kill, setgid, setuid, net_bind_service, ipc_lock, sys_nice, sys_resource
KEPT = (0, 1, 3, 4, 5, 6, 7, 10, 14, 23, 24)
CAPABILITY_VERSION = 0x20080522
# What a process of root could use to act outside of its namespaces.
SYSTEM = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/sys")
DEVICES, NOTHING = "/dev", "/dev/null"
OF_A_MOUNT = 0o755
FAILED = 125  # the exit code where the command was not started

C = ctypes.CDLL(None, use_errno=True)


def main(description: str, command: Sequence[str]) -> None:
    """Ends as the command ends: with its exit code, or by the signal that ended it."""
    with os.fdopen(int(description)) as file:
        seen = json.load(file)
    end_with(seen["parent"])
    reading, writing = os.pipe()
    own_namespaces()
    if not os.fork():
        os.close(reading)
        first_process(seen, command, writing)
    os.close(writing)
    with os.fdopen(reading) as ended:
        status = ended.read()
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


def own_namespaces() -> None:
    """Namespaces for what this process starts; without the right to have them, those of a user namespace."""
    flags = CLONE_NEWNS | CLONE_NEWPID
    if capabilities() >> CAP_SYS_ADMIN & 1:
        return check(C.unshare(flags), "namespaces")
    user, group = os.geteuid(), os.getegid()
    check(C.unshare(flags | CLONE_NEWUSER), "user namespaces")
    for name, content in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        Path("/proc/self", name).write_text(content)
    return None


def first_process(seen: Any, command: Sequence[str], writing: int) -> None:
    """The first process of the namespace: all others in it end with it."""
    end_with(None)
    arrange(seen)
    keep_capabilities()
    started = os.fork()
    if not started:
        os.close(writing)
        os.execv(command[0], list(command))
    while True:
        ended, status = os.wait()
        if ended == started:
            os.write(writing, str(status).encode())
            os._exit(0)


def arrange(seen: Any) -> None:
    """Mounts what the command sees."""
    here = os.getcwd()
    parts = [(name, os.open(name, os.O_PATH), True) for name in seen["written"]]
    parts += [(name, os.open(name, os.O_PATH), False) for name in seen["read"]]
    mount("none", "/", MS_REC | MS_PRIVATE)
    for path in filter(os.path.exists, seen["kept"]):
        mount(path, path, MS_BIND | MS_REC)
        read_only(path)
    for path in filter(os.path.lexists, seen["hidden"]):
        hide(path)
    mount("certify", seen["inside"], 0, "tmpfs", f"mode={OF_A_MOUNT:o},size=1m")
    for name, held, written in parts:
        there = Path(name)
        there.parent.mkdir(parents=True, exist_ok=True)
        there.mkdir(exist_ok=True) if stat.S_ISDIR(os.fstat(held).st_mode) else there.touch()
        mount(f"/proc/self/fd/{held}", name, MS_BIND | MS_REC)
        if not written:
            read_only(name)
        os.close(held)
    read_only(seen["inside"])
    mount("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "proc")
    for path in filter(os.path.exists, SYSTEM):
        mount(path, path, MS_BIND | MS_REC)
        read_only(path)
    for entry in os.scandir(DEVICES):
        if stat.S_ISBLK(entry.stat(follow_symlinks=False).st_mode):
            mount(NOTHING, entry.path, MS_BIND)
    # What was the working directory may be hidden now, and an open one would lead there.
    os.chdir(here if os.path.isdir(here) else "/")


def hide(path: str) -> None:
    """Puts nothing in the place of a file or of what a directory holds."""
    if os.path.isdir(path):
        mount("certify", path, MS_RDONLY, "tmpfs", f"mode={OF_A_MOUNT:o},size=1m")
    elif os.path.isfile(path):
        mount(NOTHING, path, MS_BIND)


def mount(source: str, target: str, flags: int, kind: str | None = None, data: str | None = None) -> None:
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    check(C.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]), f"mount {target}")


def read_only(path: str) -> None:
    """With the other flags that its mount has, which a user namespace may not clear."""
    has = os.statvfs(path).f_flag
    kept = has & (MS_NOSUID | MS_NODEV | MS_NOEXEC | os.ST_NOATIME | os.ST_NODIRATIME)
    kept |= MS_RELATIME if has & os.ST_RELATIME else 0
    mount("none", path, MS_REMOUNT | MS_BIND | MS_RDONLY | kept)


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
    check(C.capset(header, sets), "capset")
    check(C.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def check(result: int, what: str) -> None:
    """Ends this process where a call failed."""
    if result:
        print(f"{what}: {os.strerror(ctypes.get_errno())}", file=sys.stderr, flush=True)
        os._exit(FAILED)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
