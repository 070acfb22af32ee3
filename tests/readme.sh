#!/bin/bash
# README.md does what it says. In a copy of the project every ```sh block is run, in order; a ```text block behind it is
# what it printed, of which keys and column headings must come again. Then words: every command, option, make target,
# file and variable that README.md or an example of --help names exists, and says what the help says.
# What is too dear or needs a GPU is run otherwise: `instead` below is the whole list, and the log shows each.
# Usage: tests/readme.sh BUILD_DIR [--write]      --write: README.md gets today's outputs (minutes: nothing shortened)
set -u -o pipefail
root=$(realpath "$(dirname "$0")/..")
build=$(realpath "${1:-$root/build}")
write=${2:-}
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
copy=$tmp/hyena-bench
fails=0
fail() { echo "FAIL $*"; fails=$((fails + 1)); }

# --- a copy, built; CUDA stays out: nothing here may wait for nvcc -----------------------------------
unset HYENA_BENCH_BUILD HYENA_BENCH_IMPLS HYENA_BENCH_DATA HYENA_BENCH_CHOICES
export NVCC='' HOME=$tmp/home
mkdir "$copy" "$HOME"
(cd "$root" && tar cf - --exclude='./build*' \
    $([ -d .git ] || echo --exclude=./.git) .) | tar xf - -C "$copy" || exit 1
mkdir -p "$copy/build/impls" "$copy/build/datasets"
(cd "$build" && cp -a obj hyena-bench libhyena_bench.so build_id.h "$copy/build/" &&
    find impls -name '*.so' ! -name '*_cuda.so' -exec cp -a {} "$copy/build/impls/" \; &&
    { [ ! -d machine ] || cp -a machine "$copy/build/"; }) || exit 1
cp "$root/build/datasets/bible.txt" "$copy/build/datasets/" || exit 1
cd "$copy" || exit 1
make >"$tmp/make.log" 2>&1 || { cat "$tmp/make.log"; exit 1; }     # what changed since BUILD_DIR was built
npy() {  # $1 file  $2 shape  $3 values: float32 zeros
    printf '\x93NUMPY\x01\x00\x76\x00%-117s\n' "{'descr': '<f4', 'fortran_order': False, 'shape': ($2), }" >"$1"
    head -c $((4 * $3)) /dev/zero >>"$1"
}
npy u.npy "1, 4, 64" 256
npy h.npy "4, 64" 256

# --- every block -------------------------------------------------------------------------------------------
instead() {   # $1 a line of a block: prints what is run for it
    case $1 in
        "make report"* | "make test"* | "make gpu-bundle"*)     # minutes, and this test is part of `make test`
            echo "make -n ${1#make } >/dev/null" ;;
        "git worktree "*)                                       # another build of the same takes a minute
            echo "mkdir -p ../before && cp -a build ../before/" ;;
        "build/hyena-bench compare "*)                          # a minute; tests/guard.sh looks at its answers
            [ "$write" ] && echo "$1" || echo "${1/ compare / compare --rounds 2 --no-history }" ;;
        "build/hyena-bench train "*)                            # less of the held-out text
            echo "${1%%#*} eval_tokens=8192 valid_tokens=8192" ;;
        "build/hyena-bench roofline"*)                          # a quarter of a minute of every core
            echo "# $1" ;;
        "tar xzf gpu-bundle"* | ./run.sh*)                      # a GPU machine
            echo "# $1" ;;
        *)  echo "$1" ;;
    esac
}

# Splits README.md: block.NN.sh, and block.NN.text where a text block follows at once.
awk -v dir="$tmp" '
    /^```sh$/   { n++; file = sprintf("%s/block.%02d.sh", dir, n); next }
    /^```text$/ { file = last ? sprintf("%s/block.%02d.text", dir, n) : ""; if (file) printf "" >file; next }
    /^```/      { last = file ~ /sh$/; file = ""; next }
                { if (file) print >file; else last = 0 }' README.md

# What must come again of an output: first words, whole headings of tables, digits as #.
keys() {
    awk '/^\| *---/   { head = prev; gsub(/ +/, " ", head); print head }
         /^#/         { sub(/:.*/, ""); print }
         !/^[|#]|^ *$/ { print $1 }
                      { prev = $0 }' "$1" | sed 's/[0-9][0-9]*/#/g' | sort -u
}

for block in "$tmp"/block.*.sh; do
    while IFS= read -r line; do
        new=$(instead "$line")
        [ "$new" = "$line" ] || echo "instead of: $line" >&2
        printf '%s\n' "$new"
    done <"$block" >"$block.run"
    echo "--- $(head -n 1 "$block")"
    start=$SECONDS
    # -e: the first command that fails ends the block. A pipe's last command counts, as in a shell.
    bash -e "$block.run" >"$block.out" 2>"$block.err" </dev/null
    rc=$?
    echo "    exit code $rc, $((SECONDS - start)) s"
    [ $rc = 0 ] || { fail "exit code $rc:"; cat "$block"; tail -n 15 "$block.out" "$block.err"; continue; }
    text=${block%.sh}.text
    [ -e "$text" ] || continue
    if [ "$write" ]; then
        sed "s|$copy/||g; s|$tmp/||g" "$block.out" >"$text"
    else
        [ -s "$text" ] || fail "no output is shown for: $(cat "$block")"
        comm -23 <(keys "$text") <(keys "$block.out") >"$tmp/lost"
        [ ! -s "$tmp/lost" ] || { fail "README.md shows what is printed no more:"; cat "$tmp/lost" "$block" "$block.out"; }
    fi
done
[ "$(ls "$tmp"/block.*.sh | wc -l)" -ge 8 ] || fail "only $(ls "$tmp"/block.*.sh | wc -l) blocks were found in README.md"

if [ "$write" ]; then
    [ $fails = 0 ] || exit 1
    awk -v dir="$tmp" '
        /^```sh$/ { n++ }
        /^```text$/ { print; file = sprintf("%s/block.%02d.text", dir, n); while ((getline l <file) > 0) print l; skip = 1; next }
        /^```$/   { skip = 0 }
        !skip' README.md >"$tmp/README.new" && cp "$tmp/README.new" "$root/README.md"
    exit
