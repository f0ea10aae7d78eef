/*
 * peer.c: one side of the paired benchmark: an engine, and commands for it on standard input.
 *
 *     peer MODEL TEXTS THREADS SETTING
 *
 * TEXTS: one text a line. SETTING is the engine's: a precision here, the ubatch of llama.cpp. First
 * "ready SECONDS" is answered: from before the model was opened to the vector of the first text.
 * Then, for each line of standard input, one line:
 *
 *     texts FILE    take these texts from now on  "N"
 *     batch         all texts in one call         "SECONDS TOKENS CPU_SECONDS"
 *     one           the first text alone          the same
 *     tokens        tokens of each text           "12 7 33 ..."
 *     ids FILE      token ids, a line a text      "N"
 *     vectors FILE  vectors of the last batch     "DIM"
 *     memory        resident and anonymous KiB    "RESIDENT ANONYMOUS"
 *
 * What is wrong goes to standard error, and the exit code is 1; 2: a text does not fit into what
 * SETTING allows. scripts/bench_peers/peer.py is the same for engines that are used from Python.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/bench/engine.h"

enum { TEXTS_MAX = 100000, IDS_MAX = 8192, UNFIT = 2 };

struct peer {
    struct engine *engine;
    struct text *texts; /* [n] */
    size_t n;
    float *vectors;     /* [n][dim] */
    uint32_t *n_tokens; /* [n] */
};

