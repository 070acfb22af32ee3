// method.h: what a method of longconv_fused_cuda is, and what all of them need of the host.
//
// A method is one header in this folder (with its kernels, or including them) that ends in
//     static const struct fused_method fused_NAME = { ... };
// longconv_fused_cuda.cu includes it and gives it rows in the table of choices: from which length
// on, for which types. To add one takes those two lines, nothing else.
#ifndef HB_FUSED_METHOD_H
#define HB_FUSED_METHOD_H

#include <initializer_list>
#include <stdio.h>

#include "cuda.cuh"

struct fused_method;

// One row of the table: problems of `dtypes` up to length L are done by `method`, if it does not
// refuse them. The sizes mean what the method says: N = R1 R 256 points for transforms.
struct fused_choice {
    unsigned dtypes;                       // bit set of 1u << enum hb_dtype
    int64_t L;                             // at most
    const struct fused_method *method;
    int R1, R;
};

// p->filter FIXED: h comes by set_filter, d with every call. p->backward: backward will be called,
// after a forward with the same inputs, so what that left (a spectrum) may be used.
struct fused_method {
    const char *name;                      // for describe
    // NULL: does what the table gives it; else why not, static storage (p->gated, p->taps, sizes).
    const char *(*refuses)(const struct hb_problem *p);
    // All memory and attributes. Whatever it returns, *st is NULL or what `free` can free: the
    // caller calls that, also where this fails.
    int (*plan)(const struct hb_host *host, const struct hb_problem *p,
                const struct fused_choice *choice, void **st);
    // They enqueue on `stream` and nothing else; the caller asks whether launches failed.
    void (*forward)(const void *st, const struct hb_longconv_io *io, cudaStream_t stream);
    void (*backward)(const void *st, const struct hb_longconv_io *io, cudaStream_t stream);
    void (*set_filter)(const void *st, const float *h, cudaStream_t stream);   // (D,L)
    int (*describe)(const void *st, char *buf, size_t cap);    // as snprintf; without the name
    void (*free)(void *st);                // takes NULL and half-built states
};

// Device memory with a copy of `bytes` of the host's, for constants: *to. Waits.
static inline int hb_fused_upload(const struct hb_host *host, void **to, const void *from,
                                  size_t bytes)
{
    const struct hb_device *dev = host->device;
    *to = dev->alloc(dev, bytes);
    if (!*to) return HB_ERR_OOM;
    const int rc = dev->upload(dev, *to, from, bytes, dev->stream);
    return rc ? rc : dev->sync(dev, dev->stream);
}

// The same of `bytes` that fill(words) makes.
template <class F>
static inline int hb_fused_table(const struct hb_host *host, uint4 **to, size_t bytes, F fill)
{
    uint32_t *const words = (uint32_t *)host->alloc(host, bytes);
    if (!words) return HB_ERR_OOM;
    fill(words);
    void *there = NULL;
    const int rc = hb_fused_upload(host, &there, words, bytes);
    *to = (uint4 *)there;
    host->free(host, words);
    return rc;
}

// Device memory of a plan, or NULL where it never came to that.
static inline void hb_fused_free(const struct hb_host *host, std::initializer_list<void *> owned)
{
    for (void *p : owned)
        if (p) host->device->free(host->device, p);
}

// Streaming multiprocessors of this GPU.
static inline int hb_fused_sms(const struct hb_host *host, int *sms)
{
    int dev;
    const int rc = HB_CUDA(host, cudaGetDevice(&dev));
    return rc ? rc : HB_CUDA(host, cudaDeviceGetAttribute(
        sms, cudaDevAttrMultiProcessorCount, dev));
}

// Lets a kernel have `bytes` of dynamic shared memory; a GPU that has less is refused.
static inline int hb_fused_allow(const struct hb_host *host, const void *kernel, int bytes)
{
    int dev, most = 0;
    int rc = HB_CUDA(host, cudaGetDevice(&dev));
    if (!rc)
        rc = HB_CUDA(host, cudaDeviceGetAttribute(
            &most, cudaDevAttrMaxSharedMemoryPerBlockOptin, dev));
    if (!rc && bytes > most)
        return host->fail(host, HB_ERR_REFUSED, "longconv_fused_cuda: a block needs %d bytes of"
                          " shared memory, this GPU has %d", bytes, most);
    return rc ? rc : HB_CUDA(host, cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
}

#endif
