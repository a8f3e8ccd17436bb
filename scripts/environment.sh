# Sourced by demo.sh and test.sh: find or install uv, then make .venv hold exactly what a lock file says.
# Usage: prepare_environment LOCK_FILE [LOCK_FILE_THAT_ALSO_WILL_DO]
# Afterwards $python is the interpreter, and every process started from here finds the project's packages.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="$root/.venv/bin/python"
export PYTHONPATH="$root:$root/shared:$root/scripts${PYTHONPATH:+:$PYTHONPATH}"

find_python() {
  local candidate
  for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  echo "LoRA Loop needs Python 3.11 or newer on the PATH." >&2
  return 1
}

install_uv() {
  local pip=("$1" -m pip)
  mkdir -p "$root/.venv"
  if ! "${pip[@]}" --version >/dev/null 2>&1; then
    # Some systems ship Python without pip, but with what a virtual environment needs to bring its own.
    "$1" -m venv "$root/.venv/pip" >&2 || return 1
    pip=("$root/.venv/pip/bin/python" -m pip)
  fi
  "${pip[@]}" install --quiet --disable-pip-version-check --root-user-action=ignore \
    --upgrade --target "$root/.venv/uv" "uv>=0.8" >&2
}

find_uv() {
  if command -v uv >/dev/null; then
    command -v uv
  elif [ -x "$root/.venv/uv/bin/uv" ]; then
    echo "$root/.venv/uv/bin/uv"
  else
    echo "Installing uv into .venv/uv ..." >&2
    install_uv "$1" || { echo "uv could not be installed; install it yourself and run this again." >&2; return 1; }
    echo "$root/.venv/uv/bin/uv"
  fi
}

prepare_environment() {
  local lock stamp base uv
  stamp="$root/.venv/.lock"
  for lock in "$@"; do
    if [ -x "$python" ] && [ -f "$stamp" ] && cmp -s "$root/$lock" "$stamp"; then
      return
    fi
  done
  base="$(find_python)"
  uv="$(find_uv "$base")"
  [ -x "$python" ] || "$uv" venv --quiet --allow-existing --python "$base" "$root/.venv"
  echo "Installing what $1 lists ..." >&2
  VIRTUAL_ENV="$root/.venv" "$uv" pip sync --quiet --require-hashes "$root/$1"
  cp "$root/$1" "$stamp"
}

# The engine for diffusers brings PyTorch, so its tests have an environment of their own. It is filled by pip: which
# build of PyTorch suits a machine is set up for pip, where it is set up at all.
prepare_diffusers_environment() {
  local requirements="$root/tests/diffusers/requirements.txt" environment="$root/.venv-diffusers"
  prepare_environment requirements-dev.lock
  if [ -f "$environment/.requirements" ] && cat "$requirements" "$root/requirements-dev.lock" | cmp -s - "$environment/.requirements"; then
    return
  fi
  echo "Installing diffusers and PyTorch into .venv-diffusers ..." >&2
  "$(find_uv "$(find_python)")" venv --quiet --clear --seed --python "$python" "$environment"
  VIRTUAL_ENV="$environment" "$(find_uv "$(find_python)")" pip install --quiet --require-hashes -r "$root/requirements-dev.lock"
  "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore -r "$requirements"
  cat "$requirements" "$root/requirements-dev.lock" >"$environment/.requirements"
}
