#!/bin/bash
# A sweep killed with SIGKILL at twenty random moments and resumed each time ends with the same set of points: valid
# files, nothing lost, nothing measured twice, no child left. Then once with SIGINT, which also writes a file.
# Usage: tests/kill_resume.sh BUILD_DIR [KILLS]
set -u
build=$(realpath "${1:-build}")
kills=${2:-20}
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
# A copy: another build in the meantime would be other circumstances, which --resume rightly does not mix.
mkdir "$tmp/bin" && cp -a "$build/hyena-bench" "$build/impls" "$tmp/bin/" || exit 1
hb=$tmp/bin/hyena-bench
export HYENA_BENCH_BUILD=$tmp/build       # results and wisdom of its own
mkdir "$HYENA_BENCH_BUILD"
RANDOM=$$
failed=0
say() {   # $1 status of the check  $2 what was checked
    if [ "$1" = 0 ]; then echo "PASS $2"; else echo "FAIL $2"; failed=1; fi
}

cat > "$tmp/sweep.json" <<'JSON'
{"name": "kill_resume",
 "defaults": {"B": 1, "D": 8, "budget_s": 0.02, "ci_target": 0.5, "time_limit_s": 20, "threads": 1},
 "groups": [{"id": "core", "impls": ["longconv_direct", "longconv_fftw_plain"], "L": [16, 33, 64, 100, 128, 200, 256],
             "pass": ["fwd", "bwd"], "priority": 1},
            {"id": "oom", "impls": ["attention_naive"], "L": 1048576, "priority": 2}],
 "pairs": [{"a": "longconv_direct", "b": "longconv_fftw_plain", "L": [64, 128], "priority": 2}]}
JSON
"$hb" sweep "$tmp/sweep.json" --dry-run | grep -o '[a-z_]*/dev:.*' | sort > "$tmp/want"
[ -s "$tmp/want" ]; say $? "the plan has $(wc -l < "$tmp/want") points"
[ $failed = 0 ] || exit 1

folders() { find "$HYENA_BENCH_BUILD/results" -type d -name '*.partial' 2>/dev/null; }
folder() { folders | head -n 1; }
json_files() { find "$HYENA_BENCH_BUILD/results" -name '*.json' 2>/dev/null; }
# Keys of the points that are on the disk: in the unfinished run, or in the file if the signal came after its writing.
names() { json_files | xargs -r cat | grep -o '"name": *"[^"]*/dev:[^"]*"' | sort -u; }
points() { local d; d=$(folder); [ -n "$d" ] && find "$d" -name '[0-9]*.json' | wc -l || echo 0; }

# Starts the sweep, ends it by signal $1 after a random part of $2 milliseconds (and $3 more). Sets code, survivors.
hit() {
    "$hb" sweep "$tmp/sweep.json" --resume >"$tmp/out" 2>"$tmp/err" &
    local pid=$! ms=$((RANDOM % $2 + 10 + ${3:-0})) children= c
    sleep "$((ms / 1000)).$(printf %03d $((ms % 1000)))"
    children=$(cat /proc/$pid/task/*/children 2>/dev/null)
    kill -"$1" $pid 2>/dev/null
    wait $pid 2>/dev/null; code=$?
    survivors=0
    for c in $children; do
        for _ in 1 2 3 4 5 6 7 8 9 10; do [ -e "/proc/$c" ] && sleep 0.05; done
        if [ -e "/proc/$c" ] && grep -q __point "/proc/$c/cmdline" 2>/dev/null; then survivors=$((survivors + 1)); fi
    done
}

lost=0 left=0 most=0 broken=0 n=0 early=0
while [ $n -lt "$kills" ]; do
    names > "$tmp/before"
    hit KILL 1500
    if [ $code = 0 ]; then          # it was done before the signal: begin again, with a new run
        early=$((early + 1)); [ $early -gt 20 ] && break
        continue
    fi
    n=$((n + 1)) left=$((left + survivors))
    names > "$tmp/after"
    [ -n "$(comm -23 "$tmp/before" "$tmp/after")" ] && lost=$((lost + 1))
    [ "$(points)" -gt $most ] && most=$(points)
    for f in $(json_files); do [ "$(tail -c 2 "$f")" = '}' ] || broken=$((broken + 1)); done     # "}" and newline
done
[ $n = "$kills" ];  say $? "killed $n times, $most points at the latest"
[ $lost = 0 ];      say $? "no point that was there is lost ($lost times)"
[ $left = 0 ];      say $? "no child is left running ($left)"
[ $broken = 0 ];    say $? "every file is whole ($broken are not)"

# Lets the sweep end by itself and compares what is there with what should be. $1: after what
complete() {
    "$hb" sweep "$tmp/sweep.json" --resume >"$tmp/out" 2>"$tmp/err"; code=$?
    [ $code = 0 ] || cat "$tmp/err"
    local file rc twice
    file=$(grep -o '/.*\.json$' "$tmp/out" | tail -n 1)
    [ $code = 0 ] && [ -s "$file" ]; say $? "$1: the last one ends by itself (exit code $code)"
    grep -o '"name": *"[^"]*"' "$file" | sed 's/.*: *"//; s/"$//' | grep /dev: | sort -u > "$tmp/have"
    cmp -s "$tmp/want" "$tmp/have"; rc=$?
    [ $rc = 0 ] || diff "$tmp/want" "$tmp/have" | head -n 20
    say $rc "$1: the file has the same set of points ($(wc -l < "$tmp/have"))"
    twice=$(grep '"repetition_index": *0[,}]' "$file" | grep -o '"name": *"[^"]*"' | sort | uniq -d | wc -l)
    [ "$twice" = 0 ]; say $? "$1: no point is there twice ($twice)"
    "$hb" crossover "$file" >/dev/null 2>"$tmp/err"; rc=$?
    [ $rc = 0 ] || cat "$tmp/err"
    say $rc "$1: the file can be read"
    [ -z "$(folder)" ]; say $? "$1: nothing unfinished is left"
}
complete SIGKILL

# A busy machine may need a while until the first point is there.
for ms in 1000 2000 4000 8000; do hit INT 100 $ms; grep -q -- --resume "$tmp/out" && break; done
[ $code = 130 ] && grep -q -- --resume "$tmp/out" && [ -n "$(folder)" ]
say $? "SIGINT: exit code $code, says how to resume, the run stays open"
[ $survivors = 0 ]; say $? "SIGINT: no child is left running"
# Another plug-in is another run, whatever git says of the build: a byte behind its end changes its hash alone.
open=$(folder)
cp "$tmp/bin/impls/longconv_direct.so" "$tmp/was.so"
echo >> "$tmp/bin/impls/longconv_direct.so"
for ms in 1000 2000 4000 8000; do hit INT 100 $ms; new=$(folders | grep -vxF "$open"); [ -n "$new" ] && break; done
[ -n "$new" ] && [ -d "$open" ]; say $? "changed plug-in: --resume begins another run and leaves the one there"
[ -n "$new" ] && rm -rf "$new" "${new%.partial}.json"
cp "$tmp/was.so" "$tmp/bin/impls/longconv_direct.so"
complete SIGINT
exit $failed
