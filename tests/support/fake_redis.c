/*
 * fake_redis.c: see fake_redis.h.
 *
 * Threads: one, the loop's.
 * Why:     a command is an array of strings, which is also a reply; so hiredis' own reader reads
 *          the commands.
 */
#include "tests/support/fake_redis.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <hiredis/hiredis.h>
#include <cmocka.h>

struct answer {
    char *text;
    size_t len, room;
};

struct fake_client {
    uv_tcp_t tcp;
    struct fake_redis *fake;
    struct fake_client *next;
    redisReader *reader;
    struct answer drip; /* not yet sent */
    size_t dripped;
    uv_timer_t timer; /* of the drip and of a waiting read */
    int n_handles;
    bool is_asking; /* ASKING was the command before */
    char in[4096];
};

struct write {
    uv_write_t req;
    char text[];
};

static void say(struct answer *answer, const char *format, ...)
{
    va_list args;

    if (answer->room - answer->len < 1024) {
        answer->room += 4096;
        answer->text = realloc(answer->text, answer->room);
    }
    va_start(args, format);
    answer->len += (size_t)vsnprintf(answer->text + answer->len, 1024, format, args);
    va_end(args);
}

static void on_client_closed(uv_handle_t *handle)
{
    struct fake_client *client = handle->data;

    if (--client->n_handles)
        return;
    redisReaderFree(client->reader);
    free(client->drip.text);
    free(client);
}

static void client_close(struct fake_client *client, bool reset)
{
    struct fake_client **at = &client->fake->clients;

    if (uv_is_closing((uv_handle_t *)&client->tcp))
        return;
    while (*at != client)
        at = &(*at)->next;
    *at = client->next;
    uv_close((uv_handle_t *)&client->timer, on_client_closed);
    if (!reset || uv_tcp_close_reset(&client->tcp, on_client_closed))
        uv_close((uv_handle_t *)&client->tcp, on_client_closed);
}

static void on_written(uv_write_t *req, int status)
{
    (void)status;
    free(req->data);
}

static void client_write(struct fake_client *client, const char *text, size_t len)
{
    struct write *write = malloc(sizeof(*write) + len);

    memcpy(write->text, text, len);
    write->req.data = write;
    uv_buf_t buf = uv_buf_init(write->text, (unsigned)len);
    if (uv_write(&write->req, (uv_stream_t *)&client->tcp, &buf, 1, on_written))
        free(write);
}

static void on_drip(uv_timer_t *timer)
{
    struct fake_client *client = timer->data;

    if (client->dripped < client->drip.len)
        client_write(client, client->drip.text + client->dripped++, 1);
    else
        uv_timer_stop(timer);
}

static void client_send(struct fake_client *client, const char *text, size_t len)
{
    if (!client->fake->drip) {
        client_write(client, text, len);
        return;
    }
    client->drip.room = client->drip.len + len;
    client->drip.text = realloc(client->drip.text, client->drip.room + 1);
    memcpy(client->drip.text + client->drip.len, text, len);
    client->drip.len += len;
    uv_timer_start(&client->timer, on_drip, 0, 1);
}

static void on_block_over(uv_timer_t *timer)
{
    client_send(timer->data, "*-1\r\n", 5);
}

static const char *word(const redisReply *command, size_t i)
{
    return i < command->elements ? command->element[i]->str : "";
}

/* Entries of a stream are every n_streams-th, from this one on. */
static size_t stream_of(const struct fake_redis *fake, const char *key)
{
    return fake->n_streams > 1 && strcmp(key, "more") == 0 ? 1 : 0;
}

static size_t entry_of(const struct fake_redis *fake, const char *key, const char *id)
{
    size_t number = (size_t)strtoul(id + strspn(id, "("), NULL, 10) - 1;

    return number * fake->n_streams + stream_of(fake, key);
}

static void say_id(const struct fake_redis *fake, struct answer *out, size_t i)
{
    size_t number = i / fake->n_streams + 1;

    say(out, "$%d\r\n%zu-0\r\n", snprintf(NULL, 0, "%zu-0", number), number);
}

static void say_entry(const struct fake_redis *fake, struct answer *out, size_t i)
{
    say(out, "*2\r\n");
    say_id(fake, out, i);
    say(out, "*2\r\n$4\r\nbody\r\n$%d\r\ntext%zu\r\n", snprintf(NULL, 0, "text%zu", i), i);
}

/* How many of that stream go out. */
static size_t read_stream(struct fake_redis *fake, const char *key, size_t count,
                          struct answer *out)
{
    size_t step = fake->n_streams, first = stream_of(fake, key), n = 0;

    while (first < fake->n_entries && fake->entries[first].delivered)
        first += step;
    while (n < count && first + n * step < fake->n_entries)
        fake->entries[first + n++ * step].delivered = true;
    if (!n)
        return 0;
    say(out, "*2\r\n$%zu\r\n%s\r\n*%zu\r\n", strlen(key), key, n);
    for (size_t i = 0; i < n; i++)
        say_entry(fake, out, first + i * step);
    return n;
}

