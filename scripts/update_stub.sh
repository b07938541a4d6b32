#!/usr/bin/env bash
# Writes python/lamella/_core.pyi from the installed module. With --check: only says whether the committed one is up to date.
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

stub=$root/python/lamella/_core.pyi
generated=$root/build/_core.pyi

cd "$root"
enter_venv
python -c 'import lamella._core' || die "Install the package into .venv first: scripts/test.sh does, or: .venv/bin/pip install ."
python -m nanobind.stubgen --quiet --module lamella._core --output-file "$generated"
case ${1:-} in
  --check)
    [ -f "$stub" ] || die "python/lamella/_core.pyi is missing; write it with scripts/update_stub.sh and commit it."
    diff -u --label committed --label generated "$stub" "$generated" ||
      die "python/lamella/_core.pyi is not what the compiled module says; run scripts/update_stub.sh and commit the result."
    ;;
  "") cp "$generated" "$stub" && echo "wrote python/lamella/_core.pyi" ;;
  *) die "usage: scripts/update_stub.sh [--check]" ;;
esac
