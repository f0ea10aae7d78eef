/*
 * fuzz_redis.c: any bytes as the replies of a Redis server, to the real source and sink on a real
 * loop. Run by scripts/fuzz.
 *
 * Input: each time the connector has sent something, a byte says how it is answered: 0 as a server
 * of one entry would, else by as many of the bytes that follow. When they are used up, or nobody
 * says anything any more, the connector is closed. What it gave must come back to it, and it must
 * end. An odd last byte: the URL is that of a cluster, of which we are all nodes; then 1 and 2 mean
 * MOVED and ASK to ourselves.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "connectors/connector.h"
#include "connectors/redis/redis_slot.h"
#include "connectors/redis/redis_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { QUIET_TURNS = 3, TURNS_MAX = 10000, CLIENTS = 64, RECORDS = 64 };
/* Names of hosts are looked up by another thread, addresses too. */
enum { CLUSTER_TURNS = 10, CLUSTER_NAP_US = 200 };

struct client {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_pipe_t pipe;
        uv_tcp_t tcp;
    } uv;
    char in[65536];
    bool used;
};

struct output {
    struct record record;
    struct part part;
    bool used;
};

static struct {
    uv_loop_t loop;
    uv_pipe_t listener;
    uv_tcp_t tcp_listener; /* of the cluster */
    char path[100], url[120], cluster_url[120], slots[200], moved_reply[80], ask_reply[80];
    struct client clients[CLIENTS];
    struct output outputs[RECORDS];
    const uint8_t *at, *end;
    struct source *source;
    struct sink *sink;
    bool is_cluster, moved, failed, sink_closed, source_closed;
} rig;

static void expect(int is_so)
{
    if (!is_so)
        abort();
}

static void on_client_closed(uv_handle_t *handle)
{
    ((struct client *)handle->data)->used = false;
}

static void client_close(struct client *client)
{
    if (!uv_is_closing(&client->uv.handle))
        uv_close(&client->uv.handle, on_client_closed);
}

static void on_alloc(uv_handle_t *handle, size_t wanted, uv_buf_t *buf)
{
    struct client *client = handle->data;
    (void)wanted;
    *buf = uv_buf_init(client->in, sizeof client->in - 1);
}

/* What a server would say to a command. */
static const char *answer_to(const char *command)
{
    static const char *const answers[][2] = {
        {"PING", "+PONG\r\n"},
        {"CLIENT", "+OK\r\n"},
        {"SCRIPT", "$40\r\n0123456789012345678901234567890123456789\r\n"},
        {"XREADGROUP",
         "*1\r\n*2\r\n$5\r\ntexts\r\n*1\r\n*2\r\n$3\r\n1-0\r\n*4\r\n$2\r\nid\r\n$1\r\n"
         "a\r\n$4\r\ntext\r\n$2\r\nhi\r\n"},
        {"XPENDING", "*1\r\n*4\r\n$3\r\n9-0\r\n$1\r\nc\r\n:99999\r\n:3\r\n"},
        {"XCLAIM", "*1\r\n*2\r\n$3\r\n9-0\r\n*2\r\n$4\r\ntext\r\n$1\r\nx\r\n"},
        {"EVALSHA", ":1\r\n"},
        {"XACK", ":1\r\n"},
    };
    if (rig.is_cluster && strcmp(command, "CLUSTER") == 0)
        return rig.slots;
    if (rig.is_cluster && strcmp(command, "XREADGROUP") == 0)
        return "*1\r\n*2\r\n$7\r\n{texts}\r\n*1\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$4\r\ntext\r\n$"
               "2\r\nhi\r\n";
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++)
        if (strncmp(command, answers[i][0], strlen(answers[i][0])) == 0)
            return answers[i][1];
    return "+OK\r\n";
}

static void say(struct client *client, const char *bytes, size_t len)
{
    uv_buf_t out = uv_buf_init((char *)(uintptr_t)bytes, (unsigned)len);
    uv_try_write(&client->uv.stream, &out, 1);
}

/* No errors in a cluster: one could name a host, to which we were to connect then. */
static void say_raw(struct client *client, const char *bytes, size_t len)
{
    char out[256];
    expect(len <= sizeof out);
    for (size_t i = 0; i < len; i++)
        out[i] = rig.is_cluster && bytes[i] == '-' ? '+' : bytes[i];
    say(client, out, len);
}

