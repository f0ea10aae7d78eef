/*
 * rabbitmq_check.c: what `embedmill doctor` asks a RabbitMQ server.
 *
 * Owns:    connection, version, queues and exchange, whether this user may read and write, and, by
 *          the management API, what policies would lose.
 * Refuses: to change anything: declares are passive, what is published no queue can take, and the
 *          consumer that is asked for has an argument that is refused after the right to read.
 * Threads: the main thread; each wait is limited by rabbitmq.timeout.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/rabbitmq/rabbitmq.h"
#include "connectors/rabbitmq/rabbitmq_call.h"
#include "connectors/rabbitmq/rabbitmq_management.h"

#define DEFAULT_LIMIT_4X 20 /* deliveries of a quorum queue, when none is set */

struct probe {
    struct rabbitmq_config config;
    struct rabbitmq_call *call;
    long max_deliveries;
    bool is_reported; /* that the connection is gone, or the management API away */
    finding_cb report;
    void *ctx;
};

#define say(probe, ...) check_say((probe)->report, (probe)->ctx, __VA_ARGS__)

static bool ask(struct probe *probe, uint32_t id, const void *method,
                struct rabbitmq_answer *answer)
{
    char err[600];
    if (rabbitmq_call_do(probe->call, 1, id, method, answer, err, sizeof err) == 0)
        return true;
    say(probe, FINDING_BAD, "connection", "connection lost during the checks: %s", err);
    return false;
}

static int major_version(const struct probe *probe)
{
    return atoi(rabbitmq_link_version(rabbitmq_call_link(probe->call)));
}

/* ---- queues */

/* Whether it is there. */
static bool check_queue(struct probe *probe, const char *what, const char *name)
{
    amqp_queue_declare_t declare = {.queue = rabbitmq_text(name), .passive = 1};
    struct rabbitmq_answer answer;
    if (!ask(probe, AMQP_QUEUE_DECLARE_METHOD, &declare, &answer))
        return false;
    if (answer.code)
        say(probe, FINDING_BAD, what, "%s: %s: %s", name, answer.text,
            answer.code == AMQP_NOT_FOUND ? "declare it; the worker waits until it exists"
                                          : "see the server's log");
    else
        say(probe, FINDING_OK, what, "%s: %u messages ready, %u consumers", name,
            (unsigned)answer.message_count, (unsigned)answer.consumer_count);
    return !answer.code;
}

/* The right to read is looked at before the arguments are. */
static void check_read(struct probe *probe)
{
    amqp_table_entry_t entry = {.key = rabbitmq_text("x-priority")};
    amqp_basic_consume_t consume = {.queue = rabbitmq_text(probe->config.queue),
                                    .consumer_tag = rabbitmq_text("embedmill-doctor"),
                                    .arguments = {1, &entry}};
    amqp_basic_cancel_t cancel = {.consumer_tag = consume.consumer_tag};
    struct rabbitmq_answer answer;
    entry.value.kind = AMQP_FIELD_KIND_UTF8;
    entry.value.value.bytes = rabbitmq_text("not a number");
    /* Its refusal closes the channel; rabbitmq_call_do opens it again for the next question. */
    if (!ask(probe, AMQP_BASIC_CONSUME_METHOD, &consume, &answer))
        return;
    if (answer.code == AMQP_ACCESS_REFUSED)
        say(probe, FINDING_BAD, "may read", "%s (rabbitmqctl set_permissions)", answer.text);
    else if (answer.code == AMQP_PRECONDITION_FAILED)
        say(probe, FINDING_OK, "may read", "yes");
    else
        say(probe, FINDING_WARN, "may read", "not known: %s",
            answer.code ? answer.text : "the server accepted an invalid argument");
    if (!answer.code)
        (void)ask(probe, AMQP_BASIC_CANCEL_METHOD, &cancel, &answer);
}

/* To the default exchange by a key that no queue has. */
static void check_write(struct probe *probe)
{
    amqp_basic_properties_t properties = {._flags = 0};
    struct rabbitmq_answer answer;
    char err[600], key[64];
    snprintf(key, sizeof key, "embedmill-doctor-%016llx", (unsigned long long)uv_hrtime());
    /* Channel 2: a refusal must not close the one that is asked by. */
    if (rabbitmq_call_publish(probe->call, 2, "", key, &properties, (struct bytes){"", 0}, &answer,
                              err, sizeof err) != 0)
        say(probe, FINDING_BAD, "may write", "not known: %s", err);
    else if (answer.code == AMQP_NO_ROUTE)
        say(probe, FINDING_OK, "may write", "yes");
    else
        say(probe, FINDING_BAD, "may write", "%s (rabbitmqctl set_permissions)",
            answer.code ? answer.text : "not known");
}

