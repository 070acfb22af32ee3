#!/bin/bash
# Malformed input of every kind: each must give exit code 2, exactly one line on stderr that names what is
# wrong, nothing on stdout, and no output file. Usage: tests/bad_input.sh BUILD_DIR
set -u
build=$(realpath "${1:-build}")
hb=$build/hyena-bench
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
cd "$tmp" || exit 1
kinds=0 wrong=0

bad() {   # $1 what  $2 a word the message must contain  rest: the command
    local what=$1 word=$2; shift 2
    kinds=$((kinds + 1))
    rm -f out.npy grads.safetensors
    "$@" >stdout 2>stderr </dev/null; local rc=$?
    local why=
    [ $rc = 2 ] || why="exit code $rc"
    [ "$(wc -l <stderr)" = 1 ] || why="$why, $(wc -l <stderr) lines on stderr"
    grep -qiF -- "$word" stderr || why="$why, the message does not name \"$word\""
    [ ! -s stdout ] || why="$why, something on stdout"
    [ -e out.npy ] || [ -e grads.safetensors ] && why="$why, an output file was written"
    [ -z "$why" ] && return
    wrong=$((wrong + 1))
    echo "FAIL $what:${why#,}"; head -n 3 stderr | sed 's/^/    /'
}

# npy NAME DESCR FORTRAN SHAPE BYTES [HEADER-JUNK]: a .npy file with that header and that many bytes of zeros.
npy() {
    local header="{'descr': '$2', 'fortran_order': $3, 'shape': ($4), }${6:-}"
    local len=$(( (${#header} + 1 + 10 + 63) / 64 * 64 - 10 ))
    { printf '\x93NUMPY\x01\x00'; printf "\\x$(printf %02x $((len % 256)))\\x$(printf %02x $((len / 256)))"
      printf "%-$((len - 1))s\n" "$header"; head -c "$5" /dev/zero; } >"$1"
}
# st NAME JSON BYTES: a .safetensors file.
st() {
    local n=${#2}
    { for i in 0 1 2 3 4 5 6 7; do printf "\\x$(printf %02x $(( (n >> (8 * i)) & 255 )))"; done
      printf '%s' "$2"; head -c "$3" /dev/zero; } >"$1"
}

npy u.npy '<f4' False '1, 2, 8' 64;  npy h.npy '<f4' False '2, 8' 64;  npy d.npy '<f4' False '2,' 8
apply() { bad "$1" "$2" "$hb" apply longconv_direct "${@:3}" --out out.npy; }
"$hb" apply longconv_direct --u u.npy --h h.npy --out out.npy || { echo "FAIL the good call failed"; exit 1; }

# --- .npy
printf 'hello' >t.npy;                                  apply "npy: not one"            t.npy  --u t.npy --h h.npy
: >t.npy;                                               apply "npy: empty"              t.npy  --u t.npy --h h.npy
printf '\x93NUMPY\x01\x00' >t.npy;                      apply "npy: ends in the header" t.npy  --u t.npy --h h.npy
printf '\x93NUMPY\x09\x00\x10\x00' >t.npy;              apply "npy: unknown version"    t.npy  --u t.npy --h h.npy
npy t.npy '<f4' False '1, 2, 8' 60;                     apply "npy: data cut short"     t.npy  --u t.npy --h h.npy
npy t.npy '<f4' False '1, 2, 8' 68;                     apply "npy: data left over"     t.npy  --u t.npy --h h.npy
npy t.npy '<i4' False '1, 2, 8' 64;                     apply "npy: integers"           t.npy  --u t.npy --h h.npy
npy t.npy '>f4' False '1, 2, 8' 64;                     apply "npy: big endian"         t.npy  --u t.npy --h h.npy
npy t.npy '<f4' True '1, 2, 8' 64;                      apply "npy: Fortran order"      t.npy  --u t.npy --h h.npy
npy t.npy '<f4' False '1, -2, 8' 64;                    apply "npy: negative length"    t.npy  --u t.npy --h h.npy
npy t.npy '<f4' False '4294967296, 4294967296, 8' 64;   apply "npy: shape overflows"    t.npy  --u t.npy --h h.npy
npy t.npy '<f4' False '0, 2, 8' 0;                      apply "npy: no elements"        t.npy  --u t.npy --h h.npy
npy t.npy '<f4' False '1, 1, 2, 8' 64;                  apply "npy: four dimensions"    t.npy  --u t.npy --h h.npy
npy t.npy '<f4' False '1, 2, 8' 64 ' junk';             apply "npy: junk in the header" t.npy  --u t.npy --h h.npy
npy t.npy '<f4' False '3, 8' 96;                        apply "npy: h does not fit u"   t.npy  --u u.npy --h t.npy
npy t.npy '<f4' False '3,' 12;                          apply "npy: d does not fit u"   t.npy  --u u.npy --h h.npy --d t.npy
mkdir folder;                                           apply "npy: a folder"           folder --u folder --h h.npy
                                                        apply "npy: not there"          nix.npy --u nix.npy --h h.npy
                                                        apply "apply: no h"             --h    --u u.npy

# --- .safetensors
npy o.npy '<f4' False '1, 8, 4' 128
hyena() { bad "$1" "$2" "$hb" apply hyena:longconv_direct --u o.npy --params "$3" --out out.npy; }
printf 'abc' >t.st;                                     hyena "safetensors: too short"           t.st t.st
printf '\xff\xff\xff\xff\xff\xff\xff\x7f{}' >t.st;      hyena "safetensors: header length"       t.st t.st
st t.st '{"a":' 0;                                      hyena "safetensors: broken JSON"         t.st t.st
st t.st '[1, 2]' 0;                                     hyena "safetensors: not an object"       t.st t.st
st t.st '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}' 8
                                                        hyena "safetensors: a name twice"        t.st t.st
st t.st '{"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}' 8;  hyena "safetensors: dtype"  t.st t.st
st t.st '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,12]}}' 12; hyena "safetensors: size against shape" t.st t.st
st t.st '{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}' 8;   hyena "safetensors: offsets backwards"  t.st t.st
st t.st '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}' 4;   hyena "safetensors: data cut short"     t.st t.st
st t.st '{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}' 8;  hyena "safetensors: negative length"    t.st t.st
st t.st '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}' 8;   hyena "safetensors: tensors missing"    t.st t.st

# --- the command line
bad "no such command"      swep      "$hb" swep
bad "unknown option"       --lenght  "$hb" run --impl longconv_direct --lenght 8
bad "value missing"        impl      "$hb" run --impl
bad "no implementation"    --impl    "$hb" run --L 8
bad "unknown implementation" longconv_magic "$hb" run --impl longconv_magic --L 8
bad "unknown inner"        longconv_magic "$hb" run --impl hyena:longconv_magic --L 8
bad "wrong inner"          attention_flash "$hb" run --impl hyena:attention_flash --L 8
bad "operator without inner" hyena   "$hb" run --impl hyena --L 8
bad "length 0"             0         "$hb" run --impl longconv_direct --L 0
bad "negative length"      -5        "$hb" run --impl longconv_direct --L -5
bad "length not a number"  12x       "$hb" run --impl longconv_direct --L 12x
bad "length overflows"     99999999999999999999 "$hb" run --impl longconv_direct --L 99999999999999999999
bad "empty value"          --L       "$hb" run --impl longconv_direct --L ""
bad "heads do not divide"  H         "$hb" run --impl attention_flash --L 8 --D 10 --H 3
bad "dtype"                f99       "$hb" run --impl longconv_direct --L 8 --dtype f99
bad "pass"                 sideways  "$hb" run --impl longconv_direct --L 8 --pass sideways
bad "memory limit"         lots      "$hb" run --impl longconv_direct --L 8 --mem-limit lots
bad "time limit"           nan       "$hb" run --impl longconv_direct --L 8 --time-limit nan
bad "threads"              0         "$hb" run --impl longconv_direct --L 8 --threads 0
bad "left over argument"   extra     "$hb" run --impl longconv_direct --L 8 extra
bad "sweep without a file" sweep     "$hb" sweep

# --- JSON: sweeps, configurations, results
j() { printf '%s' "$2" >t.json; bad "$1" t.json "$hb" "${@:3}" t.json; }
j "sweep: empty file"       ''                                                        sweep --dry-run
j "sweep: broken JSON"      '{"groups": ['                                            sweep --dry-run
j "sweep: not an object"    '[]'                                                      sweep --dry-run
j "sweep: unknown key"      '{"name":"x","grups":[]}'                                 sweep --dry-run
j "sweep: key twice"        '{"name":"x","name":"y","groups":[]}'                     sweep --dry-run
j "sweep: wrong type"       '{"name":"x","groups":[{"id":"a","impls":["longconv_direct"],"L":"many"}]}' sweep --dry-run
j "sweep: negative length"  '{"name":"x","groups":[{"id":"a","impls":["longconv_direct"],"L":[-4]}]}'   sweep --dry-run
j "sweep: unknown implementation" '{"name":"x","groups":[{"id":"a","impls":["longconv_magic"],"L":[4]}]}' sweep --dry-run
j "train: unknown key"      '{"patern":"H"}'                                          train
j "train: wrong type"       '{"pattern":5}'                                           train
j "results: not results"    '{"a": 1}'                                                crossover
j "results: NaN"            '{"context":{},"benchmarks":[{"real_time":NaN}]}'         crossover
j "results: cut short"      '{"context":{},"benchm'                                   crossover
bad "results: not there"    nix.json "$hb" crossover nix.json

# --- choosing
bad "choose: no operator"       --op       "$hb" choose --L 5
bad "choose: unknown operator"  conv       "$hb" choose --op conv --L 5
bad "choose: no length"         --L        "$hb" choose --op mha
bad "choose: heads"             multiple   "$hb" choose --op mha --L 5 --D 10 --H 3
bad "choose: unknown machine"   nobody     "$hb" choose --op mha --L 5 --machine nobody
bad "why: not a point"          foo        "$hb" why foo

# --- the environment
bad "environment: implementations folder" HYENA_BENCH_IMPLS env HYENA_BENCH_IMPLS=/nowhere "$hb" list
bad "environment: data folder"            HYENA_BENCH_DATA  env HYENA_BENCH_DATA=/nowhere "$hb" train --dry-run "$(dirname "$build")/bench/lm/suites/quick.json" --suite

# --- what must not be an error: an oom is a result and comes within seconds
start=$SECONDS
"$hb" run --impl attention_naive --L 1048576 --D 64 --H 1 >stdout 2>stderr; rc=$?
if [ $rc != 0 ] || ! grep -qw oom stdout || [ $((SECONDS - start)) -gt 20 ]; then
    echo "FAIL attention_naive at L = 2^20: exit code $rc after $((SECONDS - start)) s"; head -n 3 stdout stderr; wrong=$((wrong + 1))
fi
echo "$kinds kinds of malformed input, $wrong wrong"
[ $wrong = 0 ] && [ $kinds -ge 40 ]