static double seconds_of(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static double seconds(void)
{
    return seconds_of(CLOCK_MONOTONIC);
}

static void texts_free(struct peer *peer)
{
    for (size_t i = 0; i < peer->n; i++)
        free((char *)peer->texts[i].ptr);
    free(peer->texts);
    free(peer->vectors);
    free(peer->n_tokens);
    peer->texts = NULL;
    peer->vectors = NULL;
    peer->n_tokens = NULL;
    peer->n = 0;
}

static int texts_read(struct peer *peer, const char *path)
{
    FILE *f = fopen(path, "re");
    char *line = NULL;
    size_t room = 0;
    texts_free(peer);
    peer->texts = calloc(TEXTS_MAX, sizeof *peer->texts);
    if (!f || !peer->texts) {
        if (f)
            fclose(f);
        return -ENOENT;
    }
    for (ssize_t len; peer->n < TEXTS_MAX && (len = getline(&line, &room, f)) > 0;) {
        len -= line[len - 1] == '\n';
        peer->texts[peer->n++] = (struct text){strndup(line, (size_t)len), (size_t)len};
    }
    free(line);
    fclose(f);
    return peer->n ? 0 : -ENODATA;
}

static int embed(struct peer *peer, size_t n, double *took)
{
    double began = seconds();
    int rc = engine_embed(peer->engine, peer->texts, n, peer->vectors, peer->n_tokens);
    *took = seconds() - began;
    if (rc < 0 && rc != -E2BIG) /* which the exit code tells */
        fprintf(stderr, "peer: texts cannot be embedded: %s\n", strerror(-rc));
    return rc;
}

static int time_and_report(struct peer *peer, size_t n)
{
    double took, cpu = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
    unsigned long sum = 0;
    int rc = embed(peer, n, &took);
    if (rc < 0)
        return rc;
    cpu = seconds_of(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    for (size_t i = 0; i < n; i++)
        sum += peer->n_tokens[i];
    printf("%.9f %lu %.9f\n", took, sum, cpu);
    return 0;
}

static int report_memory(void)
{
    unsigned long resident = 0, anonymous = 0;
    char line[200];
    FILE *f = fopen("/proc/self/smaps_rollup", "re");
    if (!f)
        return -errno;
    while (fgets(line, sizeof line, f)) {
        sscanf(line, "Rss: %lu", &resident);
        sscanf(line, "Anonymous: %lu", &anonymous);
    }
    fclose(f);
    printf("%lu %lu\n", resident, anonymous);
    return 0;
}

static int write_vectors(const struct peer *peer, const char *path)
{
    size_t n = peer->n * engine_dim(peer->engine);
    FILE *f = fopen(path, "we");
    if (!f)
        return -errno;
    size_t written = fwrite(peer->vectors, sizeof *peer->vectors, n, f);
    if (fclose(f) != 0 || written != n)
        return -EIO;
    printf("%zu\n", engine_dim(peer->engine));
    return 0;
}

/* Room for the results of all texts; the engine is open. */
static int results_alloc(struct peer *peer)
{
    peer->vectors = calloc(peer->n * engine_dim(peer->engine), sizeof *peer->vectors);
    peer->n_tokens = calloc(peer->n, sizeof *peer->n_tokens);
    return peer->vectors && peer->n_tokens ? 0 : -ENOMEM;
}

static int texts_take(struct peer *peer, const char *path)
{
    int rc = texts_read(peer, path);
    if (rc == 0)
        rc = results_alloc(peer);
    if (rc == 0)
        printf("%zu\n", peer->n);
    return rc;
}

static int write_ids(const struct peer *peer, const char *path)
{
    FILE *f = fopen(path, "we");
    int rc = f ? 0 : -errno;
    for (size_t i = 0; rc == 0 && i < peer->n; i++) {
        int32_t ids[IDS_MAX];
        size_t n_ids = 0;
        rc = engine_ids(peer->engine, peer->texts[i], ids, IDS_MAX, &n_ids);
        for (size_t k = 0; rc == 0 && k < n_ids; k++)
            fprintf(f, k ? " %d" : "%d", ids[k]);
        if (rc == 0)
            fputc('\n', f);
    }
    if (f && fclose(f) != 0 && rc == 0)
        rc = -EIO;
    if (rc == 0)
        printf("%zu\n", peer->n);
    return rc;
}

static int obey(struct peer *peer, const char *command)
{
    if (strncmp(command, "texts ", 6) == 0)
        return texts_take(peer, command + 6);
    if (strncmp(command, "ids ", 4) == 0)
        return write_ids(peer, command + 4);
    if (strcmp(command, "batch") == 0)
        return time_and_report(peer, peer->n);
    if (strcmp(command, "one") == 0)
        return time_and_report(peer, 1);
    if (strcmp(command, "memory") == 0)
        return report_memory();
    if (strncmp(command, "vectors ", 8) == 0)
        return write_vectors(peer, command + 8);
    if (strcmp(command, "tokens") != 0)
        return -EINVAL;
    for (size_t i = 0; i < peer->n; i++)
        printf("%u%c", peer->n_tokens[i], i + 1 < peer->n ? ' ' : '\n');
    return 0;
}

static int run(struct peer *peer, char **argv)
{
    char err[300] = "out of memory", line[4096];
    double began = seconds(), took;
    int rc =
        engine_open(&peer->engine, argv[1], strtoul(argv[3], NULL, 10), argv[4], err, sizeof err);
    if (rc < 0) {
        fprintf(stderr, "peer: %s\n", err);
        return rc;
    }
    rc = results_alloc(peer);
    if (rc == 0)
        rc = embed(peer, 1, &took);
    if (rc < 0)
        return rc;
    printf("ready %.9f\n", seconds() - began);
    fflush(stdout);
    while (rc == 0 && fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = '\0';
        rc = obey(peer, line);
        fflush(stdout);
    }
    return rc;
}

int main(int argc, char **argv)
{
    struct peer peer = {0};
    if (argc != 5 || texts_read(&peer, argv[2]) < 0) {
        fprintf(stderr, "Usage: %s MODEL TEXTS THREADS SETTING <commands\n", argv[0]);
        return 64;
    }
    int rc = run(&peer, argv);
    engine_close(peer.engine);
    texts_free(&peer);
    return rc == -E2BIG ? UNFIT : rc < 0;
}
