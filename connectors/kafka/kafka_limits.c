/*
 * kafka_limits.c: see kafka_limits.h.
 */
#include "connectors/kafka/kafka_limits.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHANGE "kafka-configs.sh --alter --entity-type topics --entity-name "

struct limits {
    int64_t message_max; /* max.message.bytes; -1: not told */
    bool is_compacted;   /* cleanup.policy has compact: no record without a key */
};

static const char *value_of(const rd_kafka_ConfigResource_t *resource, const char *name)
{
    size_t n;
    const rd_kafka_ConfigEntry_t **entries = rd_kafka_ConfigResource_configs(resource, &n);
    for (size_t i = 0; i < n; i++)
        if (strcmp(rd_kafka_ConfigEntry_name(entries[i]), name) == 0)
            return rd_kafka_ConfigEntry_value(entries[i]);
    return NULL;
}

static rd_kafka_resp_err_t read_answer(rd_kafka_event_t *event, struct limits *out)
{
    size_t n = 0;
    if (rd_kafka_event_error(event))
        return rd_kafka_event_error(event);
    const rd_kafka_DescribeConfigs_result_t *result = rd_kafka_event_DescribeConfigs_result(event);
    const rd_kafka_ConfigResource_t **resources =
        result ? rd_kafka_DescribeConfigs_result_resources(result, &n) : NULL;
    if (n != 1)
        return RD_KAFKA_RESP_ERR__FAIL;
    rd_kafka_resp_err_t err = rd_kafka_ConfigResource_error(resources[0]);
    const char *max = value_of(resources[0], "max.message.bytes");
    const char *policy = value_of(resources[0], "cleanup.policy");
    *out = (struct limits){.message_max = max ? strtoll(max, NULL, 10) : -1,
                           .is_compacted = policy && strstr(policy, "compact")};
    return err;
}

/* The library's own code when the cluster does not answer within ms or does not want to. */
static rd_kafka_resp_err_t limits_read(rd_kafka_t *rk, const char *topic, int ms,
                                       struct limits *out)
{
    rd_kafka_resp_err_t err = RD_KAFKA_RESP_ERR__TIMED_OUT;
    rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
    rd_kafka_AdminOptions_t *options =
        rd_kafka_AdminOptions_new(rk, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS);
    rd_kafka_ConfigResource_t *resource =
        rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic);
    rd_kafka_AdminOptions_set_request_timeout(options, ms, NULL, 0);
    rd_kafka_DescribeConfigs(rk, &resource, 1, options, queue);
    /* A second longer than the request may take: then the library's own error comes. */
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, ms + 1000);
    if (event)
        err = read_answer(event, out);
    rd_kafka_event_destroy(event);
    rd_kafka_ConfigResource_destroy(resource);
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_queue_destroy(queue);
    return err;
}

static void report_compaction(const struct kafka_config *config, const struct limits *output,
                              const struct limits *dead, finding_cb report, void *ctx)
{
    if (output->is_compacted)
        check_say(report, ctx, FINDING_OK, "compaction",
                  "%s is compacted: of outputs with the same key the last one is kept, and a "
                  "message without a key gets its id as the key",
                  config->output_topic);
    if (dead->is_compacted)
        check_say(
            report, ctx, FINDING_WARN, "compaction",
            "%s is compacted: of dead letters with the same key only the last one is kept; " CHANGE
            "%s --add-config cleanup.policy=delete",
            config->dead_letter_topic, config->dead_letter_topic);
}

/* A dead letter holds all of its message. */
static void report_limits(const struct kafka_config *config, const char *topic, int64_t input,
                          int64_t dead, int64_t message_max, finding_cb report, void *ctx)
{
    if (dead >= 0 && dead < input)
        check_say(report, ctx, FINDING_WARN, "limits",
                  "a message in %s may have %" PRId64 " bytes and one in %s %" PRId64
                  ": dead letters above that are cut, and with a limit too low for the reason "
                  "alone the worker ends (--undeliverable); " CHANGE
                  "%s --add-config max.message.bytes=%" PRId64,
                  topic, input, config->dead_letter_topic, dead, config->dead_letter_topic, input);
    if (message_max < input)
        check_say(report, ctx, FINDING_WARN, "limits",
                  "a message in %s may have %" PRId64 " bytes, and this worker writes at most "
                  "%" PRId64 " (message.max.bytes): dead letters above that are cut; -X "
                  "producer.message.max.bytes=%" PRId64,
                  topic, input, message_max, input);
}

void kafka_limits_check(rd_kafka_t *rk, const struct kafka_config *config, int64_t message_max,
                        bool is_source, int ms, finding_cb report, void *ctx)
{
    struct limits output, dead, input;
    rd_kafka_resp_err_t err = limits_read(rk, config->output_topic, ms, &output);
    if (!err)
        err = limits_read(rk, config->dead_letter_topic, ms, &dead);
    if (!err)
        report_compaction(config, &output, &dead, report, ctx);
    for (int i = 0; is_source && !err && i < config->topics->cnt; i++) {
        const char *topic = config->topics->elems[i].topic;
        /* A pattern is no topic, and what it matches may differ. */
        if (topic[0] == '^')
            continue;
        err = limits_read(rk, topic, ms, &input);
        if (!err && input.message_max >= 0)
            report_limits(config, topic, input.message_max, dead.message_max, message_max, report,
                          ctx);
    }
    if (err)
        check_say(report, ctx, FINDING_OK, "limits",
                  "not known: %s; with the right to DescribeConfigs of the topics their limits "
                  "and compaction would be compared",
                  rd_kafka_err2str(err));
}
