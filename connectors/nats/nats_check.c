/*
 * nats_check.c: what `embedmill doctor` asks a NATS server.
 *
 * Owns:    connection and JetStream, the stream and the consumer that are read, the streams that
 *          outputs and dead letters go to, their limits.
 * Refuses: writing, making a consumer. NATS tells nobody what he may write before he does, so that
 *          is said to be not known.
 * Threads: the main thread, and the library's own; each wait has a limit.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "connectors/check.h"
#include "connectors/nats/nats_call.h"
#include "connectors/nats/nats_json.h"
#include "connectors/nats/nats_source.h"

#define FEW_PENDING 256 /* two batches of one worker */

struct probe {
    struct nats_config config;
    struct nats_call call;
    finding_cb report;
    void *ctx;
    int64_t input_max;   /* max_msg_size of the input stream; -1: none, or not known */
    bool is_circle_open; /* the consumer takes all of the stream */
};

#define say(probe, ...) check_say((probe)->report, (probe)->ctx, __VA_ARGS__)

/* False: told why not. */
static bool ask(struct probe *probe, const char *said, const char *what, const char *of,
                struct nats_error *error)
{
    char err[400];
    int rc = nats_call_api(&probe->call, what, of, "", error, err, sizeof err);
    if (rc == -ETIMEDOUT)
        say(probe, FINDING_BAD, said, "%s; may this user ask that?", err);
    else if (rc)
        say(probe, FINDING_BAD, said, "%s", err);
    return !rc;
}

/* ---- the server */

static bool check_connection(struct probe *probe)
{
    char err[400], url[200] = "";
    struct nats_error error;
    if (nats_call_open(&probe->call, &probe->config, err, sizeof err) != 0) {
        say(probe, FINDING_BAD, "connection", "%s", err);
        return false;
    }
    natsConnection_GetConnectedUrl(probe->call.nc, url, sizeof url);
    const char *at = strrchr(url, '@'); /* without the password */
    say(probe, FINDING_OK, "connection", "%s%s, messages of up to %" PRId64 " bytes",
        at ? at + 1 : url, probe->config.is_secure ? " over TLS" : "",
        natsConnection_GetMaxPayload(probe->call.nc));
    /* A timeout leaves error.code at 0: the questions below say it more exactly. */
    if (nats_call_api(&probe->call, "INFO", "", "", &error, err, sizeof err) == -ENOTSUP) {
        say(probe, FINDING_BAD, "JetStream",
            "nobody answers on %s: turn it on at the server and for this account, or correct "
            "nats.api_prefix",
            probe->config.api);
        return false;
    }
    if (error.code)
        say(probe, FINDING_BAD, "JetStream", "%s (%" PRId64 "): turn it on for this account",
            error.text, error.err_code);
    return !error.code;
}

/* ---- the input */

static bool check_input(struct probe *probe)
{
    const char *stream = probe->config.stream;
    struct nats_error error;
    if (!ask(probe, "input", "STREAM.INFO.", stream, &error))
        return false;
    if (error.err_code == NATS_NO_STREAM) {
        say(probe, FINDING_BAD, "input",
            "stream %s does not exist: create it (nats stream add %s --subjects %s); the worker "
            "waits until it exists",
            stream, stream, probe->config.subject ? probe->config.subject : stream);
        return false;
    }
    if (error.code) {
        say(probe, FINDING_BAD, "input", "stream %s: %s (%" PRId64 ")", stream, error.text,
            error.err_code);
        return false;
    }
    probe->input_max = nats_json_number(probe->call.body, "config.max_msg_size", -1);
    say(probe, FINDING_OK, "input", "stream %s: %" PRId64 " messages", stream,
        nats_json_number(probe->call.body, "state.messages", 0));
    return true;
}

static void check_limits(struct probe *probe, struct bytes body)
{
    int64_t max_deliver = nats_json_number(body, "config.max_deliver", 0);
    int64_t max_pending = nats_json_number(body, "config.max_ack_pending", 0);
    if (max_deliver > 0)
        say(probe, FINDING_WARN, "deliveries",
            "the consumer gives a message %" PRId64 " times and then never again, without a "
            "word%s; raise its max_deliver above max_deliveries, or set it to -1",
            max_deliver,
            max_deliver > 1 ? ": the worker makes a dead letter of one that comes for the last time"
                            : ": one that a worker dies over is lost");
    if (max_pending > 0 && max_pending < FEW_PENDING)
        say(probe, FINDING_WARN, "unacked",
            "all workers together may hold %" PRId64
            " unacknowledged messages: raise max_ack_pending of the consumer to %d for each worker",
            max_pending, FEW_PENDING);
}

