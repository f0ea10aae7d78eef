/*
 * nats_check.c: what `embedmill doctor` asks a NATS server.
 *
 * Owns:    connection and JetStream, the stream and the consumer that are read, the streams that
 *          outputs and dead letters go to, their limits.
 * Refuses: writing, making a consumer. NATS tells nobody what he may write before he does, so that
 * is said to be not known. Threads: the main thread, and the library's own; each wait has a limit.
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

struct visit {
    struct nats_config config;
    struct nats_call call;
    finding_cb report;
    void *ctx;
    int64_t input_max;   /* max_msg_size of the input stream; -1: none, or not known */
    bool is_circle_open; /* the consumer takes all of the stream */
};

#define say(visit, ...) check_say((visit)->report, (visit)->ctx, __VA_ARGS__)

/* False: told why not. */
static bool ask(struct visit *visit, const char *said, const char *what, const char *of,
                struct nats_error *error)
{
    char err[400];
    int rc = nats_call_api(&visit->call, what, of, "", error, err, sizeof err);
    if (rc == -ETIMEDOUT)
        say(visit, FINDING_BAD, said, "%s; may this user ask that?", err);
    else if (rc)
        say(visit, FINDING_BAD, said, "%s", err);
    return !rc;
}

/* ---- the server */

static bool check_connection(struct visit *visit)
{
    char err[400], url[200] = "";
    struct nats_error error;
    if (nats_call_open(&visit->call, &visit->config, err, sizeof err) != 0) {
        say(visit, FINDING_BAD, "connection", "%s", err);
        return false;
    }
    natsConnection_GetConnectedUrl(visit->call.nc, url, sizeof url);
    const char *at = strrchr(url, '@'); /* without the password */
    say(visit, FINDING_OK, "connection", "%s%s, messages of up to %" PRId64 " bytes",
        at ? at + 1 : url, visit->config.is_secure ? " over TLS" : "",
        natsConnection_GetMaxPayload(visit->call.nc));
    if (nats_call_api(&visit->call, "INFO", "", "", &error, err, sizeof err) == -ENOTSUP) {
        say(visit, FINDING_BAD, "JetStream",
            "nobody answers on %s: turn it on at the server and for this account, or correct "
            "nats.api_prefix",
            visit->config.api);
        return false;
    }
    if (error.code)
        say(visit, FINDING_BAD, "JetStream", "%s (%" PRId64 "): turn it on for this account",
            error.text, error.err_code);
    return !error.code;
}

/* ---- the input */

static bool check_input(struct visit *visit)
{
    const char *stream = visit->config.stream;
    struct nats_error error;
    if (!ask(visit, "input", "STREAM.INFO.", stream, &error))
        return false;
    if (error.err_code == NATS_NO_STREAM) {
        say(visit, FINDING_BAD, "input",
            "stream %s does not exist: create it (nats stream add %s --subjects %s); the worker "
            "waits until it exists",
            stream, stream, visit->config.subject ? visit->config.subject : stream);
        return false;
    }
    if (error.code) {
        say(visit, FINDING_BAD, "input", "stream %s: %s (%" PRId64 ")", stream, error.text,
            error.err_code);
        return false;
    }
    visit->input_max = nats_json_number(visit->call.body, "config.max_msg_size", -1);
    say(visit, FINDING_OK, "input", "stream %s: %" PRId64 " messages", stream,
        nats_json_number(visit->call.body, "state.messages", 0));
    return true;
}

static void check_limits(struct visit *visit, struct bytes body)
{
    int64_t max_deliver = nats_json_number(body, "config.max_deliver", 0);
    int64_t max_pending = nats_json_number(body, "config.max_ack_pending", 0);
    if (max_deliver > 0)
        say(visit, FINDING_WARN, "deliveries",
            "the consumer gives a message %" PRId64 " times and then never again, without a "
            "word%s; raise its max_deliver above max_deliveries, or set it to -1",
            max_deliver,
            max_deliver > 1 ? ": the worker makes a dead letter of one that comes for the last time"
                            : ": one that a worker dies over is lost");
    if (max_pending > 0 && max_pending < FEW_PENDING)
        say(visit, FINDING_WARN, "in hand",
            "all workers together may have %" PRId64 " messages in hand: raise max_ack_pending of "
            "the consumer to %d for each worker",
            max_pending, FEW_PENDING);
}

