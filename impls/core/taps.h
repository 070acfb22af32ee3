// taps.h: hyena's short filter (hb_conv_tap) on one row of float32, for longconvs on the CPU that
// take gates. K taps; p is L numbers of channel c.
#ifndef HB_TAPS_H
#define HB_TAPS_H

#include <string.h>

#include "hb.h"

// s (L) = tap(p), or p where there is no filter. s is not p.
static inline void hb_tap_row(float *s, const float *p, const struct hb_conv_tap *f, int64_t c,
                              int K, int64_t L)
{
    if (!f->w) {
        memcpy(s, p, (size_t)L * sizeof *s);
        return;
    }
    const float *w = f->w + c * K, bp = f->bp ? f->bp[c] : 0;
    for (int64_t t = 0; t < L; t++) s[t] = f->bs[c];
    for (int j = 0; j < K; j++) {
        const int64_t lag = K - 1 - j;
        for (int64_t t = lag; t < L; t++) s[t] += w[j] * (p[t - lag] + bp);
    }
}

// From ds (L): dp (L) = ..., the parameters' gradients of channel c += ... dp is not ds.
static inline void hb_tap_row_bwd(float *dp, const float *ds, const float *p,
                                  const struct hb_conv_tap *f, int64_t c, int K, int64_t L)
{
    if (!f->w) {
        memcpy(dp, ds, (size_t)L * sizeof *dp);
        return;
    }
    const float *w = f->w + c * K, bp = f->bp ? f->bp[c] : 0;
    double dbs = 0, dbp = 0;
    memset(dp, 0, (size_t)L * sizeof *dp);
    for (int j = 0; j < K; j++) {
        const int64_t lag = K - 1 - j;
        double dw = 0;
        for (int64_t t = lag; t < L; t++) {
            dp[t - lag] += w[j] * ds[t];
            dw += (double)ds[t] * (double)(p[t - lag] + bp);
        }
        f->dw[c * K + j] += (float)dw;
    }
    for (int64_t t = 0; t < L; t++) {
        dbs += (double)ds[t];
        dbp += (double)dp[t];
    }
    f->dbs[c] += (float)dbs;
    if (f->bp) f->dbp[c] += (float)dbp;
}

#endif
