// count.c: the hidden command __count: executes one point a given number of times and says what can
// be counted of it. `compare` runs it under cachegrind twice, with n and 2n executions: what the
// start, the planning and the inputs cost cancels.
//
// Request   {point, executions, instructions, judge}: `instructions` more per element and execution
//           (inject.h), judge: the error as well.
// Reply     {counts: {name: number}, texts: {name: text}}
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "../check.h"
#include "../child.h"
#include "../cli.h"
#include "../commands.h"
#include "inject.h"

struct request { const char *point; int executions, judge; json_int_t instructions; };

static int read_request(json_t **doc, struct request *r)
{
    json_error_t e;
    if (!(*doc = json_loadf(stdin, JSON_REJECT_DUPLICATES, &e)))
        return hb_fail(HB_ERR_INPUT, "request:%d:%d: %s", e.line, e.column, e.text);
    if (json_unpack_ex(*doc, &e, JSON_STRICT, "{s:s,s:i,s:I,s:b}", "point", &r->point,
                       "executions", &r->executions, "instructions", &r->instructions,
                       "judge", &r->judge))
        return hb_fail(HB_ERR_INPUT, "request: %s", e.text);
    if (r->executions < 1 || r->instructions < 0)
        return hb_fail(HB_ERR_INPUT, "request: executions and instructions must be positive");
    return 0;
}

static int execute(const struct hb_point *pt, const struct hb_impl *im, void *st,
                   const struct hb_io *io, const struct request *r)
{
    bool fwd = pt->pass != HB_PASS_BWD, bwd = pt->pass == HB_PASS_BWD || pt->pass == HB_PASS_FWDBWD;
    int rc = fwd ? 0 : im->forward(st, io);
    for (int i = 0; i < r->executions && !rc; i++) {
        if (fwd) rc = im->forward(st, io);
        if (bwd && !rc) rc = im->backward(st, io);
        if (r->instructions)
            hb_inject_instructions(r->instructions * pt->p.B * pt->p.D * pt->p.L);
    }
    return rc;
}

// Plans and executes once more than nothing; fills counts and texts.
static int count(const struct hb_point *pt, const struct hb_impl *im, const struct request *r,
                 json_t *counts, json_t *texts)
{
    struct hb_inputs in = { 0 };
    char text[2048] = "";
    void *st = NULL;
    int rc = hb_inputs_make(pt, im, HB_IN_NORMAL, &in);
    if (rc) return rc;
    rc = hb_inputs_ready(&in);
    hb_host_reset_peak();
    struct hb_mem before = hb_host_mem();
    if (!rc) rc = im->plan(hb_host(), &pt->p, &st);
    if (!rc && pt->p.filter == HB_FILTER_FIXED) rc = im->set_filter(st, in.io.conv.h);
    struct hb_mem planned = hb_host_mem();
    if (!rc && im->describe) im->describe(st, text, sizeof text);
    if (!rc) rc = execute(pt, im, st, &in.io, r);
    struct hb_mem after = hb_host_mem();
    if (st) im->destroy(st);
    hb_inputs_free(&in);
    if (rc) return rc;
    json_object_set_new(counts, "allocations", json_integer((json_int_t)(planned.count
                                                                         - before.count)));
    json_object_set_new(counts, "allocations_executing",
                        json_integer((json_int_t)(after.count - planned.count)));
    json_object_set_new(counts, "peak_bytes", json_integer((json_int_t)(after.peak - before.now)));
    json_object_set_new(counts, "workspace_bytes",
                        json_integer((json_int_t)(planned.now - before.now)));
    struct hb_work w = hb_point_work(pt);
    json_object_set_new(counts, "flop", json_real(w.flop));
    json_object_set_new(counts, "flop_min", json_real(w.flop_min));
    json_object_set_new(counts, "bytes_min", json_real(w.bytes_min));
    for (char *c = text; *c; c++) if (*c < ' ' || *c > '~') *c = ' ';
    json_object_set_new(texts, "plan", json_string(text));
    return 0;
}

static int judge(const struct hb_point *pt, json_t *counts, json_t *texts)
{
    struct hb_check_opts o = { .input = HB_IN_NORMAL, .backward = pt->p.backward };
    static struct hb_check_result res;           // tens of kilobytes
    int rc = hb_check_point(pt, &o, &res);
    if (rc) return rc;
    json_object_set_new(texts, "answer", json_string(res.ok ? "right" : res.detail));
    if (!(res.worst_rel_l2 >= 0)) return 0;      // NAN: the answer says it
    return json_object_set_new(counts, "error_rel_l2", json_real(res.worst_rel_l2));
}

static int serve(const struct request *r, json_t *counts, json_t *texts)
{
    struct hb_point pt;
    int rc = hb_point_parse(r->point, &pt);
    if (!rc) rc = hb_host_init(pt.p.threads, 0);
    if (!rc) rc = hb_registry_load();
    if (rc) return rc;
    pt.seed = 1;
    rc = hb_point_resolve(&pt);
    const struct hb_impl *im = rc ? NULL : hb_registry_find(pt.impl);
    if (rc || !im) return rc ? rc : HB_ERR_INPUT;
    const char *why = hb_point_refuses(&pt, im);
    if (why) return hb_fail(HB_ERR_REFUSED, "%s", why);
    rc = hb_use_device(pt.device);
    if (!rc) rc = count(&pt, im, r, counts, texts);
    return rc || !r->judge ? rc : judge(&pt, counts, texts);
}

int hb_cmd_count(int argc, char **argv)
{
    static const struct hb_cli cli = {
        .command = "__count", .args = "", .about = "Counts one point; started by compare.",
        .example = "hyena-bench compare --base DIR --head DIR",
    };
    int n_pos = 0, rc = hb_cli_parse(&cli, argc, argv, NULL, &n_pos);
    if (rc) return rc == HB_CLI_HELP ? 0 : hb_exit_code("__count", rc);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    struct request r;
    json_object_seed(1);             // else random, and with it the order of every JSON object
    json_t *doc = NULL, *counts = json_object(), *texts = json_object();
    rc = read_request(&doc, &r);
    if (!rc) rc = serve(&r, counts, texts);
    if (rc == HB_ERR_REFUSED || rc == HB_ERR_OOM) {      // results: compared as texts
        json_object_set_new(texts, "answer", json_string(hb_error()));
        hb_error_clear();
        rc = 0;
    }
    json_t *reply = json_pack("{s:s,s:o,s:o}", "status", "ok", "counts", counts, "texts", texts);
    if (!rc) rc = hb_child_reply(reply);
    json_decref(reply);
    json_decref(doc);
    return hb_exit_code("__count", rc);
}
