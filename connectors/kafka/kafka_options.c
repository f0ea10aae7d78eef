/*
 * kafka_options.c: the kafka.* options, what they mean, and librdkafka's properties.
 *
 * Owns:    names, defaults and help; the properties the worker sets, and those it lets nobody set.
 * Refuses: what cannot be one, each with the reason; unknown properties in librdkafka's own words.
 * Threads: the loop thread, at open.
 * Why:     few options of our own: librdkafka has some two hundred, known by their dotted names to
 *          everybody who runs Kafka, and they are handed on as they are.
 */
#include <errno.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "connectors/kafka/kafka.h"
#include "connectors/kafka/kafka_log.h"
#include "connectors/worker_name.h"

#define SECRETS "password|secret|.pem|sasl.oauthbearer.config|jaas"

const struct option kafka_options[] = {
    {"kafka.brokers", OPTION_TEXT, "127.0.0.1:9092", NULL, 0, 0, "HOST:PORT,...",
     "Some brokers of the cluster to read from and write to; they name the others"},
    {"kafka.topic", OPTION_TEXT, "texts", NULL, 0, 0, "NAME,...",
     "Topics to read; a name that begins with ^ is a regular expression. With {model} in each "
     "name every model reads its own"},
    {"kafka.group", OPTION_TEXT, "embedmill", NULL, 0, 0, "NAME", "Consumer group"},
    {"kafka.output_topic", OPTION_TEXT, NULL, NULL, 0, 0, "NAME",
     "Topic for embeddings (default: the input topic's name with -embeddings)"},
    {"kafka.dead_letter_topic", OPTION_TEXT, NULL, NULL, 0, 0, "NAME",
     "Topic for messages that cannot be embedded (default: the input topic's name with -dlq)"},
    {"kafka.revoke_timeout", OPTION_DURATION, "10s", NULL, 0, 240 * 1000, "TIME",
     "When a partition moves to another worker, finish its messages in flight within this time"},
    {"kafka.transaction_deadline", OPTION_DURATION, "90s", NULL, 1000, 3600 * 1000, "TIME",
     "With exactly-once, exit when one step of a transaction takes longer: the library can hang "
     "there, and a restart is safe"},
    {"kafka", OPTION_MAP, NULL, SECRETS, 0, 0, "X",
     "Any property of librdkafka, such as security.protocol=SASL_SSL; in the file below kafka, or "
     "kafka.consumer and kafka.producer for one side only (-X consumer.NAME=VALUE)"},
    {"kafka.consumer", OPTION_MAP, NULL, SECRETS, 0, 0, NULL, ""},
    {"kafka.producer", OPTION_MAP, NULL, SECRETS, 0, 0, NULL, ""},
    {NULL, OPTION_TEXT, NULL, NULL, 0, 0, NULL, NULL},
};

/* ---- the options */

/* A copy of the option, or of the first topic and suffix when it was not set. */
static char *read_name(const struct settings *settings, const char *name, const char *suffix)
{
    const char *text = settings_text(settings, name), *topic;
    if (text && *text)
        return strdup(text);
    topic = settings_text(settings, "kafka.topic");
    size_t len = strcspn(topic, ",");
    char *copy = malloc(len + strlen(suffix) + 1);
    if (copy)
        sprintf(copy, "%.*s%s", (int)len, topic, suffix);
    return copy;
}

static int read_topics(struct kafka_config *config, const char *text)
{
    config->topics = rd_kafka_topic_partition_list_new(1);
    while (*text) {
        char name[256];
        size_t n = strcspn(text, ",");
        if (n >= sizeof name) /* Kafka takes 249 */
            return -EINVAL;
        snprintf(name, sizeof name, "%.*s", (int)n, text);
        /* An empty name between two commas is passed over. */
        if (n)
            rd_kafka_topic_partition_list_add(config->topics, name, RD_KAFKA_PARTITION_UA);
        text += n + (text[n] == ',');
    }
    return config->topics->cnt ? 0 : -EINVAL;
}

/* A pattern is an extended regular expression for librdkafka too. */
bool kafka_topic_matches(const char *entry, const char *topic)
{
    regex_t pattern;
    /* librdkafka's rule, too: what begins with ^ is a pattern. */
    if (entry[0] != '^')
        return strcmp(entry, topic) == 0;
    if (regcomp(&pattern, entry, REG_EXTENDED | REG_NOSUB) != 0)
        return false; /* subscribing says what is wrong with it */
    bool matches = regexec(&pattern, topic, 0, NULL, 0) == 0;
    regfree(&pattern);
    return matches;
}

