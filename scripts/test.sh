#!/usr/bin/env bash
# Everything that must hold before a change lands: scripts/test.sh [--stage quick|full]. Sets itself up; needs no network
# but the package registries. Every step runs, whatever failed before it; the last line counts all tests. Logs: build/logs.
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

usage="usage: scripts/test.sh [--stage quick|full]"
stage=quick
case $# in
  0) ;;
  2) [ "$1" = --stage ] || die "$usage"; stage=$2 ;;
  *) die "$usage" ;;
esac
case $stage in quick | full) ;; *) die "$usage" ;; esac

cores=$(nproc)
fuzz_seconds=120   # a target, in the full stage
mutations=1000000  # a target, in the full stage
export LAMELLA_STAGE=$stage
export CXX=g++ CMAKE_CXX_COMPILER_LAUNCHER=ccache CCACHE_BASEDIR=$root CCACHE_NOHASHDIR=1
export CCACHE_SLOPPINESS=pch_defines,time_macros  # what ccache asks for where headers are precompiled

# ---- steps: functions that print what they do and return non-zero when something is wrong ------------------------------
# A step that runs many cases leaves a JUnit file at $junit; any other counts as one case.

step_wheel() {
  rm -rf build/wheels "$venv/.lamella-package"  # what demo.sh installed is about to be replaced
  # With the flags of the release build, so that the compiler cache serves both.
  pip wheel --no-deps --wheel-dir build/wheels --config-settings=cmake.define.LAMELLA_WERROR=ON .
  pip install --force-reinstall --no-deps build/wheels/lamella-*.whl
  pip install --dry-run --no-index build/wheels/lamella-*.whl  # fails when a dependency of ours is missing
}

# build_and_ctest PRESET CMAKE-ARGUMENTS...
build_and_ctest() {
  local preset=$1
  shift
  cmake --preset "$preset" "$@"
  cmake --build --preset "$preset" -j "$cores"
  ctest --preset "$preset" -j "$cores" --output-junit "$junit"
}

step_cpp() {
  LAMELLA_REAL_MODELS=$(real_models)
  export LAMELLA_REAL_MODELS  # whose layers one test looks at; too slow under sanitizers
  build_and_ctest release -DLAMELLA_PYTHON=ON -DLAMELLA_MPI=ON  # with the MPI in .venv, which is first on the path
}
step_cpp_asan() { build_and_ctest asan "-DLAMELLA_PYTHON=$([ "$stage" = full ] && echo ON || echo OFF)"; }
# No AVX code outside its kernel sets; and the engine runs on processors without AVX, and with AVX2 but no AVX-512.
step_isa() {
  scripts/check_instructions.sh build/release
  local processor
  for processor in Nehalem Haswell; do
    echo "on a $processor:"
    qemu-x86_64 -cpu "$processor" build/release/tests/cpp/runtime/test_runtime --gtest_filter='Engine.*:Executor.Every*'
  done
}

# The portable path compiles for another architecture.
step_aarch64() {
  cmake --preset aarch64
  cmake --build --preset aarch64 -j "$cores"
}

step_cpp_tsan() { build_and_ctest tsan; }

# clang's sanitizers over the seeds; in the full stage also a search, whose finds go to build/fuzz/found.
step_fuzz() {
  cmake --preset fuzz
  cmake --build --preset fuzz -j "$cores"
  each_fuzz_target build/fuzz/tests/fuzz/fuzz_ search_one
}

search_one() {
  local found=build/fuzz/found/$2 limits=(-runs=0)
  [ "$stage" = quick ] || limits=("-max_total_time=$fuzz_seconds" -print_final_stats=1)
  mkdir -p "$found"
  "$1" "${limits[@]}" -rss_limit_mb=4096 -timeout=20 -artifact_prefix="$found/crash-" "$found" "$(seeds "$2")"
}

# The same targets in the AddressSanitizer build, over so many changes of the seeds as the issue of the hostile files asks.
step_mutations() { each_fuzz_target build/asan/tests/fuzz/replay_ mutate_one; }

mutate_one() {
  local files
  files=$(find "$(seeds "$2")" -type f | wc -l)
  "$1" --mutations "$((mutations / files + 1))" "$(seeds "$2")"
}

seeds() { echo "build/fuzz/tests/fuzz/corpus/$1"; }

# each_fuzz_target PREFIX FUNCTION: calls FUNCTION PROGRAM NAME for every program PREFIX<NAME>; to find none is an error.
each_fuzz_target() {
  local program programs
  mapfile -t programs < <(find "$(dirname "$1")" -maxdepth 1 -type f -executable -name "$(basename "$1")*")
  [ "${#programs[@]}" -gt 0 ] || die "no program $1*"
  for program in "${programs[@]}"; do "$2" "$program" "${program#"$1"}"; done
}

run_pytest() {
  LAMELLA_WHEEL=$(echo "$root"/build/wheels/lamella-*.whl) python -m pytest --junitxml="$junit"
}
step_pytest() { run_pytest; }

