/*
 * test_postgres.c: what of the PostgreSQL connector needs no server: hosts, codes, the answer about
 * a table, the bytes of a transaction.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "connectors/postgres/postgres_burst.h"
#include "connectors/postgres/postgres_hosts.h"
#include "connectors/postgres/postgres_refusal.h"
#include "connectors/postgres/postgres_table.h"

/* ---- hosts */

static void expect_host(const struct postgres_host *host, const char *name, const char *address,
                        const char *port)
{
    const char *found[] = {host->name, host->address, host->port};
    const char *wanted[] = {name, address, port};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(!found[i], !wanted[i]);
        if (wanted[i])
            assert_string_equal(found[i], wanted[i]);
    }
}

static void test_hosts(void **state)
{
    struct postgres_hosts hosts;
    char err[300];
    (void)state;
    unsetenv("PGHOST");
    unsetenv("PGPORT");
    unsetenv("PGHOSTADDR");
    unsetenv("PGCONNECT_TIMEOUT");
    assert_int_equal(postgres_hosts_open(&hosts, "postgresql://u@a:1,b:2/d", err, sizeof err), 0);
    assert_int_equal(hosts.n, 2);
    expect_host(&hosts.items[0], "a", NULL, "1");
    expect_host(&hosts.items[1], "b", NULL, "2");
    assert_true(postgres_host_is_name(&hosts.items[0]));
    assert_int_equal(hosts.connect_ms, 10000);
    postgres_hosts_close(&hosts);

    assert_int_equal(postgres_hosts_open(&hosts,
                                         "host=a,/run/x,c hostaddr=10.0.0.1,,10.0.0.3 port=7 "
                                         "connect_timeout=3",
                                         err, sizeof err),
                     0);
    assert_int_equal(hosts.n, 3);
    expect_host(&hosts.items[0], "a", "10.0.0.1", "7");
    expect_host(&hosts.items[1], "/run/x", NULL, "7");
    expect_host(&hosts.items[2], "c", "10.0.0.3", "7");
    for (size_t i = 0; i < 3; i++)
        assert_false(postgres_host_is_name(&hosts.items[i]));
    assert_int_equal(hosts.connect_ms, 3000);
    postgres_hosts_close(&hosts);

    setenv("PGHOST", "x,y", 1);
    assert_int_equal(postgres_hosts_open(&hosts, "postgresql://", err, sizeof err), 0);
    assert_int_equal(hosts.n, 2);
    expect_host(&hosts.items[1], "y", NULL, NULL);
    postgres_hosts_close(&hosts);
    unsetenv("PGHOST");

    assert_int_equal(postgres_hosts_open(&hosts, "postgresql://a?nonsense=1", err, sizeof err),
                     -EINVAL);
    assert_non_null(strstr(err, "nonsense"));
}

/* ---- codes */

static void test_refusals(void **state)
{
    static const struct {
        const char *sqlstate;
        enum postgres_remedy remedy;
        enum refusal_scope scope;
    } wanted[] = {
        {"22P02", POSTGRES_DEAD_LETTER, REFUSES_RECORD},
        {"23514", POSTGRES_SUSPECT, REFUSES_RECORD},
        {"54000", POSTGRES_DEAD_LETTER, REFUSES_RECORD},
        {"42501", POSTGRES_DOUBT, REFUSES_DESTINATION},
        {"42P01", POSTGRES_DOUBT, REFUSES_DESTINATION},
        {"42703", POSTGRES_DOUBT, REFUSES_DESTINATION},
        {"53100", POSTGRES_WAIT, REFUSES_DESTINATION},
        {"55P03", POSTGRES_SMALLER, REFUSES_DESTINATION},
        {"57014", POSTGRES_SMALLER, REFUSES_DESTINATION},
        {"40P01", POSTGRES_AGAIN, REFUSES_DESTINATION},
        {"40001", POSTGRES_AGAIN, REFUSES_DESTINATION},
        {"25006", POSTGRES_RECONNECT, REFUSES_DESTINATION},
        {"57P01", POSTGRES_RECONNECT, REFUSES_DESTINATION},
        {"ZZ999", POSTGRES_SUSPECT, REFUSES_RECORD}, /* of a server to come */
    };
    (void)state;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        struct postgres_refusal found = postgres_refusal_find(wanted[i].sqlstate);
        assert_int_equal(found.remedy, wanted[i].remedy);
        assert_int_equal(found.scope, wanted[i].scope);
        assert_true(*found.advice);
    }
    assert_string_equal(postgres_refusal_find("54000").code, "output_too_large");
    assert_string_equal(postgres_refusal_find("23502").code, "output_refused");
}

