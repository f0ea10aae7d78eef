/*
 * nats_consumer.c: the durable consumer that all workers share.
 *
 * Owns:    looking at it, making it when it is missing, what its settings mean for us; lag.
 * Refuses: to make streams: how long and on how many servers texts are kept is not ours to say.
 * Threads: the loop thread.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "connectors/json.h"
#include "connectors/nats/nats_json.h"
#include "connectors/nats/nats_source.h"

#define LOOK_MS 5000 /* for its lag, and changes of its settings */

static void wait_for(struct nats_source *source, const struct nats_error *error)
{
    const struct nats_config *config = &source->config;
    char why[500];
    if (error->err_code == NATS_NO_STREAM)
        snprintf(why, sizeof why,
                 "stream %.60s does not exist: create it (nats stream add %.60s --subjects %.60s), "
                 "or correct nats.stream; it is looked for every second",
                 config->stream, config->stream,
                 config->subject ? config->subject : config->stream);
    else if (error->code == 503 && !error->err_code)
        snprintf(why, sizeof why,
                 "nobody answers on %.60s: turn JetStream on at the server and for this account, "
                 "or correct nats.api_prefix",
                 config->api);
    else
        snprintf(why, sizeof why, "consumer %.60s of stream %.60s: %.200s (%" PRId64 ")%s%s",
                 config->consumer, config->stream, error->text, error->err_code,
                 *nats_reply_advice(error) ? ": " : "", nats_reply_advice(error));
    health_wait(&source->end.health, PART_CONSUMER, why);
}

/* ---- making it */

static void look_again(struct nats_source *source, uint64_t pause_ms)
{
    /* The question is answered, or was given up. */
    source->consumer.is_asked = false;
    source->consumer.asked_ms = uv_now(source->end.loop);
    source->consumer.pause_ms = pause_ms;
}

static void on_made(void *ctx, void *arg, natsMsg *answer)
{
    struct nats_source *source = ctx;
    struct nats_error error;
    (void)arg;
    look_again(source, NATS_RETRY_MS);
    if (!answer)
        return;
    nats_reply_error(answer, &error);
    if (error.code) {
        wait_for(source, &error);
        return;
    }
    nats_skips_on_made(source);
    /* Its settings are read before anything is asked of it, for it may have existed already. */
    nats_consumer_check(source);
}

static void make(struct nats_source *source)
{
    const struct nats_config *config = &source->config;
    struct buffer text = {0};
    char subject[400];
    buffer_put_text(&text, "{\"stream_name\":");
    json_put_text(&text, config->stream);
    buffer_put_text(&text, ",\"config\":{\"durable_name\":");
    json_put_text(&text, config->consumer);
    buffer_put_text(&text, ",\"ack_policy\":\"explicit\",\"deliver_policy\":\"all\","
                           "\"replay_policy\":\"instant\",\"max_deliver\":-1,\"ack_wait\":");
    json_put_natural(&text, config->ack_wait_ms * 1000000);
    buffer_put_text(&text, ",\"max_ack_pending\":");
    json_put_integer(&text, config->max_ack_pending);
    if (config->subject) {
        buffer_put_text(&text, ",\"filter_subject\":");
        json_put_text(&text, config->subject);
    }
    /* Three bytes: the NUL that ends the text as well. */
    buffer_put(&text, "}}", 3);
    snprintf(subject, sizeof subject, "%.150s.CONSUMER.DURABLE.CREATE.%.100s.%.100s", config->api,
             config->stream, config->consumer);
    source->consumer.is_asked =
        !text.status && nats_client_ask_text(source->client, subject, text.ptr, on_made, NULL);
    buffer_close(&text);
}

/* ---- what it is */

const char *nats_consumer_fault(struct bytes body)
{
    char policy[16];
    nats_json_text(body, "config.ack_policy", policy, sizeof policy);
    if (nats_json_find(body, "config.deliver_subject").ptr)
        return "is a push consumer: create a pull consumer (without a deliver subject)";
    if (strcmp(policy, "explicit") != 0)
        return "does not want every message acked: create one with ack_policy explicit";
    if (nats_json_bool(body, "config.headers_only"))
        return "gives headers only: create one that gives the texts, too";
    return NULL;
}

