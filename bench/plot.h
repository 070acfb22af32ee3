// plot.h: figures. C writes a data file per figure, gnuplot scripts in plots/ draw it, the report
// embeds the pictures.
//
// A data file holds blocks, separated by two blank lines, each opened by a comment with its name:
//     meta      key "value" rows: title, sub, axis ranges, counts
//     series    one row per curve: implementation (gives the look), label (gives the key), spare
//               look number
//     s01 ..    one block per curve
//     others    see the script that reads them
#ifndef HB_PLOT_H
#define HB_PLOT_H

#include "derive.h"
#include "lmruns.h"
#include "table.h"

struct hb_study {  // everything that is read and derived, once
    struct hb_results r;
    struct hb_series_set set;
    struct hb_crossover_set x;
    struct hb_lm_set lm;
    const char **machine;
    size_t n_machines;  // the first has the most cells; strings borrowed
};
int hb_study_open(const char *const *paths, int n, struct hb_study *st);
void hb_study_close(struct hb_study *st);

struct hb_figure;
// Is the figure of this name drawn for a GPU's results unasked? Slopes and errors are not.
bool hb_figure_of_gpu(const char *name);
struct hb_fig_in {
    const struct hb_study *st;
    const struct hb_figure *fig;
    const char *machine;
    const struct hb_setting *at;  // NULL for figures of training runs
};
// Fills dat; leaves it empty and says why (one line) if the results hold nothing to draw.
typedef int (*hb_fig_writer)(const struct hb_fig_in *in, struct hb_text *dat, char *why,
                             size_t cap);
struct hb_figure {
    const char *name, *script, *title;
    enum hb_scope scope;
    enum hb_pass pass;
    enum hb_metric metric;
    hb_fig_writer write;
    const char *how;  // how to read it: the caption in the report
};
struct hb_drawn {
    const struct hb_figure *fig;
    const char *machine;
    struct hb_setting at;
    bool has_at;
    char base[256];  // file name without its end; pictures base.png, base.svg, data base.dat
    char why[256];   // "" if drawn
};
struct hb_gallery { struct hb_drawn *d; size_t n; };
// Draws every figure, or only the one called `only`, into dir; term: one figure as text on stdout,
// nothing kept.
int hb_figures_draw(const struct hb_study *st, const char *dir, const char *only, bool term,
                    struct hb_gallery *out);
void hb_gallery_free(struct hb_gallery *g);

// Writers (plotdata.c, plotdata_ratio.c, plotdata_side.c, plotdata_lm.c) and what they share.
int hb_fig_curves(const struct hb_fig_in *in, struct hb_text *dat, char *why, size_t cap);
int hb_fig_slopes(const struct hb_fig_in *in, struct hb_text *dat, char *why, size_t cap);
int hb_fig_ratio(const struct hb_fig_in *in, struct hb_text *dat, char *why, size_t cap);
int hb_fig_pairs(const struct hb_fig_in *in, struct hb_text *dat, char *why, size_t cap);
int hb_fig_crossovers(const struct hb_fig_in *in, struct hb_text *dat, char *why, size_t cap);
int hb_fig_peers_cufft(const struct hb_fig_in *in, struct hb_text *dat, char *why, size_t cap);
int hb_fig_peers_fused(const struct hb_fig_in *in, struct hb_text *dat, char *why, size_t cap);
int hb_fig_perplexity(const struct hb_fig_in *in, struct hb_text *dat, char *why, size_t cap);
int hb_fig_loss_tokens(const struct hb_fig_in *in, struct hb_text *dat, char *why, size_t cap);
int hb_fig_loss_seconds(const struct hb_fig_in *in, struct hb_text *dat, char *why, size_t cap);
int hb_fig_pareto(const struct hb_fig_in *in, struct hb_text *dat, char *why, size_t cap);

void hb_dat_block(struct hb_text *dat, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void hb_dat_meta(struct hb_text *dat, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
struct hb_range { double lo, hi; };               // start with {INFINITY, -INFINITY}
void hb_range_add(struct hb_range *r, double v);  // ignores what is not finite or not positive
// The look of implementations that style.gp does not name: their place among all that the results
// hold, whatever operator they are in.
int hb_look_spare(const struct hb_study *st, const char *impl);
// "AMD EPYC ..., 2 threads; B 1, D 256, f32": the line under the title.
struct hb_words hb_setting_words(const struct hb_study *st, const struct hb_setting *at);

// The paper's figure (claims.md section 1), from plots/paper_fig43.dat.
struct hb_paper_row { double L, hyena_ms, attention_ms, flash_ms; };   // NAN: out of memory there
int hb_paper_rows(struct hb_paper_row *out, int cap, int *n);

#endif
