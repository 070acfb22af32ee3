// vectors.c: the specification's test vectors (contract: vectors.h). Case A and C were found to
// agree with the published standalone operator in float64, B has the other channel layout.
#include <math.h>
#include <string.h>

#include "../core/oper.h"
#include "vectors.h"

enum { D = HB_VECTOR_D, L = HB_VECTOR_L, E = 5, M = 3 };
#define PROBLEM(N, lmax_, package)                                                               \
    { .op = HB_HYENA, .B = 1, .L = L, .D = D, .threads = 1, .backward = true,                    \
      .oper = { .order = N, .emb_dim = E, .filter_width = M, .lmax = lmax_, .w = 1,              \
                .package_layout = package, .train_z = true } }
#define GRADS(win, ws, w1, w4, freq, d, du, wout, b3, z)                                         \
    { { HB_HY_WIN, 0, win }, { HB_HY_WS, 1 * 3 + 2, ws }, { HB_HY_W1, 0, w1 },                   \
      { HB_HY_W4, 1 * M + 2, w4 }, { HB_HY_FREQ, 0, freq }, { HB_HY_D, 0, d }, { -1, 1, du },    \
      { HB_HY_WOUT, 1 * D, wout }, { HB_HY_B3, 2, b3 }, { HB_HY_Z, 1 * E + 3, z } }
#define H3                                                                                       \
    { 0.1517019536, -0.1707066487, 0.0206592197, 0.1498471956, 0.0433030614, -0.0285920326,      \
      0.0043096181, 0.0036417691, 0.0243017339, -0.0071036638, 0.0004757447, 0.0001752728,       \
      0.0134786857, -0.0015085935, 0.0000314906, 0.0000083707 }

const struct hb_vector hb_vectors[HB_VECTORS] = {
    { "A: order 2",
      PROBLEM(2, 4, false),
      { 0.1517019536, -0.1707066487, 0.0293596414, -0.0007498886, 0.0107546851, -0.0000040050,
        0.0064941644, -0.0000000358 },
      { -0.1142166159, -0.1095480468, 0.3592839826, 0.1490290616, 1.9824770778, 0.9863701164,
        0.5188539072, 0.2089880595 },
      -1.9461597955,
      GRADS(-1.39905524, -0.07172947, 0.00116264, 0.00095883, -1.56204461, -6.30880051, -0.84973093,
            1.80648099, -0.26509441, 0.01080795) },
    { "B: order 3, package layout",
      PROBLEM(3, 6, true),
      H3,
      { -0.0685473274, -0.0886691013, -0.5020255257, -0.3395359934, -1.6882492075, -0.9633702897,
        -0.2381365376, -0.1548617113 },
      1.5573299606,
      GRADS(0.87686394, -0.00053050, -0.00192412, -0.04131999, 1.14408139, 4.02581584, 0.47715708,
            -1.64607677, 1.39165794, 0.01328506) },
    { "C: order 3, standalone layout",
      PROBLEM(3, 6, false),
      H3,
      { -0.0665658945, -0.0875511557, -0.5655073002, -0.3766446829, -1.8882985165, -1.0881194684,
        -0.2317554093, -0.1544386086 },
      1.7198782801,
      GRADS(0.98667598, -0.00038473, -0.00384584, -0.00257778, 1.54904143, 4.54081255, 0.51020122,
            -1.88837063, -1.04271674, 0.01618553) },
};

// Element i of a matrix is 0.9 sin(0.7 i + 1.3 tag + 0.2), of a vector scale cos(0.9 i + 1.1 tag).
static const struct { int tag; bool matrix; double scale; } formula[HB_HY_COUNT] = {
    [HB_HY_WIN] = { 1, true, 0 }, [HB_HY_BIN] = { 1, false, 0.1 }, [HB_HY_WS] = { 2, true, 0 },
    [HB_HY_BS] = { 2, false, 0.1 }, [HB_HY_W1] = { 3, true, 0 }, [HB_HY_B1] = { 3, false, 0.1 },
    [HB_HY_W2] = { 4, true, 0 }, [HB_HY_B2] = { 4, false, 0.1 }, [HB_HY_W3] = { 5, true, 0 },
    [HB_HY_B3] = { 5, false, 0.1 }, [HB_HY_W4] = { 6, true, 0 }, [HB_HY_D] = { 7, false, 1.0 },
    [HB_HY_WOUT] = { 8, true, 0 }, [HB_HY_BOUT] = { 8, false, 0.1 },
};

int64_t hb_vector_size(const struct hb_vector *v, int tensor)
{
    int64_t Q = (v->p.oper.order + 1) * D, C = (v->p.oper.order - 1) * D;
    const int64_t size[HB_HY_COUNT] = {
        [HB_HY_WIN] = Q * D,  [HB_HY_BIN] = Q,
        [HB_HY_WOUT] = D * D, [HB_HY_BOUT] = D,
        [HB_HY_WS] = Q * 3,   [HB_HY_BS] = Q,
        [HB_HY_D] = C,        [HB_HY_Z] = v->p.oper.lmax * E,
        [HB_HY_W1] = M * E,   [HB_HY_B1] = M,
        [HB_HY_FREQ] = M,     [HB_HY_W2] = M * M,
        [HB_HY_B2] = M,       [HB_HY_W3] = M * M,
        [HB_HY_B3] = M,       [HB_HY_W4] = C * M,
    };
    return size[tensor];
}

void hb_vector_param(const struct hb_vector *v, int tensor, double *out)
{
    for (int64_t j = 0; tensor == HB_HY_Z && j < v->p.oper.lmax; j++)
        hb_posemb_row(out + j * E, j, v->p.oper.lmax, E);
    if (tensor == HB_HY_Z) return;
    for (int64_t i = 0; i < hb_vector_size(v, tensor); i++) {
        double x = (double)i, tag = formula[tensor].tag;
        if (tensor == HB_HY_FREQ) out[i] = 1;
        else if (formula[tensor].matrix) out[i] = 0.9 * sin(0.7 * x + 1.3 * tag + 0.2);
        else out[i] = formula[tensor].scale * cos(0.9 * x + 1.1 * tag);
    }
}

void hb_vector_u(const struct hb_vector *v, double *out)
{
    for (int64_t i = 0; i < v->p.L * D; i++) out[i] = sin(0.37 * (double)i + 0.5);
}

void hb_vector_dy(const struct hb_vector *v, double *out)
{
    for (int64_t i = 0; i < v->p.L * D; i++) out[i] = cos((double)(i / D) + 2 * (double)(i % D));
}