uint64_t nats_consumer_ack_wait(struct bytes body)
{
    int64_t ns = nats_json_number(body, "config.ack_wait", INT64_C(30000000000));
    struct bytes backoff = nats_json_find(body, "config.backoff"), one;
    for (size_t at = 0; backoff.ptr && nats_json_next(backoff, &at, &one);) {
        int64_t other = nats_json_number(one, "", ns);
        /* With a backoff the server goes by its steps in place of ack_wait: the shortest counts. */
        ns = other < ns ? other : ns;
    }
    return ns < 1000000 ? 1 : (uint64_t)ns / 1000000;
}

static void read_config(struct nats_source *source, struct bytes body)
{
    struct nats_consumer *consumer = &source->consumer;
    consumer->ack_wait_ms = nats_consumer_ack_wait(body);
    consumer->max_deliver = nats_json_number(body, "config.max_deliver", 0);
    consumer->max_batch = nats_json_number(body, "config.max_batch", 0);
    consumer->max_bytes = nats_json_number(body, "config.max_bytes", 0);
    consumer->max_expires_ms = nats_json_number(body, "config.max_expires", 0) / 1000000;
    consumer->is_known = true;
}

static void report_lag(struct nats_source *source, int64_t lag)
{
    if (source->base.events->on_lag && !source->end.closing)
        source->base.events->on_lag(source->base.ctx, nats_source_part(source), lag);
}

static void on_info(void *ctx, void *arg, natsMsg *answer)
{
    struct nats_source *source = ctx;
    struct nats_error error;
    char why[300];
    (void)arg;
    look_again(source, answer ? LOOK_MS : NATS_RETRY_MS);
    if (!answer)
        return; /* lost, or a right is missing, which was told */
    nats_reply_error(answer, &error);
    if (error.code) {
        source->consumer.is_known = false;
        source->consumer.pause_ms = NATS_RETRY_MS;
        report_lag(source, -1);
        if (error.err_code == NATS_NO_CONSUMER || error.err_code == NATS_NO_STREAM)
            /* Acks are owed to nobody: all that was given comes again from the new consumer. */
            nats_ack_forget(source);
        if (source->end.closing)
            endpoint_pump(&source->end);
        else if (error.err_code == NATS_NO_CONSUMER)
            make(source);
        else
            wait_for(source, &error);
        return;
    }
    struct bytes body = nats_reply_body(answer);
    const char *fault = nats_consumer_fault(body);
    if (fault) {
        snprintf(why, sizeof why, "consumer %.60s of stream %.60s %.120s, or correct nats.consumer",
                 source->config.consumer, source->config.stream, fault);
        endpoint_fail(&source->end, -EINVAL, why);
        return;
    }
    /* is_known from here on: requests and acks go out again. */
    read_config(source, body);
    nats_skips_look(source, body);
    /* Acks that were owed to one that is gone are in no trouble any more. */
    health_good(&source->end.health, source->done.n ? PART_CONSUMER : PART_CONSUMER | PART_ACK);
    report_lag(source, nats_json_number(body, "num_pending", 0) +
                           nats_json_number(body, "num_ack_pending", 0));
    endpoint_pump(&source->end);
}

void nats_consumer_check(struct nats_source *source)
{
    char subject[400];
    if (source->consumer.is_asked || source->end.failed)
        return;
    look_again(source, LOOK_MS);
    snprintf(subject, sizeof subject, "%.150s.CONSUMER.INFO.%.100s.%.100s", source->config.api,
             source->config.stream, source->config.consumer);
    source->consumer.is_asked = nats_client_ask_text(source->client, subject, "", on_info, NULL);
}

void nats_consumer_doubt(struct nats_source *source)
{
    source->consumer.is_known = false;
    nats_consumer_check(source);
}

void nats_consumer_tick(struct nats_source *source, uint64_t now)
{
    struct nats_consumer *consumer = &source->consumer;
    bool is_wanted = source->end.closing ? source->done.n > 0 : true;
    if (nats_client_is_up(source->client) && !consumer->is_asked && is_wanted &&
        now - consumer->asked_ms >= consumer->pause_ms)
        nats_consumer_check(source);
}
