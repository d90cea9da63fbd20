#!/usr/bin/env python3
"""Runs a Spack recipe's install() without Spack: spack_stand_in.py RECIPE SOURCE PREFIX LIBFABRIC.

SOURCE is a source tree that has been built: cargo is not run, the commands that it would be given are
checked. LIBFABRIC is the prefix of the package libfabric. Prints, as JSON, the commands, the
dependencies and the environment that the installation sets.

What stands here for Spack does what Spack's documentation says of the functions of its package API,
and refuses everything else.
"""

import fnmatch
import json
import os
import shutil
import subprocess
import sys
import types

recipe, source, prefix, libfabric = (os.path.abspath(path) for path in sys.argv[1:])
said = {"cargo": [], "depends_on": [], "environment": {}}


class Prefix(str):
    """A directory whose attributes are the paths below it."""

    def __getattr__(self, name):
        return Prefix(os.path.join(self, name))


class Spec:
    """One concrete package with all variants at their defaults."""

    def __init__(self, prefix):
        self.prefix = Prefix(prefix)

    def satisfies(self, constraint):
        assert constraint in variants, constraint
        return variants[constraint]

    def __getitem__(self, name):
        assert name == "libfabric", name
        return Spec(libfabric)


variants = {}


def directive(name):
    def take(*words, **options):
        if name == "variant":
            variants[f"+{words[0]}"] = options["default"]
            assert options["description"]
        if name == "depends_on":
            said[name].append([*words, options["type"], options.get("when")])

    return take


class Executable:
    def __init__(self, path):
        self.path = path

    def __call__(self, *arguments):
        if os.path.basename(self.path) == "cargo":
            said["cargo"].append(arguments)
        else:
            subprocess.run([self.path, *arguments], check=True, stdin=subprocess.DEVNULL)


def which(name, required):
    assert required and shutil.which(name), name
    return Executable(name)


def mkdirp(*paths):
    for path in paths:
        os.makedirs(path, exist_ok=True)


def install(file, to):
    """Into a directory, or under another name; with the file's mode."""
    shutil.copy(file, to)


def find(root, pattern, recursive):
    assert not recursive
    return [os.path.join(root, name) for name in sorted(fnmatch.filter(os.listdir(root), pattern))]


def find_libraries(name, root, shared, recursive):
    assert shared and recursive
    found = [
        os.path.join(place, file)
        for place, _, files in os.walk(root)
        for file in files
        if file == f"{name}.so"
    ]
    assert found, f"no {name} in {root}"
    return found


class Environment:
    def set(self, name, value):
        said["environment"][name] = str(value)


class Package:
    def __init__(self):
        self.prefix = Prefix(prefix)
        self.spec = Spec(prefix)


api = types.ModuleType("spack.package")
for name in ["license", "version", "variant", "depends_on"]:
    setattr(api, name, directive(name))
for function in [which, mkdirp, install, find, find_libraries, Executable]:
    setattr(api, function.__name__, function)
api.join_path = os.path.join
api.install_tree = lambda tree, to: shutil.copytree(tree, to, dirs_exist_ok=True)
sys.modules["spack"] = types.ModuleType("spack")
sys.modules["spack.package"] = api
if os.environ["WHERE_PACKAGE_IS"] == "packages":
    # As since Spack 1.0.
    for name in ["spack_repo", "spack_repo.builtin", "spack_repo.builtin.build_systems"]:
        sys.modules[name] = types.ModuleType(name)
    generic = types.ModuleType("spack_repo.builtin.build_systems.generic")
    sys.modules[generic.__name__] = generic
    generic.Package = Package
else:
    api.Package = Package

namespace = {}
with open(recipe, encoding="utf-8") as file:
    exec(compile(file.read(), recipe, "exec"), namespace)
os.chdir(source)
package = namespace["CopperHpc"]()
package.install(package.spec, package.prefix)
package.setup_run_environment(Environment())
print(json.dumps(said))
