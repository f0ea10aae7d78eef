/*
 * kafka_check.c: what `embedmill doctor` asks a Kafka cluster.
 *
 * Owns:    what is checked before anything is opened; connection, topics, partitions and their
 *          leaders, their limits, the group's offsets and lag, known faults of the library in use.
 * Refuses: writing, joining the group, making topics. Kafka tells nobody what he may write before
 *          he does, so that is said to be not known.
 * Threads: the main thread; librdkafka's blocking calls, each limited by CHECK_MS.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "connectors/check.h"
#include "connectors/kafka/kafka.h"
#include "connectors/kafka/kafka_lag.h"
#include "connectors/kafka/kafka_limits.h"

#define CHECK_MS 5000
#define RETRY_MS 250

struct probe {
    struct kafka_config config;
    rd_kafka_t *client;
    finding_cb report;
    void *ctx;
    char last_error[300]; /* of the library: why it cannot connect */
};

#define say(probe, ...) check_say((probe)->report, (probe)->ctx, __VA_ARGS__)

static void on_error(rd_kafka_t *client, int err, const char *reason, void *ctx)
{
    struct probe *probe = ctx;
    (void)client;
    (void)err;
    snprintf(probe->last_error, sizeof probe->last_error, "%s", reason);
}

/* ---- topics */

static const char *topic_advice(rd_kafka_resp_err_t err)
{
    switch (err) {
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
        return "create it (kafka-topics.sh --create); the worker waits until it exists";
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
        return "allow this user to describe it (kafka-acls.sh)";
    case RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE:
        return "it is being made, or its brokers are down; try again";
    default:
        return "look at the brokers' log";
    }
}

/* Partitions of the topic; 0 when it cannot be used, and told why. */
static int check_topic(const struct probe *probe, const char *what, const char *name)
{
    const struct rd_kafka_metadata *found = NULL;
    rd_kafka_topic_t *topic = rd_kafka_topic_new(probe->client, name, NULL);
    /* Asked by name: a cluster does not list topics that this user may not describe. */
    rd_kafka_resp_err_t err = topic ? rd_kafka_metadata(probe->client, 0, topic, &found, CHECK_MS)
                                    : rd_kafka_last_error();
    int n = 0, n_lost = 0;
    if (!err && found->topic_cnt == 1)
        err = found->topics[0].err;
    if (!err && found->topic_cnt == 1)
        n = found->topics[0].partition_cnt;
    for (int i = 0; i < n; i++)
        n_lost += found->topics[0].partitions[i].leader < 0;
    if (err)
        say(probe, FINDING_BAD, what, "%s: %s: %s", name, rd_kafka_err2str(err), topic_advice(err));
    else if (n_lost)
        say(probe, FINDING_BAD, what, "%s: %d of %d partitions have no leader: brokers are down",
            name, n_lost, n);
    else
        say(probe, FINDING_OK, what, "%s: %d partition%s", name, n, n == 1 ? "" : "s");
    if (found)
        rd_kafka_metadata_destroy(found);
    if (topic)
        rd_kafka_topic_destroy(topic);
    return n_lost ? 0 : n;
}

/* ---- the group */

/* A group that is new to the cluster has no coordinator for a moment. */
static rd_kafka_resp_err_t read_offsets(const struct probe *probe,
                                        rd_kafka_topic_partition_list_t *parts)
{
    rd_kafka_resp_err_t err;
    for (int tries = 0;; tries++) {
        err = rd_kafka_committed(probe->client, parts, CHECK_MS);
        bool soon = err == RD_KAFKA_RESP_ERR_NOT_COORDINATOR ||
                    err == RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE ||
                    err == RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS;
        if (!soon || tries == CHECK_MS / RETRY_MS)
            return err;
        nanosleep(&(struct timespec){0, RETRY_MS * 1000000L}, NULL);
    }
}

static void check_group(const struct probe *probe, const char *topic, int n_partitions)
{
    rd_kafka_topic_partition_list_t *parts = rd_kafka_topic_partition_list_new(n_partitions);
    rd_kafka_topic_partition_list_add_range(parts, topic, 0, n_partitions - 1);
    rd_kafka_resp_err_t err = read_offsets(probe, parts);
    int64_t total = 0;
    int n_committed = 0;
    bool known = true;
    for (int i = 0; !err && i < parts->cnt; i++) {
        int64_t lag = kafka_lag_of(probe->client, &parts->elems[i], CHECK_MS);
        known &= lag >= 0;
        total += lag > 0 ? lag : 0;
        n_committed += parts->elems[i].offset >= 0;
    }
    if (err == RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED)
        say(probe, FINDING_BAD, "group", "%s: %s: allow this user to read it (kafka-acls.sh)",
            probe->config.group, rd_kafka_err2str(err));
    else if (err)
        say(probe, FINDING_BAD, "group", "%s: %s", probe->config.group, rd_kafka_err2str(err));
    else if (!known)
        say(probe, FINDING_WARN, "group",
            "%s: the offsets of %s cannot be read; may this user "
            "read the topic?",
            probe->config.group, topic);
    else
        say(probe, FINDING_OK, "group", "%s: %d of %d partitions of %s committed, lag %lld",
            probe->config.group, n_committed, n_partitions, topic, (long long)total);
    rd_kafka_topic_partition_list_destroy(parts);
}