fi

# One file is all that a new implementation costs: the block above must have had these effects.
hb=build/hyena-bench
for name in longconv_yours hyena:longconv_yours; do
    $hb list | grep -q "^$name " || fail "'$name' is not listed"
done
grep -q longconv_yours build/report/plots/time_core_fwd.svg || fail "longconv_yours is not in the figure"
grep -lq hb_err_rel_l2 build/results/*/*.json && grep -lq '"hb_impl": *"longconv_yours"' build/results/*/*.json ||
    fail "longconv_yours was not timed and checked by the sweep"

# --- words: commands, options, targets, files, variables ----------------------------------------------
$hb --help | sed -n '/^commands/,/^$/s/^  \([a-z]*\)  *\(.*\)/\1\t\2/p' >"$tmp/commands"
[ "$(wc -l <"$tmp/commands")" -ge 15 ] || fail "hyena-bench --help lists only $(wc -l <"$tmp/commands") commands"
mkdir "$tmp/help"
while read -r c _; do
    $hb "$c" --help >"$tmp/help/$c" || fail "hyena-bench $c --help: exit code $?"
    $hb "$c" --no-such-option >/dev/null 2>"$tmp/err"
    [ $? = 2 ] && grep -q "no-such-option.*hyena-bench $c --help" "$tmp/err" || fail "hyena-bench $c --no-such-option: $(cat "$tmp/err")"
done <"$tmp/commands"
make --no-print-directory help >"$tmp/targets"

check_line() {   # $1 where  $2 a line that calls hyena-bench (or run.sh): its command, options and files exist
    local rest=${2#*hyena-bench } cmd word
    [[ $2 == *run.sh* ]] && rest=${2#*run.sh }
    rest=${rest%%#*} rest=${rest%%|*}
    cmd=${rest%% *}
    [[ $cmd == --help ]] && return
    [ -e "$tmp/help/$cmd" ] || { fail "$1: no command '$cmd': $2"; return; }
    for word in $rest; do
        case $word in
            --benchmark_*) ;;
            --*) grep -q -- "^  $word " "$tmp/help/$cmd" || fail "$1: hyena-bench $cmd has no option $word: $2" ;;
            bench/*.json) [ -e "$word" ] || fail "$1: $word is not there: $2" ;;
        esac
    done
}
while read -r c _; do
    while IFS= read -r line; do check_line "$c --help" "$line"; done < <(sed -n '/^example/,$s/^  \(hyena-bench .*\)/\1/p' "$tmp/help/$c")
done <"$tmp/commands"
while IFS= read -r line; do check_line README.md "$line"; done < <(grep -hE '^(build/hyena-bench|\./run\.sh) ' "$tmp"/block.*.sh)
while read -r c; do [ -e "$tmp/help/$c" ] || fail "README.md: no command '$c'"; done < <(grep -oE '`(build/)?hyena-bench [a-z]+' README.md | awk '{print $2}')

# The words behind a # are those of the help.
says() {   # $1 the line  $2 the help's words
    local words=${1##*# }
    [[ $1 != *"# "* || "$2" == "$words"* ]] || fail "README.md says '$words', the help '$2'"
}
while IFS= read -r line; do
    c=${line#build/hyena-bench } c=${c%% *}
    says "$line" "$(awk -F'\t' -v c="$c" '$1 == c { print $2 }' "$tmp/commands")"
done < <(grep -h '^build/hyena-bench .*# ' "$tmp"/block.*.sh)
while read -r _ t rest; do says "make $t $rest" "$(sed -n "s/^$t  *//p" "$tmp/targets")"; done < <(grep -h '^make [a-z].*# ' "$tmp"/block.*.sh)
while read -r t; do
    grep -q "^$t " "$tmp/targets" || fail "README.md: \`make help\` has no target '$t'"
done < <(grep -ohE '(`|^|&& |[A-Z]=[^ ]+ )make [a-z][a-z-]*' README.md | awk '{print $NF}' | sort -u)

while read -r path; do [ -e "$path" ] || fail "README.md: $path is not there"; done < <(
    grep -oE '\]\([^)#:]+\)' README.md | tr -d '])('
    grep -oE '`(bench|impls|tests|datasets|plots|results)/[A-Za-z0-9_./-]*`' README.md | tr -d '`')
while read -r v; do
    grep -rq "$v" bench datasets --include='*.c' --include='*.sh' || fail "README.md: nothing reads $v"
done < <(grep -oE 'HYENA_BENCH_[A-Z_]+' README.md | sort -u)

# The licence paragraph: what links what.
needs() { objdump -p "$1" | awk '/NEEDED/ { print $2 }'; }
needs "$build/hyena-bench" | grep -E 'fftw|libcu' && fail "the program links what README.md says it does not"
for so in "$build"/impls/*.so; do
    case $so in */longconv_fftw*.so) continue ;; esac
    needs "$so" | grep fftw && fail "$so links FFTW, README.md does not say so"
    [[ $so == *_cuda.so ]] || { needs "$so" | grep libcu && fail "$so links CUDA, README.md does not say so"; }
done

[ $fails = 0 ] || { echo "$fails failed"; exit 1; }
echo "README.md: $(ls "$tmp"/block.*.sh | wc -l) blocks, $(wc -l <"$tmp/commands") commands, all of it holds ($SECONDS s)"
