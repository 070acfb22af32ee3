#!/bin/bash
# Folders include headers only from folders to their left (datasets, impls, bench) and from impls/core;
# an implementation file includes nothing of the project but impls/core. Prints one line per violation.
cd "$(dirname "$0")/.." || exit 1
status=0
complain() { echo "layers: $1:$2 includes $3, which $4"; status=1; }

check() {   # $1 files  $2 regular expression of allowed project headers  $3 what is allowed, in words
    local f line path
    for f in $1; do
        while IFS=: read -r line path; do
            path=${path#*\"}; path=${path%%\"*}
            local full
            full=$(realpath -m --relative-to=. "$(dirname "$f")/$path")
            [ -e "$full" ] || { [ -e "impls/core/$path" ] && full=impls/core/$path; }
            [[ $path == build_id.h ]] && continue
            [[ $full =~ $2 ]] || complain "$f" "$line" "$full" "is not in $3"
        done < <(grep -nE '^#include "' "$f")
    done
}
shopt -s globstar nullglob
check "$(echo datasets/**/*.[ch])"                        '^(datasets|impls/core)/'              "datasets or impls/core"
check "$(echo impls/core/*.[ch])"                         '^impls/core/'                         "impls/core"
check "$(echo impls/{longconv,attention,hyena,mha}/*.c)"  '^impls/core/'                         "impls/core"
check "$(echo impls/{reference,device}/*.[ch])"           '^impls/(core|reference|device)/'      "impls/core, reference or device"
check "$(echo bench/**/*.[ch])"                           '^(datasets|impls/(core|reference|device)|bench)/' "datasets, impls or bench"
# Contestants share nothing with the judges.
if grep -nE 'judge_|prims64' impls/{longconv,attention,hyena,mha}/*.c; then echo "layers: a contestant names a judge"; status=1; fi
# FFTW is GPL, cuFFT proprietary: never in the program itself.
if grep -nE '#include <(fftw3|cufft)' bench/**/*.[ch] impls/{core,device,reference}/*.[ch] datasets/*.[ch]; then
    echo "layers: the program includes FFTW or cuFFT; they belong to plug-ins"; status=1
fi
# One exported symbol in each plug-in.
set -- "${1:-build}"/impls/*.so
[ $# -ge 7 ] || { echo "layers: only $# plug-ins were looked at, expected 7 or more"; status=1; }
for so in "$@"; do
    n=$(nm -D --defined-only "$so" | awk '$2 ~ /[TDRB]/ {print $3}' | grep -v '^_' | tr '\n' ' ')
    [ "$n" = "hb_impl " ] || { echo "layers: $so exports: $n(expected hb_impl alone)"; status=1; }
done
exit $status
