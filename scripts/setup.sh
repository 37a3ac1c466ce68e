#!/bin/sh
# Set up .venv for the workflow, or for its tests and linters too:
#
#   scripts/setup.sh workflow
#   scripts/setup.sh development
#
# Does nothing if .venv already holds what the lock in envs/ says. A stamp, written last, names the
# lock and the place, so an interrupted installation and a moved project are set up again.
# Settings of pip count: an index of yours, a certificate, a proxy (`pip config list`).
# PYTHON=/path/to/python3.11 chooses the interpreter.
set -eu

cd "$(dirname "$0")/.."
HERE=$(pwd -P)
LOG=.venv/setup.log
SUPPORTED='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'

# Megabytes on disk, measured on Linux: .venv after `workflow`, what `development` adds to it, and
# the engine that `make quickstart` builds with what uv keeps of it; each with a tenth to spare.
WORKFLOW_MB=1100
DEVELOPMENT_MB=350
ENGINE_MB=2200

# uv leaves compiling to the first import. -I: also where PYTHONDONTWRITEBYTECODE is set.
LIBRARIES='import snakemake.cli, snakemake.executors.local, pandas, pyarrow.parquet, duckdb,
    jsonschema, orjson, altair, vl_convert, scipy.stats, statsmodels.stats.proportion'

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "error: $*"
    exit 1
}

# --- What is there ---------------------------------------------------------------------------

stamp_of() { # the text of a finished installation's stamp
    .venv/bin/python -I -c '
import hashlib, pathlib, sys
print(hashlib.sha256(pathlib.Path(sys.argv[1]).read_bytes()).hexdigest(), sys.argv[2])
' "envs/$1.requirements.txt" "$HERE" 2>/dev/null
}

is_finished() {
    [ -f ".venv/.$1.stamp" ] && wanted=$(stamp_of "$1") && [ "$(cat ".venv/.$1.stamp")" = "$wanted" ]
}

venv_is_usable() { # made here, by a Python that is still there and suits, with pip in it
    [ -f .venv/pyvenv.cfg ] && .venv/bin/python -I -c "$SUPPORTED" 2>/dev/null &&
        .venv/bin/python -I -m pip --version >/dev/null 2>&1 &&
        { [ ! -f .venv/.place ] || [ "$(cat .venv/.place)" = "$HERE" ]; }
}

# --- An interpreter --------------------------------------------------------------------------

version_of() { "$1" -I -c 'import platform; print(platform.python_version())' 2>/dev/null; }

suits() { command -v "$1" >/dev/null 2>&1 && "$1" -I -c "$SUPPORTED" 2>/dev/null; }

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        suits "$PYTHON" ||
            fail "PYTHON=$PYTHON is not Python 3.11, 3.12 or 3.13 (it says: $(version_of "$PYTHON" || echo nothing)); name another one"
        printf '%s\n' "$PYTHON"
        return
    fi
    for candidate in python3.11 python3.12 python3.13 python3; do
        if suits "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    if command -v uv >/dev/null 2>&1; then
        say "no Python 3.11 to 3.13 on PATH; asking uv for one"
        if uv python find --no-project 3.11 2>/dev/null ||
            { uv python install 3.11 >&2 && uv python find --no-project 3.11; }; then
            return
        fi
    fi
    fail "Python 3.11, 3.12 or 3.13 is needed, python3 is $(version_of python3 || echo missing);" \
        "install one (Debian, Ubuntu: apt-get install python3.11-venv; or uv, conda, pyenv)," \
        "or name one: PYTHON=/path/to/python3.11"
}

