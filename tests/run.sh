#!/bin/bash
# Runs every test of the build folders named: the Criterion programs and the scripts beside this one.
# Prints one line per program, the whole output of what failed, and the sums. Exit 0: nothing failed.
# A folder whose name holds "asan" was built with sanitizers; there only the script that feeds bad input runs.
set -u
[ $# -gt 0 ] || { echo "usage: tests/run.sh BUILD_DIR..." >&2; exit 2; }
here=$(dirname "$0")
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=0 UBSAN_OPTIONS=print_stacktrace=1
passed=0 failed=0 skipped=0

count() {   # $1 log: adds the sums of a Criterion synthesis line and prints the reasons of skips
    local line; line=$(grep -a 'Synthesis:' "$1" | tail -n 1)
    local tested pass fail crash
    tested=$(sed -E 's/.*Tested: ([0-9]+).*/\1/' <<<"$line")
    pass=$(sed -E 's/.*Passing: ([0-9]+).*/\1/' <<<"$line")
    fail=$(sed -E 's/.*Failing: ([0-9]+).*/\1/' <<<"$line")
    crash=$(sed -E 's/.*Crashing: ([0-9]+).*/\1/' <<<"$line")
    [ -n "$line" ] && [ "$tested" -gt 0 ] || return 1
    local skip; skip=$(grep -ac '^\[SKIP\]' "$1")
    passed=$((passed + pass)) failed=$((failed + fail + crash)) skipped=$((skipped + skip))
    printf '%s tests, %s failed%s' "$tested" "$((fail + crash))" "$([ "$skip" -gt 0 ] && echo ", $skip skipped")"
}

run_criterion() {
    local name log t0; name=$(basename "$1") log=$logs/$(basename "$1").log t0=$SECONDS
    timeout 900 "$1" -j2 --verbose=0 >"$log" 2>&1
    local rc=$? sums
    count "$log" >"$logs/sums"; local counted=$?
    sums=$(<"$logs/sums")
    if [ $counted != 0 ]; then failed=$((failed + 1)); sums="no test ran (exit code $rc)"; rc=1; fi
    printf '%-28s %s  (%d s)\n' "$name" "$sums" $((SECONDS - t0))
    grep -a '^\[SKIP\]' "$log"
    [ $rc = 0 ] || sed 's/^/    /' "$log" | tail -n 60
}

run_script() {
    local name log t0; name=$(basename "$1") log=$logs/$(basename "$1").log t0=$SECONDS
    if timeout 900 bash "$1" "$build" >"$log" 2>&1; then
        passed=$((passed + 1)); printf '%-28s passed  (%d s)\n' "$name" $((SECONDS - t0))
    else
        failed=$((failed + 1)); printf '%-28s FAILED  (%d s)\n' "$name" $((SECONDS - t0)); tail -n 40 "$log" | sed 's/^/    /'
    fi
}

for build in "$@"; do
    logs=$build/tests/logs
    mkdir -p "$logs"
    echo "--- $build"
    for t in "$build"/tests/test_*; do [ -x "$t" ] && [[ $t != *.* ]] && run_criterion "$t"; done
    if [[ $build == *asan* ]]; then scripts=bad_input; else scripts="layers bad_input report kill_resume install guard readme"; fi
    for s in $scripts; do run_script "$here/$s.sh"; done
done
compgen -G "$1/impls/*_cuda.so" >/dev/null || echo "cuda: no CUDA implementations in this build, nothing of them was tested"
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
