#!/usr/bin/env bash
# Tries the tarball of scripts/dist.sh for real, on an older system and in containers.
#
#   scripts/dist_trial.sh [debian] [containers]      default: both
#
#   debian       unpacks it in a tree of Debian 11 (glibc 2.31), without Rust, moves it, and runs its
#                demo there
#   containers   runs programs of that tree in mount and user namespaces of their own, with store,
#                runtime directory and covered prefix bound in
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
  debootstrap --variant=minbase --include=python3 bullseye "$tree" \
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
}

# Runs a command in the tree as a container does: what of Copper a job needs is bound in under the
# same path. The first words are the options of unshare.
contain() {
  local options=()
  while [ "$1" != -- ]; do options+=("$1"); shift; done
  shift
  unshare "${options[@]}" --mount --propagation private bash -c '
    set -e
    tree=$1 place=$2; shift 2
    mount --rbind "$tree" "$tree"
    mkdir -p "$tree$place"
    mount --rbind "$place" "$tree$place"
    mount --rbind /proc "$tree/proc"
    mount --rbind /dev/shm "$tree/dev/shm"
    exec chroot "$tree" env -i PATH=/usr/bin:/bin HOME=/root COPPER_RUNTIME_DIR="$place/run" \
      COPPER_VIEW="$place/view" "$@"' - "$tree" "$place" "$@"
}

count() { # NAME of origin or asked
  COPPER_RUNTIME_DIR=$place/run "$outside" status --json |
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

# With the helper outside. The arguments are the options of unshare.
try_helper_outside() {
  local library=$place/installed/$name/lib/libcopper.so opens asked
  "$outside" start --cover "$place/env" >/dev/null
  contain "$@" -- env LD_PRELOAD="$library" bash "$place/program.sh"
  opens=$(count origin opens) asked=$(count asked total)
  [ "$asked" -gt 0 ] || die "the helper was not asked: the programs in the container did not find it"
  contain "$@" -- env LD_PRELOAD="$library" PYTHONPATH="$place/env" PYTHONDONTWRITEBYTECODE=1 \
    python3 -c "$import_demo"
  [ "$(count origin opens)" = "$opens" ] || die "the second import read from the origin again"
  echo "served: asked $asked times, $opens files opened on the origin, none by the second import"
  "$outside" stop >/dev/null
}

try_containers() {
  mkdir -p "$place/installed"
  tar -C "$place/installed" -xzf "$tarball"
  make_package
  make_program
  export COPPER_RUNTIME_DIR=$place/run COPPER_VIEW=$place/view

  say "a container without a user namespace, the helper outside"
  try_helper_outside
  say "a container in a user namespace, the helper outside"
  try_helper_outside --user --map-root-user

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

make_tree
trials=("$@")
[ ${#trials[@]} -gt 0 ] || trials=(debian containers)
for trial in "${trials[@]}"; do
  case "$trial" in
    debian) try_debian ;;
    containers) try_containers ;;
    *) die "there is no trial $trial; see the first lines of $0" ;;
  esac
done
say "passed: ${trials[*]}"
