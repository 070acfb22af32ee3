// section.c: the claims in REPORT.md.
#include "../report.h"
#include "verify.h"

void hb_report_claims(struct hb_report *r)
{
    json_t *all = hb_verify_all(&r->st->r, NULL, NULL);
    hb_text_add(&r->t, "## Published claims, one by one\n\n");
    if (!all) {
        hb_text_add(&r->t, "*Not judged: %s.*\n\n", hb_error());
        hb_error_clear();
        return;
    }
    hb_text_add(
        &r->t,
        "Every statement below was printed somewhere; each is judged by the rule and the tolerance "
        "in its file (`bench/claims/`), from the results of this report. *Reproduced*: our whole "
        "interval lies where the rule asks. *Figure reproduced, text refuted*: the paper's own "
        "figure, not its sentence. *Reproduced (reduced)*: at a smaller scale than printed. "
        "*Contradicted*: our whole interval lies outside, or documents say otherwise. "
        "*Inconclusive*: the interval reaches over the edge, or what it takes was not measured "
        "yet. Intervals are 95 %%; *bound* is what physics or counting allows; what stands *beside "
        "it* is for comparison and decides nothing. One claim with everything that it rests on, "
        "the files' hashes and the commands that measure it, or would: `hyena-bench verify --claim "
        "ID`. Letters: RT running time, CX complexity, PI and WT language models, AR recall, FF "
        "FlashFFTConv, DN HyenaDNA, EN statements of an encyclopedia.\n\n");
    hb_verify_markdown(all, "###", &r->t);
    json_decref(all);
}
