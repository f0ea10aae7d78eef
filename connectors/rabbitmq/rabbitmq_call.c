/*
 * rabbitmq_call.c: see rabbitmq_call.h.
 */
#include "connectors/rabbitmq/rabbitmq_call.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct rabbitmq_call {
    uv_loop_t loop;
    const struct rabbitmq_config *config;
    struct rabbitmq_link *link;
    uv_timer_t timer;
    enum { CALL_CONNECTING, CALL_READY, CALL_GONE } state;
    size_t n_left; /* nodes not yet tried in vain */
    char why[600]; /* it is gone, or takes no messages */
    bool is_answered, is_late, is_open[RABBITMQ_CHANNELS + 1], is_confirming[RABBITMQ_CHANNELS + 1];
    struct rabbitmq_answer answer;
    struct rabbitmq_content content;
    bool has_content;
};

/* ---- events */

static void on_ready(void *ctx)
{
    struct rabbitmq_call *call = ctx;
    if (call->state == CALL_CONNECTING)
        call->state = CALL_READY;
}

static void on_lost(void *ctx, const char *why)
{
    struct rabbitmq_call *call = ctx;
    const char *retries = strstr(why, RABBITMQ_LINK_RETRIES);
    int len = (int)(retries ? (size_t)(retries - why) : strlen(why)); /* which we do not */
    if (call->state != CALL_GONE)
        snprintf(call->why, sizeof call->why, "%.*s", len, why);
    /* Once connected there is no second try; before, every node is tried once. */
    if (call->state == CALL_READY || --call->n_left == 0)
        call->state = CALL_GONE;
}

static void on_failed(void *ctx, int err, const char *why)
{
    struct rabbitmq_call *call = ctx;
    (void)err;
    snprintf(call->why, sizeof call->why, "%s", why);
    call->state = CALL_GONE;
}

static void on_blocked(void *ctx, const char *why)
{
    struct rabbitmq_call *call = ctx;
    snprintf(call->why, sizeof call->why, "%s", why ? why : "");
}

static void note_close(struct rabbitmq_answer *answer, const amqp_channel_close_t *close)
{
    answer->code = close->reply_code;
    rabbitmq_text_copy(answer->text, sizeof answer->text, close->reply_text);
}

static void on_method(void *ctx, uint16_t channel, uint32_t id, const void *decoded)
{
    struct rabbitmq_call *call = ctx;
    /* Nobody has asked for it, so it answers nothing. */
    if (id == AMQP_BASIC_CANCEL_METHOD)
        return;
    call->answer.id = id;
    call->answer.is_nack = id == AMQP_BASIC_NACK_METHOD;
    if (id == AMQP_CHANNEL_CLOSE_METHOD) {
        note_close(&call->answer, decoded);
        call->is_open[channel] = call->is_confirming[channel] = false;
    }
    if (id == AMQP_QUEUE_DECLARE_OK_METHOD) {
        const amqp_queue_declare_ok_t *found = decoded;
        call->answer.message_count = found->message_count;
        call->answer.consumer_count = found->consumer_count;
    }
    call->is_answered = true;
}

static void on_content(void *ctx, uint16_t channel, struct rabbitmq_content *content)
{
    struct rabbitmq_call *call = ctx;
    (void)channel;
    if (content->method == AMQP_BASIC_RETURN_METHOD) { /* its ack follows */
        call->answer.code = content->reply_code;
        snprintf(call->answer.text, sizeof call->answer.text, "%s", content->reply_text);
    } else if (content->method == AMQP_BASIC_GET_OK_METHOD) {
        call->content = *content;
        /* Ours now: the link frees what it finds there. */
        content->properties = content->body = NULL;
        call->has_content = true;
        call->answer.id = AMQP_BASIC_GET_OK_METHOD;
        call->is_answered = true;
    }
}

/* ---- waiting */

static void on_late(uv_timer_t *timer)
{
    struct rabbitmq_call *call = timer->data;
    call->is_late = true;
}

static int wait_for_answer(struct rabbitmq_call *call, char *err, size_t err_size)
{
    call->is_late = false;
    rabbitmq_link_flush(call->link);
    uv_timer_start(&call->timer, on_late, call->config->timeout_ms, 0);
    /* RUN_ONCE may return with nothing done: the conditions say when it is over. */
    while (!call->is_answered && !call->is_late && call->state == CALL_READY)
        uv_run(&call->loop, UV_RUN_ONCE);
    uv_timer_stop(&call->timer);
    if (call->is_answered)
        return 0;
    if (call->state == CALL_READY && !call->why[0])
        snprintf(err, err_size, "rabbitmq %s: no answer within rabbitmq.timeout",
                 rabbitmq_link_where(call->link));
    else
        snprintf(err, err_size, "%s", call->why);
    return -EIO;
}

static void forget(struct rabbitmq_call *call)
{
    free(call->content.properties);
    free(call->content.body);
    call->content = (struct rabbitmq_content){0};
    call->has_content = call->is_answered = false;
    call->answer = (struct rabbitmq_answer){0};
}

static int ask(struct rabbitmq_call *call, uint16_t channel, uint32_t id, const void *method,
               char *err, size_t err_size)
{
    forget(call);
    if (call->state == CALL_READY && rabbitmq_link_method(call->link, channel, id, method) == 0)
        return wait_for_answer(call, err, err_size);
    snprintf(err, err_size, "%s", call->why[0] ? call->why : "out of memory");
    return -EIO;
}

