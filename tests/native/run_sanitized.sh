#!/usr/bin/env bash
# Builds the kernels with the address and undefined-behaviour sanitizers and runs their tests on that build.
# Usage: tests/native/run_sanitized.sh [PYTHON] [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${1:-python3}
shift || true
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
"$python" modelbuild/quantize/native/build.py --sanitize "$directory"
# The interpreter is not sanitized itself: the runtime has to be there before it, and its own leaks are not ours.
runtime=$("${CC:-gcc}" -print-file-name=libasan.so)
LD_PRELOAD="$runtime" ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
    MODELBUILD_TEST_KERNELS="$directory" PYTHONPATH="$PWD" \
    "$python" -m pytest -q -p no:cacheprovider tests/native "$@"