/* What the user must name himself, because the default makes no sense. 0 or -EINVAL. */
static int check_names(const struct kafka_config *config, const struct settings *settings,
                       char *err, size_t err_size)
{
    const char *topics = settings_text(settings, "kafka.topic");
    const char *output = settings_text(settings, "kafka.output_topic");
    const char *dead = settings_text(settings, "kafka.dead_letter_topic");
    if (!*config->group || !*config->brokers) {
        snprintf(err, err_size, "%s is empty; give it a value",
                 *config->group ? "kafka.brokers" : "kafka.group");
        return -EINVAL;
    }
    if ((topics[0] == '^' || strchr(topics, ',')) && !(output && *output && dead && *dead)) {
        snprintf(err, err_size,
                 "kafka.topic names several topics: name kafka.output_topic and "
                 "kafka.dead_letter_topic too");
        return -EINVAL;
    }
    for (int i = 0; i < config->topics->cnt; i++) {
        const char *topic = config->topics->elems[i].topic;
        if (!kafka_topic_matches(topic, config->output_topic) &&
            !kafka_topic_matches(topic, config->dead_letter_topic))
            continue;
        snprintf(err, err_size,
                 "kafka.output_topic or kafka.dead_letter_topic is an input topic itself, by "
                 "'%.100s' in kafka.topic: the worker would read what it writes; choose another "
                 "name",
                 topic);
        return -EINVAL;
    }
    return 0;
}

int kafka_config_read(struct kafka_config *out, const struct settings *settings, char *err,
                      size_t err_size)
{
    struct kafka_config config = {0};
    int rc = read_topics(&config, settings_text(settings, "kafka.topic"));
    if (rc) {
        snprintf(err, err_size, "kafka.topic: expected names of topics, separated by commas");
        goto fail;
    }
    config.brokers = strdup(settings_text(settings, "kafka.brokers"));
    config.group = strdup(settings_text(settings, "kafka.group"));
    config.output_topic = read_name(settings, "kafka.output_topic", "-embeddings");
    config.dead_letter_topic = read_name(settings, "kafka.dead_letter_topic", "-dlq");
    rc = config.brokers && config.group && config.output_topic && config.dead_letter_topic
             ? check_names(&config, settings, err, err_size)
             : -ENOMEM;
    if (rc == -ENOMEM)
        snprintf(err, err_size, "out of memory");
    if (rc)
        goto fail;
    config.revoke_ms = (uint64_t)settings_number(settings, "kafka.revoke_timeout");
    config.transaction_ms = (uint64_t)settings_number(settings, "kafka.transaction_deadline");
    /* By transactions of Kafka's, that is; another sink may keep the offsets itself. */
    config.exactly_once =
        settings_is(settings, "delivery", "exactly-once") &&
        (!settings_find(settings, "sink") || settings_is(settings, "sink", "kafka"));
    *out = config;
    return 0;
fail:
    kafka_config_clear(&config);
    return rc;
}

void kafka_config_clear(struct kafka_config *config)
{
    if (config->topics)
        rd_kafka_topic_partition_list_destroy(config->topics);
    free(config->brokers);
    free(config->group);
    free(config->output_topic);
    free(config->dead_letter_topic);
    *config = (struct kafka_config){0};
}

/* ---- librdkafka's properties */

/* Properties that are ours. */
static const struct {
    const char *name, *why;
} refused[] = {
    {"bootstrap.servers", "kafka.brokers says where the cluster is"},
    {"metadata.broker.list", "kafka.brokers says where the cluster is"},
    {"group.id", "kafka.group names the group"},
    {"enable.auto.commit", "the worker commits what it has published, and only that"},
    {"enable.auto.offset.store", "the worker commits what it has published, and only that"},
    {"enable.partition.eof", "the worker needs it to know its lag"},
    {"isolation.level", "the worker reads committed messages only"},
    {"transactional.id", "the worker makes it of the group and its own name in it"},
    {"acks", "the worker forgets an input only when all replicas have its output"},
    {"request.required.acks", "the worker forgets an input only when all replicas have its output"},
    {"message.timeout.ms", "the worker retries indefinitely, or messages would be lost"},
    {"delivery.timeout.ms", "the worker retries indefinitely, or messages would be lost"},
    {"delivery.report.only.error", "the worker needs to know what was delivered"},
    {"statistics.interval.ms", "the worker needs it to know when brokers are back"},
    {"log.queue", "it can make the library hang"},
};

struct property {
    const char *name, *value;
};

/* Ours first, so that the user may choose otherwise: earliest, for nothing may be skipped unseen;
 * topics that are made later are to be seen soon; as many bytes as a topic takes by default, for
 * the library's own limit is lower and would cut the dead letters of large messages. */
