#!/usr/bin/env bash
# No instruction leaks: scripts/check_instructions.sh BUILD-FOLDER. On x86-64, objects outside the AVX kernel sets hold no
# VEX or EVEX code, and the AVX sets offer the linker no shared copy of an inline function (a weak symbol), which could
# become the one that runs on every processor.
set -euo pipefail

die() {
  printf '%s\n' "$@" >&2
  exit 1
}

[ $# -eq 1 ] || die "usage: scripts/check_instructions.sh BUILD-FOLDER"
mapfile -t objects < <(find "$1/cpp" -name '*.o' | sort)
[ "${#objects[@]}" -gt 0 ] || die "no objects under $1/cpp"

# Every mnemonic of VEX and EVEX code begins with a v, but for those of BMI1 and BMI2.
vex='^[[:space:]]+[0-9a-f]+:[[:space:]]+(v[a-z0-9]+|(andn|bextr|bls[ir]|blsmsk|mulx|pdep|pext|rorx|s[ah][lr]x)[lq]?)[[:space:]]'
avx_sets=0 failed=0
for object in "${objects[@]}"; do
  found=$(objdump --disassemble --no-show-raw-insn "$object" | grep -E -m 3 "$vex" || true)
  case $object in
    */set_avx*)
      avx_sets=$((avx_sets + 1))
      [ -n "$found" ] || { echo "$object: no VEX code, so this check sees nothing" >&2 && failed=1; }
      weak=$(nm -C "$object" | grep -E ' [WwVvu] ' || true)
      [ -z "$weak" ] || { printf '%s: shared with other objects:\n%s\n' "$object" "$weak" >&2 && failed=1; }
      ;;
    *) [ -z "$found" ] || { printf '%s: VEX code:\n%s\n' "$object" "$found" >&2 && failed=1; } ;;
  esac
done
[ "$avx_sets" -gt 0 ] || die "no AVX kernel set under $1/cpp"
echo "${#objects[@]} objects, $avx_sets of them AVX kernel sets"
exit "$failed"