/* XREADGROUP GROUP group consumer COUNT n [BLOCK ms] STREAMS key ... > ... */
static void do_read(struct fake_client *client, const redisReply *command, struct answer *out)
{
    struct fake_redis *fake = client->fake;
    bool blocks = strcmp(word(command, 6), "BLOCK") == 0;
    size_t first = blocks ? 9 : 7, n_keys = (command->elements - first) / 2;
    size_t n = 0, n_streams = 0, count = strtoul(word(command, 5), NULL, 10);
    struct answer streams = {0};

    for (size_t i = 0; i < n_keys; i++) {
        size_t got = read_stream(fake, word(command, first + i), count, &streams);
        n += got;
        n_streams += got > 0;
    }
    fake->n_most = n > fake->n_most ? n : fake->n_most;
    if (n)
        say(out, "*%zu\r\n", n_streams);
    else if (blocks && !fake->drip)
        uv_timer_start(&client->timer, on_block_over, 100, 0);
    else
        say(out, "*-1\r\n");
    for (size_t at = 0; at < streams.len; at += 512)
        say(out, "%.512s", streams.text + at);
    free(streams.text);
}

static bool is_pending(const struct fake_redis *fake, size_t i)
{
    return i < fake->n_entries && fake->entries[i].delivered && !fake->entries[i].acked;
}

static void do_pending(struct fake_redis *fake, const redisReply *command, struct answer *out)
{
    bool idle = strcasecmp(word(command, 3), "IDLE") == 0;
    const char *cursor = word(command, idle ? 5 : 3), *key = word(command, 1);
    size_t step = fake->n_streams, n = 0;
    size_t first = cursor[0] == '-' ? stream_of(fake, key) : entry_of(fake, key, cursor) + step;

    for (size_t i = first; i < fake->n_entries && !idle; i += step)
        n += is_pending(fake, i);
    say(out, "*%zu\r\n", n);
    for (size_t i = first; i < fake->n_entries && !idle; i += step) {
        if (!is_pending(fake, i))
            continue;
        say(out, "*4\r\n");
        say_id(fake, out, i);
        say(out, "$3\r\none\r\n:100000\r\n:1\r\n");
    }
}

static void do_claim(struct fake_redis *fake, const redisReply *command, struct answer *out)
{
    const char *key = word(command, 1);
    size_t n = 0;

    for (size_t i = 5; i < command->elements; i++)
        n += is_pending(fake, entry_of(fake, key, word(command, i)));
    say(out, "*%zu\r\n", n);
    for (size_t i = 5; i < command->elements; i++)
        if (is_pending(fake, entry_of(fake, key, word(command, i))))
            say_entry(fake, out, entry_of(fake, key, word(command, i)));
}

/* The last word of a published value is "out:textN". */
static void publish(struct fake_redis *fake, const redisReply *command)
{
    for (size_t i = 0; i < command->elements; i++) {
        size_t n = 0;
        if (sscanf(word(command, i), "out:text%zu", &n) == 1 && n < FAKE_ENTRIES)
            fake->entries[n].published++;
    }
}

static void do_script(struct fake_redis *fake, const redisReply *command, struct answer *out)
{
    size_t n_keys = strtoul(word(command, 2), NULL, 10);
    size_t i = entry_of(fake, word(command, 3), word(command, 3 + n_keys + 2));
    bool renews = strstr(word(command, 1), "JUSTID") != NULL;

    if (renews || !is_pending(fake, i)) {
        say(out, ":0\r\n");
        return;
    }
    publish(fake, command);
    fake->entries[i].acked = true;
    say(out, ":1\r\n");
}

static void do_command(struct fake_client *client, const redisReply *command, struct answer *out)
{
    struct fake_redis *fake = client->fake;
    const char *name = word(command, 0);

    if (strcmp(name, "PING") == 0) {
        say(out, "+PONG\r\n");
    } else if (strcmp(name, "CLIENT") == 0 && strcmp(word(command, 1), "ID") == 0) {
        say(out, ":%d\r\n", ++fake->next_client);
    } else if (strcmp(name, "XGROUP") == 0) {
        say(out, fake->group ? "-BUSYGROUP exists\r\n" : "+OK\r\n");
        fake->group = true;
    } else if (strcmp(name, "SCRIPT") == 0) {
        say(out, "$40\r\n%040d\r\n", 7);
    } else if (strcmp(name, "CONFIG") == 0) {
        say(out, "*2\r\n$18\r\nproto-max-bulk-len\r\n$9\r\n536870912\r\n");
    } else if (strcmp(name, "XREADGROUP") == 0) {
        do_read(client, command, out);
    } else if (strcmp(name, "XPENDING") == 0) {
        do_pending(fake, command, out);
    } else if (strcmp(name, "XCLAIM") == 0) {
        do_claim(fake, command, out);
    } else if (strcmp(name, "XRANGE") == 0) {
        say(out, "*1\r\n:1\r\n");
    } else if (strncmp(name, "EVAL", 4) == 0) {
        do_script(fake, command, out);
    } else if (strcmp(name, "XADD") == 0) {
        publish(fake, command);
        say(out, "$3\r\n9-9\r\n");
    } else if (strcmp(name, "XACK") == 0) {
        for (size_t i = 3; i < command->elements; i++)
            fake->entries[entry_of(fake, word(command, 1), word(command, i))].acked = true;
        say(out, ":1\r\n");
    } else {
        say(out, "+OK\r\n");
    }
}

