#!/bin/sh
# Makes .venv hold this project, editable, with the extras that are named: `environment.sh embedded,perf`.
#
# Does nothing when pyproject.toml and the extras are those of the last time, or when more extras are there.
# Uses uv when it is on PATH, else venv and pip. PYTHON says which interpreter to build from.
set -eu
cd "$(dirname "$0")/.."

wanted=$1
python=${PYTHON:-python3}
inside=.venv/bin/python
stamp=.venv/.meshflow-installed
check='import sys
sys.exit(0 if sys.implementation.name == "cpython" and sys.version_info >= (3, 11) else 1)'

say() { echo "meshflow: $*" >&2; }

command -v "$python" >/dev/null 2>&1 || {
  say "there is no '$python' here; MeshFlow needs CPython 3.11 or newer (make PYTHON=/path/to/python3.11 ...)."
  exit 1
}
"$python" -c "$check" || {
  say "$("$python" -V 2>&1) is too old or not CPython; MeshFlow needs CPython 3.11 or newer (make PYTHON=/path/to/python3.11 ...)."
  exit 1
}

hash=$("$python" -c 'import hashlib; print(hashlib.sha256(open("pyproject.toml", "rb").read()).hexdigest())')
if [ -f "$stamp" ] && "$inside" -c "$check" 2>/dev/null; then
  read -r stamped extras <"$stamp" || true
  case "$stamped,$extras," in
    "$hash,$wanted,"*) exit 0 ;; # the named extras, or these and more after them
  esac
fi

if ! "$inside" -c "$check" 2>/dev/null; then
  say "making .venv with $("$python" -V)"
  if command -v uv >/dev/null 2>&1; then
    uv venv --quiet --clear --python "$(command -v "$python")" .venv
  else
    "$python" -m venv --clear .venv || {
      say "'$python -m venv' failed; on Debian and Ubuntu the package python3-venv is missing."
      exit 1
    }
  fi
fi

say "installing MeshFlow and [$wanted] into .venv"
rm -f "$stamp"
if command -v uv >/dev/null 2>&1; then
  uv pip install --quiet --python "$inside" --editable ".[$wanted]"
else
  "$inside" -m pip --version >/dev/null 2>&1 || "$inside" -m ensurepip >/dev/null || {
    say ".venv has no pip and none can be put there; remove .venv and try again."
    exit 1
  }
  # Without bytecode, as uv does it: half of an install would be modules that are never imported.
  "$inside" -m pip install --quiet --disable-pip-version-check --no-compile --editable ".[$wanted]"
  "$inside" -m pip uninstall --quiet --yes setuptools 2>/dev/null || true # Python 3.11's venv brings it; nothing here needs it
fi
echo "$hash $wanted" >"$stamp"