static void test_logins(void **state)
{
    static const struct {
        const char *message, *said;
        bool is_final;
    } wanted[] = {
        {"connection to server at \"h\" (10.0.0.1), port 5432 failed: FATAL:  28P01: password "
         "authentication failed for user \"u\"\nLOCATION:  auth_failed, auth.c:335\n",
         "password authentication failed for user \"u\": check", true},
        {"connection to server at \"h\", port 1 failed: FATAL:  3D000: database \"d\" does not "
         "exist\n",
         "database \"d\" does not exist: create", true},
        {"connection to server at \"h\", port 1 failed: FATALE:  57P03: il sistema si sta "
         "avviando\n",
         "il sistema si sta avviando", false},
        {"connection to server at \"h\", port 1 failed: Connection refused\n\tIs the server\n",
         "connection to server at \"h\", port 1 failed: Connection refused", false},
        {"connection to server at \"h\", port 1 failed: session is read-only\n",
         "connection to server at \"h\", port 1 failed: session is read-only", false},
    };
    char said[300];
    (void)state;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        assert_int_equal(postgres_refusal_of_login(wanted[i].message, said, sizeof said),
                         wanted[i].is_final);
        if (strncmp(said, wanted[i].said, strlen(wanted[i].said)) != 0)
            fail_msg("'%s' does not begin with '%s'", said, wanted[i].said);
        assert_null(strchr(said, '\n'));
    }
}

/* ---- tables */

struct cell {
    const char *table, *column, *type;
    bool unique, first;
};

static const struct cell whole[] = {
    {"1", "id", "text", true, true},
    {"1", "parent", "text", false, true},
    {"1", "chunk", "int4", false, false},
    {"1", "embedding", "vector", false, false},
    {"1", "metadata", "jsonb", false, false},
    {"1", "version", "int8", false, false},
    {"1", "version_order", "int8", false, false},
    {"2", "position", "text", true, true},
    {"2", "code", "text", false, false},
    {"2", "reason", "text", false, false},
    {"2", "key", "bytea", false, false},
    {"2", "value", "bytea", false, false},
    {"2", "headers", "jsonb", false, false},
    {"2", "died_at", "timestamptz", false, false},
    {"3", "id", "text", true, true},
    {"3", "version", "int8", false, false},
    {"3", "version_order", "int8", false, false},
    {"3", "deleted_at", "timestamptz", false, false},
};
enum { N_CELLS = sizeof whole / sizeof *whole };

static PGresult *answer(const struct cell *cells, size_t n)
{
    PGresult *result = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
    static const char *const names[] = {"public.\"T\"", "public.\"T_dlq\"", "public.\"T_deleted\""};
    PGresAttDesc columns[10] = {0};
    char name[20];
    for (size_t i = 0; i < 10; i++)
        columns[i].name = name;
    snprintf(name, sizeof name, "c");
    PQsetResultAttrs(result, 10, columns);
    for (int i = 0; i < (int)n; i++) {
        const struct cell *cell = &cells[i];
        const char *texts[10] = {cell->table,
                                 names[*cell->table - '1'],
                                 cell->column,
                                 cell->type,
                                 cell->type,
                                 "16385",
                                 "16391",
                                 strcmp(cell->column, "embedding") == 0 ? "4" : "-1",
                                 cell->unique ? "t" : "f",
                                 cell->first ? "t" : "f"};
        for (int j = 0; j < 10; j++)
            assert_true(PQsetvalue(result, i, j, (char *)texts[j], (int)strlen(texts[j])));
    }
    return result;
}

static struct postgres_config config = {
    .table = "\"T\"", .dead_letters = "\"T_dlq\"", .deleted = "\"T_deleted\""};

