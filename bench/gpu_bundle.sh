#!/bin/bash
# Packs what a GPU machine needs to run the suite into BUILD/gpu-bundle: the program, its plug-ins, the shared
# libraries they use (not libc, libstdc++, the driver and CUDA's own), sweeps, suites and data sets.
# Usage: bench/gpu_bundle.sh BUILD_DIR [DATA_FILE...]     DATA_FILE: as named in datasets/manifest
set -eu -o pipefail
build=${1:?usage: bench/gpu_bundle.sh BUILD_DIR [DATA_FILE...]}
shift
out=$build/gpu-bundle new=$build/gpu-bundle.new
die() { echo "gpu-bundle: $*" >&2; exit "${code:-2}"; }
[ -e "$build/devices/cuda.so" ] || code=3 die "$build/devices/cuda.so is not there: this build has no CUDA (is nvcc installed?)"

rm -rf "$new"
mkdir -p "$new/build/lib" "$new/build/datasets" "$new/bench/lm" "$new/datasets"
cp "$build/hyena-bench" "$new/build/"
cp -r "$build/impls" "$build/devices" "$new/build/"
find "$new/build" -name '*.d' -delete
cp -r bench/sweeps bench/claims "$new/bench/"
cp -r bench/lm/suites bench/lm/configs "$new/bench/lm/"
cp datasets/manifest datasets/fetch.sh "$new/datasets/"

# Every shared library that something in here needs and that a GPU machine may lack.
for so in "$new"/build/hyena-bench "$new"/build/impls/*.so "$new"/build/devices/*.so; do
    ldd "$so" | awk '$2 == "=>" && $3 ~ "^/" { print $3 }'
done | sort -u | while read -r lib; do
    case $(basename "$lib") in
        libc.so*|libm.so*|libdl.so*|libpthread.so*|librt.so*|libstdc++.so*|libgcc_s.so*) ;;
        libcu*|libnv*) ;;
        *) cp -L "$lib" "$new/build/lib/" ;;
    esac
done

for file in "$@"; do
    if   [ -r "$build/datasets/$file" ]; then cp "$build/datasets/$file" "$new/build/datasets/"
    elif [ -r "${HYENA_BENCH_DATA:-/nowhere}/$file.xz" ]; then cp "$HYENA_BENCH_DATA/$file.xz" "$new/build/datasets/"
    else die "$file is neither in $build/datasets nor, as $file.xz, in the folder HYENA_BENCH_DATA names"; fi
done

cat >"$new/run.sh" <<'R'
#!/bin/bash
# ./run.sh check --device cuda0      ./run.sh sweep bench/sweeps/h100.json      ./run.sh --help
# Runs build/hyena-bench with the libraries in build/lib; cuDNN and the rest of CUDA come from LD_LIBRARY_PATH or the
# system. Results appear under build/results/<machine>/: copy them to results/<machine>/ of the project.
cd "$(dirname "$0")" || exit 2
(   # several may start at once: one unpacks, the others wait
    flock 9 || exit 3
    for f in build/datasets/*.xz; do [ ! -e "$f" ] || xz -df "$f" || exit 3; done
) 9>build/datasets/.lock || exit 3
export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/usr/local/cuda/lib64:$PWD/build/lib
export HYENA_BENCH_DATA=${HYENA_BENCH_DATA:-$PWD/build/datasets}
exec build/hyena-bench "$@"
R
chmod +x "$new/run.sh"
rm -rf "$out"
mv "$new" "$out"
tar -C "$build" -czf "$out.tar.gz.tmp" gpu-bundle && mv "$out.tar.gz.tmp" "$out.tar.gz"
du -sh "$out" "$out.tar.gz" | sed 's/^/gpu-bundle: /'
