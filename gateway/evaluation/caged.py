"""Runs one program that nobody has read, inside limits; the sandbox starts it as a process.

The program comes on stdin after a line of JSON, which holds the limits and a token. The token goes
to stdout when the program has run to its end, so a program that exits early does not pass. It runs
on the standard library alone, without kiki: ``python -I -S caged.py``.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import traceback

CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = (
    0x08000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_SET_NO_NEW_PRIVS = 1, 8, 38
CAPABILITY_VERSION, DAC_READ_SEARCH = 0x20080522, 1 << 2
NOBODY = 65534

# Landlock's system calls have the same numbers on every architecture.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
PATH_BENEATH = 1
# What changes files: write, and remove or make an entry of any kind.
CHANGES = (1 << 1) | sum(1 << bit for bit in range(4, 13))
REFER, TRUNCATE = 1 << 13, 1 << 14  # from version 2 and 3
TCP = 0b11  # bind and connect, from version 4


class Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("net", ctypes.c_uint64)]


class Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32)]


def main() -> None:
    spec = json.loads(sys.stdin.readline())
    program = sys.stdin.read()
    reports = os.dup(1)
    os.dup2(os.open("output", os.O_WRONLY | os.O_CREAT, 0o600), 1)
    os.dup2(1, 2)
    guards = {"network": "none", "files": "none", "processes": "limits"}
    if sys.platform == "linux":
        _leave_the_machine(guards)
    if os.geteuid() == 0:
        _be_nobody()
    if guards["processes"] == "namespace":  # another user's number would have cleared it
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    _set_limits(spec)
    if sys.platform == "linux":
        _keep_to_folder(guards)
    os.write(reports, json.dumps(guards).encode() + b"\n")
    try:
        exec(compile(program, "program", "exec"), {"__name__": "program"})
    except BaseException:
        traceback.print_exc(limit=-3)
        sys.stderr.flush()
        os._exit(1)
    sys.stdout.flush()
    os.write(reports, spec["token"].encode())
    os._exit(0)


def _leave_the_machine(guards: dict[str, str]) -> None:
    """Into namespaces without network and without others' processes, where the system permits.

    The first process of its own process namespace takes all others with it when it ends.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    apart = CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC
    if libc.unshare(apart if os.geteuid() == 0 else apart | CLONE_NEWUSER) != 0:
        return
    guards["network"], guards["processes"] = "namespace", "namespace"
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _be_nobody() -> None:
    """Root has no limit of processes. On Linux it keeps what reads a library in root's own home."""
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "linux":
        libc.prctl(PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    if sys.platform == "linux":
        header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
        libc.capset(header, (ctypes.c_uint32 * 6)(DAC_READ_SEARCH, DAC_READ_SEARCH))


def _set_limits(spec: dict[str, int]) -> None:
    limits = {
        "RLIMIT_CPU": spec["cpu_s"],
        "RLIMIT_AS": spec["memory"],
        "RLIMIT_FSIZE": spec["file_size"],
        "RLIMIT_NOFILE": spec["files"],
        "RLIMIT_NPROC": 0,
        "RLIMIT_CORE": 0,
    }
    for name, most in limits.items():
        resource.setrlimit(getattr(resource, name), (most, most))


def _keep_to_folder(guards: dict[str, str]) -> None:
    """By Landlock, where the kernel has it: nothing outside the working folder can be changed."""
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(CREATE_RULESET, None, 0, 1)
    if version < 1:
        return
    changes = CHANGES | (REFER if version >= 2 else 0) | (TRUNCATE if version >= 3 else 0)
    rules = Ruleset(changes, TCP if version >= 4 else 0)
    size = ctypes.sizeof(rules) if version >= 4 else 8
    ruleset = libc.syscall(CREATE_RULESET, ctypes.byref(rules), ctypes.c_size_t(size), 0)
    folder = os.open(".", os.O_PATH)
    beneath = Beneath(changes, folder)
    if ruleset < 0 or libc.syscall(ADD_RULE, ruleset, PATH_BENEATH, ctypes.byref(beneath), 0):
        return
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.syscall(RESTRICT_SELF, ruleset, 0):
        return
    os.close(folder)
    os.close(ruleset)
    guards["files"] = "landlock"
    if version >= 4 and guards["network"] == "none":
        guards["network"] = "landlock (TCP)"


if __name__ == "__main__":
    main()
