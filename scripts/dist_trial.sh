#!/usr/bin/env bash
# Tries the tarball of scripts/dist.sh for real, on an older system and in containers.
#
#   scripts/dist_trial.sh [debian] [containers] [runtimes]      default: all
#
#   debian       unpacks it in a tree of Debian 11 (glibc 2.31), without Rust, moves it, and tries there
#                its demo, doctor, audit library, documents, job scripts and, where this system has
#                Lmod, its module file
#   containers   runs programs of that tree in mount and user namespaces of their own, with store,
#                runtime directory and covered prefix bound in
#   runtimes     the same with container runtimes, as many of them as are installed: Charliecloud
#                (package charliecloud-runtime), Podman (packages podman and runc)
#
# Needs root, debootstrap (package debootstrap) and, at the first time, the network.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/common.sh

tree=$cache/bullseye
root_in_tree=/opt/moved
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
name=copper-$version-x86_64-linux
tarball=$target/dist/$name.tar.gz

[ "$(id -u)" = 0 ] || die "run it as root: it makes a tree of another system and enters it"
[ -e "$tarball" ] || die "there is no $tarball; run scripts/dist.sh first"

# What the trials make lies on a disk, which /tmp may not be.
place=$(mktemp -d /var/tmp/copper-dist-trial.XXXXXX)
outside=$place/installed/$name/bin/copper
clean_up() {
  if [ -x "$outside" ]; then
    COPPER_RUNTIME_DIR=$place/run "$outside" stop >/dev/null 2>&1 || true
  fi
  rm -rf --one-file-system "$place" "$tree$root_in_tree"
  if [ -d "$tree$place" ]; then rmdir "$tree$place"; fi
}
trap clean_up EXIT

make_tree() {
  if [ -e "$tree.complete" ]; then return; fi
  command -v debootstrap >/dev/null || die "debootstrap is missing: apt-get install debootstrap"
  say "making a tree of Debian 11"
  rm -rf --one-file-system "$tree"
  debootstrap --variant=minbase --include=python3,libfabric1 bullseye "$tree" \
    http://deb.debian.org/debian >"$tree.log" 2>&1 || die "debootstrap failed; see $tree.log"
  touch "$tree.complete"
}

# Runs a command in the tree, with a /proc and a /dev/shm in a mount namespace of its own.
in_tree() {
  unshare --mount --propagation private bash -c '
    tree=$1; shift
    mount --rbind /proc "$tree/proc" && mount -t tmpfs -o mode=1777 tmpfs "$tree/dev/shm" &&
      exec chroot "$tree" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$@"' - "$tree" "$@"
}

try_debian() {
  say "Debian 11: $(in_tree python3 --version), $(in_tree getconf GNU_LIBC_VERSION)"
  ! in_tree sh -c 'command -v cargo || command -v rustc' || die "the tree has a Rust toolchain"
  mkdir -p "$tree$root_in_tree"
  tar -C "$tree/opt" -xzf "$tarball"
  rm -rf "${tree:?}$root_in_tree"
  mv "$tree/opt/$name" "$tree$root_in_tree"
  in_tree "$root_in_tree/share/copper/demo.sh" /srv/copper-demo
  rm -rf "$tree/srv/copper-demo"
  try_links
  try_doctor
  try_audit
  try_one_node
  try_documents
  try_module
}

