"""The ways in which a suite is run: plain, on a read-only mount, and with a helper of the run's own."""

import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path

# What would make Copper, or another preload, take part in a plain run, or a suite say other things.
FORGOTTEN = [
    "LD_PRELOAD", "COPPER_RUNTIME_DIR", "COPPER_VIEW", "COPPER_PATHS", "COPPER_DISABLE",
    "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV", "PYENV_VERSION",
    "PERL5LIB", "PERL5OPT", "GIT_DIR",
]


def clean_environment():
    kept = {name: value for name, value in os.environ.items() if name not in FORGOTTEN}
    return {**kept, "LC_ALL": "C.UTF-8", "TZ": "UTC"}


class Plain:
    """Without Copper."""

    name = "plain"
    # Whether the suite's tree can be written to.
    writable = True
    before = []

    def __init__(self, user):
        self.user = user

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def environment(self):
        return clean_environment()

    def seen(self, path):
        return Path(path)

    def as_user(self):
        if self.user is None:
            return []
        return ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups", "--"]

    def run(self, command, directory, environment, log, limit):
        """Runs a command; returns its exit status, or what became of it."""
        # The program itself goes to its directory: in the view only the shim knows the way.
        inside = ["sh", "-c", 'cd "$0" && exec "$@"', directory]
        with open(log, "w") as said:
            process = subprocess.Popen(
                [str(part) for part in [*self.before, *self.as_user(), *inside, *command]], cwd="/",
                env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
            )
            try:
                return process.wait(limit)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return f"no end after {limit} s"


class ReadOnly(Plain):
    """Without Copper, `tree` mounted read-only: what the view is to be like."""

    name = "read-only"
    writable = False

    def __init__(self, user, tree):
        super().__init__(user)
        mount = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
        self.before = ["unshare", "--mount", "sh", "-c", mount, tree]


class Covered(Plain):
    """With a helper that covers `tree`: paths stay as they are."""

    name = "covered"

    def __init__(self, user, release, tree):
        super().__init__(user)
        self.tree = tree
        # Names of sockets are short.
        self.place = Path(tempfile.mkdtemp(prefix="copper-c-", dir="/var/tmp"))
        # Another user may not reach the build directory.
        subprocess.run(["cp", release / "copper", release / "libcopper.so", self.place], check=True)
        os.chmod(self.place, 0o755)
        if user is not None:
            os.chown(self.place, user, user)
        self.own = {
            "COPPER_RUNTIME_DIR": str(self.place / "run"), "COPPER_VIEW": str(self.place / "view"),
        }

    def call(self, *arguments):
        # Into a file: the helper may keep what it inherits.
        with tempfile.TemporaryFile("w+") as said:
            subprocess.run(
                [*self.as_user(), self.place / "copper", *arguments],
                env={**clean_environment(), **self.own}, check=True, stdout=said, stderr=said,
            )
            said.seek(0)
            return said.read()

    def __enter__(self):
        self.call("start", f"--cover={self.tree}")
        return self

    def __exit__(self, *_):
        self.served = json.loads(self.call("status", "--json"))
        self.call("stop")
        subprocess.run(["rm", "-rf", self.place], check=True)

    def environment(self):
        return {
            **clean_environment(), **self.own, "COPPER_PATHS": str(self.tree),
            "LD_PRELOAD": str(self.place / "libcopper.so"),
        }


class View(Covered):
    """Through the view: what is read has the view's path before its own, and cannot be written."""

    name = "view"
    writable = False

    def environment(self):
        environment = super().environment()
        del environment["COPPER_PATHS"]
        return environment

    def seen(self, path):
        return Path(f"{self.own['COPPER_VIEW']}{path}")