static const struct property defaults[] = {
    {"client.id", "embedmill"},
    {"message.max.bytes", "1048588"},
    {"auto.offset.reset", "earliest"},
    {"auto.commit.interval.ms", "1000"},
    {"queued.max.messages.kbytes", "16384"},
    {"topic.metadata.refresh.interval.ms", "5000"},
    {"topic.metadata.propagation.max.ms", "5000"},
    {"allow.auto.create.topics", "false"},
    {"reconnect.backoff.max.ms", "5000"},
    {NULL, NULL},
};

static const struct property consumer_fixed[] = {
    {"enable.auto.offset.store", "false"},
    {"enable.partition.eof", "true"},
    {"isolation.level", "read_committed"},
    {"statistics.interval.ms", "1000"},
    {NULL, NULL},
};

/* Idempotence keeps the order of a key over retries, which a compacted topic lives by. */
static const struct property producer_fixed[] = {
    {"acks", "all"},
    {"message.timeout.ms", "0"},
    {"statistics.interval.ms", "1000"},
    {NULL, NULL},
};

static int set(rd_kafka_conf_t *conf, const char *map, const char *name, const char *value,
               char *err, size_t err_size)
{
    char why[300];
    if (rd_kafka_conf_set(conf, name, value, why, sizeof why) == RD_KAFKA_CONF_OK)
        return 0;
    snprintf(err, err_size, "%s.%s: %s", map, name, why);
    return -EINVAL;
}

static int set_all(rd_kafka_conf_t *conf, const struct property *properties, char *err,
                   size_t err_size)
{
    int rc = 0;
    for (; properties->name && !rc; properties++)
        rc = set(conf, "kafka", properties->name, properties->value, err, err_size);
    return rc;
}

static int check_property(const char *map, const struct setting *setting, char *err,
                          size_t err_size)
{
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        if (strcmp(refused[i].name, setting->name) == 0) {
            snprintf(err, err_size, "%s.%s cannot be set: %s", map, setting->name, refused[i].why);
            return -EINVAL;
        }
    if (strcmp(setting->name, "partition.assignment.strategy") == 0 &&
        strstr(setting->value, "cooperative-sticky") && rd_kafka_version() < 0x020601ff) {
        snprintf(err, err_size,
                 "%s.%s: cooperative-sticky can hang or abort in librdkafka %s; use range, or a "
                 "worker built with librdkafka 2.6.1 or newer",
                 map, setting->name, rd_kafka_version_str());
        return -EINVAL;
    }
    return 0;
}

/* What the user passes through. */
static int set_map(rd_kafka_conf_t *conf, const struct settings *settings, const char *map,
                   char *err, size_t err_size)
{
    struct setting setting;
    int rc = 0;
    for (size_t i = 0; !rc && (setting = settings_pair(settings, map, i)).name; i++) {
        rc = check_property(map, &setting, err, err_size);
        if (!rc)
            rc = set(conf, map, setting.name, setting.value, err, err_size);
    }
    return rc;
}

static long number_of(const rd_kafka_conf_t *conf, const char *name)
{
    char text[64] = "0";
    size_t size = sizeof text;
    rd_kafka_conf_get(conf, name, text, &size);
    return strtol(text, NULL, 10);
}

/* What the user passes through to consumers by this name; NULL: nothing. */
static const char *find_passed(const struct settings *settings, const char *name)
{
    static const char *const maps[] = {"kafka", "kafka.consumer"};
    const char *value = NULL;
    struct setting setting;
    for (size_t m = 0; m < 2; m++)
        for (size_t i = 0; (setting = settings_pair(settings, maps[m], i)).name; i++)
            if (strcmp(setting.name, name) == 0)
                /* The later of two counts, as in kafka_conf_open. */
                value = setting.value;
    return value;
}

int kafka_check_models(const struct settings *settings, char *err, size_t err_size)
{
    const char *instance = find_passed(settings, "group.instance.id");
    if (!settings_has_model(settings, "kafka.topic"))
        return 0;
    if (strchr(settings_text(settings, "kafka.topic"), '^')) {
        snprintf(err, err_size,
                 "kafka.topic: the expression of one model may match the topic of another: name "
                 "topics, or leave " SETTINGS_MODEL " out");
        return -EINVAL;
    }
    if (!instance || strstr(instance, SETTINGS_MODEL) ||
        settings_has_model(settings, "kafka.group"))
        return 0;
    snprintf(err, err_size,
             "kafka.group.instance.id: the consumers of two models are two members of the group: "
             "put " SETTINGS_MODEL " into it, too");
    return -EINVAL;
}