# Through links to the whole and to the command, the libraries beside it are found.
try_links() {
  say "through links"
  in_tree sh -c "
    set -e
    ln -s $root_in_tree /tmp/link
    mkdir /tmp/bin
    ln -s /tmp/link/bin/copper /tmp/bin/copper
    for copper in /tmp/link/bin/copper /tmp/bin/copper; do
      [ \"\$(\$copper env --lib)\" = $root_in_tree/lib/libcopper.so ]
    done
    rm -r /tmp/link /tmp/bin"
  echo "\$(copper env --lib) is $root_in_tree/lib/libcopper.so through both"
}

# It must name the libfabric that it found and its providers; in the tree that is one that is too
# old, so this system's is looked at, too.
try_doctor() {
  say "copper doctor"
  local found
  found=$(in_tree "$root_in_tree/bin/copper" doctor)
  grep -A 1 '^[a-z]* *libfabric ' <<<"$found"
  grep -q 'libfabric .*libfabric 1.11 (/.*/libfabric.so.1); 1.15 or newer is needed' <<<"$found" ||
    die "the tree's libfabric is not named"
  grep -A 1 '^[a-z]* *audit library ' <<<"$found"
  found=$("$tree$root_in_tree/bin/copper" doctor | grep -E '^[a-z]+ *(libfabric|providers) ') || true
  echo "$found"
  grep -q 'libfabric .*/libfabric.so.1' <<<"$found" || die "this system's libfabric is not named"
  grep -q 'providers .* is taken; usable here: .*tcp' <<<"$found" || die "no provider is named"
}

# A job of one node needs no libfabric; the tree's is too old.
try_one_node() {
  say "a job of one node"
  in_tree sh -c "
    set -e
    copper=$root_in_tree/bin/copper
    export COPPER_RUNTIME_DIR=/tmp/run COPPER_VIEW=/tmp/view
    mkdir /srv/files
    seq 100000 >/srv/files/numbers
    \$copper start --hosts \$(uname -n) --cover /srv/files >/dev/null
    \$copper run -- tail -n 1 /srv/files/numbers | grep -qx 100000
    \$copper status --all | head -n 1
    \$copper stop
    rm -r /srv/files"
}

# Libraries of a program's start come from the store under the audit library, and not without it; the
# program says the same.
try_audit() {
  say "the audit library"
  in_tree sh -c "
    set -e
    copper=$root_in_tree/bin/copper
    export COPPER_RUNTIME_DIR=/tmp/run COPPER_VIEW=/tmp/view LD_LIBRARY_PATH=/srv/libraries
    mkdir /srv/libraries
    cp -L /lib/x86_64-linux-gnu/libz.so.1 /lib/x86_64-linux-gnu/libexpat.so.1 /srv/libraries
    \$copper start --cover /srv/libraries >/dev/null
    trap '\$copper stop >/dev/null; rm -r /srv/libraries' EXIT
    imported() {
      \"\$@\" python3 -c 'import pyexpat, zlib; print(zlib.crc32(b\"x\"), pyexpat.EXPAT_VERSION)
print(sum(\"/dev/shm/copper-\" in line for line in open(\"/proc/self/maps\")) > 0)'
    }
    [ \"\$(imported env)\" = \"\$(imported \$copper run --audit off --)\" ]
    said=\$(imported \$copper run --audit on --)
    [ \"\$said\" = \"\$(imported env | sed s/False/True/)\" ]
    echo 'from the store under it, from their place without it:' \$said"
}

# Manual pages and completions of every command; job scripts that a shell can read, with options
# that the command has.
try_documents() {
  say "documents and job scripts"
  in_tree bash -c "
    set -e
    root=$root_in_tree
    source \$root/share/bash-completion/completions/copper.bash
    complete -p copper >/dev/null
    COMP_WORDS=(copper start --read) COMP_CWORD=2
    _copper copper --read start 2>/dev/null
    [ \"\${COMPREPLY[*]}\" = --read-ahead ]
    for command in run start stop status env refresh profile report top control doctor; do
      [ -s \$root/share/man/man1/copper-\$command.1 ] || { echo \"no manual of \$command\"; exit 1; }
    done
    [ -s \$root/share/zsh/site-functions/_copper ]
    [ -s \$root/share/fish/vendor_completions.d/copper.fish ]
    for script in \$root/share/copper/examples/*.sh \$root/bin/*.sh; do bash -n \$script; done
    grep -ho 'copper [a-z]* .*' \$root/share/copper/examples/*.sh | grep -o -e 'copper [a-z]*' -e '--[a-z-]*' |
      while read -r word rest; do
        case \$word in
          copper) command=\$rest ;;
          --nodes | --tasks-per-node | --ppn) ;;
          *) \$root/bin/copper \$command --help | grep -q -e \"\$word\" || { echo \"\$command has no \$word\"; exit 1; } ;;
        esac
      done
    \$root/bin/launch_copper.sh -h | grep -q 'copper start --trees'
    echo \"\$(ls \$root/share/man/man1 | wc -l) manual pages, completions for three shells, \$(ls \$root/share/copper/examples/*.sh | wc -l) job scripts\""
}

# The module file, moved with the rest, with this system's Lmod.
try_module() {
  local lmod=/usr/share/lmod/lmod/init/bash
  if [ ! -e "$lmod" ]; then
    say "the module file is not tried: there is no Lmod here (apt-get install lmod)"
    return
  fi
  say "the module file"
  bash -c '
    source "$1" && module use "$2/modulefiles" && module load copper &&
      [ "$COPPER_ROOT" = "$2" ] && [ "$(command -v copper)" = "$2/bin/copper" ] &&
      [ -z "${LD_PRELOAD:-}" ] && man -w copper-start | grep -q "^$2/" &&
      module unload copper && [ -z "${COPPER_ROOT:-}" ]' - "$lmod" "$tree$root_in_tree" ||
    die "the module file does not do what it should"
  echo "it sets COPPER_ROOT, PATH and MANPATH, not LD_PRELOAD, and takes them back"
}

# Runs a command in the tree as a container does: what of Copper a job needs is bound in under the
# same path. The first words are the options of unshare.
contain() {
  local options=()
  while [ "$1" != -- ]; do options+=("$1"); shift; done
  shift
  "${as_user[@]}" unshare "${options[@]}" --mount --propagation private bash -c '
    set -e
    tree=$1 place=$2; shift 2
    mount --rbind "$tree" "$tree"
    mount --rbind "$place" "$tree$place"
    mount --rbind /proc "$tree/proc"
    mount --rbind /dev/shm "$tree/dev/shm"
    exec chroot "$tree" env -i PATH=/usr/bin:/bin HOME=/root COPPER_RUNTIME_DIR="$place/run" \
      COPPER_VIEW="$place/view" "$@"' - "$tree" "$place" "$@"
}

# Who runs the helper and the programs: root, or these words before each command.
as_user=()

count() { # NAME of origin or asked
  COPPER_RUNTIME_DIR=$place/run "${as_user[@]}" "$outside" status --json |
    python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]][sys.argv[2]])' "$@"
}

import_demo='import demo, sys; print(sum(m.value for n, m in sys.modules.items() if n.startswith("demo.")))'

make_package() {
  mkdir -p "$place/env/demo"
  local number
  for number in $(seq 50); do echo "value = $number" >"$place/env/demo/module$number.py"; done
  echo "from . import $(seq -s ', ' -f 'module%.0f' 50)" >"$place/env/demo/__init__.py"
  ln -sfn demo "$place/env/alias"
}

# In the container: the import, the tools, and that a write reaches the origin.
make_program() {
  cat >"$place/program.sh" <<PROGRAM
set -e
export PYTHONPATH=$place/env PYTHONDONTWRITEBYTECODE=1
[ "\$(python3 -c '$import_demo')" = 1275 ]
ls -lR $place/env >/dev/null
[ "\$(cat $place/env/alias/*.py | wc -l)" = 51 ]
echo new >$place/env/written
[ "\$(cat $place/env/written)" = new ]
rm $place/env/written
PROGRAM
}

# With the helper outside. The arguments are words that run a command in a container, with the
# library preloaded.
try_helper_outside() {
  local opens asked
  "${as_user[@]}" "$outside" start --cover "$place/env" >/dev/null
  "$@" bash "$place/program.sh"
  opens=$(count origin opens) asked=$(count asked total)
  [ "$asked" -gt 0 ] || die "the helper was not asked: the programs in the container did not find it"
  "$@" env PYTHONPATH="$place/env" PYTHONDONTWRITEBYTECODE=1 python3 -c "$import_demo"
  [ "$(count origin opens)" = "$opens" ] || die "the second import read from the origin again"
  echo "served: asked $asked times, $opens files opened on the origin, none by the second import"
  "${as_user[@]}" "$outside" stop >/dev/null
}

library=$place/installed/$name/lib/libcopper.so
try_containers() {
  prepare_containers
  say "a container without a user namespace, the helper outside"
  try_helper_outside contain -- env LD_PRELOAD="$library"
  # Root's helper serves no user namespace.
  say "a container in an ordinary user's namespace, the helper outside"
  be_nobody
  try_helper_outside contain --user --map-root-user -- env LD_PRELOAD="$library"
  be_root

  say "a container in a user namespace, the helper in the same one"
  contain --user --map-root-user -- bash -c "
    set -e
    copper=$outside
    \$copper start --cover $place/env >/dev/null
    trap '\$copper stop >/dev/null' EXIT
    export LD_PRELOAD=\$(\$copper env --lib) PYTHONPATH=$place/env PYTHONDONTWRITEBYTECODE=1
    bash $place/program.sh
    opens() { \$copper status --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[\"origin\"][\"opens\"])'; }
    before=\$(opens); [ \$before -gt 50 ]
    python3 -c '$import_demo'
    [ \"\$(opens)\" = \$before ] || { echo 'the second import read from the origin'; exit 1; }
    echo \"served: \$before files opened on the origin, none by the second import\""
  [ ! -e "$place/run" ] && [ ! -e "$place/view" ] || die "something was left behind"
}

prepare_containers() {
  mkdir -p "$place/installed"
  tar -C "$place/installed" -xzf "$tarball"
  make_package
  make_program
  mkdir -p "$tree$place"
  export COPPER_RUNTIME_DIR=$place/run COPPER_VIEW=$place/view
}

be_nobody() {
  chown -R nobody "$place"
  as_user=(setpriv --reuid=65534 --regid=65534 --clear-groups env USER=nobody)
}

be_root() {
  chown -R root "$place"
  as_user=()
}

# An ordinary user's, in a user namespace of its own.
with_charliecloud() {
  "${as_user[@]}" ch-run -b "$place:$place" "--set-env=LD_PRELOAD=$library" "$tree" -- "$@"
}

# Root's, with processes of its own and no user namespace. What is written goes to an overlay.
with_podman() {
  podman --runtime runc --cgroup-manager cgroupfs run --rm --network=host \
    --ulimit=nofile=20000:20000 --ulimit=nproc=4096:4096 \
    --volume "$place:$place" --volume /dev/shm:/dev/shm --env LD_PRELOAD="$library" \
    --env COPPER_RUNTIME_DIR="$place/run" --env COPPER_PATHS="$place/env" --rootfs "$tree:O" "$@"
}

try_runtimes() {
  prepare_containers
  if command -v ch-run >/dev/null; then
    say "Charliecloud $(USER=nobody ch-run --version 2>&1), the helper outside"
    be_nobody
    try_helper_outside with_charliecloud
    be_root
  else
    say "Charliecloud is not tried: it is not installed"
  fi
  if command -v podman >/dev/null && command -v runc >/dev/null; then
    say "$(podman --version) with runc, the helper outside"
    try_helper_outside with_podman
  else
    say "Podman is not tried: it or runc is not installed"
  fi
}

make_tree
trials=("$@")
[ ${#trials[@]} -gt 0 ] || trials=(debian containers runtimes)
for trial in "${trials[@]}"; do
  case "$trial" in
    debian) try_debian ;;
    containers) try_containers ;;
    runtimes) try_runtimes ;;
    *) die "there is no trial $trial; see the first lines of $0" ;;
  esac
done
say "passed: ${trials[*]}"
