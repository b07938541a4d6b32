#!/usr/bin/env bash
# Formats all C++ and Python sources in place, or only the files and folders named.
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

cd "$root"
enter_venv
install_test_requirements
[ $# -gt 0 ] || set -- cpp python tests examples scripts
find "$@" \( -name '*.cpp' -o -name '*.h' -o -name '*.c' \) -print0 | xargs -0 --no-run-if-empty clang-format -i
ruff check --select I --fix --quiet "$@"
ruff format "$@"