/* ---- the contract */

static bool check_connection(struct probe *probe)
{
    const struct rd_kafka_metadata *found = NULL;
    rd_kafka_resp_err_t err = rd_kafka_metadata(probe->client, 0, NULL, &found, CHECK_MS);
    if (err) {
        rd_kafka_poll(probe->client, 0); /* the errors that came meanwhile */
        say(probe, FINDING_BAD, "connection",
            "%s: %s%s%s; are the brokers running, and are "
            "kafka.brokers and the security properties right?",
            probe->config.brokers, rd_kafka_err2str(err), probe->last_error[0] ? ": " : "",
            probe->last_error);
        return false;
    }
    say(probe, FINDING_OK, "connection", "%s: %d broker%s", probe->config.brokers,
        found->broker_cnt, found->broker_cnt == 1 ? "" : "s");
    rd_kafka_metadata_destroy(found);
    return true;
}

static int client_open(struct probe *probe, const struct settings *settings, char *err,
                       size_t err_size)
{
    rd_kafka_conf_t *conf;
    int rc = kafka_conf_open(&conf, RD_KAFKA_CONSUMER, &probe->config, settings, err, err_size);
    if (rc)
        return rc;
    rd_kafka_conf_set_opaque(conf, probe);
    rd_kafka_conf_set_error_cb(conf, on_error);
    probe->client = rd_kafka_new(RD_KAFKA_CONSUMER, conf, err, err_size);
    if (probe->client)
        return 0;
    rd_kafka_conf_destroy(conf);
    return -EINVAL;
}

/* message.max.bytes of the producer, which may differ from this client's. */
static int64_t producer_max(const struct probe *probe, const struct settings *settings)
{
    rd_kafka_conf_t *conf;
    char err[300], text[32] = "0";
    size_t size = sizeof text;
    if (kafka_conf_open(&conf, RD_KAFKA_PRODUCER, &probe->config, settings, err, sizeof err) != 0)
        return INT64_MAX; /* told of by the check of the options */
    rd_kafka_conf_get(conf, "message.max.bytes", text, &size);
    rd_kafka_conf_destroy(conf);
    return strtoll(text, NULL, 10);
}

static void check_broker(const struct settings *settings, bool is_source, bool is_sink,
                         finding_cb report, void *ctx)
{
    struct probe probe = {.report = report, .ctx = ctx};
    char err[512];
    if (kafka_config_read(&probe.config, settings, err, sizeof err) != 0)
        return; /* told of by the check of the options */
    if (client_open(&probe, settings, err, sizeof err) != 0) {
        say(&probe, FINDING_BAD, "properties", "%s", err);
    } else if (check_connection(&probe)) {
        for (int i = 0; is_source && i < probe.config.topics->cnt; i++) {
            const char *topic = probe.config.topics->elems[i].topic;
            int n = topic[0] == '^' ? 0 : check_topic(&probe, "input", topic);
            if (n > 0)
                check_group(&probe, topic, n);
        }
        if (is_sink && check_topic(&probe, "output", probe.config.output_topic) > 0)
            say(&probe, FINDING_OK, "may write",
                "not known: Kafka reports it only when something is written");
        if (is_sink && check_topic(&probe, "dead letters", probe.config.dead_letter_topic) > 0)
            kafka_limits_check(probe.client, &probe.config, producer_max(&probe, settings),
                               is_source, CHECK_MS, report, ctx);
    }
    if (probe.client)
        rd_kafka_destroy(probe.client);
    kafka_config_clear(&probe.config);
}

int kafka_check_options(const struct settings *settings, const char **bad_option, char *err,
                        size_t err_size)
{
    static const rd_kafka_type_t types[] = {RD_KAFKA_CONSUMER, RD_KAFKA_PRODUCER};
    struct kafka_config config;
    int rc = kafka_check_models(settings, err, err_size);
    if (!rc)
        rc = kafka_config_read(&config, settings, err, err_size);
    for (size_t i = 0; i < 2 && !rc; i++) {
        rd_kafka_conf_t *conf;
        rc = kafka_conf_open(&conf, types[i], &config, settings, err, err_size);
        if (!rc)
            rd_kafka_conf_destroy(conf);
        /* Both sides read it; kafka_config_read leaves nothing to clear when it fails. */
        if (rc || i == 1)
            kafka_config_clear(&config);
    }
    if (rc == -EINVAL)
        *bad_option = settings_blame(settings, "kafka.brokers", err);
    return rc;
}

/* Fixes of the library that matter to what the worker does, from its change log. */
static void check_library(finding_cb report, void *ctx)
{
    char said[300];
    int version = rd_kafka_version();
    snprintf(said, sizeof said, "%s%s", rd_kafka_version_str(),
             version < 0x020601ff
                 ? ": SCRAM logins can fail at brokers of Kafka 3.8.1 or newer (fixed in 2.6.1)"
                 : "");
    report(ctx, version < 0x020601ff ? FINDING_WARN : FINDING_OK, "librdkafka", said);
}

const struct connector_check kafka_check = {check_library, check_broker};
