#!/bin/bash
# datasets/fetch.sh [SET ...]: puts data sets into build/datasets, unpacked and checked.
#   no argument     the default set, bible
#   SET ...         exactly these; a set that cannot be had is an error. A file of a set, without its ending, is
#                   fetched alone: enwiki2015.part1
#   all             every set of the manifest
#   list            fetches nothing, says where each set stands
# Exit 0: all asked for is there.  2: no such set.  3: cannot be had here.  4: a tool failed.
set -u -o pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$(dirname "$here")/build/datasets
say() { echo "datasets: $*"; }
die() { local code=$1; shift; echo "datasets: $*" >&2; exit "$code"; }

sha() { sha256sum <"$1" | cut -d' ' -f1; }

# How to get a set that is not here, in one line.
how() {  # get source
    case $1 in
        debian:*) echo "apt-get install $(tr , ' ' <<<"${1#debian:}")" ;;
        data:*)   echo "put it or its .xz into the folder HYENA_BENCH_DATA names; source: $2" ;;
    esac
}

# Writes the unpacked file to $tmp. Returns 1 if it cannot be had here.
produce() {  # get tmp
    local name=${1#data:} folder=${HYENA_BENCH_DATA:-}
    case $1 in
        debian:bible-kjv,*)
            command -v bible >/dev/null && [ -r /usr/lib/bible.data ] || return 1
            # It looks for its data in the current folder first: name the place. -f: a verse a line.
            bible -p /usr/lib -f gen1:1-rev22:21 </dev/null >"$2" || return 4 ;;
        data:*)
            [ -n "$folder" ] || return 1
            if   [ -r "$folder/$name" ];    then cp -- "$folder/$name" "$2" || return 4
            elif [ -r "$folder/$name.xz" ]; then
                command -v xz >/dev/null || die 3 "xz is missing; install xz-utils"
                xz -dc -- "$folder/$name.xz" >"$2" || return 4
            else return 1; fi ;;
        *)  die 4 "manifest: unknown way to get a file: $1" ;;
    esac
}

fetch_file() {  # set file bytes sha get; 0 there, 3 cannot be had
    local path="$out/$2" rc
    tmp="$out/.$2.$$"
    # What is here and right stays; what is here and wrong is fetched again.
    [ -f "$path" ] && [ "$(stat -c %s "$path")" = "$3" ] && [ "$(sha "$path")" = "$4" ] && return 0
    produce "$5" "$tmp"; rc=$?
    [ $rc = 1 ] && { rm -f "$tmp"; return 3; }
    [ $rc = 0 ] || die 4 "$1: could not extract $2 ($5)"
    [ "$(stat -c %s "$tmp")" = "$3" ] || die 4 "$1: $2 has $(stat -c %s "$tmp") bytes, expected $3"
    [ "$(sha "$tmp")" = "$4" ] || die 4 "$1: $2 has sha256 $(sha "$tmp"), expected $4"
    mv -- "$tmp" "$path" || die 4 "cannot write $path"
    say "$1: $2, $3 bytes, sha256 ok"
}

fetch_set() {  # name
    local set file bytes sum get licence source found=
    while IFS=$'\t' read -r set file bytes sum get licence source; do
        [ "$set" = "$1" ] || [ "${file%.*}" = "$1" ] || continue
        found=1
        fetch_file "$set" "$file" "$bytes" "$sum" "$get" ||
            die 3 "$set: $file is not here: $(how "$get" "$source")"
    done < <(grep -v '^#' "$here/manifest")
    [ -n "$found" ] || die 2 "no set '$1' in datasets/manifest; there are: $(names | tr '\n' ' ')"
}

names() { grep -v '^#' "$here/manifest" | cut -f1 | uniq; }

# One line a file: where it stands.
list_sets() {
    local set file bytes sum get licence source packed
    while IFS=$'\t' read -r set file bytes sum get licence source; do
        packed=${HYENA_BENCH_DATA:-/nowhere}/${get#data:}
        if [ -f "$out/$file" ]; then say "$set: $file is here"
        elif [ -r "$packed.xz" ] || [ -r "$packed" ] || [[ $get == debian:* ]]; then
            say "$set: $file comes with: make datasets SETS=$set"
        else say "$set: $file is not here: $(how "$get" "$source")"; fi
    done < <(grep -v '^#' "$here/manifest")
}

tmp=
trap '[ -z "$tmp" ] || rm -f "$tmp"' EXIT
mkdir -p "$out" || die 4 "cannot create $out"
[ $# -gt 0 ] || set -- bible
case $1 in
    list) list_sets ;;
    all)  for name in $(names); do fetch_set "$name"; done ;;
    *)    for name in "$@"; do fetch_set "$name"; done ;;
esac