static bool check_exchange(struct probe *probe)
{
    const char *name = probe->config.output_exchange;
    amqp_exchange_declare_t declare = {
        .exchange = rabbitmq_text(name), .type = rabbitmq_text("direct"), .passive = 1};
    struct rabbitmq_answer answer;
    if (!ask(probe, AMQP_EXCHANGE_DECLARE_METHOD, &declare, &answer))
        return false;
    if (answer.code)
        say(probe, FINDING_BAD, "exchange", "%s: %s: declare it", name, answer.text);
    else
        say(probe, FINDING_OK, "exchange",
            "%s; whether a queue is bound to it for '%s' is seen when something is written", name,
            probe->config.output_queue);
    return !answer.code;
}

/* ---- what policies would lose */

static bool find_facts(struct probe *probe, const char *queue, struct rabbitmq_queue_facts *facts)
{
    const struct rabbitmq_link *link = rabbitmq_call_link(probe->call);
    char err[600];
    if (rabbitmq_management_queue(&probe->config, rabbitmq_link_url(link),
                                  rabbitmq_call_loop(probe->call), queue, facts, err,
                                  sizeof err) == 0)
        return true;
    if (!probe->is_reported)
        say(probe, FINDING_WARN, "policies",
            "not known: %s; with the management plugin and a user tagged `monitoring` doctor sees "
            "limits by which messages would be dropped",
            err);
    probe->is_reported = true;
    return false;
}

static bool is_type(const struct rabbitmq_queue_facts *facts, const char *type)
{
    return strcmp(facts->type, type) == 0;
}

static int64_t limit_of(const struct probe *probe, const struct rabbitmq_queue_facts *facts)
{
    if (!is_type(facts, "quorum"))
        return -1;
    /* RabbitMQ 4 counts to 20 where nothing is set, and 3 without a limit. */
    return facts->delivery_limit < 0 && major_version(probe) >= 4 ? DEFAULT_LIMIT_4X
                                                                  : facts->delivery_limit;
}

static void check_deliveries(struct probe *probe, const struct rabbitmq_queue_facts *facts)
{
    const char *queue = probe->config.queue;
    int64_t limit = limit_of(probe, facts);
    if (is_type(facts, "classic"))
        say(probe, FINDING_WARN, "deliveries",
            "%s is a classic queue and counts none: a message that kills workers comes again "
            "without end; use a quorum queue",
            queue);
    else if (limit >= 0 && !facts->has_dead_letter_exchange)
        say(probe, FINDING_WARN, "deliveries",
            "%s drops a message after %lld failed deliveries: set a dead-letter-exchange, or a "
            "delivery-limit above max_deliveries (%ld)",
            queue, (long long)limit, probe->max_deliveries);
    else if (limit >= 0 && limit <= probe->max_deliveries)
        say(probe, FINDING_WARN, "deliveries",
            "%s dead-letters a message itself after %lld failed deliveries, without a reason, "
            "before "
            "max_deliveries (%ld) does",
            queue, (long long)limit, probe->max_deliveries);
    else
        say(probe, FINDING_OK, "deliveries", "%s counts them", queue);
}

static void check_input(struct probe *probe)
{
    const struct rabbitmq_config *config = &probe->config;
    struct rabbitmq_queue_facts facts;
    if (!find_facts(probe, config->queue, &facts))
        return;
    if (is_type(&facts, "stream")) {
        say(probe, FINDING_BAD, "type",
            "%s is a stream, of which RabbitMQ keeps no position for this protocol; name a quorum "
            "or classic queue",
            config->queue);
        return;
    }
    check_deliveries(probe, &facts);
    if (config->rejects && !facts.has_dead_letter_exchange)
        say(probe, FINDING_BAD, "dead letters",
            "%s has no dead-letter-exchange, and rabbitmq.dead_letters is reject: they would be "
            "dropped; set one, or take dead_letters queue",
            config->queue);
    if (facts.consumer_timeout_ms > 0 &&
        (!config->consumer_ms || (uint64_t)facts.consumer_timeout_ms < config->consumer_ms))
        say(probe, FINDING_WARN, "consumer timeout",
            "%s has %lld s, less than rabbitmq.consumer_timeout: set that to it", config->queue,
            (long long)facts.consumer_timeout_ms / 1000);
}

