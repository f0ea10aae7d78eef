/*
 * postgres.c: how fast the sink `postgres` writes vectors that are there already, beside COPY.
 *
 * Usage: bench_postgres URL VECTORS DIM ROUNDS
 *
 * VECTORS: a file of little-endian float32, DIM for each row. In each round the rows go into an
 * empty table once by COPY in binary, in one transaction, and once through the sink, as the
 * pipeline gives them: 512 under way at most. Both tables are made as `embedmill schema` makes
 * them. Prints a line for each round: rows a second by COPY, by the sink, their ratio.
 *
 * Threads: one.
 */
#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "connectors/connector.h"

enum { WINDOW = 512 };

struct row {
    struct message message;
    struct document document;
    struct part part;
    struct record record;
    char id[24], fields[64];
};

struct run {
    PGconn *conn;
    const char *vectors;
    size_t n, dim, n_given, n_done;
    struct row *rows;
    struct sink *sink;
    uv_loop_t loop;
    bool closed;
};

static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench_postgres: %s: %s\n", what, why);
    exit(1);
}

static void sql(struct run *run, const char *text)
{
    PGresult *result = PQexec(run->conn, text);
    if (PQresultStatus(result) != PGRES_COMMAND_OK && PQresultStatus(result) != PGRES_TUPLES_OK)
        die(text, PQerrorMessage(run->conn));
    PQclear(result);
}

static struct settings *settings_of(const char *url)
{
    const struct connector *connector = connector_find("postgres");
    const struct option *tables[] = {connector->options, NULL};
    struct settings *settings;
    char err[300];
    if (settings_open(&settings, tables) ||
        settings_set(settings, "postgres.url", url, err, sizeof err))
        die("options", err);
    return settings;
}

/* Empty, and without what the round before left to be cleaned up. */
static void make_tables(struct run *run, const struct settings *settings)
{
    char *text = NULL, err[300];
    size_t len;
    FILE *to = open_memstream(&text, &len);
    sql(run, "DROP TABLE IF EXISTS embeddings, embeddings_dlq, embeddings_deleted");
    if (!to || connector_find("postgres")->schema(settings, run->dim, to, err, sizeof err))
        die("schema", err);
    fclose(to);
    sql(run, text);
    sql(run, "CHECKPOINT");
    free(text);
}

static void rows_open(struct run *run)
{
    run->rows = calloc(run->n, sizeof *run->rows);
    for (size_t i = 0; i < run->n; i++) {
        struct row *row = &run->rows[i];
        int len = snprintf(row->id, sizeof row->id, "document-%zu", i);
        int n = snprintf(row->fields, sizeof row->fields, "{\"lang\":\"en\",\"n\":%zu}", i);
        row->message = (struct message){.timestamp_ms = 1, .order = (int64_t)i + 1};
        row->document = (struct document){.id = {row->id, (size_t)len}};
        row->part = (struct part){
            .id = row->document.id,
            .value = {row->fields, (size_t)n},
            .vector = {run->vectors + i * run->dim * sizeof(float), run->dim * sizeof(float)},
            .document = &row->document};
        row->record = (struct record){.origin = &row->message,
                                      .parts = &row->part,
                                      .n_parts = 1,
                                      .documents = &row->document,
                                      .n_documents = 1};
    }
}

/* ---- by COPY */

static char *put(char *at, const void *from, size_t len)
{
    memcpy(at, from, len);
    return at + len;
}

static char *put_int(char *at, uint64_t value, int width)
{
    for (int i = width - 1; i >= 0; i--)
        *at++ = (char)(value >> (8 * i));
    return at;
}

static size_t copy_row(const struct row *row, size_t dim, char *out)
{
    char *at = put_int(out, 7, 2);
    at = put_int(at, row->part.id.len, 4);
    at = put(at, row->part.id.ptr, row->part.id.len);
    at = put_int(at, UINT32_MAX, 4); /* parent and chunk: null */
    at = put_int(at, UINT32_MAX, 4);
    at = put_int(at, 4 + 4 * dim, 4);
    at = put_int(at, dim, 2);
    at = put_int(at, 0, 2);
    for (size_t i = 0; i < dim; i++) {
        uint32_t value;
        memcpy(&value, row->part.vector.ptr + 4 * i, 4);
        value = __builtin_bswap32(value);
        at = put(at, &value, 4);
    }
    at = put_int(at, 1 + row->part.value.len, 4);
    at = put_int(at, 1, 1);
    at = put(at, row->part.value.ptr, row->part.value.len);
    at = put_int(at, 8, 4);
    at = put_int(at, 1, 8);
    at = put_int(at, 8, 4);
    at = put_int(at, (uint64_t)row->message.order, 8);
    return (size_t)(at - out);
}

