#!/bin/sh
# Creates .venv with everything pinned. Called by the Makefile; needs only Python >= 3.11.
set -eu
python=${PYTHON:-python3}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "error: found $("$python" --version 2>&1 || true), expected Python 3.11 or newer;" \
         "install one and run: PYTHON=python3.12 make" >&2
    exit 2
fi
[ -x .venv/bin/python ] || "$python" -m venv .venv || {
    echo "error: python -m venv failed; on Debian and Ubuntu: apt install python3-venv" >&2
    exit 2
}
.venv/bin/python -m pip install -q --disable-pip-version-check uv
install() { .venv/bin/uv pip install -q --python .venv/bin/python -c constraints.txt "$@" -e '.[all]'; }
# DeepSpeed's setup imports torch: torch is installed first, and the build sees this environment.
if [ -n "${TORCH_BACKEND:-}" ]; then
    install --torch-backend "$TORCH_BACKEND" || {
        echo "note: no '$TORCH_BACKEND' wheels of torch were found; installing the ordinary ones" >&2
        install
    }
else
    install
fi
touch .venv/.installed
