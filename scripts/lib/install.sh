# Installs what scripts/run and scripts/test need and is missing. Source it in the root of the checkout.
#   ensure_packages PACKAGE…  Debian packages: installs them as root, else prints the command
#   ensure_venv               .venv with all packages of requirements.lock, first on PATH
#   ensure_venv run           .venv with those that scripts/run needs, at least
#   ensure_editor             a code-server; sets CODE_SERVER
#   ensure_test_tools         all of these that tests need, and nginx; sets NGINX

PYTHON=${PYTHON:-python3}
EDITOR_PACKAGES="g++ make libkrb5-dev libsecret-1-dev"

say() { echo "$(basename "$0"): $*" >&2; }

missing_packages() { # prints those of its arguments that are not installed
    local package
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
    done
}

ensure_packages() { # succeeds if all are installed in the end
    local missing
    command -v dpkg-query >/dev/null || { say "this system is not Debian; if a program is missing, install the counterparts of these Debian packages: $*"; return 1; }
    missing=$(missing_packages "$@" | xargs)
    [ -z "$missing" ] && return 0
    if [ "$(id -u)" != 0 ]; then
        say "missing: $missing. To install: sudo apt-get install --no-install-recommends $missing"
        return 1
    fi
    say "installing $missing"
    # shellcheck disable=SC2086  # a list of words
    { apt_get update && apt_get install $missing; } || { dpkg --configure -a && apt_get install $missing; }
}

apt_get() { # waits for another apt, asks no questions, prints its output only if it fails
    local log
    log=$(mktemp)
    if DEBIAN_FRONTEND=noninteractive apt-get -y --no-install-recommends -o DPkg::Lock::Timeout=300 "$@" >"$log" 2>&1; then
        rm -f "$log"
    else
        tail -n 20 "$log" >&2
        rm -f "$log"
        return 1
    fi
}

ensure_python() {
    command -v "$PYTHON" >/dev/null || ensure_packages python3 python3-venv || true
    if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        say "Python 3.11 or newer is needed; $PYTHON is $("$PYTHON" -V 2>&1). Choose another with PYTHON=python3.x"
        exit 1
    fi
    # Debian ships ensurepip in a separate package.
    "$PYTHON" -c 'import ensurepip' 2>/dev/null || ensure_packages python3-venv || exit 1
}

ensure_venv() {
    local root part=${1:-all}
    root=$PWD
    if ! installed "$part"; then
        ensure_python
        (
            # Of two first runs at the same time, the second waits and finds it done.
            flock -w 900 9 || { say "another installation has held .venv.lock for 900 s"; exit 1; }
            installed "$part" && exit 0
            say "installing the Python packages into .venv"
            # A service may run on the packages of scripts/run: the tests' are added to them.
            { installed run || "$PYTHON" -m venv --clear .venv; } &&
                pip_install -r <(locked uv) &&
                install_lock "$part" &&
                echo "$(locked_for) $part" >.venv/installed
        ) 9>.venv.lock || exit 1
    fi
    # PYTHONPATH replaces an installation of the project itself.
    export VIRTUAL_ENV=$root/.venv PATH=$root/.venv/bin:$PATH PYTHONPATH=$root PYTHONUNBUFFERED=1
    PYTHON=$root/.venv/bin/python
}

locked_for() { echo "$(sha256sum <requirements.lock | cut -c1-64) $PWD"; } # what .venv is made for: the lock and its place

installed() { # whether .venv has the packages of this part, `run` or `all`
    local found
    found=$(cat .venv/installed 2>/dev/null)
    [ "$found" = "$(locked_for) all" ] || [ "$found" = "$(locked_for) $1" ]
}

install_lock() { # the packages of this part of the lock
    local lock=requirements.lock
    if [ "$1" = run ]; then
        lock=.venv/run.lock
        .venv/bin/python -m scripts.lib.run_lock >"$lock" || return 1
    fi
    uv_install -r "$lock" || pip_install -r "$lock"
}

locked() { sed -n "/^$1==/,/^    #/p" requirements.lock; } # PACKAGE: its lines of the lock

pip_install() { # into .venv; its arguments are pip's
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps "$@"
}

# The same by uv: 3 s where pip takes 90 on two cores, as it unpacks a package once and links it into each .venv. It reads
# none of pip's settings; where an index or a certificate is set for pip in another way than here, pip does it.
uv_install() {
    local index
    index=${PIP_INDEX_URL:-$(.venv/bin/python -m pip config get global.index-url 2>/dev/null)}
    VIRTUAL_ENV=$PWD/.venv UV_NATIVE_TLS=1 UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-$index} \
        .venv/bin/uv pip install --quiet --require-hashes --no-deps "$@"
}

ensure_editor() {
    if [ -z "${CODE_SERVER:-}" ]; then
        CODE_SERVER=$(app/editor/install) || { say "the editor could not be built; it needs the packages $EDITOR_PACKAGES"; exit 1; }
    fi
    export CODE_SERVER
}

ensure_test_tools() {
    local packages="redis-server restic prometheus chromium make unzip iproute2"
    [ -n "${CODE_SERVER:-}" ] || command -v code-server >/dev/null || packages="$packages $EDITOR_PACKAGES"
    # shellcheck disable=SC2086  # a list of words
    ensure_packages $packages || say "continuing without these packages: tests that need them will be skipped"
    ensure_venv
    ensure_editor
    NGINX=$(scripts/lib/nginx) || say "continuing without nginx: tests that need it will be skipped"
    export NGINX
}
