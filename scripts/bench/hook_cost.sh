#!/usr/bin/env bash
# What a hook costs per call: none, the shim's way, and redhook's; median of 9 rounds, interleaved.
set -euo pipefail
cd "$(dirname "$0")/hook_cost"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cargo build --release --quiet && cp target/release/libhook_cost.so "$work/macro.so"
cargo build --release --quiet --features redhook && cp target/release/libhook_cost.so "$work/redhook.so"

cat > "$work/call.c" <<'C'
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <time.h>
int main(void) {
    enum { CALLS = 20000000 };
    struct timespec a, b;
    int sum = 0;
    clock_gettime(CLOCK_MONOTONIC, &a);
    for (int i = 0; i < CALLS; i++) sum += sched_getcpu();
    clock_gettime(CLOCK_MONOTONIC, &b);
    printf("%.2f\n", ((b.tv_sec - a.tv_sec) * 1e9 + (b.tv_nsec - a.tv_nsec)) / CALLS);
    return sum == -1;
}
C
cc -O2 -o "$work/call" "$work/call.c"
for _ in 1 2 3 4 5 6 7 8 9; do
  "$work/call" >> "$work/none"
  LD_PRELOAD="$work/macro.so" "$work/call" >> "$work/macro"
  LD_PRELOAD="$work/redhook.so" "$work/call" >> "$work/redhook"
done
echo "| hook | ns per call |"
echo "|---|---|"
for way in none macro redhook; do
  echo "| $way | $(sort -n "$work/$way" | sed -n 5p) |"
done
echo
echo "machine: $(nproc) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
