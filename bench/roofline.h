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

// Of a device, roofline_device.c: products of 8192 x 8192 matrices and copies, read + written.
// 0: not measured.
struct hb_device_peaks {
    double gemm[HB_DTYPE_COUNT];         // flop/s
    double copy, l2_copy;                // bytes/s, of more than L2 holds and of less
    double l2_bytes;
};
// Reads the device's object of hb_roofline_json()'s "devices"; false: it is not there.
bool hb_device_peaks_read(const json_t *devices, const char *device, struct hb_device_peaks *out);
// build/machine/<id>/roofline-<device>.json of all devices: {"cuda0": {...}}, NULL: none. New.
json_t *hb_device_peaks_json(void);
// The bound, as hb_roof_ns; 0: not measured.
double hb_device_roof_ns(const struct hb_point *pt);
// Measures (with `force` always, else if it is not there), saves, prints.
int hb_device_peaks_measure(const char *device, bool force);

// From build/machine/<id>/roofline.json. HB_ERR_MISSING: not measured yet; HB_ERR_INPUT: not such a
// file.
int hb_roofline_load(struct hb_roofline *out);
// That file itself with "devices" added, as runs carry it in their context (hb_roofline); new
// reference, NULL with the message set. And reading it back; `where` opens the message.
json_t *hb_roofline_json(void);
int hb_roofline_parse(const json_t *o, const char *where, struct hb_roofline *out);
// The bound of a point, 0 if nothing was measured on this machine: the least time of its work,
// max(flop_min / peak, bytes_min / bandwidth). The peak is the better of FMA and SGEMM, in the
// point's dtype; the bandwidth that of the smallest level which holds all the bytes, or of memory
// in mode cold. Loads the file once.
double hb_roof_ns(const struct hb_point *pt);

#endif
