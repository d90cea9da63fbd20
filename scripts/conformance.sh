#!/usr/bin/env bash
# Runs test suites of others (CPython's, Perl's, git at work) plain and under Copper and compares what
# became of every test. Ends with an error if something differs that docs/CONFORMANCE.md cannot explain.
#
#   scripts/conformance.sh [OPTION...] [UNIT...]
#
#   --quick        the parts that take a second or two each, plain and covered, once
#   --suite NAME   only cpython, perl or git (may be given several times)
#   --missing      only what there is no result of yet, after an interrupted run
#   --user UID     as another user
#   UNIT           only this module, file of tests or scenario
#
# Without --quick the results of all runs are written to docs/CONFORMANCE.md; they are kept in
# target/conformance. A whole run takes about half an hour on two idle cores.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/common.sh

scripts/setup.sh >&2
build_release >&2
arguments=(--release "$target/release")
if [ -d "$cache/perl-source" ]; then
  arguments+=(--perl "$cache/perl-source")
else
  say "no source of perl in $cache/perl-source: its tests are left out" >&2
fi
case " $* " in
  *" --quick "*) arguments+=(--results "$target/conformance-quick") ;;
  *) arguments+=(--results "$target/conformance" --document docs/CONFORMANCE.md) ;;
esac
mkdir -p "${COPPER_TEST_DIR:-/var/tmp}"
exec "$(real_python)" scripts/conformance/run.py "${arguments[@]}" "$@"
