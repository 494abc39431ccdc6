#!/usr/bin/env bash
# The tests of this folder with the software driver and the host kernels compiled with
# AddressSanitizer and UndefinedBehaviorSanitizer. It needs what `make device` installs.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python}
compiler=${CXX:-c++}

# Python is not instrumented, so the runtime comes first, with the C++ library whose exceptions it
# intercepts. Python leaks by design. Only Python's own output is captured: a report stays visible.
preload="$("$compiler" -print-file-name=libasan.so) $("$compiler" -print-file-name=libstdc++.so)"
exec env LD_PRELOAD="$preload" \
  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
  BITHEADS_SANITIZE=address,undefined CXX="$compiler" \
  "$python" -m pytest tests/device -q -p no:cacheprovider --capture=sys "$@"
