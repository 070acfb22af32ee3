// launch.cuh: kernels that follow each other, of which one begins while the one before ends.
#ifndef HB_FUSED_LAUNCH_CUH
#define HB_FUSED_LAUNCH_CUH

#include "method.h"

// A kernel launched by launch_next may begin when all blocks of the one before it have called
// launch_wait, which every such kernel does before it reads or writes what others write or read:
// what comes after is ordered as without. What it can do before (constants, addresses) costs no
// time then.
__device__ __forceinline__ void launch_wait()
{
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

constexpr bool LAUNCH_EARLY = true;      // false: every kernel begins when the one before has ended

// early: as above; else an ordinary launch, for the first kernel of a call. Errors are found by
// hb_cuda_launched.
template <class... A>
static inline void launch_next(bool early, void (*kernel)(A...), int64_t grid, int threads,
                               int shared, cudaStream_t stream, A... args)
{
    cudaLaunchAttribute overlap = {};
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)grid);
    config.blockDim = dim3((unsigned)threads);
    config.dynamicSmemBytes = (size_t)shared;
    config.stream = stream;
    config.attrs = &overlap;
    config.numAttrs = LAUNCH_EARLY && early ? 1 : 0;
    (void)cudaLaunchKernelEx(&config, kernel, args...);
}

#endif
