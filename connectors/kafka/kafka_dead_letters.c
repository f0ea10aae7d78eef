/*
 * kafka_dead_letters.c: reads the dead letter topic, puts letters back, remembers which.
 *
 * Owns:    a consumer that is assigned and not subscribed, a producer, the offsets of a group.
 * Refuses: to delete: a topic keeps what it has. What was put back is not shown any more.
 * Threads: the calling one, and the library's own.
 * Why:     a group's offset alone cannot say "all but these two", so what was put back beyond it
 *          stands in the metadata that Kafka keeps beside an offset. A crash between a delivery and
 *          its commit repeats at most the letters since the commit before.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/kafka/kafka.h"
#include "connectors/kafka/kafka_done.h"
#include "connectors/kafka/kafka_record.h"

#define GROUP        "embedmill-dlq"
#define PATIENCE_MS  15000
#define DELIVERY_MS  60000
#define COMMIT_EVERY 100

static const char *const options[] = {"kafka", "kafka.", NULL};

/* One partition of the letters' topic. */
struct pile {
    struct kafka_done done;
    int64_t end;                  /* where this run ends */
    bool is_finished, is_changed; /* read to there; to be committed */
};

struct kafka_dead_letters {
    struct dead_letters base;
    struct kafka_config config;
    rd_kafka_t *consumer, *producer;
    rd_kafka_message_t *current;
    struct pile *piles; /* [n_piles] by partition */
    int n_piles, n_finished;
    size_t n_uncommitted;
    const char *to; /* NULL: where each came from */
    char position[300], origin[400];
};

/* What became of one message, for the delivery report. */
struct delivery {
    bool is_known;
    rd_kafka_resp_err_t err;
};

static struct kafka_dead_letters *self(struct dead_letters *dlq)
{
    return (struct kafka_dead_letters *)dlq;
}

static int tell(rd_kafka_resp_err_t code, const char *what, const char *topic, char *err,
                size_t err_size)
{
    snprintf(err, err_size, "%s %s: %s", what, topic, rd_kafka_err2str(code));
    return -EIO;
}

/* ---- what is done already */

static int commit(struct kafka_dead_letters *dlq, char *err, size_t err_size)
{
    const char *topic = dlq->config.dead_letter_topic;
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(dlq->n_piles);
    rd_kafka_resp_err_t code = RD_KAFKA_RESP_ERR_NO_ERROR;
    char text[KAFKA_DONE_SIZE];
    for (int i = 0; i < dlq->n_piles; i++) {
        struct pile *pile = &dlq->piles[i];
        if (!pile->is_changed)
            continue;
        rd_kafka_topic_partition_t *to = rd_kafka_topic_partition_list_add(list, topic, i);
        kafka_done_print(&pile->done, text);
        to->offset = pile->done.base;
        /* What is done beyond the offset: Kafka keeps it as it is, beside the offset. */
        to->metadata = strdup(text); /* the list frees it */
        to->metadata_size = to->metadata ? strlen(to->metadata) : 0;
        if (!to->metadata)
            code = RD_KAFKA_RESP_ERR__CRIT_SYS_RESOURCE;
        pile->is_changed = false;
    }
    if (list->cnt > 0 && !code)
        /* 0: it waits, for only what the brokers have confirmed is noted. */
        code = rd_kafka_commit(dlq->consumer, list, 0);
    rd_kafka_topic_partition_list_destroy(list);
    dlq->n_uncommitted = 0;
    if (!code)
        return 0;
    return tell(code,
                "the last dead letters were put back and this cannot be noted, so they would be "
                "put back again the next time; group " GROUP " on",
                topic, err, err_size);
}

/* ---- opening */

static void on_delivered(rd_kafka_t *rk, const rd_kafka_message_t *message, void *opaque)
{
    struct delivery *delivery = message->_private;
    (void)rk;
    (void)opaque;
    if (delivery)
        *delivery = (struct delivery){true, message->err};
}

static int open_client(rd_kafka_t **out, rd_kafka_type_t type, struct kafka_dead_letters *dlq,
                       const struct settings *settings, char *err, size_t err_size)
{
    rd_kafka_conf_t *conf;
    char why[300];
    int rc = kafka_conf_open(&conf, type, &dlq->config, settings, err, err_size);
    if (rc)
        return rc;
    if (type == RD_KAFKA_PRODUCER)
        rd_kafka_conf_set_dr_msg_cb(conf, on_delivered);
    if (type == RD_KAFKA_CONSUMER &&
        (rd_kafka_conf_set(conf, "group.id", GROUP, why, sizeof why) ||
         rd_kafka_conf_set(conf, "enable.auto.commit", "false", why, sizeof why))) {
        snprintf(err, err_size, "%s", why);
        rd_kafka_conf_destroy(conf);
        return -EINVAL;
    }
    *out = rd_kafka_new(type, conf, why, sizeof why);
    if (*out)
        return 0;
    snprintf(err, err_size, "%s", why);
    rd_kafka_conf_destroy(conf);
    return -EINVAL;
}

