// roofline.h: the peaks of this machine as measured, and the bound they set on a point's time.
#ifndef HB_ROOFLINE_H
#define HB_ROOFLINE_H

#include <jansson.h>
#include "point.h"

// flop/s and bytes/s. The two fma peaks are of code built with this program's flags, all operands
// in registers.
struct hb_peaks {
    double fma_f32, fma_f64;
    double fma_f32_wide;         // with AVX-512, if the CPU has it and the build does not; else 0
    double sgemm;                // OpenBLAS, the best of a few sizes
    double l2_read, l3_read;     // from that cache level; 0: there is none
    double dram_read, dram_copy; // copy counts bytes read plus bytes written
};
struct hb_roofline {
    int threads;
    struct hb_peaks one, all;    // with 1 thread, with `threads`: the best of several short runs
    bool disturbed;              // the machine was busy: peaks may be too low
};

// From build/machine/<id>/roofline.json. HB_ERR_MISSING: not measured yet; HB_ERR_INPUT: not such a
// file.
int hb_roofline_load(struct hb_roofline *out);
// That file itself, as runs carry it in their context (hb_roofline); new reference, NULL with the
// message set. And reading it back; `where` opens the message.
json_t *hb_roofline_json(void);
int hb_roofline_parse(const json_t *o, const char *where, struct hb_roofline *out);
// The bound of a point, 0 if nothing was measured on this machine: the least time of its work,
// max(flop_min / peak, bytes_min / bandwidth). The peak is the better of FMA and SGEMM, in the
// point's dtype; the bandwidth that of the smallest level which holds all the bytes, or of memory
// in mode cold. Loads the file once.
double hb_roof_ns(const struct hb_point *pt);

#endif
