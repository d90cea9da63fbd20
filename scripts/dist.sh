#!/usr/bin/env bash
# Builds the tarball for any x86-64 Linux with glibc 2.17 or newer, and checks what it needs.
#
#   scripts/dist.sh [DIR]      DIR: where it goes (default target/dist)
#
# A linker that knows old glibcs (zig) comes from PyPI, into .cache. libfabric is not part of it:
# the site's own is loaded at run time.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/common.sh

newest_glibc=2.17
place=$(realpath -m "${1:-$target/dist}")
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
name=copper-$version-x86_64-linux
[ "$(uname -m)" = x86_64 ] || die "this builds for x86-64, on x86-64"
for tool in cargo python3 objdump strip; do
  command -v "$tool" >/dev/null || die "$tool is missing (objdump and strip: package binutils)"
done

zig_environment() {
  local zig=$cache/zig
  if [ ! -e "$zig/complete" ]; then
    say "fetching cargo-zigbuild and zig"
    "$(real_python)" -m venv "$zig"
    "$zig/bin/pip" install --quiet --disable-pip-version-check -r scripts/dist/requirements.txt ||
      die "pip could not install the packages of scripts/dist/requirements.txt"
    touch "$zig/complete"
  fi
  PATH=$zig/bin:$PATH
}

# The shim and the audit library by themselves, for the reason that Cargo.toml gives.
build() {
  local triple=x86_64-unknown-linux-gnu
  export CARGO_TARGET_DIR=$target/dist/build
  cargo zigbuild --release --locked -p copper-shim -p copper-audit --target "$triple.$newest_glibc"
  cargo zigbuild --release --locked -p copper --target "$triple.$newest_glibc"
  built=$CARGO_TARGET_DIR/$triple/release
}

# Everything below one directory, which may be moved: nothing in it names its place.
lay_out() {
  local root=$place/$name
  rm -rf "$root"
  mkdir -p "$root"/{bin,lib,modulefiles/copper,share/copper,share/doc/copper}
  install -m 755 "$built/copper" "$root/bin/"
  install -m 755 "$built/libcopper.so" "$root/lib/"
  install -m 755 "$built/libcopper_audit.so" "$root/lib/libcopper-audit.so"
  strip --strip-debug "$root/bin/copper" "$root"/lib/*.so
  local script
  for script in launch_copper.sh stop_copper.sh; do
    if [ -e "scripts/$script" ]; then install -m 755 "scripts/$script" "$root/bin/"; fi
  done
  cp -r scripts/examples "$root/share/copper/"
  install -m 755 scripts/dist/demo.sh "$root/share/copper/"
  install -m 644 scripts/dist/module.lua "$root/modulefiles/copper/$version.lua"
  cp -r README.md LICENSE-* docs "$root/share/doc/copper/"
  "$root/bin/copper" documents "$root"
}

# What a program or library asks of glibc must be no newer than promised.
check_glibc() {
  local file=$1 newest
  newest=$(objdump -T "$file" | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort -uV | tail -n 1)
  [ "$(printf '%s\n' "$newest" "$newest_glibc" | sort -V | tail -n 1)" = "$newest_glibc" ] ||
    die "$file needs glibc $newest: $(objdump -T "$file" | grep "GLIBC_$newest" | head -n 3)"
  echo "$(basename "$file"): needs glibc $newest"
}

check_needed() {
  local file=$1 library
  for library in $(objdump -p "$file" | sed -n 's/^ *NEEDED *//p'); do
    case "$library" in
      libc.so.6 | libm.so.6 | libdl.so.2 | libpthread.so.0 | librt.so.1 | ld-linux-x86-64.so.2) ;;
      *) die "$file needs $library, which not every system has" ;;
    esac
  done
}

# A shim with other hooks than the usual build, or with thread-local storage, would be another shim.
check_shim() {
  local shim=$1 usual=$target/release/libcopper.so
  ! objdump -p "$shim" | grep -q '^ *TLS' || die "$shim has thread-local storage"
  hooks() { objdump -T "$1" | awk '$4 == ".text" { print $NF }' | sort; }
  echo "$(basename "$shim"): $(hooks "$shim" | wc -l) functions"
  hooks "$shim" | grep -qx open64 || die "$shim has no hooks"
  if [ -e "$usual" ] && ! diff <(hooks "$usual") <(hooks "$shim"); then
    die "$shim has other hooks than $usual (build that anew if it is old)"
  fi
}

# What the audit library needed would be searched for, and loaded a second time, in every program.
check_audit() {
  local audit=$1
  ! objdump -p "$audit" | grep -q '^ *NEEDED' || die "$audit needs another library"
  ! objdump -T "$audit" | grep -q GLIBC || die "$audit needs a function of libc"
  ! objdump -p "$audit" | grep -q '^ *TLS' || die "$audit has thread-local storage"
  objdump -T "$audit" | grep -qw la_objsearch || die "$audit is no audit library"
  echo "$(basename "$audit"): needs nothing"
}

say "building $name"
zig_environment
build
lay_out
say "checking what it needs"
for file in "$place/$name/bin/copper" "$place/$name/lib/libcopper.so"; do
  check_glibc "$file"
  check_needed "$file"
done
check_shim "$place/$name/lib/libcopper.so"
check_audit "$place/$name/lib/libcopper-audit.so"
tar -C "$place" --owner=0 --group=0 --sort=name -czf "$place/$name.tar.gz" "$name"
say "$place/$name.tar.gz, $(du -h "$place/$name.tar.gz" | cut -f 1)"
echo "sha256 $(sha256sum "$place/$name.tar.gz" | cut -d ' ' -f 1)"
