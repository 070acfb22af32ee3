// gbench.cc: the C shim over Google Benchmark.
//
// Traps of 1.7.1 that shape it: no MemoryManager (it does not link, and its results are wrong with
// repetitions: memory is a counter of ours); no NaN counters (they make invalid JSON); benchmarks
// are registered without repetitions and minimum time, which would become part of the name; the
// iteration count is explicit for internal runs (manual time has no wall cap); its flags also come
// from BENCHMARK_* variables, so internal runs set each of them.
#include "gbench.h"

#include <benchmark/benchmark.h>

#include <cmath>
#include <ctime>
#include <string>
#include <vector>

namespace {

// Keeps the booked mean of the last run, prints nothing.
class QuietReporter : public benchmark::BenchmarkReporter {
  public:
    double mean_s = 0;
    int64_t iterations = 0;
    bool ReportContext(const Context &) override { return true; }
    void ReportRuns(const std::vector<Run> &runs) override
    {
        for (const Run &r : runs) {
            iterations = static_cast<int64_t>(r.iterations);
            mean_s = iterations > 0 ? r.real_accumulated_time / static_cast<double>(iterations) : 0;
        }
    }
};

// The library's own cpu_time is the calling thread's; MeasureProcessCPUTime would become part of
// the name.
double process_cpu_ns()
{
    struct timespec t;
    if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t) != 0) return 0;
    return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
}

bool valid(double seconds) { return std::isfinite(seconds) && seconds > 0; }

// Undoes what BENCHMARK_* variables may have preset.
void neutral_flags()
{
    static bool done = false;
    if (done) return;
    const char *flags[] = { "hyena-bench",
                            "--benchmark_out=",
                            "--benchmark_repetitions=1",
                            "--benchmark_enable_random_interleaving=false",
                            "--benchmark_list_tests=false",
                            "--benchmark_min_warmup_time=0",
                            "--benchmark_perf_counters=",
                            "--benchmark_report_aggregates_only=false" };
    std::vector<char *> argv;
    for (const char *f : flags) argv.push_back(const_cast<char *>(f));
    int argc = static_cast<int>(argv.size());
    argv.push_back(nullptr);
    benchmark::Initialize(&argc, argv.data());
    done = true;
}

void run_bench(benchmark::State &state, const hb_gb_bench &b, size_t *n_errors)
{
    const char *why = nullptr;
    if (b.start(b.ctx) != 0) why = b.error(b.ctx);
    const double cpu_ns = process_cpu_ns();
    while (!why && state.KeepRunning()) {
        const double seconds = b.iter(b.ctx);
        if (valid(seconds)) state.SetIterationTime(seconds);
        else why = b.error(b.ctx);
    }
    if (why) {
        state.SkipWithError(why);
        ++*n_errors;
        return;
    }
    const double n = static_cast<double>(state.iterations());
    state.counters["hb_process_cpu_ns"] = (process_cpu_ns() - cpu_ns) / n;
    if (b.items > 0) state.SetItemsProcessed(static_cast<int64_t>(b.items * n));
    if (b.bytes > 0) state.SetBytesProcessed(static_cast<int64_t>(b.bytes * n));
    const double peak = b.peak_bytes ? b.peak_bytes(b.ctx) : 0;
    if (std::isfinite(peak) && peak > 0) state.counters["max_bytes_used"] = peak;
}

} // namespace

extern "C" int hb_gb_run(const char *name, int64_t iterations, hb_gb_iter iter, void *ctx,
                         double *mean_s)
try {
    neutral_flags();
    bool failed = false;
    benchmark::ClearRegisteredBenchmarks();
    benchmark::RegisterBenchmark(name, [&](benchmark::State &state) {
        while (state.KeepRunning()) {
            const double seconds = iter(ctx);
            if (!valid(seconds)) {
                failed = true;
                state.SkipWithError("the body failed");
                break;
            }
            state.SetIterationTime(seconds);
        }
    })->UseManualTime()->Iterations(iterations);
    QuietReporter reporter;
    const size_t ran = benchmark::RunSpecifiedBenchmarks(&reporter, nullptr, ".");
    benchmark::ClearRegisteredBenchmarks();
    if (failed) return -1;
    if (ran != 1 || reporter.iterations != iterations) return -2;
    *mean_s = reporter.mean_s;
    return 0;
} catch (...) {
    return -2;                                   // no exception crosses into C
}

extern "C" int hb_gb_main(int *argc, char **argv, const struct hb_gb_bench *benches, size_t n,
                          size_t *n_errors)
try {
    *n_errors = 0;
    benchmark::Initialize(argc, argv);
    if (*argc > 1) return -1;
    benchmark::ClearRegisteredBenchmarks();
    for (size_t i = 0; i < n; i++) {
        const hb_gb_bench *b = &benches[i];
        benchmark::RegisterBenchmark(b->name, [b, n_errors](benchmark::State &state) {
            run_bench(state, *b, n_errors);
        })->UseManualTime();
    }
    const size_t matched = benchmark::RunSpecifiedBenchmarks();
    benchmark::ClearRegisteredBenchmarks();
    return matched > 0 ? 0 : -3;
} catch (...) {
    return -2;
}
