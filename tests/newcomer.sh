#!/bin/bash
# A new implementation costs one file: in a copy of the project, drop one in, say `make`, and it is listed,
# checked, timed and plotted. Usage: tests/newcomer.sh BUILD_DIR
set -eu
root=$(realpath "$(dirname "$0")/..")
build=$(realpath "${1:-$root/build}")
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
(cd "$root" && tar cf - --exclude=./build --exclude=./build-asan --exclude=./results .) | tar xf - -C "$copy"
mkdir "$copy/build" && cp -a "$build/obj" "$build/impls" "$build/hyena-bench" "$build/build_id.h" "$copy/build/"
cd "$copy"
# The newcomer: the plain loop from the shelf of the tests, under a name of its own.
sed -e 's/"longconv_" NAME_OF(DEFECT)/"longconv_newcomer"/' -e 's/DEFECT/right/g' tests/wrong/longconv.c > impls/longconv/longconv_newcomer.c
make all >make.log 2>&1 || { cat make.log; exit 1; }
hb=build/hyena-bench
$hb list | grep -q '^longconv_newcomer'                     || { echo "not listed"; $hb list; exit 1; }
$hb list | grep -q '^hyena:longconv_newcomer'               || { echo "not offered inside hyena"; exit 1; }
$hb run --impl longconv_newcomer --L 100 --D 4 --time-limit 20 --json > run.json
grep -q hb_median_ns run.json && grep -q hb_err_rel_l2 run.json || { echo "not timed and checked"; cat run.json; exit 1; }
cat > sweep.json <<'JSON'
{"name": "newcomer", "groups": [{"id": "core", "title": "newcomer", "impls": ["longconv_newcomer", "longconv_direct"],
  "B": 1, "D": 8, "L": [64, 128, 256, 512], "pass": ["fwd"]}]}
JSON
$hb sweep sweep.json > sweep.log 2>&1                       || { echo "sweep failed"; cat sweep.log; exit 1; }
$hb plot --out figures > plot.log 2>&1                      || { echo "plot failed"; cat plot.log; exit 1; }
grep -lq longconv_newcomer figures/*.svg                    || { echo "in no figure"; ls figures; exit 1; }
echo "one file: listed, checked, timed, plotted"
