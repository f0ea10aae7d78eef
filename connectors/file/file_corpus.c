/*
 * file_corpus.c: see file_corpus.h.
 */
#include "connectors/file/file_corpus.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "connectors/file/file.h"

#define MAX_DEPTH 64 /* folders in folders; links can make circles */

static bool ends_with(const char *name, size_t len, const char *end)
{
    size_t n = strlen(end);
    return len >= n && strncasecmp(name + len - n, end, n) == 0;
}

/* Of a name without .gz and .zst. */
static size_t name_len(const char *path)
{
    size_t len = strlen(path);
    return ends_with(path, len, ".gz") ? len - 3 : ends_with(path, len, ".zst") ? len - 4 : len;
}

char file_corpus_delimiter(const char *path)
{
    return ends_with(path, name_len(path), ".tsv") ? '\t' : '\0';
}

static enum file_format format_of(const char *path, const char *format, bool is_folder)
{
    static const char *const names[] = {"jsonl", "lines", "csv", "text"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(format, names[i]) == 0)
            return (enum file_format)i;
    if (is_folder)
        return FILE_TEXT;
    size_t len = name_len(path);
    if (ends_with(path, len, ".jsonl") || ends_with(path, len, ".ndjson") ||
        ends_with(path, len, ".json"))
        return FILE_JSONL;
    bool is_csv = ends_with(path, len, ".csv") || ends_with(path, len, ".tsv");
    return is_csv ? FILE_CSV : FILE_LINES;
}

static int add(struct file_corpus *corpus, const char *path)
{
    if (corpus->n == corpus->room) {
        size_t room = corpus->room ? corpus->room * 2 : 16;
        char **paths = realloc(corpus->paths, room * sizeof *paths);
        if (!paths)
            return -ENOMEM;
        corpus->paths = paths;
        corpus->room = room;
    }
    corpus->paths[corpus->n] = strdup(path);
    return corpus->paths[corpus->n++] ? 0 : -ENOMEM;
}

static int walk(struct file_corpus *corpus, const char *folder, int depth, char *err,
                size_t err_size);

static int visit(struct file_corpus *corpus, const char *path, int depth, char *err,
                 size_t err_size)
{
    struct stat about;
    if (stat(path, &about) != 0) {
        if (errno == ENOENT) /* a link to nowhere */
            return 0;
        int rc = -errno;
        snprintf(err, err_size, "%s cannot be read: %s", path, strerror(errno));
        return rc;
    }
    if (S_ISDIR(about.st_mode))
        return walk(corpus, path, depth + 1, err, err_size);
    if (!S_ISREG(about.st_mode))
        return 0;
    corpus->bytes += (uint64_t)about.st_size;
    int rc = add(corpus, path);
    if (rc != 0)
        snprintf(err, err_size, "out of memory for the names of %zu files", corpus->n);
    return rc;
}

static int walk(struct file_corpus *corpus, const char *folder, int depth, char *err,
                size_t err_size)
{
    DIR *dir = depth < MAX_DEPTH ? opendir(folder) : NULL;
    if (!dir) {
        int rc = depth < MAX_DEPTH ? -errno : -ELOOP;
        snprintf(err, err_size, "%s cannot be read: %s", folder, strerror(-rc));
        return rc;
    }
    int rc = 0;
    size_t slash = strlen(folder);
    bool has_slash = slash > 0 && folder[slash - 1] == '/';
    for (struct dirent *entry; rc == 0 && (entry = readdir(dir));) {
        if (entry->d_name[0] == '.')
            continue;
        size_t size = slash + strlen(entry->d_name) + 2;
        char *path = malloc(size);
        if (!path) {
            snprintf(err, err_size, "out of memory");
            rc = -ENOMEM;
            break;
        }
        snprintf(path, size, "%s%s%s", folder, has_slash ? "" : "/", entry->d_name);
        rc = visit(corpus, path, depth, err, err_size);
        free(path);
    }
    closedir(dir);
    return rc;
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int file_corpus_open(struct file_corpus *out, const char *path, const char *format, char *err,
                     size_t err_size)
{
    struct file_corpus corpus = {0};
    struct stat about = {0};
    int rc = 0;
    bool is_stdin = strcmp(path, "-") == 0;
    if (!is_stdin && stat(path, &about) != 0) {
        rc = -errno;
        snprintf(err, err_size, "%s cannot be read: %s", path, strerror(errno));
        return rc;
    }
    bool is_folder = !is_stdin && S_ISDIR(about.st_mode);
    corpus.format = format_of(path, format, is_folder);
    if (is_folder) {
        size_t len = strlen(path);
        corpus.root_len = len + (path[len - 1] != '/');
        rc = walk(&corpus, path, 0, err, err_size);
        if (rc == 0 && corpus.n == 0) {
            snprintf(err, err_size, "%s holds no files", path);
            rc = -ENOENT;
        }
        if (rc == 0)
            qsort(corpus.paths, corpus.n, sizeof corpus.paths[0], compare);
    } else {
        corpus.bytes = is_stdin || !S_ISREG(about.st_mode) ? 0 : (uint64_t)about.st_size;
        rc = add(&corpus, path);
        if (rc != 0)
            snprintf(err, err_size, "out of memory");
    }
    if (rc != 0) {
        file_corpus_close(&corpus);
        return rc;
    }
    *out = corpus;
    return 0;
}

void file_corpus_close(struct file_corpus *corpus)
{
    for (size_t i = 0; i < corpus->n; i++)
        free(corpus->paths[i]);
    free(corpus->paths);
    *corpus = (struct file_corpus){0};
}

bool file_holds_json(const char *path, const char *format)
{
    struct stat about;
    bool is_folder = stat(path, &about) == 0 && S_ISDIR(about.st_mode);
    enum file_format found = format_of(path, format, is_folder);
    return found == FILE_JSONL || found == FILE_CSV;
}