/* Commands begin with "*3\r\n$6\r\n" and their name; "CLIENT ID" alone is answered by a number. */
static void answer_all(struct client *client)
{
    for (const char *at = client->in; (at = strchr(at, '*')) != NULL; at++) {
        char name[16] = "";
        if (sscanf(at, "*%*u\r\n$%*u\r\n%15s", name) != 1)
            continue;
        bool is_id = strncmp(at, "*2\r\n$6\r\nCLIENT", 14) == 0;
        const char *answer = is_id ? ":7\r\n" : answer_to(name);
        say(client, answer, strlen(answer));
    }
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct client *client = stream->data;
    (void)buf;
    if (n == 0)
        return;
    rig.moved = true;
    if (n < 0 || rig.at == rig.end) {
        client_close(client);
        return;
    }
    size_t len = *rig.at++, left = (size_t)(rig.end - rig.at);
    client->in[n] = 0;
    if (len == 0 || (rig.is_cluster && strstr(client->in, "CLUSTER\r\n"))) {
        answer_all(client);
        return;
    }
    if (rig.is_cluster && len <= 2) {
        const char *reply = len == 1 ? rig.moved_reply : rig.ask_reply;
        say(client, reply, strlen(reply));
        return;
    }
    if (len > left)
        len = left;
    say_raw(client, (const char *)rig.at, len);
    rig.at += len;
}

static void on_connection(uv_stream_t *listener, int status)
{
    (void)status;
    for (size_t i = 0; i < CLIENTS; i++) {
        struct client *client = &rig.clients[i];
        if (client->used)
            continue;
        client->used = true;
        if (listener == (uv_stream_t *)&rig.tcp_listener)
            uv_tcp_init(&rig.loop, &client->uv.tcp);
        else
            uv_pipe_init(&rig.loop, &client->uv.pipe, 0);
        client->uv.handle.data = client;
        expect(uv_accept(listener, &client->uv.stream) == 0);
        uv_read_start(&client->uv.stream, on_alloc, on_read);
        rig.moved = true;
        return;
    }
    abort();
}

/* The pipeline's part: everything that comes is published as it is. */

static void on_messages(void *ctx, struct message **messages, size_t n)
{
    (void)ctx;
    for (size_t i = 0; i < n; i++) {
        struct output *output = NULL;
        for (size_t slot = 0; slot < RECORDS && !output; slot++)
            if (!rig.outputs[slot].used)
                output = &rig.outputs[slot];
        if (!output) {
            rig.source->ops->release(rig.source, messages[i]);
            continue;
        }
        output->used = true;
        output->part = (struct part){.id = {"id", 2}, .value = messages[i]->value};
        output->record =
            (struct record){.origin = messages[i], .parts = &output->part, .n_parts = 1};
        struct record *record = &output->record;
        rig.sink->ops->publish(rig.sink, &record, 1);
    }
    rig.source->ops->request(rig.source, 8, 1 << 20);
}

static void on_published(void *ctx, struct record *record, enum published how)
{
    (void)ctx;
    if (how == PUBLISHED)
        rig.source->ops->ack(rig.source, record->origin);
    else if (how != PUBLISHED_AND_ACKED)
        rig.source->ops->release(rig.source, record->origin);
    ((struct output *)record)->used = false;
}

static void on_state(void *ctx, enum link_state state, const char *why)
{
    (void)ctx;
    expect(state == LINK_UP || (why && why[0]));
}

static void on_failed(void *ctx, int err, const char *why)
{
    (void)ctx;
    expect(err < 0 && why[0]);
    rig.failed = true;
}

static void on_end(void *ctx)
{
    (void)ctx;
    abort(); /* a stream has none */
}

static const struct source_events source_events = {
    .on_messages = on_messages, .on_state = on_state, .on_end = on_end, .on_failed = on_failed};
static const struct sink_events sink_events = {
    .on_published = on_published, .on_state = on_state, .on_failed = on_failed};

static void on_closed(void *ctx)
{
    *(bool *)ctx = true;
}

static void run_until(const bool *done)
{
    for (int i = 0; !*done; i++) {
        expect(i < TURNS_MAX);
        uv_run(&rig.loop, UV_RUN_ONCE);
    }
}

static struct settings *settings_new(void)
{
    const char *const set[][2] = {{"redis.consumer", "fuzz"},
                                  {"redis.claim_idle", "60s"},
                                  {"redis.stream", rig.is_cluster ? "{texts}" : "texts,more"},
                                  {"redis.dead_letters", rig.is_cluster ? "{texts}d" : "dead"}};
    const struct option *tables[] = {connector_find("redis")->options, NULL};
    struct settings *settings;
    char err[400];
    expect(settings_open(&settings, tables) == 0);
    const char *url = rig.is_cluster ? rig.cluster_url : rig.url;
    expect(settings_set(settings, "redis.url", url, err, sizeof err) == 0);
    for (size_t i = 0; i < sizeof set / sizeof set[0]; i++)
        expect(settings_set(settings, set[i][0], set[i][1], err, sizeof err) == 0);
    return settings;
}

