"""Makes a library storm, in the style of Pynamic: shared libraries that call each other, Python
extension modules among them, and a program that imports and calls all of them.

    storm.py PLACE [--libraries N] [--modules N] [--directories N] [--functions N] [--rpath origin|absolute]

Library number k needs some of those with lower numbers, so the closures are wide and deep; they are
found through a search path of all directories, most of which do not have them. PLACE/run.py prints a
number that depends on every function having been called.
"""

import argparse
import os
import random
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

FLAGS = ["-O0", "-shared", "-fPIC", "-w", "-nostartfiles"]
# How many others a library needs at most.
NEEDS = 4

RUN = """\
import importlib, os, sys
place = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(place, name) for name in sorted(os.listdir(place)) if name.startswith("d")]
total = 0
for number in range({modules}):
    module = importlib.import_module(f"storm_module_{{number}}")
    assert module.__file__.startswith(place), module.__file__
    total = (total * 31 + module.entry()) % 1000003
print(total)
"""


class Storm:
    def __init__(self, arguments):
        self.place, self.rpath = Path(arguments.place).absolute(), arguments.rpath
        self.libraries, self.modules = arguments.libraries, arguments.modules
        self.directories, self.functions = arguments.directories, arguments.functions
        self.random = random.Random(arguments.seed)
        self.include, self.suffix = sysconfig.get_path("include"), sysconfig.get_config_var("EXT_SUFFIX")

    def directory(self, number):
        return self.place / f"d{number % self.directories:02}"

    def needs(self, number):
        return sorted(self.random.sample(range(number), min(number, NEEDS)))

    def search_path(self):
        root = str(self.place) if self.rpath == "absolute" else "$ORIGIN/.."
        names = [f"{root}/d{number:02}" for number in range(self.directories)]
        # The older kind is searched for what libraries need themselves need as well.
        kind = "--disable-new-dtags" if self.rpath == "absolute" else "--enable-new-dtags"
        return f"-Wl,{kind},-rpath,{':'.join(names)}"

    def functions_of(self, name, number, needs):
        """The functions of one library: each calls one of the same and one of another library."""
        text = "".join(f"int util_{need}_f{self.functions - 1}(int);\n" for need in needs)
        for index in range(self.functions):
            calls = [f"{name}_f{index - 1}(x)"] if index else []
            if needs:
                calls.append(f"util_{needs[index % len(needs)]}_f{self.functions - 1}(x % 3)")
            # Two calls on every level would be exponential: the depth is bounded by x.
            body = f"x > 0 ? ({' + '.join(f'({call})' for call in calls)}) % 9973 : x".replace("(x)", "(x - 1)")
            text += f"int {name}_f{index}(int x) {{ return {body if calls else 'x'} + {number + index}; }}\n"
        return text

    def compile(self, target, text, needs, extra):
        libraries = [str(self.directory(need) / f"libutil_{need}.so") for need in needs]
        subprocess.run(
            ["gcc", *FLAGS, *extra, "-x", "c", "-o", target, "-", "-x", "none", *libraries,
             self.search_path(), f"-Wl,-soname,{target.name}", "-Wl,-rpath-link," + ":".join(str(self.directory(number)) for number in range(self.directories))],
            input=text, text=True, check=True,
        )

    def library(self, number, needs, before):
        wait(before)
        text = self.functions_of(f"util_{number}", number, needs)
        self.compile(self.directory(number) / f"libutil_{number}.so", text, needs, [])

    def module(self, number, needs, libraries):
        wait(libraries[: self.libraries])
        name = f"storm_module_{number}"
        text = f"""#include <Python.h>
{self.functions_of(name, number, needs)}
static PyObject *entry(PyObject *self, PyObject *none) {{ return PyLong_FromLong({name}_f{self.functions - 1}(3)); }}
static PyMethodDef methods[] = {{{{"entry", entry, METH_NOARGS, ""}}, {{0}}}};
static struct PyModuleDef definition = {{PyModuleDef_HEAD_INIT, "{name}", 0, -1, methods}};
PyObject *PyInit_{name}(void) {{ return PyModule_Create(&definition); }}
"""
        target = self.directory(number) / f"{name}{self.suffix}"
        self.compile(target, text, needs, [f"-I{self.include}"])

    def make(self):
        for number in range(self.directories):
            self.directory(number).mkdir(parents=True, exist_ok=True)
        needs = [self.needs(number) for number in range(self.libraries)]
        of_modules = [sorted(self.random.sample(range(self.libraries), NEEDS)) for _ in range(self.modules)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            made = []
            for number in range(self.libraries):
                # What a library is linked with comes first; it was given to the pool before.
                before = [made[need] for need in needs[number]]
                made.append(pool.submit(self.library, number, needs[number], before))
            made += [pool.submit(self.module, number, of_modules[number], made) for number in range(self.modules)]
            for done in list(made):
                done.result()
        (self.place / "run.py").write_text(RUN.format(modules=self.modules))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("place")
    parser.add_argument("--libraries", type=int, default=200)
    parser.add_argument("--modules", type=int, default=100)
    parser.add_argument("--directories", type=int, default=10)
    parser.add_argument("--functions", type=int, default=20)
    parser.add_argument("--rpath", choices=["origin", "absolute"], default="origin")
    parser.add_argument("--seed", type=int, default=1)
    Storm(parser.parse_args()).make()


if __name__ == "__main__":
    main()
