/*
 * rabbitmq_dead_letters.c: reads the queue of dead letters and puts letters back.
 *
 * Owns:    the letters that were got and are not acked: the server hides them until this ends.
 * Threads: the calling one.
 * Why:     AMQP cannot look into a queue, so letters are taken and given back at the end. A letter
 *          that goes back to its queue is confirmed there before it is acked here: a crash between
 *          the two repeats one letter.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/dead_letters.h"
#include "connectors/rabbitmq/rabbitmq.h"
#include "connectors/rabbitmq/rabbitmq_call.h"
#include "connectors/rabbitmq/rabbitmq_message.h"
#include "connectors/rabbitmq/rabbitmq_record.h"

enum { CHANNEL_READ = 1, CHANNEL_WRITE = 2 };

struct rabbitmq_dead_letters {
    struct dead_letters base;
    struct rabbitmq_config config;
    struct rabbitmq_call *call;
    struct rabbitmq_message *current;
    const char *to;
    size_t n_left; /* that were there when this began: those that die again meanwhile are not met */
    bool has_acked;
};

static struct rabbitmq_dead_letters *self(struct dead_letters *dlq)
{
    return (struct rabbitmq_dead_letters *)dlq;
}

static struct bytes text_in(const amqp_table_t *table, const char *name)
{
    const amqp_field_value_t *value = rabbitmq_table_find(table, name);
    bool is_text = value && value->kind == AMQP_FIELD_KIND_UTF8;
    return is_text ? rabbitmq_bytes_of(value->value.bytes) : (struct bytes){NULL, 0};
}

/* What the broker noted when it dead-lettered the message itself, the last time. */
static struct bytes death_of(const struct rabbitmq_message *message, const char *name)
{
    const amqp_field_value_t *deaths = rabbitmq_table_find(&message->properties.headers, "x-death");
    bool is_list = deaths && deaths->kind == AMQP_FIELD_KIND_ARRAY &&
                   deaths->value.array.num_entries > 0 &&
                   deaths->value.array.entries[0].kind == AMQP_FIELD_KIND_TABLE;
    return is_list ? text_in(&deaths->value.array.entries[0].value.table, name)
                   : (struct bytes){NULL, 0};
}

static struct bytes header_or_death(const struct rabbitmq_message *message, const char *header,
                                    const char *death)
{
    struct bytes text = text_in(&message->properties.headers, header);
    return text.ptr ? text : death_of(message, death);
}

/* ---- opening and closing */

static int refused(const struct rabbitmq_dead_letters *dlq, const char *what, const char *queue,
                   const struct rabbitmq_answer *answer, char *err, size_t err_size)
{
    snprintf(err, err_size, "rabbitmq %s refuses %s queue %.100s: %s",
             rabbitmq_link_where(rabbitmq_call_link(dlq->call)), what, queue, answer->text);
    return -EACCES;
}

/* How many there are. A queue that does not exist has none. */
static int count_letters(struct rabbitmq_dead_letters *dlq, char *err, size_t err_size)
{
    const char *queue = dlq->config.dead_letter_queue;
    amqp_queue_declare_t declare = {.queue = rabbitmq_text(queue), .passive = 1};
    struct rabbitmq_answer answer;
    int rc = rabbitmq_call_do(dlq->call, CHANNEL_READ, AMQP_QUEUE_DECLARE_METHOD, &declare, &answer,
                              err, err_size);
    if (rc)
        return rc;
    if (answer.code && answer.code != AMQP_NOT_FOUND)
        return refused(dlq, "to look at", queue, &answer, err, err_size);
    dlq->n_left = answer.code ? 0 : answer.message_count;
    return 0;
}