static void check_consumer(struct visit *visit)
{
    const struct nats_config *config = &visit->config;
    char of[400];
    struct nats_error error;
    snprintf(of, sizeof of, "%s.%s", config->stream, config->consumer);
    if (!ask(visit, "consumer", "CONSUMER.INFO.", of, &error))
        return;
    if (error.err_code == NATS_NO_CONSUMER) {
        say(visit, FINDING_OK, "consumer", "%s does not exist yet: the worker creates it",
            config->consumer);
        visit->is_circle_open = !config->subject;
        return;
    }
    if (error.code) {
        say(visit, FINDING_BAD, "consumer", "%s: %s (%" PRId64 ")", config->consumer, error.text,
            error.err_code);
        return;
    }
    struct bytes body = visit->call.body;
    const char *fault = nats_consumer_fault(body);
    visit->is_circle_open = !nats_json_find(body, "config.filter_subject").ptr &&
                            !nats_json_find(body, "config.filter_subjects").ptr;
    if (fault)
        say(visit, FINDING_BAD, "consumer", "%s %s", config->consumer, fault);
    else
        say(visit, FINDING_OK, "consumer",
            "%s: %" PRId64 " messages wait, %" PRId64 " are in hand, %" PRIu64 " ms until one "
            "nobody speaks of goes to another worker",
            config->consumer, nats_json_number(body, "num_pending", 0),
            nats_json_number(body, "num_ack_pending", 0), nats_consumer_ack_wait(body));
    if (!fault)
        check_limits(visit, body);
}

/* ---- the outputs */

static void check_target(struct visit *visit, bool is_source, const char *what, const char *subject,
                         const char *option)
{
    char err[400], stream[160];
    struct nats_error error;
    int rc = nats_call_find_stream(&visit->call, subject, stream, err, sizeof err);
    if (rc) {
        say(visit, FINDING_WARN, what, "%s: it is not known which stream stores it: %s", subject,
            err);
        return;
    }
    if (!stream[0]) {
        say(visit, FINDING_BAD, what,
            "no stream stores subject %s: create one (nats stream add NAME --subjects %s), or "
            "correct %s; the worker waits until it exists",
            subject, subject, option);
        return;
    }
    if (is_source && visit->is_circle_open && strcmp(stream, visit->config.stream) == 0) {
        say(visit, FINDING_BAD, what,
            "subject %s is stored by the input stream itself: the worker would read what it "
            "writes; choose another %s",
            subject, option);
        return;
    }
    if (!ask(visit, what, "STREAM.INFO.", stream, &error) || error.code)
        return;
    struct bytes body = visit->call.body;
    int64_t most = nats_json_number(body, "config.max_msg_size", -1);
    say(visit, FINDING_OK, what,
        "subject %s, stream %s: %" PRId64 " messages; doubles are dropped for %" PRId64 " s",
        subject, stream, nats_json_number(body, "state.messages", 0),
        nats_json_number(body, "config.duplicate_window", 0) / 1000000000);
    if (is_source && most > 0 && (visit->input_max < 0 || most < visit->input_max))
        say(visit, FINDING_WARN, "size",
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
    struct visit visit = {.report = report, .ctx = ctx, .input_max = -1};
    char err[400];
    if (nats_config_read(&visit.config, settings, err, sizeof err) != 0)
        return; /* told of by the check of the options */
    if (check_connection(&visit)) {
        if (is_source && check_input(&visit))
            check_consumer(&visit);
        if (is_sink) {
            check_target(&visit, is_source, "output", visit.config.output_subject,
                         "nats.output_subject");
            check_target(&visit, is_source, "dead letters", visit.config.dead_letter_subject,
                         "nats.dead_letter_subject");
            say(&visit, FINDING_OK, "may write",
                "not known: NATS reports it only when something is written");
        }
    }
    nats_call_close(&visit.call);
    nats_config_clear(&visit.config);
}

static void check_library(finding_cb report, void *ctx)
{
    report(ctx, FINDING_OK, "libnats", nats_GetVersion());
}

const struct connector_check nats_check = {check_library, check_broker};
