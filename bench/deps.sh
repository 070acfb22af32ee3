#!/bin/bash
# Installs the Debian packages that the suite needs and that are missing; prints the list elsewhere.
# Exit 0: everything is there.  3: something is missing and cannot be installed from here.
set -u
packages=(gcc g++ make git ca-certificates xz-utils libssl-dev libfftw3-dev libopenblas-openmp-dev libjansson-dev libsqlite3-dev
          libpcre2-dev libbenchmark-dev libbenchmark-tools libcriterion-dev pkgconf gnuplot-nox fonts-dejavu-core
          bible-kjv bible-kjv-text)
packages+=("$@")     # optional ones, by name: valgrind (compare counts instructions with it)

missing() {
    local p
    for p in "${packages[@]}"; do
        dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q '^install ok installed$' || printf '%s ' "$p"
    done
}

[ -z "${HYENA_BENCH_NO_DEPS:-}" ] || exit 0
if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "deps: this is not a Debian system; install the equivalents of:" >&2
    printf '    %s\n' "${packages[*]}" >&2
    echo "deps: then run make with HYENA_BENCH_NO_DEPS=1" >&2
    exit 3
fi
need=$(missing)
[ -z "$need" ] && exit 0
sudo=
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "deps: missing: $need" >&2
        echo "deps: not root and no sudo here; as root: apt-get install $need" >&2
        exit 3
    fi
    sudo=sudo
fi
echo "deps: installing $need"
log=$(mktemp) || exit 3
export DEBIAN_FRONTEND=noninteractive
if ! { $sudo apt-get update && $sudo apt-get install -y --no-install-recommends $need; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "deps: apt-get failed (whole log: $log)" >&2
    exit 3
fi
rm -f "$log"