static int ensure_channel(struct rabbitmq_call *call, uint16_t channel, char *err, size_t err_size)
{
    static const amqp_channel_open_t open = {.out_of_band = {0, NULL}};
    if (call->is_open[channel])
        return 0;
    int rc = ask(call, channel, AMQP_CHANNEL_OPEN_METHOD, &open, err, err_size);
    call->is_open[channel] = rc == 0;
    return rc;
}

int rabbitmq_call_do(struct rabbitmq_call *call, uint16_t channel, uint32_t id, const void *method,
                     struct rabbitmq_answer *out, char *err, size_t err_size)
{
    int rc = ensure_channel(call, channel, err, err_size);
    if (rc == 0)
        rc = ask(call, channel, id, method, err, err_size);
    if (rc == 0)
        *out = call->answer;
    if (rc == 0 && id == AMQP_CHANNEL_CLOSE_METHOD)
        call->is_open[channel] = call->is_confirming[channel] = false;
    return rc;
}

int rabbitmq_call_send(struct rabbitmq_call *call, uint16_t channel, uint32_t id,
                       const void *method, char *err, size_t err_size)
{
    if (call->state == CALL_READY && rabbitmq_link_method(call->link, channel, id, method) == 0)
        return 0;
    snprintf(err, err_size, "%s", call->why[0] ? call->why : "out of memory");
    return -EIO;
}

int rabbitmq_call_publish(struct rabbitmq_call *call, uint16_t channel, const char *exchange,
                          const char *routing_key, const amqp_basic_properties_t *properties,
                          struct bytes body, struct rabbitmq_answer *out, char *err,
                          size_t err_size)
{
    static const amqp_confirm_select_t confirm = {.nowait = 0};
    const amqp_basic_publish_t publish = {.exchange = rabbitmq_text(exchange),
                                          .routing_key = rabbitmq_text(routing_key),
                                          .mandatory = 1};
    int rc = ensure_channel(call, channel, err, err_size);
    if (rc == 0 && !call->is_confirming[channel])
        rc = ask(call, channel, AMQP_CONFIRM_SELECT_METHOD, &confirm, err, err_size);
    if (rc)
        return rc;
    call->is_confirming[channel] = true;
    /* The answer of confirm.select would be taken for that of the message. */
    forget(call);
    rc = call->state == CALL_READY
             ? rabbitmq_link_publish(call->link, channel, &publish, properties, body)
             : -ENOTCONN;
    if (rc) {
        snprintf(err, err_size, "%s",
                 rc == -EMSGSIZE ? "the headers are larger than a frame"
                 : call->why[0]  ? call->why
                                 : "out of memory");
        return -EIO;
    }
    rc = wait_for_answer(call, err, err_size);
    if (rc == 0)
        *out = call->answer;
    return rc;
}

struct rabbitmq_content *rabbitmq_call_content(struct rabbitmq_call *call)
{
    return call->has_content ? &call->content : NULL;
}

const struct rabbitmq_link *rabbitmq_call_link(const struct rabbitmq_call *call)
{
    return call->link;
}

uv_loop_t *rabbitmq_call_loop(struct rabbitmq_call *call)
{
    return &call->loop;
}

/* ---- its life */

int rabbitmq_call_open(struct rabbitmq_call **out, const struct rabbitmq_config *config,
                       const struct rabbitmq_urls *urls, const char *what, char *err,
                       size_t err_size)
{
    static const struct rabbitmq_link_events events = {on_ready,   on_lost,   on_failed,
                                                       on_blocked, on_method, on_content};
    struct rabbitmq_call *call = calloc(1, sizeof *call);
    char name[200];
    snprintf(err, err_size, "out of memory");
    if (!call)
        return -ENOMEM;
    if (uv_loop_init(&call->loop) != 0) {
        free(call);
        return -ENOMEM;
    }
    rabbitmq_connection_name(what, name, sizeof name);
    call->config = config;
    call->n_left = urls->n;
    uv_timer_init(&call->loop, &call->timer);
    call->timer.data = call;
    struct rabbitmq_link_options options = {urls, config->tls, name, config->timeout_ms,
                                            config->has_certificate};
    int rc = rabbitmq_link_open(&call->link, &call->loop, &options, &events, call);
    while (rc == 0 && call->state == CALL_CONNECTING)
        uv_run(&call->loop, UV_RUN_ONCE);
    if (rc == 0 && call->state == CALL_GONE) {
        snprintf(err, err_size, "%s", call->why);
        rc = -EIO;
    }
    if (rc) {
        rabbitmq_call_close(call);
        return rc;
    }
    *out = call;
    return 0;
}

void rabbitmq_call_close(struct rabbitmq_call *call)
{
    if (!call)
        return;
    if (call->link)
        rabbitmq_link_close(call->link, NULL, NULL);
    uv_close((uv_handle_t *)&call->timer, NULL);
    /* Until the link has said goodbye, at most a second (rabbitmq_link.c). */
    uv_run(&call->loop, UV_RUN_DEFAULT);
    uv_loop_close(&call->loop);
    forget(call);
    free(call);
}