/* What was got and not acked goes back before the channel closes, and its end is confirmed. */
static int give_back(struct rabbitmq_dead_letters *dlq, char *err, size_t err_size)
{
    amqp_basic_nack_t nack = {.delivery_tag = 0, .multiple = 1, .requeue = 1};
    amqp_channel_close_t bye = {.reply_code = 200, .reply_text = rabbitmq_text("done")};
    struct rabbitmq_answer answer;
    int rc =
        rabbitmq_call_send(dlq->call, CHANNEL_READ, AMQP_BASIC_NACK_METHOD, &nack, err, err_size);
    if (rc == 0)
        rc = rabbitmq_call_do(dlq->call, CHANNEL_READ, AMQP_CHANNEL_CLOSE_METHOD, &bye, &answer,
                              err, err_size);
    return dlq->has_acked ? rc : 0;
}

static int rabbitmq_dead_letters_close(struct dead_letters *base, char *err, size_t err_size)
{
    struct rabbitmq_dead_letters *dlq = self(base);
    char unheard[400];
    int rc = 0;
    if (!dlq)
        return 0;
    if (dlq->call)
        rc = give_back(dlq, err ? err : unheard, err ? err_size : sizeof unheard);
    /* Given back already, like all that were not acked. */
    rabbitmq_message_close(dlq->current);
    rabbitmq_call_close(dlq->call);
    rabbitmq_config_clear(&dlq->config);
    free(dlq);
    return rc;
}

static int rabbitmq_dead_letters_open(struct dead_letters **out, const struct settings *settings,
                                      const char *to, char *err, size_t err_size)
{
    struct rabbitmq_dead_letters *dlq = calloc(1, sizeof *dlq);
    snprintf(err, err_size, "out of memory");
    if (!dlq)
        return -ENOMEM;
    dlq->base.ops = &rabbitmq_dead_letters;
    dlq->to = to;
    int rc = rabbitmq_config_read(&dlq->config, settings, err, err_size);
    const struct rabbitmq_config *config = &dlq->config;
    if (rc == 0 && to &&
        (strcmp(to, config->dead_letter_queue) == 0 ||
         (!*config->output_exchange && strcmp(to, config->output_queue) == 0))) {
        snprintf(err, err_size,
                 "'%.200s' holds dead letters or outputs: name a queue that is an input", to);
        rc = -ENOTSUP;
    }
    if (rc == 0 && !to && !rabbitmq_urls_meet(&config->urls, &config->output_urls)) {
        snprintf(err, err_size,
                 "the dead letters are on rabbitmq.output_url, another server than rabbitmq.url "
                 "with the "
                 "input: name a queue on the former with --to");
        rc = -EINVAL;
    }
    if (rc == 0)
        rc = rabbitmq_call_open(&dlq->call, config, &config->output_urls, "dlq", err, err_size);
    if (rc == 0)
        rc = count_letters(dlq, err, err_size);
    if (rc) {
        rabbitmq_dead_letters_close(&dlq->base, NULL, 0);
        return rc;
    }
    *out = &dlq->base;
    return 0;
}

/* ---- one letter after the other */

static int rabbitmq_dead_letters_next(struct dead_letters *base, struct dead_letter *out, char *err,
                                      size_t err_size)
{
    struct rabbitmq_dead_letters *dlq = self(base);
    const char *queue = dlq->config.dead_letter_queue;
    amqp_basic_get_t get = {.queue = rabbitmq_text(queue)};
    struct rabbitmq_answer answer;
    rabbitmq_message_close(dlq->current);
    dlq->current = NULL;
    if (!dlq->n_left)
        return 0;
    int rc = rabbitmq_call_do(dlq->call, CHANNEL_READ, AMQP_BASIC_GET_METHOD, &get, &answer, err,
                              err_size);
    if (rc)
        return rc;
    if (answer.code)
        return refused(dlq, "to read", queue, &answer, err, err_size);
    struct rabbitmq_content *content = rabbitmq_call_content(dlq->call);
    if (!content)
        return 0;
    /* Those that are got stay hidden until the end, so none is met twice. */
    dlq->n_left--;
    dlq->current = rabbitmq_message_open(NULL, queue, content);
    if (!dlq->current) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    const struct rabbitmq_message *message = dlq->current;
    *out = (struct dead_letter){
        .position = message->taken.message.position,
        .origin = header_or_death(message, "_position", "queue"),
        .code = header_or_death(message, "_code", "reason"),
        .reason = text_in(&message->properties.headers, "_error"),
        /* Its headers cannot be read, so it would not go back as it came. */
        .is_empty = message->taken.message.problem.code != NULL,
    };
    out->value =
        message->taken.message.value.ptr ? message->taken.message.value : (struct bytes){"", 0};
    return 1;
}

