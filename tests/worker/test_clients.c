/*
 * Who must go when too many are connected: whoever has been longest without a whole request, of its
 * own address first; and everybody whose time is over. On real sockets, which see an end.
 */
#include "worker/http/clients.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct peer {
    int ours, theirs;
    struct client *client;
};

enum { ALL = 64, OF_ADDRESS = 32, ROOM = 192 };
static const struct client_limits limits = {.max = ALL,
                                            .of_address = OF_ADDRESS,
                                            .room = ROOM,
                                            .header_ms = 5000,
                                            .body_ms = 7000,
                                            .answer_ms = 10000,
                                            .idle_ms = 60000};
static struct clients clients;
static struct peer peers[ROOM];
static size_t n_peers;

static struct sockaddr_storage address_of(const char *text)
{
    struct sockaddr_storage at = {0};
    struct sockaddr_in *v4 = (void *)&at;
    struct sockaddr_in6 *v6 = (void *)&at;
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1)
        at.ss_family = AF_INET;
    else if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1)
        at.ss_family = AF_INET6;
    return at;
}

static struct peer *join(const char *from, uint64_t now_ms)
{
    struct sockaddr_storage at = address_of(from);
    struct peer *peer = &peers[n_peers++];
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    *peer = (struct peer){fds[0], fds[1], NULL};
    peer->client = clients_add(&clients, peer->ours, (struct sockaddr *)&at, now_ms);
    return peer;
}

/* Whether it was shut down: the other end reads an end. */
static bool is_gone(const struct peer *peer)
{
    char byte;
    return recv(peer->theirs, &byte, 1, MSG_DONTWAIT) == 0;
}

static size_t count_gone(void)
{
    size_t n = 0;
    for (size_t i = 0; i < n_peers; i++)
        n += is_gone(&peers[i]);
    return n;
}

static int setup(void **state)
{
    (void)state;
    n_peers = 0;
    return clients_open(&clients, &limits);
}

static int teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_peers; i++) {
        close(peers[i].ours);
        close(peers[i].theirs);
    }
    clients_close(&clients);
    return 0;
}

static void test_one_address(void **state)
{
    (void)state;
    for (size_t i = 0; i < OF_ADDRESS; i++) /* all in the same millisecond */
        join("10.0.0.1", 1);
    clients_change(&clients, peers[0].client, CLIENT_WAITING, 1);
    assert_int_equal(count_gone(), 0);
    join("10.0.0.2", 1);
    assert_int_equal(count_gone(), 0);
    join("::ffff:10.0.0.1", 1); /* the same host */
    assert_true(is_gone(&peers[1]));
    assert_int_equal(count_gone(), 1);
    clients_change(&clients, peers[0].client, CLIENT_IDLE,
                   1); /* waits for less time than the others */
    join("10.0.0.1", 1);
    assert_true(is_gone(&peers[2]));
    clients_remove(peers[3].client);
    join("10.0.0.1", 1);
    assert_int_equal(count_gone(), 2);
}

static void test_networks(void **state)
{
    char from[40];
    (void)state;
    for (int i = 0; i <= OF_ADDRESS; i++) {
        snprintf(from, sizeof from, "2001:db8::%x", i + 1);
        join(from, 1);
    }
    assert_true(is_gone(&peers[0]));
    assert_int_equal(count_gone(), 1);
}

static void test_all(void **state)
{
    char from[40];
    (void)state;
    for (int i = 0; i < ALL; i++) {
        snprintf(from, sizeof from, "10.0.0.%d", i + 1);
        clients_change(&clients, join(from, 1)->client, CLIENT_WAITING, 1);
    }
    assert_int_equal(count_gone(), 0);
    struct peer *newcomer = join("10.0.1.1", 1); /* all are being served: the longest goes */
    assert_true(is_gone(&peers[0]));
    join("10.0.1.2", 1); /* now somebody is there who has sent nothing yet */
    assert_true(is_gone(newcomer));
    assert_int_equal(count_gone(), 2);
}