# The quick part of the Python suite on a core with AddressSanitizer, which must be in the process before Python is.
step_pytest_asan() {
  local site=$root/build/asan/site
  rm -rf "$site"
  cmake --install build/asan --component python --prefix "$site"
  cp -r python/lamella/. "$site/lamella/"
  export PYTHONPATH=$site PYTHONMALLOC=malloc LAMELLA_STAGE=quick ASAN_OPTIONS=detect_leaks=0
  LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libstdc++.so)"
  export LD_PRELOAD
  python -c 'import lamella._core, sys; sys.exit(not lamella._core.__file__.startswith(sys.argv[1]))' "$site"
  run_pytest
}

# The wheel of Python 3.12 and later, where such an interpreter is at hand; without one it is skipped.
step_abi3() {
  local status=0
  scripts/check_abi3.sh || status=$?
  [ "$status" -eq 77 ] || return "$status"
  local why="no CPython 3.12 or later with venv and C headers at hand"
  echo "<testsuite><testcase name=\"abi3\"><skipped message=\"$why\"/></testcase></testsuite>" >"$junit"
}

cpp_files() { find cpp python/bindings tests examples -name '*.cpp' -o -name '*.h' -o -name '*.c'; }

step_clang_format() { cpp_files | xargs clang-format --dry-run --Werror; }

# The flags come from the release build's compile_commands.json; clang need not know all that gcc knows.
step_clang_tidy() {
  local folders=(cpp python/bindings)
  [ "$stage" = quick ] || folders+=(tests/cpp)
  find "${folders[@]}" -name '*.cpp' -print0 | xargs -0 -P "$cores" -n 1 clang-tidy -p build/release --quiet \
    --extra-arg=-Wno-unknown-warning-option --extra-arg=-Wno-ignored-optimization-argument --extra-arg=-Wno-error
}

step_ruff_format() { ruff format --check .; }
step_ruff() { ruff check .; }
step_mypy() { mypy; }
step_stub() { scripts/update_stub.sh --check; }
step_shellcheck() { shellcheck --external-sources scripts/*.sh .ci/run; }

# ---- running and counting ------------------------------------------------------------------------------------------------

rows=()
notes=()
total_passed=0 total_failed=0 total_skipped=0

# run NAME FUNCTION: one row of the table. A step that fails without a failed case to show counts as one.
run() {
  local name=$1 function=$2 start=$SECONDS status passed failed skipped counts
  local log=$logs/$name.log junit=$logs/$name.xml
  rm -f "$junit"
  printf '      ...  %s\n' "$name" >&2
  set +e
  (set -e; "$function") >"$log" 2>&1
  status=$?
  set -e
  if [ -s "$junit" ]; then
    counts=$(python scripts/junit_counts.py "$junit")
    read -r passed failed skipped <<<"$counts"
    while read -r line; do notes+=("$name: skipped $line"); done < <(tail -n +2 <<<"$counts")
    [ "$status" -eq 0 ] || [ "$failed" -gt 0 ] || failed=1
  else
    passed=$((status == 0)) failed=$((status != 0)) skipped=0
  fi
  if [ "$failed" -gt 0 ]; then
    tail -n 60 "$log" | sed 's/^/    /' >&2
    notes+=("$name: FAILED (exit $status), see ${log#"$root"/}")
  fi
  printf '%5d s  %s\n' "$((SECONDS - start))" "$name" >&2
  rows+=("$(printf '%-16s %7d %7d %7d %7d s' "$name" "$passed" "$failed" "$skipped" "$((SECONDS - start))")")
  total_passed=$((total_passed + passed)) total_failed=$((total_failed + failed)) total_skipped=$((total_skipped + skipped))
}

# not_run NAME REASON: a step that this stage leaves out.
not_run() {
  rows+=("$(printf '%-16s %7s %7s %7s %7s' "$1" - - - -)")
  notes+=("$1: not run ($2)")
}

report() {
  printf '\n%-16s %7s %7s %7s %9s\n' "step ($stage)" passed failed skipped time
  printf '%s\n' "${rows[@]}"
  [ "${#notes[@]}" -eq 0 ] || { echo && printf '%s\n' "${notes[@]}"; }
  printf '\n%d s in all\n' "$SECONDS"
  printf '%d passed, %d failed, %d skipped\n' "$total_passed" "$total_failed" "$total_skipped"
}

cd "$root"
ensure_system_packages test
enter_venv
install_test_requirements
install_smollm2
install_minilm
install_text

run wheel step_wheel
run clang-format step_clang_format
run ruff-format step_ruff_format
run ruff step_ruff
run mypy step_mypy
run stub step_stub
run shellcheck step_shellcheck
run cpp step_cpp
run isa step_isa
run clang-tidy step_clang_tidy
run cpp-asan step_cpp_asan
run cpp-tsan step_cpp_tsan
run fuzz step_fuzz
run pytest step_pytest
if [ "$stage" = full ]; then
  run aarch64 step_aarch64
  run mutations step_mutations
  run pytest-asan step_pytest_asan
  run abi3 step_abi3
else
  not_run aarch64 "full stage only"
  not_run mutations "full stage only; ctest replays the seeds with few changes"
  not_run pytest-asan "full stage only"
  not_run abi3 "full stage only"
fi
report
[ "$total_failed" -eq 0 ]