/* How many partitions there are; none without a topic: nothing has died yet. */
static int find_piles(struct kafka_dead_letters *dlq, char *err, size_t err_size)
{
    const char *topic = dlq->config.dead_letter_topic;
    const struct rd_kafka_metadata *metadata;
    rd_kafka_topic_t *handle = rd_kafka_topic_new(dlq->consumer, topic, NULL);
    if (!handle)
        return tell(rd_kafka_last_error(), "topic", topic, err, err_size);
    rd_kafka_resp_err_t code = rd_kafka_metadata(dlq->consumer, 0, handle, &metadata, PATIENCE_MS);
    rd_kafka_topic_destroy(handle);
    if (code)
        return tell(code, "no answer from", dlq->config.brokers, err, err_size);
    code = metadata->topics[0].err;
    dlq->n_piles = code ? 0 : metadata->topics[0].partition_cnt;
    rd_kafka_metadata_destroy(metadata);
    if (code && code != RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
        return tell(code, "topic", topic, err, err_size);
    /* One more: without partitions calloc of 0 may return NULL. */
    dlq->piles = calloc((size_t)dlq->n_piles + 1, sizeof *dlq->piles);
    return dlq->piles ? 0 : -ENOMEM;
}

/* Where to begin: behind what is done, or at what is still there. */
static int find_offsets(struct kafka_dead_letters *dlq, rd_kafka_topic_partition_list_t *list,
                        char *err, size_t err_size)
{
    const char *topic = dlq->config.dead_letter_topic;
    rd_kafka_resp_err_t code = rd_kafka_committed(dlq->consumer, list, PATIENCE_MS);
    for (int i = 0; i < list->cnt && !code; i++) {
        struct pile *pile = &dlq->piles[i];
        rd_kafka_topic_partition_t *from = &list->elems[i];
        int64_t low = 0;
        code = from->err;
        if (!code)
            code = rd_kafka_query_watermark_offsets(dlq->consumer, topic, i, &low, &pile->end,
                                                    PATIENCE_MS);
        /* No offset is negative; one before `low` is of letters that retention has removed. */
        from->offset = from->offset > low ? from->offset : low;
        kafka_done_open(&pile->done, from->offset, from->metadata ? from->metadata : "",
                        from->metadata_size);
        pile->is_finished = from->offset >= pile->end;
        dlq->n_finished += pile->is_finished;
    }
    if (!code)
        code = rd_kafka_assign(dlq->consumer, list);
    return code ? tell(code, "the offsets of", topic, err, err_size) : 0;
}

static int begin(struct kafka_dead_letters *dlq, char *err, size_t err_size)
{
    int rc = find_piles(dlq, err, err_size);
    if (rc || dlq->n_piles == 0)
        return rc;
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(dlq->n_piles);
    rd_kafka_topic_partition_list_add_range(list, dlq->config.dead_letter_topic, 0,
                                            dlq->n_piles - 1);
    rc = find_offsets(dlq, list, err, err_size);
    rd_kafka_topic_partition_list_destroy(list);
    return rc;
}

static int kafka_dead_letters_close(struct dead_letters *base, char *err, size_t err_size)
{
    struct kafka_dead_letters *dlq = self(base);
    int rc = 0;
    if (!dlq)
        return 0;
    if (dlq->current)
        rd_kafka_message_destroy(dlq->current);
    /* Before the consumer goes: it is what commits. */
    if (dlq->n_uncommitted > 0)
        rc = commit(dlq, err, err_size);
    if (dlq->consumer) {
        rd_kafka_consumer_close(dlq->consumer);
        rd_kafka_destroy(dlq->consumer);
    }
    if (dlq->producer)
        rd_kafka_destroy(dlq->producer);
    kafka_config_clear(&dlq->config);
    free(dlq->piles);
    free(dlq);
    return rc;
}

/* Back among the letters one would lose its code; among the outputs it is none. */
static bool is_written(const struct kafka_config *config, const char *name)
{
    return (config->dead_letter_topic && strcmp(config->dead_letter_topic, name) == 0) ||
           (config->output_topic && strcmp(config->output_topic, name) == 0);
}

static int kafka_dead_letters_open(struct dead_letters **out, const struct settings *settings,
                                   const char *to, char *err, size_t err_size)
{
    struct kafka_dead_letters *dlq = calloc(1, sizeof *dlq);
    int rc = -ENOMEM;
    snprintf(err, err_size, "out of memory");
    if (!dlq)
        return rc;
    dlq->base.ops = &kafka_dead_letters;
    dlq->to = to;
    rc = kafka_config_read(&dlq->config, settings, err, err_size);
    if (rc == 0 && to && is_written(&dlq->config, to)) {
        snprintf(err, err_size,
                 "'%.200s' holds dead letters or outputs: name a topic that is an input", to);
        rc = -ENOTSUP;
    }
    if (rc == 0)
        rc = open_client(&dlq->consumer, RD_KAFKA_CONSUMER, dlq, settings, err, err_size);
    if (rc == 0) {
        rd_kafka_poll_set_consumer(dlq->consumer);
        rc = open_client(&dlq->producer, RD_KAFKA_PRODUCER, dlq, settings, err, err_size);
    }
    if (rc == 0)
        rc = begin(dlq, err, err_size);
    if (rc) {
        kafka_dead_letters_close(&dlq->base, NULL, 0);
        return rc;
    }
    *out = &dlq->base;
    return 0;
}

/* ---- reading */

static struct bytes header_of(const rd_kafka_headers_t *headers, const char *name)
{
    const void *value = NULL;
    size_t len = 0;
    if (!headers || rd_kafka_header_get_last(headers, name, &value, &len))
        return (struct bytes){NULL, 0};
    return (struct bytes){value, len};
}

static void read_letter(struct kafka_dead_letters *dlq, struct dead_letter *out)
{
    const rd_kafka_message_t *message = dlq->current;
    rd_kafka_headers_t *headers = NULL;
    rd_kafka_message_headers(message, &headers);
    struct bytes topic = header_of(headers, "_topic"), offset = header_of(headers, "_offset");
    struct bytes partition = header_of(headers, "_partition");
    int len =
        snprintf(dlq->position, sizeof dlq->position, "%s/%d/%lld", dlq->config.dead_letter_topic,
                 (int)message->partition, (long long)message->offset);
    *out = (struct dead_letter){.position = {dlq->position, (size_t)len},
                                .origin = header_of(headers, "_position"),
                                .code = header_of(headers, "_code"),
                                .reason = header_of(headers, "_error"),
                                .value = {message->payload, message->len},
                                .is_empty = !message->payload && !message->key};
    /* Headers anybody can write: only what fits a topic, a partition and an
     * offset is shown as one. */
    if (topic.len > 0 && topic.len < 250 && partition.len < 12 && offset.len < 24) {
        len = snprintf(dlq->origin, sizeof dlq->origin, "%.*s/%.*s/%.*s", (int)topic.len, topic.ptr,
                       (int)partition.len, partition.ptr, (int)offset.len, offset.ptr);
        out->origin = (struct bytes){dlq->origin, (size_t)len};
    }
}

/* The letter given last has been passed by. */
static void leave_current(struct kafka_dead_letters *dlq)
{
    if (!dlq->current)
        return;
    kafka_done_pass(&dlq->piles[dlq->current->partition].done);
    rd_kafka_message_destroy(dlq->current);
    dlq->current = NULL;
}

static void finish_pile(struct kafka_dead_letters *dlq, int number)
{
    dlq->n_finished += !dlq->piles[number].is_finished;
    dlq->piles[number].is_finished = true;
}

/* True: it is one for the caller. */
static bool take_message(struct kafka_dead_letters *dlq, rd_kafka_message_t *message)
{
    struct pile *pile = &dlq->piles[message->partition];
    if (pile->is_finished)
        return false;
    /* Died after this run began, perhaps because of it: putting those back as
     * well would never end. */
    if (message->offset >= pile->end) {
        finish_pile(dlq, message->partition);
        return false;
    }
    bool was_done = kafka_done_has(&pile->done, message->offset);
    kafka_done_meet(&pile->done, message->offset);
    if (was_done)
        kafka_done_note(&pile->done);
    return !was_done;
}

static int kafka_dead_letters_next(struct dead_letters *base, struct dead_letter *out, char *err,
                                   size_t err_size)
{
    struct kafka_dead_letters *dlq = self(base);
    leave_current(dlq);
    while (dlq->n_finished < dlq->n_piles) {
        rd_kafka_message_t *message = rd_kafka_consumer_poll(dlq->consumer, PATIENCE_MS);
        rd_kafka_resp_err_t code = message ? message->err : RD_KAFKA_RESP_ERR__TIMED_OUT;
        if (!code && take_message(dlq, message)) {
            dlq->current = message;
            read_letter(dlq, out);
            return 1;
        }
        if (code == RD_KAFKA_RESP_ERR__PARTITION_EOF)
            finish_pile(dlq, message->partition);
        if (message)
            rd_kafka_message_destroy(message);
        /* __TRANSPORT: one broker was lost, and the library connects again. */
        if (code && code != RD_KAFKA_RESP_ERR__PARTITION_EOF &&
            code != RD_KAFKA_RESP_ERR__TRANSPORT)
            return tell(code, "reading", dlq->config.dead_letter_topic, err, err_size);
    }
    return 0;
}

/* ---- putting back */

/* A copy without what the dead letter added. */
static rd_kafka_headers_t *headers_before(const rd_kafka_message_t *message)
{
    rd_kafka_headers_t *from = NULL, *to = rd_kafka_headers_new(8);
    const char *name;
    const void *value;
    size_t len;
    rd_kafka_message_headers(message, &from);
    for (size_t i = 0; from && !rd_kafka_header_get_all(from, i, &name, &value, &len); i++)
        if (!kafka_record_is_ours(bytes_of(name)))
            (void)kafka_record_add_header(to, bytes_of(name), (struct bytes){value, len});
    return to;
}

/* Where it came from, down to the partition: there its key has its place. */
static void choose_target(const struct kafka_dead_letters *dlq, char *topic, size_t size,
                          int32_t *partition)
{
    rd_kafka_headers_t *headers = NULL;
    rd_kafka_message_headers(dlq->current, &headers);
    struct bytes from = header_of(headers, "_topic"), number = header_of(headers, "_partition");
    char text[12] = "";
    if (dlq->to)
        snprintf(topic, size, "%s", dlq->to);
    else if (from.len > 0 && from.len < size)
        snprintf(topic, size, "%.*s", (int)from.len, from.ptr);
    else
        snprintf(topic, size, "%s", dlq->config.topics->elems[0].topic);
    *partition = RD_KAFKA_PARTITION_UA;
    /* The number counts in that topic only. */
    if (number.len > 0 && number.len < sizeof text && bytes_are(from, topic)) {
        memcpy(text, number.ptr, number.len);
        *partition = (int32_t)strtol(text, NULL, 10);
    }
}

static rd_kafka_resp_err_t deliver(struct kafka_dead_letters *dlq, const char *topic,
                                   int32_t partition)
{
    const rd_kafka_message_t *message = dlq->current;
    static struct delivery delivery; /* outlives a report that comes late */
    rd_kafka_headers_t *headers = headers_before(message);
    delivery = (struct delivery){false, RD_KAFKA_RESP_ERR_NO_ERROR};
    rd_kafka_resp_err_t code = rd_kafka_producev(
        dlq->producer, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_PARTITION(partition),
        RD_KAFKA_V_KEY(message->key, message->key_len),
        RD_KAFKA_V_VALUE(message->payload, message->len), RD_KAFKA_V_HEADERS(headers),
        RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_OPAQUE(&delivery), RD_KAFKA_V_END);
    if (code) {
        rd_kafka_headers_destroy(headers);
        return code;
    }
    /* Up to a minute: a letter counts as put back only when the brokers have it. */
    rd_kafka_flush(dlq->producer, DELIVERY_MS);
    return delivery.is_known ? delivery.err : RD_KAFKA_RESP_ERR__TIMED_OUT;
}

static int kafka_dead_letters_replay(struct dead_letters *base, char *err, size_t err_size)
{
    struct kafka_dead_letters *dlq = self(base);
    struct pile *pile = &dlq->piles[dlq->current->partition];
    char topic[250];
    int32_t partition;
    if (!kafka_done_has_room(&pile->done)) {
        snprintf(
            err, err_size,
            "%s: no room to note one more dead letter between others that stay; first put back or "
            "give up those before it",
            dlq->position);
        return -ENOSPC;
    }
    choose_target(dlq, topic, sizeof topic, &partition);
    rd_kafka_resp_err_t code = deliver(dlq, topic, partition);
    if (code)
        return tell(code, "putting a dead letter back on", topic, err, err_size);
    /* Delivered and not committed: a death here puts it back once more, never loses it. */
    kafka_done_note(&pile->done);
    pile->is_changed = true;
    rd_kafka_message_destroy(dlq->current);
    dlq->current = NULL;
    if (++dlq->n_uncommitted < COMMIT_EVERY)
        return 1;
    int rc = commit(dlq, err, err_size);
    return rc ? rc : 1;
}

static const char *find_place(const struct settings *settings)
{
    return settings_model_from(settings, "kafka.dead_letter_topic", "kafka.topic");
}

const struct dead_letters_ops kafka_dead_letters = {
    .options = options,
    .place = find_place,
    .open = kafka_dead_letters_open,
    .next = kafka_dead_letters_next,
    .replay = kafka_dead_letters_replay,
    .close = kafka_dead_letters_close,
};