static void listen_as_cluster(void)
{
    struct sockaddr_in address;
    int len = sizeof address;
    expect(uv_ip4_addr("127.0.0.1", 0, &address) == 0);
    expect(uv_tcp_init(&rig.loop, &rig.tcp_listener) == 0);
    expect(uv_tcp_bind(&rig.tcp_listener, (const struct sockaddr *)&address, 0) == 0);
    expect(uv_listen((uv_stream_t *)&rig.tcp_listener, CLIENTS, on_connection) == 0);
    expect(uv_tcp_getsockname(&rig.tcp_listener, (struct sockaddr *)&address, &len) == 0);
    int port = ntohs(address.sin_port), slot = redis_slot_of((struct bytes){"texts", 5});
    snprintf(rig.cluster_url, sizeof rig.cluster_url, "redis+cluster://127.0.0.1:%d", port);
    snprintf(rig.slots, sizeof rig.slots,
             "*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$9\r\n127.0.0.1\r\n:%d\r\n$2\r\nid\r\n", port);
    snprintf(rig.moved_reply, sizeof rig.moved_reply, "-MOVED %d 127.0.0.1:%d\r\n", slot, port);
    snprintf(rig.ask_reply, sizeof rig.ask_reply, "-ASK %d 127.0.0.1:%d\r\n", slot, port);
}

static void listen_once(void)
{
    if (rig.path[0])
        return;
    signal(SIGPIPE, SIG_IGN); /* as the worker has it */
    snprintf(rig.path, sizeof rig.path, "/tmp/embedmill-fuzz-%d.sock", (int)getpid());
    snprintf(rig.url, sizeof rig.url, "unix://%s", rig.path);
    unlink(rig.path);
    expect(uv_loop_init(&rig.loop) == 0);
    expect(uv_pipe_init(&rig.loop, &rig.listener, 0) == 0);
    expect(uv_pipe_bind(&rig.listener, rig.path) == 0);
    expect(uv_listen((uv_stream_t *)&rig.listener, CLIENTS, on_connection) == 0);
    listen_as_cluster();
}

static void close_all(void)
{
    rig.sink->ops->close(rig.sink, 0, on_closed, &rig.sink_closed);
    run_until(&rig.sink_closed);
    memset(rig.outputs, 0, sizeof rig.outputs); /* dropped without an event */
    rig.source->ops->close(rig.source, 0, on_closed, &rig.source_closed);
    run_until(&rig.source_closed);
    for (size_t i = 0; i < CLIENTS; i++)
        if (rig.clients[i].used)
            client_close(&rig.clients[i]);
    for (int i = 0; i < 3; i++)
        uv_run(&rig.loop, UV_RUN_NOWAIT);
}

/* The same bytes as an error and as the answer to CLUSTER SLOTS. */
static void read_slots(const uint8_t *data, size_t size)
{
    struct redis_wire wire;
    struct redis_redirect redirect;
    struct redis_node node, nodes[4];
    void *reply = NULL;
    char *text = malloc(size + 1);
    expect(text != NULL);
    memcpy(text, data, size);
    text[size] = 0;
    if (redis_slot_redirect(&redirect, text))
        expect(redirect.slot >= 0 && redirect.slot < REDIS_SLOTS && redirect.to.port > 0);
    expect(redis_slot_of((struct bytes){text, size}) < REDIS_SLOTS);
    free(text);
    expect(redis_wire_open(&wire) == 0);
    redisReaderFeed(wire.reader, (const char *)data, size);
    if (redisReaderGetReply(wire.reader, &reply) == REDIS_OK && reply) {
        if (redis_slot_owner(reply, 99, &node))
            expect(node.port > 0 && node.port <= 65535);
        expect(redis_slot_nodes(reply, nodes, 4) <= 4);
    }
    redis_wire_close(&wire);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char err[400] = "";
    if (size)
        read_slots(data, size);
    listen_once();
    rig.at = data;
    rig.end = data + size;
    rig.failed = rig.sink_closed = rig.source_closed = false;
    rig.is_cluster = size && data[size - 1] & 1;
    int turns = rig.is_cluster ? CLUSTER_TURNS : QUIET_TURNS;
    struct settings *settings = settings_new();
    expect(source_find("redis")->open(&rig.source, &rig.loop, settings, &source_events, NULL, err,
                                      sizeof err) == 0);
    expect(sink_find("redis")->open(&rig.sink, &rig.loop, settings, rig.source, &sink_events, NULL,
                                    err, sizeof err) == 0);
    rig.source->ops->request(rig.source, 8, 1 << 20);
    for (int quiet = 0; quiet < turns && !rig.failed;) {
        rig.moved = false;
        uv_run(&rig.loop, UV_RUN_NOWAIT);
        quiet = rig.moved ? 0 : quiet + 1;
        if (quiet && rig.is_cluster)
            usleep(CLUSTER_NAP_US);
    }
    close_all();
    settings_close(settings);
    return 0;
}