/* Where a letter goes back to: the queue that it was in. */
static int choose_target(const struct rabbitmq_dead_letters *dlq, char *out, size_t size)
{
    struct bytes queue = header_or_death(dlq->current, "_queue", "queue");
    if (dlq->to)
        queue = bytes_of(dlq->to);
    else if (!queue.len)
        queue = bytes_of(dlq->config.queue);
    if (queue.len >= size)
        return -EINVAL;
    snprintf(out, size, "%.*s", (int)queue.len, queue.ptr);
    return 0;
}

static int rabbitmq_dead_letters_replay(struct dead_letters *base, char *err, size_t err_size)
{
    struct rabbitmq_dead_letters *dlq = self(base);
    const struct rabbitmq_message *message = dlq->current;
    amqp_basic_ack_t ack = {.delivery_tag = message->tag};
    struct rabbitmq_answer answer;
    amqp_basic_properties_t properties;
    struct bytes body =
        message->taken.message.value.ptr ? message->taken.message.value : (struct bytes){"", 0};
    char queue[256];
    size_t n = (size_t)message->properties.headers.num_entries;
    amqp_table_entry_t *headers = calloc(n + 1, sizeof *headers);
    if (!headers || choose_target(dlq, queue, sizeof queue) != 0) {
        free(headers);
        snprintf(err, err_size,
                 headers ? "the dead letter names a queue of more than 255 bytes"
                         : "out of memory");
        return headers ? -EINVAL : -ENOMEM;
    }
    rabbitmq_record_restore(&message->properties, headers, &properties);
    int rc = rabbitmq_call_publish(dlq->call, CHANNEL_WRITE, "", queue, &properties, body, &answer,
                                   err, err_size);
    free(headers);
    if (rc)
        return rc;
    if (answer.is_nack)
        snprintf(answer.text, sizeof answer.text, "it is full, or a replica is away");
    if (answer.code || answer.is_nack)
        return refused(dlq, "to put a dead letter into", queue, &answer, err, err_size);
    rc = rabbitmq_call_send(dlq->call, CHANNEL_READ, AMQP_BASIC_ACK_METHOD, &ack, err, err_size);
    /* From here on a close that is not confirmed has to be told: the letter
     * may be in both queues. */
    dlq->has_acked = true;
    return rc ? rc : 1;
}

static const char *const options[] = {
    "rabbitmq.url",
    "rabbitmq.output_url",
    "rabbitmq.output_exchange",
    "rabbitmq.queue",
    "rabbitmq.output_queue",
    "rabbitmq.dead_letter_queue",
    "rabbitmq.timeout",
    "rabbitmq.tls_ca",
    "rabbitmq.tls_cert",
    "rabbitmq.tls_key",
    NULL,
};

static const char *find_place(const struct settings *settings)
{
    return settings_model_from(settings, "rabbitmq.dead_letter_queue", "rabbitmq.queue");
}

const struct dead_letters_ops rabbitmq_dead_letters = {
    .options = options,
    .place = find_place,
    .open = rabbitmq_dead_letters_open,
    .next = rabbitmq_dead_letters_next,
    .replay = rabbitmq_dead_letters_replay,
    .close = rabbitmq_dead_letters_close,
};