static void check_consumer(struct probe *probe)
{
    const struct nats_config *config = &probe->config;
    char of[400];
    struct nats_error error;
    snprintf(of, sizeof of, "%s.%s", config->stream, config->consumer);
    if (!ask(probe, "consumer", "CONSUMER.INFO.", of, &error))
        return;
    if (error.err_code == NATS_NO_CONSUMER) {
        say(probe, FINDING_OK, "consumer", "%s does not exist yet: the worker creates it",
            config->consumer);
        /* The worker makes it without a filter, and so it would take outputs, too. */
        probe->is_circle_open = !config->subject;
        return;
    }
    if (error.code) {
        say(probe, FINDING_BAD, "consumer", "%s: %s (%" PRId64 ")", config->consumer, error.text,
            error.err_code);
        return;
    }
    struct bytes body = probe->call.body;
    const char *fault = nats_consumer_fault(body);
    probe->is_circle_open = !nats_json_find(body, "config.filter_subject").ptr &&
                            !nats_json_find(body, "config.filter_subjects").ptr;
    if (fault)
        say(probe, FINDING_BAD, "consumer", "%s %s", config->consumer, fault);
    else
        say(probe, FINDING_OK, "consumer",
            "%s: %" PRId64 " messages wait, %" PRId64 " are unacknowledged; after %" PRIu64
            " ms without an ack a message goes to another worker",
            config->consumer, nats_json_number(body, "num_pending", 0),
            nats_json_number(body, "num_ack_pending", 0), nats_consumer_ack_wait(body));
    if (!fault)
        check_limits(probe, body);
}

/* ---- the outputs */

static void check_target(struct probe *probe, bool is_source, const char *what, const char *subject,
                         const char *option)
{
    char err[400], stream[160];
    struct nats_error error;
    int rc = nats_call_find_stream(&probe->call, subject, stream, err, sizeof err);
    if (rc) {
        say(probe, FINDING_WARN, what, "%s: it is not known which stream stores it: %s", subject,
            err);
        return;
    }
    if (!stream[0]) {
        say(probe, FINDING_BAD, what,
            "no stream stores subject %s: create one (nats stream add NAME --subjects %s), or "
            "correct %s; the worker waits until it exists",
            subject, subject, option);
        return;
    }
    if (is_source && probe->is_circle_open && strcmp(stream, probe->config.stream) == 0) {
        say(probe, FINDING_BAD, what,
            "subject %s is stored by the input stream itself: the worker would read what it "
            "writes; choose another %s",
            subject, option);
        return;
    }
    if (!ask(probe, what, "STREAM.INFO.", stream, &error) || error.code)
        return;
    struct bytes body = probe->call.body;
    int64_t most = nats_json_number(body, "config.max_msg_size", -1);
    say(probe, FINDING_OK, what,
        "subject %s, stream %s: %" PRId64 " messages; doubles are dropped for %" PRId64 " s",
        subject, stream, nats_json_number(body, "state.messages", 0),
        nats_json_number(body, "config.duplicate_window", 0) / 1000000000);
    /* Also where the input has no limit: then its messages may be larger than any. */
    if (is_source && most > 0 && (probe->input_max < 0 || most < probe->input_max))
        say(probe, FINDING_WARN, "size",
            "stream %s takes messages of %" PRId64
            " bytes and the input larger ones: %s; raise its "
            "max_msg_size",
            stream, most,
            strcmp(what, "output") == 0 ? "an output above that becomes a dead letter"
                                        : "a dead letter above that is cut");
}

/* ---- the contract */

static void check_broker(const struct settings *settings, bool is_source, bool is_sink,
                         finding_cb report, void *ctx)
{
    struct probe probe = {.report = report, .ctx = ctx, .input_max = -1};
    char err[400];
    if (nats_config_read(&probe.config, settings, err, sizeof err) != 0)
        return; /* told of by the check of the options */
    if (check_connection(&probe)) {
        if (is_source && check_input(&probe))
            check_consumer(&probe);
        if (is_sink) {
            check_target(&probe, is_source, "output", probe.config.output_subject,
                         "nats.output_subject");
            check_target(&probe, is_source, "dead letters", probe.config.dead_letter_subject,
                         "nats.dead_letter_subject");
            say(&probe, FINDING_OK, "may write",
                "not known: NATS reports it only when something is written");
        }
    }
    nats_call_close(&probe.call);
    nats_config_clear(&probe.config);
}

static void check_library(finding_cb report, void *ctx)
{
    report(ctx, FINDING_OK, "libnats", nats_GetVersion());
}

const struct connector_check nats_check = {check_library, check_broker};
