#!/bin/bash
# make install into an empty folder; the worked example compiled against it by pkg-config and run; the
# header read by a C++ compiler; the installed program finds its plug-ins.
set -eu
build=${1:-build}
cd "$(dirname "$0")/.."
to=$(mktemp -d)
trap 'rm -rf "$to"' EXIT
make --no-print-directory B="$build" PREFIX="$to" install
export PKG_CONFIG_PATH=$to/lib/pkgconfig
flags=$(pkg-config --cflags --libs hyena_bench)
gcc -std=c11 -Wall -Wextra -Werror bench/choose/lib/example.c $flags -Wl,-rpath,"$to/lib" -o "$to/example"
echo '#include <hyena_bench.h>
int main() { hb_choice c; hb_question q = {}; return hb_choose(&q, &c) == 0; }' > "$to/x.cc"
g++ -std=c++17 -Wall -Wextra -Werror -Wno-missing-field-initializers "$to/x.cc" $flags -Wl,-rpath,"$to/lib" -o "$to/x"
"$to/example" | tee "$to/out"
[ "$(grep -c 'longconv_' "$to/out")" = 6 ]        # an answer for every length
"$to/x"                                            # a question without an operator is an error
HYENA_BENCH_CHOICES=/nonexistent "$to/example" 2> "$to/err" && { echo "an absent table was not noticed"; exit 1; }
grep -q 'no table of choices' "$to/err"
echo '{"hb_choices": 1, "machines": [], "rows": [{}]}' > "$to/bad.json"
HYENA_BENCH_CHOICES=$to/bad.json "$to/example" 2> "$to/err" && { echo "a bad table was not noticed"; exit 1; }
grep -q 'bad.json: rows\[0\]' "$to/err"
[ "$("$to/bin/hyena-bench" list --op longconv | grep -c '^longconv_')" -ge 3 ]
# It chooses by the table that was installed with it.
"$to/bin/hyena-bench" choose --op longconv --L 4096 --no-probe | tee "$to/out"
grep -q 'measured point' "$to/out"
# Nothing but the interface is exported: no clash with a program's own names.
[ "$(nm -D --defined-only "$to/lib/libhyena_bench.so" | awk '{print $3}' | sort | tr '\n' ' ')" = \
  "hb_choice_error hb_choose hb_choose_table hb_reason_str " ]
echo "install: done"
