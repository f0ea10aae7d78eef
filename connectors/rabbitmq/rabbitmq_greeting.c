/*
 * rabbitmq_greeting.c: channel 0 of a connection.
 *
 * Owns:    login (PLAIN, or EXTERNAL by certificate), what is agreed on, the vhost, memory alarms,
 *          what the server says as it hangs up and whether it is worth trying again.
 * Refuses: mechanisms that send a password another way; to end a connection: it says in what the
 *          method ends, and rabbitmq_link.c acts on that.
 * Threads: the loop thread.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/rabbitmq/rabbitmq_link_internal.h"

#define HEARTBEAT_S 10 /* what we propose; the server may ask for a shorter one */

#define YES(word)                                                                                  \
    {                                                                                              \
        {sizeof(word) - 1, word},                                                                  \
        {                                                                                          \
            .kind = AMQP_FIELD_KIND_BOOLEAN, .value.boolean = 1                                    \
        }                                                                                          \
    }

static amqp_table_entry_t text_entry(const char *name, const char *text)
{
    amqp_table_entry_t entry = {.key = rabbitmq_text(name)};
    entry.value.kind = AMQP_FIELD_KIND_UTF8;
    entry.value.value.bytes = rabbitmq_text(text);
    return entry;
}

static const struct rabbitmq_url *url_of(const struct rabbitmq_link *link)
{
    return &link->urls->items[link->url_at];
}

static int say(struct rabbitmq_link *link, uint32_t id, const void *method)
{
    return rabbitmq_put_method(tcp_output(link->tcp), 0, id, method);
}

static struct rabbitmq_ending lost(const char *why)
{
    struct rabbitmq_ending ending = {.in = ENDS_LOST};
    snprintf(ending.why, sizeof ending.why, "%s", why);
    return ending;
}

static struct rabbitmq_ending refused(int err, const char *why)
{
    struct rabbitmq_ending ending = {.in = ENDS_REFUSED, .err = err};
    snprintf(ending.why, sizeof ending.why, "%s", why);
    return ending;
}

static const struct rabbitmq_ending nothing = {.in = ENDS_NOT};

/* ---- what the server says of itself */

/* Without memory they stay unknown. */
static void note_server(struct rabbitmq_link *link, const amqp_table_t *server)
{
    const amqp_field_value_t *version = rabbitmq_table_find(server, "version");
    const amqp_field_value_t *can = rabbitmq_table_find(server, "capabilities");
    struct buffer words = {0};
    free(link->version);
    free(link->capabilities);
    link->version = NULL;
    if (version && version->kind == AMQP_FIELD_KIND_UTF8)
        link->version = strndup(version->value.bytes.bytes, version->value.bytes.len);
    /* A space before the first word, too: rabbitmq_link_has looks for one on both sides. */
    buffer_put_text(&words, " ");
    for (int i = 0; can && can->kind == AMQP_FIELD_KIND_TABLE && i < can->value.table.num_entries;
         i++) {
        const amqp_table_entry_t *entry = &can->value.table.entries[i];
        if (entry->value.kind != AMQP_FIELD_KIND_BOOLEAN || !entry->value.value.boolean)
            continue;
        buffer_put(&words, entry->key.bytes, entry->key.len);
        buffer_put_text(&words, " ");
    }
    buffer_put(&words, "", 1);
    link->capabilities = words.ptr;
    if (words.status) {
        buffer_close(&words);
        link->capabilities = NULL;
    }
}

/* ---- login */

/* Whether a list of words with spaces between has that one. */
static bool has_word(amqp_bytes_t list, const char *word)
{
    const char *at = list.bytes, *end = at + list.len;
    while (at < end) {
        const char *space = memchr(at, ' ', (size_t)(end - at));
        size_t len = (size_t)((space ? space : end) - at);
        if (bytes_are((struct bytes){at, len}, word))
            return true;
        at += len + 1;
    }
    return false;
}