static double copy_all(struct run *run)
{
    static const char head[19] = "PGCOPY\n\377\r\n";
    static char row[1 << 16];
    uint64_t began = uv_hrtime();
    PGresult *result = PQexec(run->conn, "COPY embeddings FROM STDIN (FORMAT binary)");
    if (PQresultStatus(result) != PGRES_COPY_IN)
        die("COPY", PQerrorMessage(run->conn));
    PQclear(result);
    PQputCopyData(run->conn, head, sizeof head);
    for (size_t i = 0; i < run->n; i++)
        PQputCopyData(run->conn, row, (int)copy_row(&run->rows[i], run->dim, row));
    PQputCopyData(run->conn, "\377\377", 2);
    if (PQputCopyEnd(run->conn, NULL) != 1)
        die("COPY", PQerrorMessage(run->conn));
    result = PQgetResult(run->conn);
    if (PQresultStatus(result) != PGRES_COMMAND_OK)
        die("COPY", PQerrorMessage(run->conn));
    PQclear(result);
    while ((result = PQgetResult(run->conn)))
        PQclear(result);
    return (double)run->n / ((double)(uv_hrtime() - began) * 1e-9);
}

/* ---- through the sink */

static void give(struct run *run)
{
    struct record *records[WINDOW];
    size_t n = 0;
    while (run->n_given < run->n && run->n_given - run->n_done < WINDOW)
        records[n++] = &run->rows[run->n_given++].record;
    if (n)
        run->sink->ops->publish(run->sink, records, n);
}

static void on_closed(void *ctx)
{
    ((struct run *)ctx)->closed = true;
}

static void on_published(void *ctx, struct record *record, enum published how)
{
    struct run *run = ctx;
    (void)record;
    if (how != PUBLISHED)
        die("sink", "a record is refused");
    run->n_done++;
    if (run->n_given - run->n_done <= WINDOW / 2)
        give(run);
}

static void on_state(void *ctx, enum link_state state, const char *why)
{
    (void)ctx;
    if (state == LINK_WAIT)
        die("sink", why);
}

static void on_failed(void *ctx, int err, const char *why)
{
    (void)ctx, (void)err;
    die("sink", why);
}

static double sink_all(struct run *run, const struct settings *settings)
{
    static const struct sink_events events = {
        .on_published = on_published, .on_state = on_state, .on_failed = on_failed};
    char err[300];
    run->n_given = run->n_done = 0;
    run->closed = false;
    uv_loop_init(&run->loop);
    if (connector_find("postgres")
            ->sink->open(&run->sink, &run->loop, settings, NULL, &events, run, err, sizeof err))
        die("sink", err);
    uint64_t began = uv_hrtime();
    give(run);
    while (run->n_done < run->n)
        uv_run(&run->loop, UV_RUN_ONCE);
    double rate = (double)run->n / ((double)(uv_hrtime() - began) * 1e-9);
    run->sink->ops->close(run->sink, 1000, on_closed, run);
    while (!run->closed)
        uv_run(&run->loop, UV_RUN_ONCE);
    uv_run(&run->loop, UV_RUN_DEFAULT);
    uv_loop_close(&run->loop);
    return rate;
}

static void check_count(struct run *run)
{
    PGresult *result = PQexec(run->conn, "SELECT count(*) FROM embeddings");
    if (strtoull(PQgetvalue(result, 0, 0), NULL, 10) != run->n)
        die("table", "not all rows are in it");
    PQclear(result);
}

static char *read_file(const char *path, size_t *len)
{
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END))
        die(path, "cannot be read");
    *len = (size_t)ftell(file);
    rewind(file);
    char *bytes = malloc(*len);
    if (!bytes || fread(bytes, 1, *len, file) != *len)
        die(path, "cannot be read");
    fclose(file);
    return bytes;
}

int main(int argc, char **argv)
{
    struct run run = {0};
    size_t len;
    if (argc != 5)
        die("usage", "bench_postgres URL VECTORS DIM ROUNDS");
    char *vectors = read_file(argv[2], &len);
    struct settings *settings = settings_of(argv[1]);
    run.vectors = vectors;
    run.dim = strtoul(argv[3], NULL, 10);
    run.n = len / (run.dim * sizeof(float));
    run.conn = PQconnectdb(argv[1]);
    if (PQstatus(run.conn) != CONNECTION_OK)
        die("connection", PQerrorMessage(run.conn));
    sql(&run, "SET client_min_messages = warning");
    rows_open(&run);
    for (unsigned long i = 0; i < strtoul(argv[4], NULL, 10); i++) {
        double rates[2];
        for (size_t j = 0; j < 2; j++) { /* each goes first in turn */
            make_tables(&run, settings);
            bool is_sink = (i + j) % 2;
            rates[is_sink] = is_sink ? sink_all(&run, settings) : copy_all(&run);
            check_count(&run);
        }
        printf("{\"copy\": %.1f, \"sink\": %.1f, \"ratio\": %.3f}\n", rates[0], rates[1],
               rates[1] / rates[0]);
        fflush(stdout);
    }
    PQfinish(run.conn);
    settings_close(settings);
    free(run.rows);
    free(vectors);
    return 0;
}
