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
        "Every statement below was printed somewhere. Each is judged by the rule and the tolerance "
        "in its file (`bench/claims/`), from the results of this report.\n\n"
        "- *reproduced*: our whole interval lies where the rule asks;\n"
        "- *figure reproduced, text refuted*: the paper's own figure or table agrees with ours, "
        "its sentence or formula does not;\n"
        "- *reproduced (reduced)*: at a smaller scale, or against a later baseline, than "
        "printed;\n"
        "- *contradicted*: our whole interval lies outside, or documents say otherwise;\n"
        "- *inconclusive*: the interval reaches over the edge, the parts disagree, or no source "
        "was found;\n"
        "- *not measured*: this suite can, given the command or what is said beside it;\n"
        "- *not testable here*: the last table says what it would take.\n\n"
        "Ratios are times of the first over times of the second, intervals 95 %%. *Bound*: what "
        "physics or counting allows. What stands *beside it* or *for comparison* decides nothing. "
        "With all that it rests on, the files' hashes included: `hyena-bench verify --claim ID`. "
        "Letters: RT running time, CX complexity, PI and WT language models, AR recall, FF "
        "FlashFFTConv, DN HyenaDNA, EN statements of an encyclopedia.\n\n");
    hb_verify_markdown(all, "###", &r->t);
    json_decref(all);
}