static struct rabbitmq_ending answer_start(struct rabbitmq_link *link,
                                           const amqp_connection_start_t *start)
{
    amqp_table_entry_t can[] = {YES("publisher_confirms"), YES("basic.nack"),
                                YES("consumer_cancel_notify"), YES("connection.blocked"),
                                YES("authentication_failure_close")};
    const struct rabbitmq_url *url = url_of(link);
    const char *user = url->user ? url->user : "guest";
    const char *password = url->user ? url->password : "guest";
    amqp_table_entry_t properties[4] = {text_entry("product", "embedmill"),
                                        text_entry("connection_name", link->name),
                                        text_entry("platform", "C")};
    /* A certificate names the user, so none is named in the URL. */
    bool is_external = !url->user && url->tls && link->has_certificate;
    const char *mechanism = is_external ? "EXTERNAL" : "PLAIN";
    struct buffer login = {0};
    char why[160];
    note_server(link, &start->server_properties);
    if (!has_word(start->mechanisms, mechanism)) {
        /* Bytes of the frame, without a NUL of their own. */
        snprintf(why, sizeof why, "the server does not take SASL %s; it offers %.*s", mechanism,
                 start->mechanisms.len < 80 ? (int)start->mechanisms.len : 80,
                 start->mechanisms.len ? (const char *)start->mechanisms.bytes : "");
        return refused(-EACCES, why);
    }
    properties[3] = (amqp_table_entry_t){.key = rabbitmq_text("capabilities")};
    properties[3].value.kind = AMQP_FIELD_KIND_TABLE;
    properties[3].value.value.table = (amqp_table_t){sizeof can / sizeof can[0], can};
    /* SASL PLAIN (RFC 4616): no one to act for, the user, the password, NULs between. */
    if (!is_external) {
        buffer_put(&login, "", 1);
        buffer_put_text(&login, user);
        buffer_put(&login, "", 1);
        buffer_put_text(&login, password);
    }
    amqp_connection_start_ok_t ok = {.client_properties = {4, properties},
                                     .mechanism = rabbitmq_text(mechanism),
                                     .response = {login.len, login.ptr},
                                     .locale = rabbitmq_text("en_US")};
    int rc = login.status ? login.status : say(link, AMQP_CONNECTION_START_OK_METHOD, &ok);
    /* Its copy in the output of tcp stays until it is overwritten. */
    if (login.ptr)
        explicit_bzero(login.ptr, login.room);
    buffer_close(&login);
    return rc ? lost("no memory, or a password of more than 7 KB") : nothing;
}

static struct rabbitmq_ending answer_tune(struct rabbitmq_link *link,
                                          const amqp_connection_tune_t *tune)
{
    amqp_connection_tune_ok_t ok = {.frame_max = RABBITMQ_FRAME_MAX, .heartbeat = HEARTBEAT_S};
    amqp_connection_open_t open = {.virtual_host = rabbitmq_text(url_of(link)->vhost)};
    ok.channel_max = RABBITMQ_CHANNELS;
    /* 0 is no limit of the server's: then ours counts. */
    if (tune->frame_max && tune->frame_max < RABBITMQ_FRAME_MAX)
        ok.frame_max = tune->frame_max;
    if (tune->heartbeat && tune->heartbeat < HEARTBEAT_S)
        ok.heartbeat = tune->heartbeat;
    if (ok.frame_max < 4096 || (tune->channel_max && tune->channel_max < RABBITMQ_CHANNELS))
        return refused(-EPROTO,
                       "the server allows fewer than 3 channels (channel_max) or frames below "
                       "4096 bytes (frame_max); raise them");
    link->frame_max = ok.frame_max;
    link->heartbeat_ms = ok.heartbeat * UINT64_C(1000);
    bool is_sent = say(link, AMQP_CONNECTION_TUNE_OK_METHOD, &ok) == 0 &&
                   say(link, AMQP_CONNECTION_OPEN_METHOD, &open) == 0;
    return is_sent ? nothing : lost("no memory");
}

/* ---- the end */

