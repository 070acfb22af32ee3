#!/bin/bash
# Copies what `make report` wrote under BUILD/report into REPORT.md and plots/, and the runs it was made
# from into results/<machine>/ (append-only). Usage: bench/publish.sh BUILD_DIR
set -eu
build=${1:-build}
report=$build/report
[ -f "$report/REPORT.md" ] || { echo "publish: $report/REPORT.md is not there; run \`make report\` first" >&2; exit 2; }
cp "$report/REPORT.md" REPORT.md
shopt -s nullglob
rm -f plots/*.svg plots/*.png            # figures of an earlier report that this one does not have
for f in "$report"/plots/*.svg "$report"/plots/*.png; do cp "$f" plots/; done
for dir in "$build"/results/*/; do
    machine=$(basename "$dir")
    mkdir -p "results/$machine"
    for f in "$dir"*.json; do cp -n "$f" "results/$machine/"; done
done
echo "published: REPORT.md, $(ls plots/*.png | wc -l) figures, $(find results -name '*.json' | wc -l) result files"