make_venv() {
    if [ -e .venv ] && [ ! -f .venv/pyvenv.cfg ] && [ -n "$(find .venv -type f 2>/dev/null | head -n 1)" ]; then
        fail "$HERE/.venv is there and is not a virtual environment; move it away"
    fi
    python=$(find_python)
    say "making .venv with Python $(version_of "$python")"
    if "$python" -I -c 'import ensurepip, venv' 2>/dev/null; then
        "$python" -I -m venv --clear .venv >&2 || fail "$python cannot make .venv (see above)"
    elif command -v uv >/dev/null 2>&1; then
        uv venv --quiet --no-project --seed --clear --python "$(command -v "$python")" .venv ||
            fail "uv cannot make .venv (see above)"
    else
        minor=$("$python" -I -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        fail "$python has no module venv or ensurepip, which make .venv;" \
            "install them (Debian, Ubuntu: apt-get install python$minor-venv), or install uv"
    fi
}

# --- Installation ----------------------------------------------------------------------------

check_disk() {
    need=0
    is_finished workflow || need=$((need + WORKFLOW_MB))
    [ "$1" = workflow ] || need=$((need + DEVELOPMENT_MB))
    ls results/environments/*/manifest.json >/dev/null 2>&1 || need=$((need + ENGINE_MB))
    free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1024) }')
    [ -z "$free" ] || [ "$free" -ge "$need" ] ||
        fail "$HERE: $need MB are needed (workflow and engine), $free MB are free; free some space"
}

pip_install() {
    .venv/bin/python -I -m pip install --disable-pip-version-check --no-input --require-hashes \
        "$@" >>"$LOG" 2>&1
}

explain_failure() {
    if grep -Eq 'No space left on device|Disk quota exceeded' "$LOG"; then
        fail "the disk is full (.venv, or the folder for temporary files, or pip's cache); free some space"
    elif grep -Eq 'DO NOT MATCH THE HASHES' "$LOG"; then
        fail "a package is not the one in the lock: it was changed or damaged on the way;" \
            "run again with PIP_NO_CACHE_DIR=1, or ask whoever runs your package index (see $LOG)"
    elif grep -Eq 'name resolution|NewConnectionError|ConnectTimeout|Max retries|Network is unreachable|Connection refused|ProxyError|ReadTimeout|SSLError|No matching distribution' "$LOG"; then
        fail "the package index cannot be reached, or lacks a package; check the network, or name a" \
            "proxy (HTTPS_PROXY) or a mirror (pip config set global.index-url ADDRESS); details: $LOG"
    fi
    tail -n 5 "$LOG" >&2
    fail "packages cannot be installed (see above and $LOG)"
}

install() { # with uv, which takes seconds; with pip alone where uv fails
    lock=envs/$1.requirements.txt
    if [ ! -x .venv/bin/uv ]; then
        sed -n '/^uv==/,/[^\\]$/p' envs/workflow.requirements.txt >.venv/uv.requirements.txt
        pip_install --no-deps --requirement .venv/uv.requirements.txt || explain_failure
    fi
    if ! .venv/bin/python -m scripts.install_requirements "$lock" >>"$LOG" 2>&1; then
        say "uv could not install it; trying pip, which takes about a minute"
        pip_install --requirement "$lock" || explain_failure
    fi
    .venv/bin/python -I -c "$(printf '%s' "$LIBRARIES" | tr -d '\n')" >>"$LOG" 2>&1 || true
}

set_up() {
    is_finished "$1" && return
    venv_is_usable || make_venv
    rm -f ".venv/.$1.stamp"
    : >"$LOG"
    say "installing envs/$1.requirements.txt into .venv (log: $LOG)"
    printf '%s\n' "$HERE" >.venv/.place
    install "$1"
    stamp_of "$1" >".venv/.$1.stamp.new"
    mv ".venv/.$1.stamp.new" ".venv/.$1.stamp"
}

case "${1:-}" in
workflow) parts=workflow ;;
development) parts='workflow development' ;;
*) fail "say what to set up: workflow or development" ;;
esac

finished=yes
for part in $parts; do is_finished "$part" || finished=no; done
[ "$finished" = no ] || exit 0

check_disk "$1"
if command -v flock >/dev/null 2>&1; then
    exec 9>.venv.lock
    flock -n 9 || { say "another setup is at work here; waiting for it" && flock 9; }
fi
for part in $parts; do set_up "$part"; done
