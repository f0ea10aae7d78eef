/*
 * redis_server.h: a real redis-server for tests, on a free loopback port with its data in a
 * temporary folder.
 *
 * Owns:    the process and the folder; both are gone after redis_server_close.
 * Refuses: servers it did not start.
 * Threads: one.
 */
#ifndef REDIS_SERVER_H
#define REDIS_SERVER_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <sys/types.h>

struct redis_server {
    pid_t pid; /* 0: not running */
    int port;
    char folder[64];
    char url[64];
    char socket_url[96]; /* the same server by its unix socket */
    bool append_only;
    redisContext *client; /* of the test, blocking */
};

/* Fails the test when there is no redis-server or it does not come up within 10 s. */
void redis_server_open(struct redis_server *server, bool append_only);
void redis_server_close(struct redis_server *server);
void redis_server_kill(struct redis_server *server);    /* kill -9 */
void redis_server_restart(struct redis_server *server); /* the same port and data */
void redis_server_signal(struct redis_server *server, int signal);

/* One command by the test's own client; fails the test when there is no reply. Free the reply. */
redisReply *redis_server_ask(struct redis_server *server, const char *format, ...);
/* For commands that answer a number; an error fails the test. */
long long redis_server_number(struct redis_server *server, const char *format, ...);
/* The reply is not looked at; an error fails the test. */
void redis_server_do(struct redis_server *server, const char *format, ...);

/* A port of 127.0.0.1 that nobody listens on. */
int free_port(void);

#endif
