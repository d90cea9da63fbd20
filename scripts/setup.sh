#!/usr/bin/env bash
# Installs what building, testing and the demonstration need and is missing. Debian 12 or a
# relative of it; elsewhere it says what to install by hand. Does nothing where all is there.
#
#   scripts/setup.sh [--demo]      --demo: only what the demonstration needs
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/common.sh

command -v cargo >/dev/null || die "cargo is missing; install Rust from https://rustup.rs"

# command:package
needed=(gcc:gcc git:git python3:python3)
if [ "${1:-}" != --demo ]; then
  needed+=(g++:g++ make:make perl:perl rsync:rsync fusermount3:fuse3 file:file cpio:cpio dash:dash
    unshare:util-linux setpriv:util-linux mount:mount ip:iproute2 strace:strace
    mpirun.mpich:mpich mpirun.openmpi:openmpi-bin srun:slurm-client slurmd:slurmd
    slurmctld:slurmctld munged:munge
    ssh:openssh-client sshd:openssh-server ssh-keygen:openssh-client
    gdb:gdb valgrind:valgrind musl-gcc:musl-tools fakeroot:fakeroot
    debootstrap:debootstrap objdump:binutils chromium:chromium tmux:tmux)
fi
missing=()
for pair in "${needed[@]}"; do
  command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
# The tests compare the binding with libfabric's own headers; to run, the library is enough.
if [ "${1:-}" != --demo ] && [ ! -e /usr/include/rdma/fabric.h ]; then
  missing+=(libfabric-dev)
fi
# Allocators that programs preload beside Copper.
if [ "${1:-}" != --demo ]; then
  for pair in libjemalloc.so.2:libjemalloc2 libtcmalloc_minimal.so.4:libtcmalloc-minimal4 \
    libmimalloc.so.2:libmimalloc2.0; do
    [ "$(gcc -print-file-name="${pair%%:*}" 2>/dev/null)" != "${pair%%:*}" ] || missing+=("${pair##*:}")
  done
fi
# CPython's own tests; an interpreter that was not installed by the system has them with it.
if [ "${1:-}" != --demo ] && ! "$(real_python)" -c 'import test.test_os' 2>/dev/null; then
  missing+=("libpython$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')-testsuite")
fi
if ! python3 -m pip --version >/dev/null 2>&1; then
  missing+=(python3-pip)
fi
if [ ${#missing[@]} -gt 0 ]; then
  say "installing ${missing[*]}"
  command -v apt-get >/dev/null || die "install these by hand: ${missing[*]}"
  as_root=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || die "ask root for: apt-get install ${missing[*]}"
    as_root=(sudo)
  fi
  export DEBIAN_FRONTEND=noninteractive
  "${as_root[@]}" apt-get update -qq || die "apt-get update failed; is the network there?"
  "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    die "apt-get could not install: ${missing[*]}"
fi

# The slow origin of the tests is a FUSE file system.
if [ "${1:-}" != --demo ] && [ ! -e /dev/fuse ] && [ "$(id -u)" = 0 ]; then
  modprobe fuse || die "/dev/fuse is missing and the kernel module fuse cannot be loaded"
fi

# Wheels are fetched once and kept in the repository's .cache.
if [ ! -e "$cache/wheels/complete" ]; then
  say "fetching numpy, scipy and pandas"
  mkdir -p "$cache/wheels"
  "$(real_python)" -m pip download --quiet --disable-pip-version-check --only-binary :all: \
    -d "$cache/wheels" -r scripts/python-packages.txt ||
    die "pip could not fetch the packages of scripts/python-packages.txt; is the network there?"
  touch "$cache/wheels/complete"
fi

# Built for no MPI in particular; the tests run it with MPICH and with Open MPI.
if [ "${1:-}" != --demo ] && ! compgen -G "$cache/wheels/mpi4py-*.whl" >/dev/null; then
  say "fetching mpi4py"
  "$(real_python)" -m pip download --quiet --disable-pip-version-check --only-binary :all: \
    -d "$cache/wheels" 'mpi4py>=4.1,<5' || die "pip could not fetch mpi4py; is the network there?"
fi

# Perl's own tests are in its source alone. Without them the suites of others are two instead of three.
if [ "${1:-}" != --demo ] && [ ! -d "$cache/perl-source" ] && command -v apt-get >/dev/null; then
  say "fetching the source of perl"
  place=$(mktemp -d)
  (
    cd "$place"
    mkdir -p lists/partial
    source /etc/os-release
    apt-get indextargets --format 'deb-src $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
      sort -u | grep " ${VERSION_CODENAME:-} " >sources
    own=(-qq -o "Dir::Etc::SourceList=$place/sources" -o Dir::Etc::SourceParts=/dev/null
      -o "Dir::State::Lists=$place/lists" -o APT::Sandbox::User=root)
    apt-get "${own[@]}" update && apt-get "${own[@]}" source --download-only perl >/dev/null &&
      tar -xf perl_*.orig.tar.xz --wildcards --no-wildcards-match-slash '*/t' '*/lib'
  ) && mv "$place"/perl-*/ "$cache/perl-source" || say "it cannot be had: its tests are left out"
  rm -rf "$place"
fi
