#!/usr/bin/env python3
"""Stands for a launcher that is not on this machine, by whose name this file is called.

Each task runs on its own node, a namespace (scripts/cluster.sh), as the launcher's would on its own:
with the launcher's variables, with or without its standard input, and with the launcher's way of
ending it.
"""

import os
import signal
import subprocess
import sys
import threading


def expand(hosts):
    """The names of a list such as a,node[1-3]."""
    names = []
    for item in hosts.split(","):
        if "[" not in item:
            names.append(item)
            continue
        name, numbers = item.rstrip("]").split("[")
        first, last = numbers.split("-")
        names += [f"{name}{n:0{len(first)}d}" for n in range(int(first), int(last) + 1)]
    return names


def enter(host, command):
    """The words that run a command on a node."""
    state = f"/run/copper-cluster/{host}"
    if not os.path.exists(state):
        print(f"{host}: no such host", file=sys.stderr)
        sys.exit(255)
    spaces = [f"--net=/run/netns/{host}", f"--mount={state}/mnt", f"--uts={state}/uts"]
    return ["nsenter", *spaces, "--", *command]


def run_all(hosts, command, given, variables=lambda place: {}, labels=False):
    """Runs the command on all hosts; `given` is every task's input."""
    tasks = []
    for place, host in enumerate(hosts):
        task = subprocess.Popen(
            enter(host, command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **variables(place)},
            start_new_session=True,
        )
        tasks.append((host, task))

    def end_all(*_):
        for _, task in tasks:
            task.terminate()

    signal.signal(signal.SIGTERM, end_all)

    def serve(host, task):
        task.stdin.write(given)
        task.stdin.close()
        for line in task.stdout:
            label = f"{host}: " if labels else ""
            sys.stdout.write(label + line.decode())
            sys.stdout.flush()

    threads = [threading.Thread(target=serve, args=task) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.exit(max(task.wait() for _, task in tasks))


def options(words, with_value):
    """Splits words into options and the command; `with_value` take another word.

    The variables that --genv and --env give to the tasks are found under "variables".
    """
    found = {"variables": {}}
    while words and words[0].startswith("-"):
        name, _, value = words.pop(0).partition("=")
        if name in with_value and not value:
            value = words.pop(0)
        if name in ("--genv", "--env"):
            variable, _, value = value.partition("=")
            found["variables"][variable] = value
        else:
            found[name] = value
    return found, words


def run_ranks(hosts, each, command, found):
    """The job's own tasks, so many on each of the nodes."""
    ranks = [host for host in hosts for _ in range(each)]
    # They start where the launcher was started.
    command = ["env", f"--chdir={os.getcwd()}", *command]
    run_all(ranks, command, b"", lambda place: found["variables"])


def ssh(words):
    _, (host, *command) = options(words, {"-o"})
    os.execvp("nsenter", enter(host, ["sh", "-c", " ".join(command)]))


def mpiexec(words):
    """That of PALS: no task gets the input but the first."""
    found, command = options(words, {"--hostfile", "-n", "--ppn", "--cpu-bind"})
    if "--hostfile" not in found:
        with open(os.environ["PBS_NODEFILE"], encoding="ascii") as file:
            hosts = list(dict.fromkeys(file.read().split()))
        assert int(found["-n"]) == len(hosts) * int(found["--ppn"]), found
        run_ranks(hosts, int(found["--ppn"]), command, found)
    with open(found["--hostfile"], encoding="ascii") as file:
        hosts = file.read().split()
    assert int(found["-n"]) == len(hosts) and found["--ppn"] == "1", found
    run_all(hosts, command, b"", lambda place: {"PALS_RANKID": str(place)})


def flux(words):
    brokers = expand(os.environ["FLUX_URI"].removeprefix("stand-in://"))
    if words == ["getattr", "hostlist"]:
        print(os.environ["FLUX_URI"].removeprefix("stand-in://"))
        return
    action = words.pop(0)
    if action == "run":
        found, command = options(words, set())
        assert int(found["--nodes"]) == len(brokers), found
        run_ranks(brokers, int(found["--tasks-per-node"]), command, found)
    assert action == "exec", action
    found, command = options(words, set())
    places = []
    for part in found["--rank"].split(","):
        first, _, last = part.partition("-")
        places += range(int(first), int(last or first) + 1)
    run_all([brokers[place] for place in places], command, sys.stdin.buffer.read())


def clush(words):
    found, command = options(words, {"-w"})
    run_all(expand(found["-w"]), command, sys.stdin.buffer.read(), labels=True)


def pdsh(words):
    found, command = options(words, {"-w", "-R"})
    run_all(expand(found["-w"]), command, b"", labels=True)


globals()[os.path.basename(sys.argv[0])](sys.argv[1:])
