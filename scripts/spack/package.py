# Licence: Apache-2.0 or MIT, as you prefer.
"""Spack recipe of Copper. Put it into a repository of your own, and say below where the source is:

    spack repo create ~/site site
    mkdir ~/site/spack_repo/site/packages/copper_hpc
    cp package.py ~/site/spack_repo/site/packages/copper_hpc/
    spack repo add ~/site/spack_repo/site
    spack install copper-hpc

Before Spack 1.0 the directory is ~/site/packages/copper-hpc, and the repository ~/site.
"""

from spack.package import *

try:
    # Since Spack 1.0 this class comes with the packages, not with Spack.
    from spack_repo.builtin.build_systems.generic import Package
except ImportError:
    pass


class CopperHpc(Package):
    """Reads each file of a job from the parallel file system once, and serves it to all processes
    from the nodes' memory."""

    license("Apache-2.0 OR MIT")

    # Where you have the source: a clone of your own or its address.
    git = "file:///path/to/copper"

    version("main", branch="main")

    variant("fabric", default=True, description="Name Spack's libfabric to Copper's helpers")

    depends_on("c", type="build")
    depends_on("rust@1.88:", type="build")
    # Loaded at run time. Sites with a network of their own name theirs as an external package.
    depends_on("libfabric@1.15:", type="run", when="+fabric")

    def install(self, spec, prefix):
        cargo = which("cargo", required=True)
        # Two builds: the shim must not get the features that the command asks of its libraries.
        cargo("build", "--release", "--locked", "-p", "copper-shim", "-p", "copper-audit")
        cargo("build", "--release", "--locked", "-p", "copper")
        mkdirp(prefix.bin, prefix.lib, prefix.share.copper)
        install("target/release/copper", prefix.bin)
        install("target/release/libcopper.so", prefix.lib)
        install(
            "target/release/libcopper_audit.so", join_path(prefix.lib, "libcopper-audit.so")
        )
        for script in find("scripts", "*_copper.sh", recursive=False):
            install(script, prefix.bin)
        install_tree("scripts/examples", join_path(prefix.share.copper, "examples"))
        install("scripts/dist/demo.sh", prefix.share.copper)
        Executable(join_path(prefix.bin, "copper"))("documents", prefix)

    def setup_run_environment(self, env):
        # LD_PRELOAD is not set here: Copper serves the programs of a job, not a whole shell.
        env.set("COPPER_ROOT", self.prefix)
        if self.spec.satisfies("+fabric"):
            libraries = find_libraries(
                "libfabric", self.spec["libfabric"].prefix, shared=True, recursive=True
            )
            env.set("COPPER_LIBFABRIC", libraries[0])