static struct fake_rule *rule_for(struct fake_redis *fake, const char *name)
{
    for (size_t i = 0; i < fake->n_rules; i++) {
        struct fake_rule *rule = &fake->rules[i];
        if (rule->times && (rule->command[0] == '*' || strcmp(rule->command, name) == 0)) {
            rule->times -= rule->times > 0;
            return rule;
        }
    }
    return NULL;
}

/* Of a node of a cluster that does not serve the slot: is it not for this client? */
static bool is_elsewhere(struct fake_client *client, const char *name)
{
    struct fake_redis *fake = client->fake;
    bool is_asking = client->is_asking, is_about_keys = name[0] == 'X' || name[0] == 'E';

    client->is_asking = strcmp(name, "ASKING") == 0;
    if (!fake->elsewhere || !is_about_keys)
        return false;
    fake->n_asked += is_asking;
    return !is_asking;
}

static void client_command(struct fake_client *client, const redisReply *command)
{
    const struct fake_rule *rule = rule_for(client->fake, word(command, 0));
    struct answer out = {0};

    client->fake->n_commands++;
    if (is_elsewhere(client, word(command, 0))) {
        client_send(client, client->fake->elsewhere, strlen(client->fake->elsewhere));
        return;
    }
    if (rule && rule->action == FAKE_SAY) {
        client_send(client, rule->text, strlen(rule->text));
        return;
    }
    if (rule && rule->action == FAKE_SILENT)
        return;
    if (!rule || rule->action != FAKE_RESET)
        do_command(client, command, &out);
    if (rule && rule->action == FAKE_DO_HALF)
        client_write(client, out.text, out.len / 2);
    else if ((!rule || rule->action == FAKE_DO_TWICE) && out.len)
        client_send(client, out.text, out.len);
    if (rule && rule->action == FAKE_DO_TWICE)
        client_send(client, "+OK\r\n+OK\r\n", 10);
    else if (rule && rule->action == FAKE_DO_HALF)
        client_close(client, false); /* a reset would throw the half away */
    else if (rule)
        client_close(client, rule->action != FAKE_DO_CLOSE);
    free(out.text);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct fake_client *client = handle->data;

    (void)suggested;
    *buf = uv_buf_init(client->in, sizeof(client->in));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct fake_client *client = stream->data;
    void *command = NULL;

    if (n < 0) {
        client_close(client, false);
        return;
    }
    redisReaderFeed(client->reader, buf->base, (size_t)n);
    while (!uv_is_closing((uv_handle_t *)stream)) {
        if (redisReaderGetReply(client->reader, &command) != REDIS_OK)
            fail_msg("the connector does not speak RESP");
        if (!command)
            return;
        client_command(client, command);
        freeReplyObject(command);
    }
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct fake_redis *fake = listener->data;
    struct fake_client *client = calloc(1, sizeof(*client));

    assert_int_equal(status, 0);
    uv_tcp_init(fake->loop, &client->tcp);
    uv_timer_init(fake->loop, &client->timer);
    client->tcp.data = client;
    client->timer.data = client;
    client->n_handles = 2;
    client->fake = fake;
    client->reader = redisReaderCreate();
    client->next = fake->clients;
    fake->clients = client;
    fake->n_connections++;
    assert_int_equal(uv_accept(listener, (uv_stream_t *)&client->tcp), 0);
    uv_read_start((uv_stream_t *)&client->tcp, on_alloc, on_read);
}

void fake_redis_open(struct fake_redis *fake, uv_loop_t *loop, int port, size_t n_entries)
{
    struct sockaddr_in address;

    assert_true(n_entries <= FAKE_ENTRIES);
    *fake = (struct fake_redis){.loop = loop, .port = port, .n_streams = 1, .n_entries = n_entries};
    uv_ip4_addr("127.0.0.1", port, &address);
    uv_tcp_init(loop, &fake->listener);
    fake->listener.data = fake;
    assert_int_equal(uv_tcp_bind(&fake->listener, (const struct sockaddr *)&address, 0), 0);
    assert_int_equal(uv_listen((uv_stream_t *)&fake->listener, 64, on_connection), 0);
}

void fake_redis_close(struct fake_redis *fake)
{
    while (fake->clients)
        client_close(fake->clients, false);
    uv_close((uv_handle_t *)&fake->listener, NULL);
}

void fake_redis_rule(struct fake_redis *fake, const char *command, enum fake_action action,
                     const char *text, int times)
{
    assert_true(fake->n_rules < sizeof(fake->rules) / sizeof(fake->rules[0]));
    fake->rules[fake->n_rules++] = (struct fake_rule){command, action, text, times};
}

bool fake_redis_all_acked(const struct fake_redis *fake)
{
    for (size_t i = 0; i < fake->n_entries; i++)
        if (!fake->entries[i].acked)
            return false;
    return true;
}
