#!/usr/bin/env bash
# Check everything: format, lint, types, layers, tests. Arguments go to pytest (then only pytest runs).
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
prepare_environment requirements-dev.lock
cd "$root"
export OPENBLAS_NUM_THREADS=1
if [ $# -eq 0 ]; then
  .venv/bin/ruff format --check .
  .venv/bin/ruff check .
  .venv/bin/pyright
  .venv/bin/lint-imports
  set -- --numprocesses 2 --dist loadfile
fi
exec "$python" -m pytest "$@"
