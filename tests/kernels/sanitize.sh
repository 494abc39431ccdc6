#!/usr/bin/env bash
# Build the kernels with AddressSanitizer and UndefinedBehaviorSanitizer and run their tests on that
# build; those of the CUDA kernels, run on the host, too. SANITIZE=thread is ThreadSanitizer.
# [SANITIZE=thread] [TESTS="..."] sanitize.sh BUILD_FOLDER [arguments for CMake, such as
# -DBITHEADS_SIMD=OFF]
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python}
tests=${TESTS:-tests/kernels tests/cuda --ignore=tests/cuda/test_device_code.py}
sanitize=${SANITIZE:-address,undefined}
build=$1
shift

cmake -S . -B "$build" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DBITHEADS_WERROR=ON \
  -DBITHEADS_SANITIZE="$sanitize" -DPython_EXECUTABLE="$(command -v "$python")" "$@"
cmake --build "$build" --parallel 2

compiler=$(sed -n 's/^CMAKE_CXX_COMPILER:[A-Z]*=//p' "$build/CMakeCache.txt")
module=$(find "$PWD/$build" -maxdepth 1 -name '_kernels*.so')
# Python is not instrumented, so the runtime comes first, with the C++ library whose exceptions it
# intercepts. Python leaks by design. Only Python's own output is captured: a report stays visible.
runtime=libasan.so
launcher=()
if [[ $sanitize == thread ]]; then
  runtime=libtsan.so
  # Older runtimes cannot place their memory where a kernel randomizes 32 bits of an address.
  if setarch "$(uname -m)" -R true 2>/dev/null; then launcher=(setarch "$(uname -m)" -R); fi
  # NumPy's products of matrices are not instrumented either, and synchronize in ways unseen.
  export OPENBLAS_NUM_THREADS=1
fi
preload="$("$compiler" -print-file-name=$runtime) $("$compiler" -print-file-name=libstdc++.so)"
# Those of ARM run nothing in this process.
exec "${launcher[@]}" env LD_PRELOAD="$preload" \
  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
  TSAN_OPTIONS=halt_on_error=1 \
  BITHEADS_KERNELS_PATH="$module" BITHEADS_SANITIZE="$sanitize" CXX="$compiler" \
  "$python" -m pytest $tests --ignore=tests/kernels/arm -q -p no:cacheprovider --capture=sys
