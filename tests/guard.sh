#!/bin/bash
# compare and selftest, live: a build against itself, against one with a slowed implementation, and
# what they write. Small budgets: 15 s. Usage: tests/guard.sh BUILD_DIR
set -u
build=$(realpath "${1:-build}") root=$(realpath "$(dirname "$0")/..")
hb=$build/hyena-bench
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
cd "$tmp" || exit 1
mkdir cache
export HYENA_BENCH_BUILD=$tmp/cache
fails=0
fail() { echo "FAIL $*"; fails=$((fails + 1)); }
expect() {   # $1 exit code  $2 what  rest: the command; output in stdout, stderr
    local want=$1 what=$2; shift 2
    "$@" >stdout 2>stderr </dev/null; local rc=$?
    [ $rc = "$want" ] || { fail "$what: exit code $rc, expected $want"; tail -n 20 stdout stderr; }
}
has() { grep -qF -- "$2" "$1" || { fail "$1 has no '$2'"; head -c 2000 "$1"; }; }

cat >small.json <<'JSON'
{"name": "small", "defaults": {"D": 8, "H": 1, "L": 128, "threads": 1, "budget_s": 0.02, "time_limit_s": 20},
 "groups": [
  {"id": "timed", "impls": ["longconv_direct", "attention_naive"], "pass": "fwd"},
  {"id": "exact", "impls": ["longconv_direct"], "L": 64, "pass": "fwd", "planning": "estimate"}
 ]}
JSON

sed 's/, "attention_naive"//' small.json >one.json

# Against itself. 20 %: this is about the machinery; what noise does is selftest's business.
expect 0 "a build against itself" "$hb" compare --base "$build" --head "$build" --sweep one.json --tier paired --all \
    --rounds 5 --min-effect 0.2 --json a.json --junit a.xml --markdown a.md --history h.sqlite
has a.json '"answer": "no regression"'
has a.md 'longconv_direct/dev:cpu0'
has a.xml '<testsuite name="hyena-bench compare"'
has a.xml 'failures="0"'
[ "$(head -c 6 h.sqlite)" = SQLite ] || fail "h.sqlite is no SQLite file"
! command -v xmllint >/dev/null || xmllint --noout a.xml || fail "a.xml is not well-formed"

# Identical code is not measured at all.
expect 0 "identical code" "$hb" compare --base "$build" --sweep small.json --tier paired --no-history
has stdout 'identical code, not measured'

# One implementation compiled without optimisation must be named, alone, by both tiers.
mkdir slow && cp -r "$build/impls" slow/ && cp "$build/hyena-bench" slow/
gcc -std=c11 -D_GNU_SOURCE -O0 -march=x86-64-v3 -fopenmp -fPIC -shared -fvisibility=hidden -I"$root/impls/core" \
    -o slow/impls/longconv_direct.so "$root/impls/longconv/longconv_direct.c" -lm || fail "the slow one does not compile"
expect 1 "a slowed implementation" "$hb" compare --base "$build" --head slow --sweep small.json --rounds 5 \
    --min-effect 0.2 --json b.json --junit b.xml --no-history
grep -F '| slower' stdout | grep -q '^| longconv_direct' || { fail "longconv_direct is not slower"; cat stdout; }
grep -F '| slower' stdout | grep -q '^| attention' && fail "attention_naive is slower, too"
has b.json '"answer": "regression"'
! command -v valgrind >/dev/null || grep -q 'instructions.*worse' stdout || fail "its instructions are not worse"
has b.xml '<failure message="slower'

# One that is gone from the new build is no pass.
rm slow/impls/longconv_direct.so
expect 1 "an implementation that is gone" "$hb" compare --base "$build" --head slow --sweep one.json --tier paired --no-history
has stdout 'broken: head:'

# What is asked wrongly.
expect 2 "no base" "$hb" compare
expect 2 "a base that is none" "$hb" compare --base "$tmp/cache"
has stderr 'no program hyena-bench'
expect 2 "a budget that is none" "$hb" compare --base "$build" --budget soon
has stderr 'not a time'

if command -v valgrind >/dev/null; then
    expect 0 "selftest of the exact tier" "$hb" selftest --sweep one.json --cycles 0 --exact 1
    has stdout 'found in 1 of 1; equal builds differed in 0 of 1'
fi
# A pool of earlier times (1 point, 24 cycles, 5 levels of base and head): found where it is clear, no alarm where there is nothing.
awk 'BEGIN { printf "{\"schema\": \"x\", \"points\": 1, \"cycles\": 24, \"levels\": 5, \"pair_s\": 0.2, \"ns\": ["
    for (c = 0; c < 24; c++) for (l = 0; l < 5; l++) {
        f = l == 1 ? 1.02 : l == 2 ? 1.05 : l == 3 ? 1.1 : l == 4 ? 1.2 : 1
        printf "%s1000, %.1f", c + l ? ", " : "", 1000 * f * (1 + 0.002 * ((c * 7 + l * 3) % 5)) }
    print "]}" }' >pool.json
expect 0 "selftest of a pool" "$hb" selftest --sweep one.json --comparisons 4 --injected 1 \
    --exact 0 --budget-s 2 --pool pool.json --json s.json
has stdout 'drawn from the pool'
has s.json '"false_alarms": 0'
grep -q 'one point 20 % slower *| *1 | *1 |' stdout || { fail "20 % slower is not found"; cat stdout; }
[ -z "$(ls cache/guard | grep -v -e shared -e sqlite)" ] || fail "copies were left: $(ls cache/guard)"
[ $fails = 0 ] || { echo "$fails of the checks failed"; exit 1; }
echo "compare and selftest: all checks passed"