static enum postgres_fit read_cells(const struct cell *cells, size_t n,
                                    struct postgres_table *table, char why[400])
{
    PGresult *result = answer(cells, n);
    enum postgres_fit fit = postgres_table_read(table, &config, result, why, 400);
    PQclear(result);
    return fit;
}

static void test_table(void **state)
{
    struct postgres_table table;
    struct cell cells[N_CELLS];
    char why[400] = "";
    (void)state;
    assert_int_equal(read_cells(whole, N_CELLS, &table, why), POSTGRES_FITS);
    assert_string_equal(table.name, "public.\"T\"");
    assert_string_equal(table.letters, "public.\"T_dlq\"");
    assert_string_equal(table.deleted, "public.\"T_deleted\"");
    assert_int_equal(table.vector, 16385);
    assert_int_equal(table.vector_array, 16391);
    assert_int_equal(table.dim, 4);
    assert_non_null(strstr(table.upsert, "INSERT INTO public.\"T\" AS t"));
    assert_non_null(strstr(table.upsert, "u.id::text"));

    assert_int_equal(read_cells(whole, 0, &table, why), POSTGRES_LACKS);
    assert_non_null(strstr(why, "no table \"T\""));
    assert_int_equal(read_cells(whole, 7, &table, why), POSTGRES_LACKS);
    assert_non_null(strstr(why, "T_dlq"));
    assert_int_equal(read_cells(whole, 14, &table, why), POSTGRES_LACKS);
    assert_non_null(strstr(why, "T_deleted"));
    for (size_t i = 0; i < N_CELLS; i++) { /* each column in turn */
        memcpy(cells, whole, sizeof cells);
        cells[i].column = "other";
        assert_int_equal(read_cells(cells, N_CELLS, &table, why), POSTGRES_LACKS);
        assert_non_null(strstr(why, whole[i].column));
    }
    memcpy(cells, whole, sizeof cells);
    cells[4].type = "json";
    assert_int_equal(read_cells(cells, N_CELLS, &table, why), POSTGRES_LACKS);
    assert_non_null(strstr(why, "metadata of type jsonb"));
    memcpy(cells, whole, sizeof cells);
    cells[0].unique = false;
    assert_int_equal(read_cells(cells, N_CELLS, &table, why), POSTGRES_LACKS);
    assert_non_null(strstr(why, "PRIMARY KEY"));
    memcpy(cells, whole, sizeof cells);
    cells[1].first = false;
    assert_int_equal(read_cells(cells, N_CELLS, &table, why), POSTGRES_LACKS);
    assert_non_null(strstr(why, "CREATE INDEX"));
    memcpy(cells, whole, sizeof cells);
    cells[3].type = "halfvec";
    assert_int_equal(read_cells(cells, N_CELLS, &table, why), POSTGRES_DIFFERS);
    assert_non_null(strstr(why, "take dtype f2"));
}

/* ---- a transaction */

static const char be_vector[] = "\0\4\0\0\x3f\x80\0\0\xbf\x80\0\0\x3f\0\0\0\x40\0\0\0";

#define GIVEN_US 0x12345678

static struct message origin = {.position = {"s 1-0", 5}, .timestamp_ms = 9, .order = 3};

struct text {
    const char *id;
    uint32_t n_chunks;
    bool is_deleted;
};

/* A record of one text of 4 values, or of a deletion. */
static struct record *record_of(const struct text *text)
{
    static const float vector[] = {1, -1, 0.5f, 2};
    static struct record records[16];
    static struct part parts[16];
    static struct document documents[16];
    static size_t at;
    at = (at + 1) % 16;
    struct bytes id = {text->id, strlen(text->id)};
    documents[at] =
        (struct document){.id = id, .is_deleted = text->is_deleted, .n_chunks = text->n_chunks};
    parts[at] = (struct part){.id = id, .document = &documents[at]};
    if (!text->is_deleted)
        parts[at].vector = (struct bytes){(const char *)vector, sizeof vector};
    records[at] = (struct record){.origin = &origin,
                                  .parts = &parts[at],
                                  .n_parts = 1,
                                  .documents = &documents[at],
                                  .n_documents = 1};
    return &records[at];
}

