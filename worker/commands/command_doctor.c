/*
 * command_doctor.c: `embedmill doctor`: `check`, and then a test embedding, the libraries, and the
 * brokers, which are asked for everything the worker will need and left as they were.
 *
 * Threads: the main thread; each wait for a broker has the limit its connector has an option for.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

#include "connectors/check.h"
#include "connectors/connector.h"
#include "worker/commands/checkup.h"
#include "worker/commands/command.h"
#include "worker/commands/work_options.h"
#include "worker/telemetry/metrics_http.h"
#include "worker/commands/selftest.h"

static const struct command_ending endings[] = {
    {COMMAND_OK, "Nothing is bad."},
    {COMMAND_USAGE, NULL},
    {COMMAND_NO_MODEL, NULL},
    {COMMAND_UNAVAILABLE, "A broker is away or refuses."},
    {COMMAND_INTERNAL, "Too little memory, too few open files, or wrong arithmetic."},
    {COMMAND_CONFIG, NULL},
    COMMAND_END,
};

/* what: "test embedding", or whose it is of several models. */
static void check_embedding(struct findings *findings, const char *what, const struct model *model)
{
    struct selftest test;
    findings_area(findings, "model", COMMAND_INTERNAL);
    int rc = selftest_run(model, &test);
    if (rc == -ENOTSUP)
        findings_add(findings, FINDING_WARN, what, "there is nothing to compare this model with");
    else if (rc != 0)
        findings_add(findings, FINDING_BAD, what, "%s", uv_strerror(rc));
    else if (test.cosine < SELFTEST_SIMILAR)
        findings_add(findings, FINDING_BAD, what,
                     "cosine %.5f to the stored vector: this is another model, or the file or this "
                     "machine is damaged; fetch the model again and try --kernels generic",
                     test.cosine);
    else if (test.cosine < SELFTEST_SAME)
        findings_add(findings, FINDING_WARN, what,
                     "cosine %.5f to the stored vector: another quantisation of the model? Do not "
                     "mix its vectors with those of the usual file",
                     test.cosine);
    else
        findings_add(findings, FINDING_OK, what, "cosine %.5f to the stored vector, %llu ms",
                     test.cosine, (unsigned long long)test.took_ms);
}

static void check_libraries(struct findings *findings, const struct connector *const *ends)
{
    findings_area(findings, "libraries", COMMAND_INTERNAL);
    unsigned version = uv_version();
    if (version == ((1u << 16) | (45u << 8)))
        findings_add(findings, FINDING_WARN, "libuv",
                     "%s hands file work to io_uring, which fails on some kernels: use 1.46 or "
                     "newer",
                     uv_version_string());
    else
        findings_add(findings, FINDING_OK, "libuv", "%s", uv_version_string());
    for (size_t i = 0; i < 2; i++)
        if (ends[i] && ends[i]->check && ends[i]->check->library && (i == 0 || ends[i] != ends[0]))
            ends[i]->check->library(findings_report, findings);
}

/* The worker itself may have it, when this is asked beside it. */
static void check_listen(struct findings *findings, const struct settings *settings)
{
    const char *listen = settings_text(settings, "metrics.listen");
    char err[400];
    if (!listen || !listen[0] || metrics_http_try(listen, err, sizeof err) == 0)
        return;
    findings_area(findings, "machine", COMMAND_UNAVAILABLE);
    findings_add(findings, FINDING_WARN, "metrics.listen",
                 "%s; a worker that is to start with it would not", err);
}

static const struct connector *find(const struct settings *settings, const char *side)
{
    const char *name = settings_text(settings, side);
    return name ? connector_find(name) : NULL;
}

/* Of both ends where they are of one connector, and that is asked once. */
static void check_brokers(struct findings *findings, const struct settings *settings,
                          const struct connector *const ends[2], bool is_source, bool is_sink)
{
    bool is_one = is_source && is_sink && ends[0] == ends[1];
    for (size_t i = 0; i < 2; i++) {
        bool is_used = i == 0 ? is_source : is_sink && !is_one;
        if (!is_used || !ends[i] || !ends[i]->check || !ends[i]->check->broker)
            continue;
        findings_area(findings, ends[i]->name, COMMAND_UNAVAILABLE);
        ends[i]->check->broker(settings, i == 0 || is_one, i == 1 || is_one, findings_report,
                               findings);
    }
}

/* The output of each model, and the input of each or the one of all. */
static void check_own_brokers(struct findings *findings, const struct settings *settings,
                              const struct connector *const ends[2], struct model *const *models,
                              size_t n)
{
    bool have_inputs = work_options_have_inputs(settings);
    struct setting model;
    if (!have_inputs)
        check_brokers(findings, settings, ends, true, false);
    for (size_t i = 0; (model = settings_pair(settings, "models", i)).name; i++) {
        struct settings *own;
        if (i < n && models[i] && model_info(models[i])->is_reranker)
            continue; /* has neither */
        if (settings_of_model(&own, settings, model.name))
            return;
        check_brokers(findings, own, ends, have_inputs, true);
        settings_close(own);
    }
}

static void check_more(struct findings *findings, const struct settings *settings,
                       struct model *const *models, size_t n)
{
    const struct connector *ends[2] = {find(settings, "source"), find(settings, "sink")};
    /* A broker that closes its socket is a finding, not the end of the process. */
    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < n; i++) {
        struct setting pair = settings_pair(settings, "models", i);
        char what[100];
        snprintf(what, sizeof what, "test embedding%s%s", n > 1 ? " " : "", n > 1 ? pair.name : "");
        if (models[i] && !model_info(models[i])->is_reranker)
            check_embedding(findings, what, models[i]);
    }
    check_libraries(findings, ends);
    check_listen(findings, settings);
    if (work_options_have_outputs(settings) || work_options_have_inputs(settings))
        check_own_brokers(findings, settings, ends, models, n);
    else
        check_brokers(findings, settings, ends, true, true);
}

static int run(const struct invocation *invocation)
{
    return checkup_run(invocation->options, check_more);
}

const struct command command_doctor = {
    .name = "doctor",
    .summary = "the same, and checks brokers, permissions and a test embedding",
    .synopsis = "[--json] [--config FILE] [OPTION...]",
    .text =
        "Do all that `check` does; then make a test embedding and compare it with a stored one, "
        "and check the libraries and the brokers: reachable, streams and groups, permissions, "
        "output writable, clock. Nothing is written there. It prints one line for each thing it "
        "checked; a line that says `bad` says what to do.",
    .endings = endings,
    .own = checkup_options,
    .printed = checkup_is_of_run,
    .run = run,
};
