#!/usr/bin/env python3
"""Records the file calls of a real Python import and writes them as a workload for the simulator.

    record_workload.py WORKDIR OUTPUT [STATEMENT]

makes a virtual environment in WORKDIR with numpy, scipy and pandas, runs STATEMENT (by default their
import) once to compile everything and several times for its processor time, then once under strace, and
writes what was asked of the environment and of Python's own library. Node-local paths (/usr, /etc,
/proc, ...) are left out, as Copper leaves them alone. Paths are relative; nothing names this machine.

The format, one item a line:

    f SIZE PATH         a file of SIZE bytes
    d ENTRIES PATH      a directory of ENTRIES names
    l TARGET-SIZE PATH  a symlink
    n 0 PATH            a name that does not exist
    c GAP OP INDEX      GAP microseconds of the program's own work, then a call on the INDEX-th path:
                        s attributes, r open and read whole, m map a library, o list, t read a link

strace slows every call, so the gaps between calls are scaled to the processor time of the plain run.
"""

import os
import re
import subprocess
import sys

STATEMENT = "import numpy, scipy.sparse, pandas"
CALL = re.compile(r"^(?:\d+ +)?(\d+\.\d+) (\w+)\((.*)\) += (-?\d+|\?)(?: (E\w+))?")
PATH = re.compile(r'^(?:(AT_FDCWD|-?\d+)(?:<([^>]*)>)?, )?"((?:[^"\\]|\\.)*)"')
OPS = {
    "newfstatat": "s", "stat": "s", "lstat": "s", "statx": "s", "access": "s", "faccessat2": "s",
    "faccessat": "s", "readlink": "t", "readlinkat": "t", "open": "r", "openat": "r", "execve": "s",
}


def prepare(workdir):
    """Makes the environment and gives its python and the prefixes that are on the origin."""
    venv = os.path.join(workdir, "env")
    python = os.path.join(venv, "bin", "python")
    if not os.path.exists(python):
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "numpy", "scipy", "pandas"], check=True)
    base = subprocess.run([python, "-c", "import sys; print(sys.base_prefix)"],
                          check=True, capture_output=True, text=True).stdout.strip()
    return python, [(os.path.realpath(venv), "env"), (os.path.realpath(base), "python")]


def own_time(python, statement):
    """The shortest processor time of the plain run in microseconds: what a warm import takes on an
    idle machine, also when this one is not idle."""
    subprocess.run([python, "-c", statement], check=True)
    times = []
    for _ in range(7):
        begin = os.times()
        subprocess.run([python, "-c", statement], check=True)
        end = os.times()
        spent = end.children_user - begin.children_user + end.children_system - begin.children_system
        times.append(spent * 1e6)
    return min(times)


def trace(python, statement, log):
    """Runs the statement under strace and gives (time, call, arguments, result, errno)."""
    subprocess.run(["strace", "-f", "-y", "-ttt", "-s", "4096", "-o", log,
                    "-e", "trace=%file,getdents64", python, "-c", statement], check=True)
    with open(log, errors="surrogateescape") as lines:
        for line in lines:
            match = CALL.match(line)
            if match:
                yield float(match[1]), match[2], match[3], match[4], match[5]


def path_of(call, arguments):
    """The absolute path that a call names, or none."""
    if call == "getdents64":
        match = re.match(r"\d+<([^>]*)>", arguments)
        return match[1] if match else None
    match = PATH.match(arguments)
    if not match:
        return None
    path = match[3].encode().decode("unicode_escape").encode("latin-1").decode("utf-8", "surrogateescape")
    if not path.startswith("/"):
        if match[1] == "AT_FDCWD" or not match[2]:
            return None
        path = os.path.join(match[2], path) if path else match[2]
    return os.path.normpath(path)


def relative(path, prefixes):
    """The path below the origin's prefixes, or none for a node-local one."""
    for prefix, name in prefixes:
        if path == prefix or path.startswith(prefix + "/"):
            return name + path[len(prefix):]
    return None


def describe(path, relative_path):
    """The line that says what a path is."""
    try:
        status = os.lstat(path)
    except OSError:
        return f"n 0 {relative_path}"
    if os.path.islink(path):
        return f"l {status.st_size} {relative_path}"
    if os.path.isdir(path):
        return f"d {len(os.listdir(path))} {relative_path}"
    return f"f {status.st_size} {relative_path}"


def main():
    workdir, output = sys.argv[1], sys.argv[2]
    statement = sys.argv[3] if len(sys.argv) > 3 else STATEMENT
    os.makedirs(workdir, exist_ok=True)
    python, prefixes = prepare(workdir)
    own = own_time(python, statement)
    paths, lines, calls = {}, [], []
    first = last = None
    for when, call, arguments, result, _ in trace(python, statement, os.path.join(workdir, "strace.log")):
        first = when if first is None else first
        end = when
        op = "o" if call == "getdents64" else OPS.get(call)
        path = path_of(call, arguments)
        if op is None or path is None or (op == "o" and result == "0"):
            continue
        name = relative(path, prefixes)
        if name is None:
            continue
        if op == "r" and (result.startswith("-") or "O_DIRECTORY" in arguments):
            op = "s"
        if op == "r" and ".so" in os.path.basename(path):
            op = "m"
        if name not in paths:
            paths[name] = len(paths)
            lines.append(describe(path, name))
            # The directory that holds it is part of the workload too: its listing answers for it.
            parent = os.path.dirname(path)
            while relative(parent, prefixes) and relative(parent, prefixes) not in paths:
                above = relative(parent, prefixes)
                paths[above] = len(paths)
                lines.append(describe(parent, above))
                parent = os.path.dirname(parent)
        gap = when - (last if last is not None else first)
        last = when
        calls.append((gap, op, paths[name]))
    scale = own / ((end - first) * 1e6)
    with open(output, "w", errors="surrogateescape") as out:
        print(f"# {statement}: recorded by record_workload.py", file=out)
        print(f"# processor time of the plain run {own / 1e6:.3f} s, {len(calls)} calls", file=out)
        for line in lines:
            print(line, file=out)
        for gap, op, index in calls:
            print(f"c {gap * 1e6 * scale:.0f} {op} {index}", file=out)


if __name__ == "__main__":
    main()
