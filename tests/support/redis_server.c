/*
 * redis_server.c: see redis_server.h.
 *
 * Threads: one.
 */
#define _GNU_SOURCE /* nftw */
#include "tests/support/redis_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

/* Not of those that the system hands out: one of these could be a client's by the time the server
 * takes it. */
enum { PORT_FIRST = 12000, PORT_END = 30000 };

int free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    for (int i = 0; i < 1000; i++) {
        uint32_t number;
        assert_int_equal(getrandom(&number, sizeof(number), 0), sizeof(number));
        address.sin_port = htons((uint16_t)(PORT_FIRST + number % (PORT_END - PORT_FIRST)));
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_true(fd >= 0);
        bool is_free = bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
        close(fd);
        if (is_free)
            return ntohs(address.sin_port);
    }
    fail_msg("no free port from %d to %d", PORT_FIRST, PORT_END);
    return 0;
}

static void server_connect(struct redis_server *server)
{
    for (int i = 0; i < 500; i++) {
        struct timeval limit = {10, 0};
        redisContext *client = redisConnectWithTimeout("127.0.0.1", server->port, limit);
        if (client && !client->err) {
            redisSetTimeout(client, limit);
            redisReply *reply = redisCommand(client, "PING");
            bool is_up = reply && reply->type == REDIS_REPLY_STATUS;
            freeReplyObject(reply);
            if (is_up) {
                server->client = client;
                return;
            }
        }
        redisFree(client);
        usleep(20 * 1000);
    }
    fail_msg("redis-server does not answer on port %d", server->port);
}

static void server_start(struct redis_server *server)
{
    char port[16], path[96];

    snprintf(port, sizeof(port), "%d", server->port);
    snprintf(path, sizeof(path), "%s/redis.sock", server->folder);
    snprintf(server->socket_url, sizeof(server->socket_url), "unix://%.80s", path);
    server->pid = fork();
    assert_true(server->pid >= 0);
    if (server->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that crashes leaves no server behind */
        int log = open("/dev/null", O_WRONLY);
        dup2(log, 1);
        execlp("redis-server", "redis-server", "--port", port, "--bind", "127.0.0.1", "--dir",
               server->folder, "--save", "", "--appendonly", server->append_only ? "yes" : "no",
               "--appendfsync", "everysec", "--unixsocket", path, (char *)NULL);
        perror("redis-server cannot be started; it is the package redis-server");
        _exit(127);
    }
    server_connect(server);
}

void redis_server_open(struct redis_server *server, bool append_only)
{
    *server = (struct redis_server){.append_only = append_only};
    strcpy(server->folder, "/tmp/redis-test-XXXXXX");
    assert_non_null(mkdtemp(server->folder));
    server->port = free_port();
    snprintf(server->url, sizeof(server->url), "redis://127.0.0.1:%d", server->port);
    server_start(server);
}

static int remove_one(const char *path, const struct stat *stat, int type, struct FTW *ftw)
{
    (void)stat;
    (void)type;
    (void)ftw;
    return remove(path);
}

void redis_server_kill(struct redis_server *server)
{
    if (!server->pid)
        return;
    kill(server->pid, SIGKILL);
    waitpid(server->pid, NULL, 0);
    server->pid = 0;
    redisFree(server->client);
    server->client = NULL;
}

void redis_server_restart(struct redis_server *server)
{
    redis_server_kill(server);
    server_start(server);
}

void redis_server_signal(struct redis_server *server, int signal)
{
    kill(server->pid, signal);
}

void redis_server_close(struct redis_server *server)
{
    redis_server_kill(server);
    nftw(server->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static redisReply *ask(struct redis_server *server, const char *format, va_list args)
{
    redisReply *reply = redisvCommand(server->client, format, args);

    if (!reply)
        fail_msg("no reply to %s: %s", format, server->client->errstr);
    return reply;
}

redisReply *redis_server_ask(struct redis_server *server, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    redisReply *reply = ask(server, format, args);
    va_end(args);
    return reply;
}

long long redis_server_number(struct redis_server *server, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    redisReply *reply = ask(server, format, args);
    va_end(args);
    if (reply->type != REDIS_REPLY_INTEGER)
        fail_msg("%s: not a number: %s", format, reply->str ? reply->str : "?");
    long long number = reply->integer;
    freeReplyObject(reply);
    return number;
}

void redis_server_do(struct redis_server *server, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    redisReply *reply = ask(server, format, args);
    va_end(args);
    if (reply->type == REDIS_REPLY_ERROR)
        fail_msg("%s: %s", format, reply->str);
    freeReplyObject(reply);
}