static bool has_new_protocol(const struct settings *settings)
{
    const char *protocol = find_passed(settings, "group.protocol");
    return protocol && strcasecmp(protocol, "consumer") == 0;
}

/* In the new protocol of groups the brokers decide these. librdkafka ignores or refuses them, by
 * version; a worker that is missed after another time than was asked for is refused here. */
static int check_protocol(const struct settings *settings, char *err, size_t err_size)
{
    static const char *const decided[][2] = {
        {"session.timeout.ms", "the brokers' group.consumer.session.timeout.ms"},
        {"heartbeat.interval.ms", "the brokers' group.consumer.heartbeat.interval.ms"},
        {"partition.assignment.strategy", "kafka.group.remote.assignor"},
    };
    if (!has_new_protocol(settings))
        return 0;
    for (size_t i = 0; i < sizeof decided / sizeof decided[0]; i++)
        if (find_passed(settings, decided[i][0])) {
            snprintf(err, err_size,
                     "kafka.%s has no effect with group.protocol=consumer; set %s instead",
                     decided[i][0], decided[i][1]);
            return -EINVAL;
        }
    return 0;
}

/* With fewer than three heartbeats in a session members are lost all the time. */
static int set_heartbeat(rd_kafka_conf_t *conf, char *err, size_t err_size)
{
    char text[32];
    long session = number_of(conf, "session.timeout.ms");
    if (number_of(conf, "heartbeat.interval.ms") <= session / 3)
        return 0;
    snprintf(text, sizeof text, "%ld", session / 3);
    return set(conf, "kafka", "heartbeat.interval.ms", text, err, err_size);
}

/* Of a handle that nobody watches; kafka_client_open has its own. With `debug` the library prints
 * all of it. */
static void set_log(rd_kafka_conf_t *conf)
{
    char text[512] = "";
    size_t size = sizeof text;
    if (rd_kafka_conf_get(conf, "debug", text, &size) == RD_KAFKA_CONF_OK && !text[0])
        rd_kafka_conf_set_log_cb(conf, kafka_log_print);
}

int kafka_conf_open(rd_kafka_conf_t **out, rd_kafka_type_t type, const struct kafka_config *config,
                    const struct settings *settings, char *err, size_t err_size)
{
    bool is_consumer = type == RD_KAFKA_CONSUMER;
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    /* In this order the last counts: ours, the user's, and at the end what the
     * worker depends on. */
    int rc = set_all(conf, defaults, err, err_size);
    if (!rc && !is_consumer)
        rc = set(conf, "kafka", "enable.idempotence", "true", err, err_size);
    if (!rc)
        rc = set_map(conf, settings, "kafka", err, err_size);
    if (!rc)
        rc = set_map(conf, settings, is_consumer ? "kafka.consumer" : "kafka.producer", err,
                     err_size);
    if (!rc)
        rc = set_all(conf, is_consumer ? consumer_fixed : producer_fixed, err, err_size);
    if (!rc)
        rc = set(conf, "kafka", "bootstrap.servers", config->brokers, err, err_size);
    if (!rc && is_consumer)
        rc = set(conf, "kafka", "group.id", config->group, err, err_size);
    if (!rc && is_consumer)
        rc = set(conf, "kafka", "enable.auto.commit", config->exactly_once ? "false" : "true", err,
                 err_size);
    if (!rc && is_consumer)
        rc = check_protocol(settings, err, err_size);
    if (!rc && is_consumer && !has_new_protocol(settings))
        rc = set_heartbeat(conf, err, err_size);
    if (rc) {
        rd_kafka_conf_destroy(conf);
        return rc;
    }
    set_log(conf);
    *out = conf;
    return 0;
}

size_t kafka_message_max(const rd_kafka_t *rk)
{
    long max = number_of(rd_kafka_conf((rd_kafka_t *)rk), "message.max.bytes");
    return max > 0 ? (size_t)max : 0;
}

int kafka_transactional_id(const struct kafka_config *config, const struct settings *settings,
                           char **out, int *lock)
{
    const char *const group = config->group;
    const char *instance = find_passed(settings, "group.instance.id");
    char *name = NULL;
    *lock = -1;
    if (instance)
        name = strdup(instance);
    else /* whatever it reads: two of a group with one id would end each other's transactions */
        worker_name_hold("kafka", &group, 1, "", &name, lock);
    size_t size = name ? strlen(config->group) + strlen(name) + 2 : 0;
    char *id = name ? malloc(size) : NULL;
    if (id)
        snprintf(id, size, "%s-%s", config->group, name);
    /* The number is free again for another worker. */
    if (!id && *lock >= 0) {
        close(*lock);
        *lock = -1;
    }
    free(name);
    *out = id;
    return id ? 0 : -ENOMEM;
}
