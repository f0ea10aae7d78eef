/*
 * postgres_hosts.c: see postgres_hosts.h.
 */
#include "connectors/postgres/postgres_hosts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONNECT_MS 10000

static const char *word(const PQconninfoOption *words, const char *name)
{
    for (; words && words->keyword; words++)
        if (strcmp(words->keyword, name) == 0)
            return words->val && *words->val ? words->val : NULL;
    return NULL;
}

/* The nth of a list by commas, NULL when it is empty; of a list of one, the same for all. */
static char *list_item(const char *list, size_t nth, bool is_shared)
{
    if (!list)
        return NULL;
    /* One port for all hosts, as libpq reads it. */
    if (is_shared && !strchr(list, ','))
        nth = 0;
    for (; nth && list; nth--) {
        list = strchr(list, ',');
        list = list ? list + 1 : NULL;
    }
    size_t len = list ? strcspn(list, ",") : 0;
    return len ? strndup(list, len) : NULL;
}

static size_t list_length(const char *list)
{
    size_t n = list ? 1 : 0;
    for (; list && *list; list++)
        n += *list == ',';
    return n;
}

static void drop_newline(char *text)
{
    size_t len = strlen(text);
    if (len && text[len - 1] == '\n')
        text[len - 1] = '\0';
}

int postgres_hosts_open(struct postgres_hosts *out, const char *url, char *err, size_t err_size)
{
    char *why = NULL;
    struct postgres_hosts hosts = {.words = PQconninfoParse(url, &why)};
    if (!hosts.words) {
        if (why)
            drop_newline(why);
        snprintf(err, err_size, "%s", why ? why : "out of memory");
        PQfreemem(why);
        return -EINVAL;
    }
    static const char *const names[] = {"host", "hostaddr", "port", "connect_timeout"};
    static const char *const variables[] = {"PGHOST", "PGHOSTADDR", "PGPORT", "PGCONNECT_TIMEOUT"};
    const char *values[4];
    bool has_service = word(hosts.words, "service") || getenv("PGSERVICE");
    for (size_t i = 0; i < 4; i++) {
        values[i] = word(hosts.words, names[i]);
        if (!values[i] && !has_service) /* whose file comes before the environment */
            values[i] = getenv(variables[i]);
        if (values[i] && !*values[i])
            values[i] = NULL;
    }
    size_t n_names = list_length(values[0]), n_addresses = list_length(values[1]);
    /* One, without any name: libpq's own socket. */
    hosts.n = n_names > n_addresses ? n_names : n_addresses ? n_addresses : 1;
    hosts.items = calloc(hosts.n, sizeof *hosts.items);
    for (size_t i = 0; hosts.items && i < hosts.n; i++)
        hosts.items[i] =
            (struct postgres_host){list_item(values[0], i, false), list_item(values[1], i, false),
                                   list_item(values[2], i, true)};
    long seconds = values[3] ? strtol(values[3], NULL, 10) : 0;
    hosts.connect_ms = seconds > 0 && seconds < 3600 ? (uint64_t)seconds * 1000 : CONNECT_MS;
    if (!hosts.items) {
        PQconninfoFree(hosts.words);
        return -ENOMEM;
    }
    *out = hosts;
    return 0;
}

void postgres_hosts_close(struct postgres_hosts *hosts)
{
    for (size_t i = 0; i < hosts->n; i++) {
        free(hosts->items[i].name);
        free(hosts->items[i].address);
        free(hosts->items[i].port);
    }
    free(hosts->items);
    PQconninfoFree(hosts->words);
    *hosts = (struct postgres_hosts){0};
}

bool postgres_host_is_name(const struct postgres_host *host)
{
    return host->name && !host->address && host->name[0] != '/' && host->name[0] != '@';
}

/* What is not given here comes from the environment, the service file and the password file. */
PGconn *postgres_hosts_connect(const struct postgres_hosts *hosts, const struct postgres_host *host,
                               const char *address, const char *password)
{
    const char *names[96], *values[96];
    size_t n = 0;
    const struct {
        const char *name, *value;
    } ours[] = {{"host", host->name},
                {"hostaddr", address ? address : host->address},
                {"port", host->port},
                {"password", password},
                {"fallback_application_name", "embedmill"},
                {"client_encoding", "UTF8"}};
    /* libpq has fewer than 80 words; the arrays have room for ours behind them. */
    for (const PQconninfoOption *at = hosts->words; at->keyword && n < 80; at++) {
        bool is_ours = false;
        for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
            is_ours |= ours[i].value && strcmp(at->keyword, ours[i].name) == 0;
        if (!at->val || !*at->val || is_ours)
            continue;
        names[n] = at->keyword;
        values[n++] = at->val;
    }
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        if (ours[i].value) {
            names[n] = ours[i].name;
            values[n++] = ours[i].value;
        }
    /* A standby, or a primary that has become one, takes no rows. */
    if (!word(hosts->words, "target_session_attrs") && !getenv("PGTARGETSESSIONATTRS")) {
        names[n] = "target_session_attrs";
        values[n++] = "read-write";
    }
    names[n] = values[n] = NULL;
    /* 0: dbname is a name, and no connection string to be expanded. */
    return PQconnectStartParams(names, values, 0);
}
