#!/usr/bin/env bash
# The wheel for Python 3.12 and all later ones (cp312-abi3): scripts/check_abi3.sh [PYTHON...]. Builds it with the oldest
# of the interpreters, audits it with abi3audit, and imports it and generates with it under each of them, in fresh
# environments below build/abi3. Without arguments the interpreters are those on the path and pyenv's.
# Exits 77 where there is none: nothing was checked, and nothing is wrong.
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

work=$root/build/abi3
auditor=abi3audit==0.0.26

# Prints the version of a CPython that takes abi3 modules: 3.12 or later, with the GIL, venv and the C headers.
usable_version() {
  "$1" - <<'PY' 2>/dev/null
import ensurepip, pathlib, sys, sysconfig, venv
usable = sys.implementation.name == "cpython" and sys.version_info >= (3, 12) and "t" not in sys.abiflags
if not usable or not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists():
    sys.exit(1)
print("%d.%d.%d" % sys.version_info[:3])
PY
}

# candidates: programs that may be such interpreters, one a line.
candidates() {
  local minor
  for minor in $(seq 12 30); do command -v "python3.$minor" || true; done
  command -v python3 || true
  compgen -G "${PYENV_ROOT:-$HOME/.pyenv}/versions/3.*/bin/python3" || true
}

# interpreters [PYTHON...]: "VERSION PROGRAM" of each usable one, the oldest first, each version once.
interpreters() {
  local program version
  { if [ $# -gt 0 ]; then printf '%s\n' "$@"; else candidates; fi; } | while read -r program; do
    if version=$(usable_version "$program"); then echo "$version $program"; fi
  done | sort -V -u -k 1,1
}

# try_out PYTHON MODEL: what the wheel does under it, on standard output: the module's file name, then token ids.
try_out() {
  (cd "$work" && "$1" - "$2") <<'PY'
import pathlib, sys
import lamella
from lamella import _core

print(pathlib.Path(_core.__file__).name)
with lamella.Engine(sys.argv[1]) as engine:
    print(engine.generate(["The capital of France is", "One, two,"], max_tokens=12, logprobs=2))
    print([chunk.token_ids for chunk in engine.stream([1, 2, 3], max_tokens=4, temperature=1.0, seed=7)])
    print([round(float(x), 6) for x in engine.score("a b c")[0]])
    try:
        engine.generate([-1])
    except lamella.InvalidArgumentError as error:
        print(error.code)
PY
}

build_wheel() { "$1" -m pip wheel --no-deps --wheel-dir "$work/wheel" --config-settings=cmake.define.LAMELLA_WERROR=ON "$root"; }
audit() { "$1" -m pip install "$auditor" && "$1" -m abi3audit --strict --verbose "$2"; }

cd "$root"
mapfile -t found < <(interpreters "$@")
if [ "${#found[@]}" -eq 0 ]; then
  where="on the path or in pyenv"
  [ $# -eq 0 ] || where="among $*"
  echo "SKIPPED: no CPython 3.12 or later with the GIL, venv and C headers $where" >&2
  exit 77
fi
printf 'interpreter %s\n' "${found[@]}"

enter_venv
install_smollm2
model=$(real_models)
model=${model%%:*}
rm -rf "$work"
mkdir -p "$work"

for line in "${found[@]}"; do
  version=${line%% *} program=${line#* }
  python=$work/$version/bin/python
  announce "environment for $version" "$program" -m venv "$work/$version"
  if [ ! -d "$work/wheel" ]; then
    announce "wheel, built with $version" build_wheel "$python"
    wheels=("$work"/wheel/lamella-*-cp312-abi3-*.whl)
    [ -f "${wheels[0]}" ] || die "built $(ls "$work/wheel"), which is no cp312-abi3 wheel"
    announce "audit with $auditor" audit "$python" "${wheels[0]}"
    tail -n 2 "$logs/setup-audit-with-abi3audit-0-0-26.log"
  fi
  announce "install under $version" "$python" -m pip install "${wheels[0]}"
  try_out "$python" "$model" >"$work/$version.out"
  sed 's/timing=Timing([^)]*)/timing/g' "$work/$version.out" >"$work/$version.said"
  grep -qx '_core\.abi3\.so' "$work/$version.said" || die "$version loaded $(head -n 1 "$work/$version.said"); expected _core.abi3.so"
  grep -qx INVALID_ARGUMENT "$work/$version.said" || die "$version did not raise an error of the core as Python's class"
  cmp "$work/${found[0]%% *}.said" "$work/$version.said" || die "$version says something else than ${found[0]%% *}"
  echo "CPython $version: imports, generates, raises; the same bits as ${found[0]%% *}"
done