/* Where it stands in the URL, and what it means that we are not let in. */
static const char *advice_on(uint16_t code, const char *text)
{
    if (code == AMQP_ACCESS_REFUSED && strstr(text, "loopback"))
        return "the user guest may log in from the server's own machine only; name another one in "
               "the URL";
    if (code == AMQP_ACCESS_REFUSED)
        return "correct user and password in the URL, or add the user (rabbitmqctl add_user)";
    if (strstr(text, "not found"))
        return "correct the vhost in the URL, or create it (rabbitmqctl add_vhost)";
    return "allow this user the vhost (rabbitmqctl set_permissions)";
}

static struct rabbitmq_ending on_server_close(struct rabbitmq_link *link,
                                              const amqp_connection_close_t *close)
{
    static const amqp_connection_close_ok_t ok = {0};
    char text[260], why[600];
    bool is_greeting = link->phase == PHASE_GREETING;
    link->close_code = is_greeting ? 0 : close->reply_code;
    rabbitmq_text_copy(text, sizeof text, close->reply_text);
    /* The server waits for it before it hangs up. */
    say(link, AMQP_CONNECTION_CLOSE_OK_METHOD, &ok);
    tcp_flush(link->tcp);
    /* A limit, a node that is down and a vhost being deleted pass by
     * themselves; the rest does not. */
    bool is_refused = close->reply_code == AMQP_ACCESS_REFUSED ||
                      (close->reply_code == AMQP_NOT_ALLOWED && !strstr(text, "limit") &&
                       !strstr(text, "down") && !strstr(text, "deleted"));
    if (is_greeting && is_refused) {
        snprintf(why, sizeof why, "%s (%s)", text, advice_on(close->reply_code, text));
        return refused(-EACCES, why);
    }
    bool is_internal = close->reply_code == AMQP_INTERNAL_ERROR;
    snprintf(why, sizeof why, "the server closes the connection: %u %s%s",
             (unsigned)close->reply_code, text,
             is_internal ? " (its log says why; a quorum queue without a leader answers so: "
                           "rabbitmq-queues quorum_status)"
                         : "");
    return lost(why);
}

static void on_alarm(struct rabbitmq_link *link, const amqp_connection_blocked_t *blocked)
{
    char why[HEALTH_WHY_SIZE];
    snprintf(
        why, sizeof why,
        "rabbitmq %.400s takes no messages: %.*s (it frees memory or disk, or raise its limits)",
        link->where, (int)(blocked->reason.len < 200 ? blocked->reason.len : 200),
        blocked->reason.len ? (const char *)blocked->reason.bytes : "");
    link->events->on_blocked(link->ctx, why);
}

struct rabbitmq_ending rabbitmq_greeting_method(struct rabbitmq_link *link, uint32_t id,
                                                const void *decoded)
{
    bool is_greeting = link->phase == PHASE_GREETING;
    if (id == AMQP_CONNECTION_CLOSE_OK_METHOD && link->phase == PHASE_CLOSING)
        return (struct rabbitmq_ending){.in = ENDS_CLOSED};
    if (id == AMQP_CONNECTION_CLOSE_METHOD)
        return on_server_close(link, decoded);
    if (id == AMQP_CONNECTION_START_METHOD && is_greeting)
        return answer_start(link, decoded);
    if (id == AMQP_CONNECTION_TUNE_METHOD && is_greeting)
        return answer_tune(link, decoded);
    /* Without a tune before it nothing was agreed on. */
    if (id == AMQP_CONNECTION_OPEN_OK_METHOD && is_greeting && link->heartbeat_ms)
        return (struct rabbitmq_ending){.in = ENDS_READY};
    if (id == AMQP_CONNECTION_BLOCKED_METHOD && link->phase == PHASE_READY)
        on_alarm(link, decoded);
    else if (id == AMQP_CONNECTION_UNBLOCKED_METHOD && link->phase == PHASE_READY)
        link->events->on_blocked(link->ctx, NULL);
    else if (link->phase != PHASE_CLOSING)
        return lost("an unexpected method of the connection");
    return nothing;
}