/* Bodies that never come and answers that nobody takes go before who has connected just now. */
static void test_quick(void **state)
{
    char from[40];
    (void)state;
    clients.limits.is_quick = true;
    for (int i = 0; i < ALL; i++) {
        snprintf(from, sizeof from, "10.0.0.%d", i + 1);
        clients_change(&clients, join(from, 1)->client, i % 2 ? CLIENT_SENDING : CLIENT_ANSWERING,
                       1);
    }
    struct peer *probe = join("10.0.1.1", 1);
    join("10.0.1.2", 1);
    assert_false(is_gone(probe));
    assert_true(is_gone(&peers[0]) && is_gone(&peers[1]));
    assert_int_equal(count_gone(), 2);
}

static void test_room(void **state)
{
    (void)state;
    for (size_t i = 0; i < ROOM; i++)
        assert_non_null(join("10.0.0.1", 1)->client);
    assert_int_equal(count_gone(), ROOM - OF_ADDRESS);
    assert_null(clients_add(&clients, 0, NULL, 1));
    clients_change(&clients, NULL, CLIENT_WAITING, 1);
    clients_change(&clients, NULL, CLIENT_IDLE, 1);
    clients_remove(NULL);
}

static void test_deadlines(void **state)
{
    (void)state;
    assert_true(clients_wait(&clients, 5) == UINT64_MAX);
    struct peer *silent = join("10.0.0.1", 1000), *busy = join("10.0.0.1", 2000);
    assert_int_equal(clients_wait(&clients, 2000), 4000);
    clients_change(&clients, busy->client, CLIENT_SENDING, 3000);
    clients_expire(&clients, 5999);
    assert_int_equal(count_gone(), 0);
    clients_expire(&clients, 6000);
    assert_true(is_gone(silent) && !is_gone(busy));
    assert_int_equal(clients_wait(&clients, 3000), 7000);
    clients_change(&clients, busy->client, CLIENT_WAITING, 4000); /* as long as it takes */
    assert_true(clients_wait(&clients, 4000) == UINT64_MAX);
    clients_change(&clients, busy->client, CLIENT_ANSWERING, 5000);
    assert_int_equal(clients_wait(&clients, 5000), 10000);
    clients_change(&clients, busy->client, CLIENT_IDLE, 6000);
    assert_int_equal(clients_wait(&clients, 6000), 60000);
    clients_expire(&clients, 66000);
    assert_true(is_gone(busy));
}

static void test_states(void **state)
{
    (void)state;
    clients.limits.of_address = 3;
    struct peer *waiting = join("10.0.0.1", 1), *sending = join("10.0.0.1", 1);
    clients_change(&clients, waiting->client, CLIENT_WAITING, 1);
    clients_change(&clients, sending->client, CLIENT_SENDING, 1);
    struct peer *idle = join("10.0.0.1", 1);
    clients_change(&clients, join("10.0.0.1", 1)->client, CLIENT_WAITING, 1);
    assert_true(is_gone(idle) && count_gone() == 1);
    clients_change(&clients, join("10.0.0.1", 1)->client, CLIENT_WAITING, 1);
    assert_true(is_gone(sending) && count_gone() == 2);
    join("10.0.0.1", 1);
    assert_true(is_gone(waiting) && count_gone() == 3);
}

/* A service drops nobody who waits for an answer: it refuses in another way. */
static void test_spared(void **state)
{
    (void)state;
    clients.limits.max = 3;
    clients.limits.spares_waiting = true;
    for (int i = 0; i < 5; i++)
        clients_change(&clients, join("10.0.0.1", 1)->client, CLIENT_WAITING, 1);
    assert_int_equal(count_gone(), 0);
    join("10.0.0.1", 1);
    struct peer *newest = join("10.0.0.1", 1);
    assert_int_equal(count_gone(), 1);
    assert_false(is_gone(newest));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_address, setup, teardown),
        cmocka_unit_test_setup_teardown(test_networks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_all, setup, teardown),
        cmocka_unit_test_setup_teardown(test_quick, setup, teardown),
        cmocka_unit_test_setup_teardown(test_room, setup, teardown),
        cmocka_unit_test_setup_teardown(test_deadlines, setup, teardown),
        cmocka_unit_test_setup_teardown(test_states, setup, teardown),
        cmocka_unit_test_setup_teardown(test_spared, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
