/*
 * test_redis_fault.c: error replies of Redis, as servers of many releases word them.
 *
 * tests/data/redis_refusals.tsv is what running servers said, collected by
 * tests/live/redis_refusals.py; here stands what each kind of refusal means, whoever says it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "connectors/redis/redis_fault.h"

static const struct {
    const char *kind;
    enum redis_remedy remedy;
    const char *code;
} meanings[] = {
    {"noperm_command", REMEDY_FATAL, "NOPERM"},
    {"noperm_subcommand", REMEDY_FATAL, "NOPERM"},
    {"noperm_key", REMEDY_FATAL, "NOPERM"},
    {"wrongpass", REMEDY_FATAL, "WRONGPASS"},
    {"auth_without_password", REMEDY_FATAL, "ERR"},
    {"noauth", REMEDY_FATAL, "NOAUTH"},
    {"wrongtype", REMEDY_FATAL, "WRONGTYPE"},
    {"nogroup", REMEDY_GROUP, "NOGROUP"},
    {"busygroup", REMEDY_RETRY, "BUSYGROUP"},
    {"no_stream", REMEDY_UNKNOWN, "ERR"},
    {"noscript", REMEDY_SCRIPT, "NOSCRIPT"},
    {"unknown_command", REMEDY_FATAL, "ERR"},
    {"syntax", REMEDY_FATAL, "ERR"},
    {"full_stream", REMEDY_FATAL, "ERR"},
    {"no_database", REMEDY_FATAL, "ERR"},
    {"no_cluster_database", REMEDY_FATAL, "ERR"},
    {"no_protocol", REMEDY_FATAL, "NOPROTO"},
    {"too_large", REMEDY_TOO_LARGE, "ERR"},
    {"too_large_wire", REMEDY_TOO_LARGE, "ERR"},
    {"too_many_words", REMEDY_TOO_LARGE, "ERR"},
    {"protocol", REMEDY_RECONNECT, "ERR"},
    {"unblocked", REMEDY_GROUP, NULL},
    {"oom", REMEDY_RETRY, "OOM"},
    {"noreplicas", REMEDY_RETRY, "NOREPLICAS"},
    {"readonly", REMEDY_RECONNECT, "READONLY"},
    {"masterdown", REMEDY_RECONNECT, "MASTERDOWN"},
    {"misconf", REMEDY_RETRY, "MISCONF"},
    {"loading", REMEDY_RECONNECT, "LOADING"},
    {"max_clients", REMEDY_RECONNECT, "ERR"},
    {"busy", REMEDY_RETRY, "BUSY"},
    {"killed", REMEDY_RETRY, "ERR"},
    {"unkillable", REMEDY_RETRY, "UNKILLABLE"},
    {"clusterdown", REMEDY_RECONNECT, "CLUSTERDOWN"},
    {"crossslot", REMEDY_FATAL, "CROSSSLOT"},
    {"not_here", -1, NULL}, /* a cluster: down for some releases, moving its keys for others */
};

#define N_MEANINGS (sizeof(meanings) / sizeof(meanings[0]))

/* "noperm_key" of "noperm_key_script": inside a script it means the same. */
static size_t meaning_of(const char *kind)
{
    size_t len = strlen(kind);

    if (len > 7 && strcmp(kind + len - 7, "_script") == 0)
        len -= 7;
    for (size_t i = 0; i < N_MEANINGS; i++)
        if (strlen(meanings[i].kind) == len && strncmp(meanings[i].kind, kind, len) == 0)
            return i;
    fail_msg("no meaning is given for %s", kind);
    return 0;
}

