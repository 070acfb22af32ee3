// cuda.h: what the files of the CUDA device share. cuda.cu opens the device and has the table and
// the memory; the others have the primitives by topic, as below. The contract of each primitive is
// in core/device.h.
#ifndef HB_DEVICE_CUDA_H
#define HB_DEVICE_CUDA_H

#include "../core/cuda.cuh"

enum {
    CUDA_SCRATCH = 64 << 20,     // bytes of the block for partial sums
    CUDA_SIDE = 32 << 20,        // the same, of the second stream
    CUDA_WORKSPACE = 64 << 20,   // bytes for cuBLASLt: what it asks for on H100 is 32 MiB
};

struct cuda_state {
    const struct hb_host *host;
    int ordinal, major, minor, sms;
    size_t l2_bytes, limit;      // limit 0: what the device has
    cudaStream_t stream;         // owned; hb_device.stream
    cudaStream_t side;           // owned; what fork gives
    cudaEvent_t forked, joined;  // owned
    void *scratch, *workspace;   // owned; CUDA_SCRATCH, CUDA_WORKSPACE bytes, counted
    void *side_scratch;          // owned; CUDA_SIDE bytes, counted
};
extern struct cuda_state gpu;    // the one device of this process, cuda.cu

// The stream's block for partial sums, aligned to 256 bytes. Work on a stream is ordered and a
// primitive is done with the block when its last kernel is, so each may use all of it and none may
// keep anything in it. Primitives cut their work so that the partial sums fit.
void *cuda_scratch(size_t *bytes, void *stream);

// Remembers the first failure (later ones are its consequences); the next sync reports it.
void cuda_note(cudaError_t e, const char *who);                  // cudaSuccess: nothing
void cuda_note_text(int code, const char *who, const char *why); // of a library
static inline void cuda_launched(const char *who) { cuda_note(cudaGetLastError(), who); }
// 0, or the code of what was noted, with the host's message set; forgets it.
int cuda_taken(void);

// Blocks for a loop over n in strides of the grid, `per` elements a block and round; n >= 1.
static inline unsigned cuda_blocks(int64_t n, int64_t per)
{
    int64_t want = (n + per - 1) / per, most = 16 * (int64_t)gpu.sms;
    return (unsigned)(want < most ? want : most);
}

// Device memory in use: counted by alloc. `quietly`: neither counted nor limited (cuda_time.cu's
// flush buffer, which is the measurement's and not the implementation's).
void *cuda_alloc(const struct hb_device *d, size_t bytes);
void *cuda_alloc_quietly(size_t bytes);
void cuda_free(const struct hb_device *d, void *p);

// --- cuda_cast.cu --------------------------------------------------------------------------------
int cuda_cast_open(void);
void cuda_cast_close(void);
void cuda_cast(void *dst, enum hb_dtype to, const void *src, enum hb_dtype from, int64_t n,
               void *s);
int cuda_sumsq(const struct hb_device *d, double *out_host, const float *x, int64_t n, void *s);
int cuda_sum(const struct hb_device *d, double *out_host, const float *x, int64_t n, void *s);

// --- cuda_gemm.cu --------------------------------------------------------------------------------
int cuda_gemm_open(void);
void cuda_gemm_close(void);
void cuda_gemm(const struct hb_gemm *g, struct hb_on on);

// --- cuda_time.cu --------------------------------------------------------------------------------
int cuda_time_open(void);
void cuda_time_close(void);
int cuda_mark(const struct hb_device *d, int slot, void *s);
int cuda_between(const struct hb_device *d, int a, int b, double *seconds);
void cuda_hold(const struct hb_device *d, double seconds, void *s);
int cuda_flush(const struct hb_device *d, void *s);
int cuda_capture(const struct hb_device *d, void *s);
int cuda_captured(const struct hb_device *d, void *s, void **graph);
int cuda_replay(const struct hb_device *d, void *graph, void *s);
void cuda_graph_free(const struct hb_device *d, void *graph);

// --- cuda_filter.cu ------------------------------------------------------------------------------
int cuda_filter_open(void);
size_t cuda_filter_ws(struct hb_filter_shape f);
int cuda_filter_fwd(const struct hb_device *d, float *h, struct hb_filter_shape f,
                    struct hb_filter_params p, void *ws, struct hb_on on);
int cuda_filter_bwd(const struct hb_device *d, const float *dh, struct hb_filter_shape f,
                    struct hb_filter_params p, struct hb_filter_params grads, void *ws,
                   struct hb_on on);

// --- cuda_nn.cu ----------------------------------------------------------------------------------
void cuda_bias_bwd(float *db, const void *dy, int64_t R, int64_t C, struct hb_on on);
void cuda_layernorm_fwd(void *y, float *mean, float *rstd, const void *x, const float *g,
                        const float *b, int64_t R, int64_t C, struct hb_on on);
void cuda_layernorm_bwd(void *dx, float *dg, float *db, const void *dy, const void *x,
                        const float *mean, const float *rstd, const float *g, int64_t R,
                        int64_t C, struct hb_on on);
void cuda_add(void *y, const void *x, int64_t n, struct hb_on on);
void cuda_xent(float *nll, void *dz, const void *z, const int32_t *target, float scale, int64_t R,
               int64_t V, struct hb_on on);
void cuda_adamw(float *w, float *m, float *v, void *low, const float *g, float gscale,
                struct hb_adamw o, int64_t n, struct hb_on on);

// --- cuda_seq.cu ---------------------------------------------------------------------------------
void cuda_shortconv_fwd(void *y, const void *p, const float *bp, const float *w, const float *bs,
                        int64_t C, int64_t B, int64_t L, int K, struct hb_on on);
void cuda_shortconv_bwd(void *dp, float *dw, float *dbs, float *dbp, const void *dy,
                        const void *p, const float *bp, const float *w, int64_t C, int64_t B,
                        int64_t L, int K, struct hb_on on);
void cuda_taps_fwd(void *y, const void *a, struct hb_conv_tap ta, const void *b,
                   struct hb_conv_tap tb, int64_t C, int64_t B, int64_t L, int K,
                   struct hb_on on);
void cuda_taps_bwd(void *da, void *db, const void *dy, const void *a, struct hb_conv_tap ta,
                   const void *b, struct hb_conv_tap tb, int64_t C, int64_t B, int64_t L, int K,
                   struct hb_on on);
void cuda_swap(void *y, const void *x, int64_t A, int64_t I, int64_t J, int64_t K,
               struct hb_on on);
void cuda_rope(void *x, int64_t R, int64_t L, int64_t H, int64_t P, int64_t ld, bool inverse,
               struct hb_on on);
void cuda_embed_fwd(void *x, const void *W, const void *pos, const int32_t *tok, int64_t R,
                    int64_t L, int64_t C, struct hb_on on);
void cuda_embed_bwd(float *dW, float *dpos, const void *dx, const int32_t *tok, int64_t R,
                    int64_t L, int64_t C, int64_t V, struct hb_on on);

#endif