/* What is written must not go before somebody has read it. */
static void check_keeping(struct probe *probe, const char *what, const char *queue,
                          bool is_dead_letters)
{
    struct rabbitmq_queue_facts facts;
    if (!find_facts(probe, queue, &facts))
        return;
    int64_t limit = limit_of(probe, &facts);
    if (facts.max_length >= 0 && strcmp(facts.overflow, "reject-publish") != 0)
        say(probe, FINDING_WARN, what,
            "%s has a maximal length and drops its oldest messages when it is full: set overflow "
            "reject-publish, and the worker waits",
            queue);
    if (facts.message_ttl_ms >= 0)
        say(probe, FINDING_WARN, what, "%s deletes messages after %lld s", queue,
            (long long)facts.message_ttl_ms / 1000);
    if (is_dead_letters && limit >= 0)
        say(probe, FINDING_WARN, what,
            "%s drops a dead letter that was looked at %lld times (dlq list gives it back, which "
            "may "
            "count as a failed delivery): make it a classic queue, or set no delivery-limit (-1)",
            queue, (long long)limit);
}

/* ---- the contract */

static bool open_side(struct probe *probe, const struct rabbitmq_urls *urls, const char *option)
{
    char err[600];
    if (rabbitmq_call_open(&probe->call, &probe->config, urls, "doctor", err, sizeof err) != 0) {
        say(probe, FINDING_BAD, "connection", "%s; see %s", err, option);
        return false;
    }
    const struct rabbitmq_link *link = rabbitmq_call_link(probe->call);
    int major = 0, minor = 0;
    const char *version = rabbitmq_link_version(link);
    bool is_old = sscanf(version, "%d.%d", &major, &minor) == 2 && major == 3 && minor < 8;
    say(probe, is_old ? FINDING_WARN : FINDING_OK, "connection", "%s answers%s: RabbitMQ %s%s",
        rabbitmq_link_where(link), rabbitmq_link_url(link)->tls ? " over TLS" : "",
        version[0] ? version : "of an unknown version",
        is_old ? ", which has no quorum queues and is no longer maintained" : "");
    return true;
}

static void check_source(struct probe *probe)
{
    if (open_side(probe, &probe->config.urls, "rabbitmq.url") &&
        check_queue(probe, "input", probe->config.queue)) {
        check_read(probe);
        check_input(probe);
    }
    rabbitmq_call_close(probe->call);
    probe->call = NULL;
}

static void check_sink(struct probe *probe)
{
    const struct rabbitmq_config *config = &probe->config;
    if (open_side(probe, &config->output_urls, "rabbitmq.output_url")) {
        if (*config->output_exchange)
            check_exchange(probe);
        else if (check_queue(probe, "output", config->output_queue))
            check_keeping(probe, "output", config->output_queue, false);
        if (!config->rejects && check_queue(probe, "dead letters", config->dead_letter_queue))
            check_keeping(probe, "dead letters", config->dead_letter_queue, true);
        if (!*config->output_exchange || !config->rejects)
            check_write(probe);
    }
    rabbitmq_call_close(probe->call);
    probe->call = NULL;
}

static void check_broker(const struct settings *settings, bool is_source, bool is_sink,
                         finding_cb report, void *ctx)
{
    struct probe probe = {.report = report, .ctx = ctx};
    char err[512];
    if (rabbitmq_config_read(&probe.config, settings, err, sizeof err) != 0)
        return; /* the check of the options has said so */
    if (settings_find(settings, "max_deliveries"))
        probe.max_deliveries = (long)settings_number(settings, "max_deliveries");
    if (is_source)
        check_source(&probe);
    if (is_sink)
        check_sink(&probe);
    rabbitmq_config_clear(&probe.config);
}

static void check_library(finding_cb report, void *ctx)
{
    check_say(report, ctx, FINDING_OK, "librabbitmq", "%s", amqp_version());
}

const struct connector_check rabbitmq_check = {check_library, check_broker};