static void test_releases(void **state)
{
    static const char *const servers[] = {"Redis 6.0.16", "Redis 7.0.15", "Redis 8.0.2",
                                          "Redis 8.2.3",  "Valkey 8.1.1", "Valkey 9.1.2",
                                          "fakeredis"};
    size_t n_of_server[7] = {0}, n_of_kind[N_MEANINGS] = {0};
    char line[1000];
    FILE *file = fopen(TESTS_DIR "/data/redis_refusals.tsv", "r");
    (void)state;

    assert_non_null(file);
    while (fgets(line, sizeof line, file)) {
        char *rest = line, *kind = strsep(&rest, "\t"), *server = strsep(&rest, "\t");
        assert_non_null(rest);
        rest[strcspn(rest, "\n")] = '\0';
        struct redis_fault fault = redis_fault_find(rest);
        size_t i = meaning_of(kind);
        n_of_kind[i]++;
        for (size_t s = 0; s < 7; s++)
            n_of_server[s] += strncmp(server, servers[s], strlen(servers[s])) == 0;
        if (meanings[i].remedy == (enum redis_remedy) - 1) {
            assert_true(fault.remedy == REMEDY_RETRY || fault.remedy == REMEDY_RECONNECT);
            continue;
        }
        if (fault.remedy != meanings[i].remedy)
            fail_msg("%s, %s: %s: remedy %d instead of %d", server, kind, rest, fault.remedy,
                     meanings[i].remedy);
        if (meanings[i].code && strcmp(fault.code, meanings[i].code) != 0)
            fail_msg("%s, %s: %s: code %s instead of %s", server, kind, rest, fault.code,
                     meanings[i].code);
    }
    fclose(file);
    for (size_t i = 0; i < N_MEANINGS; i++)
        if (!n_of_kind[i])
            fail_msg("no server says %s", meanings[i].kind);
    for (size_t s = 0; s < 7; s++)
        if (n_of_server[s] < (s < 6 ? 50 : 5))
            fail_msg("%s says %zu things only", servers[s], n_of_server[s]);
}

/* What could not be provoked, and what is built to mislead. */
static void test_words(void **state)
{
    static const struct {
        const char *text;
        enum redis_remedy remedy;
        const char *code;
    } cases[] = {
        {"TRYAGAIN Multiple keys request during rehashing of slot", REMEDY_RETRY, "TRYAGAIN"},
        {"MOVED 3999 127.0.0.1:6381", REMEDY_FATAL, "MOVED"},
        {"ASK 3999 127.0.0.1:6381", REMEDY_RETRY, "ASK"},
        {"DENIED Redis is running in protected mode", REMEDY_FATAL, "DENIED"},
        {"NOPERM: of a server with a taste of its own", REMEDY_FATAL, "NOPERM"},
        {"NOPERM", REMEDY_FATAL, "NOPERM"},
        {"ERR OOM", REMEDY_RETRY, "OOM"},
        {"ERR wrong number of arguments for 'auth' command", REMEDY_FATAL, "ERR"},
        {"ERR Error running script (call to f_3a): @user_script:8: -OOM command not allowed",
         REMEDY_RETRY, "OOM"},
        {"ERR Error running script (call to f_3a): OOM", REMEDY_RETRY, "OOM"},
        {"ERR Error running script (call to f_3a): @user_script:8: other", REMEDY_UNKNOWN, "ERR"},
        {"ERR Error running script (call to f_3a): ", REMEDY_UNKNOWN, "ERR"},
        {"ERR Error running script (call to f_3a): @user_script:", REMEDY_UNKNOWN, "ERR"},
        {"ERR Error running script", REMEDY_UNKNOWN, "ERR"},
        {"ERR unknown command 'AUTH', with args beginning with: 'NOPERM ' ", REMEDY_FATAL, "ERR"},
        {"ERR something new, with NOPERM and OOM in it", REMEDY_UNKNOWN, "ERR"},
        {"ERR ERR OOM", REMEDY_UNKNOWN, "ERR"},
        {"OOMPH is another word", REMEDY_UNKNOWN, "ERR"},
        {"READONLYX is another word", REMEDY_UNKNOWN, "ERR"},
        {"READ", REMEDY_UNKNOWN, "ERR"},
        {"BUSYGROUP", REMEDY_RETRY, "BUSYGROUP"},
        {"ERR ", REMEDY_UNKNOWN, "ERR"},
        {" ", REMEDY_UNKNOWN, "ERR"},
        {"", REMEDY_UNKNOWN, "ERR"},
    };
    (void)state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct redis_fault fault = redis_fault_find(cases[i].text);
        if (fault.remedy != cases[i].remedy || strcmp(fault.code, cases[i].code) != 0)
            fail_msg("%s: %d %s instead of %d %s", cases[i].text, fault.remedy, fault.code,
                     cases[i].remedy, cases[i].code);
        assert_true(strlen(fault.advice) > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_releases),
        cmocka_unit_test(test_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
