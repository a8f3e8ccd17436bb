#!/usr/bin/env bash
# Check everything: format, lint, types, layers, tests. `--diffusers` runs the tests that need PyTorch, in an
# environment of their own. Further arguments go to pytest (then only pytest runs).
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$root"
export OPENBLAS_NUM_THREADS=1
if [ "${1:-}" = --diffusers ]; then
  shift
  prepare_diffusers_environment
  exec .venv-diffusers/bin/python -m pytest tests/diffusers "$@"
fi
prepare_environment requirements-dev.lock
if [ $# -eq 0 ]; then
  .venv/bin/ruff format --check .
  .venv/bin/ruff check .
  .venv/bin/pyright
  .venv/bin/lint-imports
  set -- --ignore tests/diffusers --numprocesses 2 --dist loadfile
fi
exec "$python" -m pytest "$@"