static struct postgres_burst burst;
static struct postgres_table table;
static char why[400];

static void begin(void)
{
    assert_int_equal(read_cells(whole, N_CELLS, &table, why), POSTGRES_FITS);
    postgres_burst_begin(&burst, &config, &table);
}

static enum postgres_fits add(struct record *record)
{
    return postgres_burst_add(&burst, record, GIVEN_US, why, sizeof why);
}

static bool has_bytes(const struct postgres_array *array, const char *bytes, size_t len)
{
    for (size_t i = 0; i + len <= array->bytes.len; i++)
        if (memcmp(array->bytes.ptr + i, bytes, len) == 0)
            return true;
    return false;
}

/* Where others have versions and a delete has none it is newer than whatever is there. */
static void test_versionless(void **state)
{
    (void)state;
    begin();
    struct record *record = record_of(&(struct text){"c", 0, true});
    struct document document = record->documents[0];
    document.lacks_version = true;
    record->documents = &document;
    assert_int_equal(add(record), BURST_TAKES);
    assert_int_equal(postgres_burst_end(&burst, NULL), 0);
    assert_int_equal(burst.n_deleted, 1);
    assert_true(has_bytes(&burst.deleted[1], "\xff\xff\xff\xff", 4)); /* null */
    assert_true(has_bytes(&burst.docs[3], "\xff\xff\xff\xff", 4));
    assert_true(has_bytes(&burst.deleted[2], "\0\0\0\0\0\0\0\3", 8));
}

static void test_burst(void **state)
{
    static const char head[] = "\0\0\0\1\0\0\0\1\0\0\0\x19\0\0\0\2\0\0\0\1\0\0\0\1"
                               "a\0\0\0\1b";
    (void)state;
    begin();
    assert_int_equal(add(record_of(&(struct text){"a", 0, false})), BURST_TAKES);
    assert_int_equal(add(record_of(&(struct text){"b", 0, false})), BURST_TAKES);
    assert_int_equal(add(record_of(&(struct text){"a", 0, false})), BURST_FULL); /* again */
    assert_int_equal(add(record_of(&(struct text){"a", 0, true})), BURST_FULL);
    assert_int_equal(add(record_of(&(struct text){"c", 0, true})), BURST_TAKES);
    assert_int_equal(postgres_burst_end(&burst, NULL), 0);
    assert_int_equal(burst.n_rows, 2);
    assert_int_equal(burst.n_docs, 3);
    assert_int_equal(burst.n_wholes, 1); /* only what is gone */
    assert_int_equal(burst.n_deleted, 1);
    /* Settings, rows parsed, a group, the lock, what is gone, who came back, pieces, wholes. */
    assert_int_equal(burst.n, 8);
    assert_ptr_equal(burst.statements[3].sql, postgres_table_lock);
    assert_true(has_bytes(&burst.deleted[0], "\0\0\0\1c", 5));
    assert_true(has_bytes(&burst.deleted[1], "\0\0\0\0\0\0\0\11", 8));
    assert_null(burst.statements[1].values);
    assert_null(burst.statements[2].sql);
    assert_int_equal(burst.rows[0][0].bytes.len, sizeof head - 1);
    assert_memory_equal(burst.rows[0][0].bytes.ptr, head, sizeof head - 1);
    assert_true(has_bytes(&burst.rows[0][3], be_vector, sizeof be_vector - 1));
    assert_true(has_bytes(&burst.rows[0][5], "\0\0\0\0\0\0\0\11", 8));
    assert_true(has_bytes(&burst.rows[0][6], "\0\0\0\0\0\0\0\3", 8));
    assert_true(has_bytes(&burst.rows[0][4], "\1{}", 3));
    postgres_burst_begin(&burst, &config, &table);
    assert_int_equal(add(record_of(&(struct text){"a", 0, false})), BURST_TAKES);
    assert_int_equal(postgres_burst_end(&burst, NULL), 0);
    assert_ptr_equal(burst.statements[3].sql, postgres_table_share); /* nothing is deleted */
    postgres_burst_close(&burst);
    memset(&burst, 0, sizeof burst);
}

/* What stood aside is sent later, and is not newer for that. */
static void test_order_where_the_source_has_none(void **state)
{
    (void)state;
    struct message timeless = {.position = {"1", 1}, .timestamp_ms = -1};
    struct record *record = record_of(&(struct text){.id = "a"});
    record->origin = &timeless;
    begin();
    assert_int_equal(add(record), BURST_TAKES);
    assert_true(has_bytes(&burst.rows[0][5], "\0\0\0\0\0\4\xa9\x0b", 8));
    assert_true(has_bytes(&burst.rows[0][6], "\0\0\0\0\x12\x34\x56\x78", 8));
    timeless.timestamp_ms = 9;
    begin();
    assert_int_equal(add(record), BURST_TAKES);
    assert_true(has_bytes(&burst.rows[0][5], "\0\0\0\0\0\0\0\11", 8));
    assert_true(has_bytes(&burst.rows[0][6], "\0\0\0\0\x12\x34\x56\x78", 8));
}

static void test_what_is_refused(void **state)
{
    static const float five[5] = {1};
    (void)state;
    begin();
    assert_int_equal(add(record_of(&(struct text){"\xff", 0, false})), BURST_REFUSES);
    assert_non_null(strstr(why, "UTF-8"));
    struct record *record = record_of(&(struct text){"a", 0, false});
    ((struct part *)record->parts)->vector = (struct bytes){(const char *)five, sizeof five};
    assert_int_equal(add(record), BURST_DIFFERS);
    assert_non_null(strstr(why, "5 dimensions"));
    char *huge = calloc(1, (128u << 20) + 1);
    ((struct part *)record->parts)->vector = (struct bytes){huge, (128u << 20) + 1};
    assert_int_equal(add(record), BURST_TOO_LARGE);
    free(huge);
    postgres_burst_close(&burst);
    memset(&burst, 0, sizeof burst);
}

/* NUL in JSON and in sentences, which a server takes nowhere, and headers that are the columns'. */
static void test_text_is_cleaned(void **state)
{
    static const struct header headers[] = {
        {{"k\\", 2}, {"a\0\"b", 4}}, {{"embedding-dim", 13}, {"4", 1}}, {{"bad", 3}, {"\xfe", 1}}};
    static const char fields[] = "{\"x\":\"\\\\u0000 \\u0000\"}";
    static const char wanted[] = "\1{\"k\\\\\":\"a\xef\xbf\xbd\\\"b\",\"bad\":\"\xef\xbf\xbd\","
                                 "\"x\":\"\\\\u0000 \xef\xbf\xbd\"}";
    static const char letter[] = "\1[{\"name\":\"k\\\\\",\"base64\":\"YQAiYg==\"},{\"name\":"
                                 "\"embedding-dim\",\"value\":\"4\"},{\"name\":\"bad\",\"base64\":"
                                 "\"/g==\"}]";
    (void)state;
    begin();
    struct record *record = record_of(&(struct text){"a", 0, false});
    record->headers = headers;
    record->n_headers = 3;
    ((struct part *)record->parts)->value = (struct bytes){fields, sizeof fields - 1};
    assert_int_equal(add(record), BURST_TAKES);
    assert_true(has_bytes(&burst.rows[0][4], wanted, sizeof wanted - 1));
    struct record *dead = record_of(&(struct text){"a", 0, false});
    dead->headers = headers;
    dead->n_headers = 3;
    dead->n_documents = 0;
    dead->dead_code = "bad_json";
    dead->dead_reason = "has \xff";
    assert_int_equal(add(dead), BURST_TAKES);
    assert_int_equal(add(dead), BURST_FULL); /* of the same message */
    assert_true(has_bytes(&burst.letters[2], "has \xef\xbf\xbd", 7));
    assert_true(has_bytes(&burst.letters[5], letter, sizeof letter - 1));
    assert_int_equal(postgres_burst_end(&burst, NULL), 0);
    assert_int_equal(burst.steps[burst.n - 1], STEP_LETTERS);
    postgres_burst_close(&burst);
    memset(&burst, 0, sizeof burst);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hosts),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_logins),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_burst),
        cmocka_unit_test(test_versionless),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_text_is_cleaned),
        cmocka_unit_test(test_order_where_the_source_has_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
