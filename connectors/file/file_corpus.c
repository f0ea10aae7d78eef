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

#define MAX_DEPTH 64 /* folders in folders */

/* A folder that is being walked, in the one above it. */
struct level {
    const struct level *above; /* NULL: the corpus itself */
    dev_t device;
    ino_t inode;
    int depth;
};

static bool ends_with(const char *name, size_t len, const char *end)
{
    size_t n = strlen(end);
    return len >= n && strncasecmp(name + len - n, end, n) == 0;
}

static bool ends_with_any(const char *name, size_t len, const char *const *ends)
{
    while (*ends && !ends_with(name, len, *ends))
        ends++;
    return *ends != NULL;
}

/* Of a name without .gz and .zst, and what else their tools put there. */
static size_t name_len(const char *path)
{
    static const char *const packed[] = {".gz", ".zst", ".gzip", ".zstd", ".bgz", NULL};
    size_t len = strlen(path);
    /* What follows the last dot is the packer's ending, of whatever length. */
    return ends_with_any(path, len, packed) ? (size_t)(strrchr(path, '.') - path) : len;
}

char file_corpus_delimiter(const char *path)
{
    size_t len = name_len(path);
    return ends_with(path, len, ".tsv") || ends_with(path, len, ".tab") ? '\t' : '\0';
}

static enum file_format format_of_name(const char *path)
{
    static const char *const jsonl[] = {".jsonl", ".ndjson", ".json",     ".jsonlines",
                                        ".jl",    ".ldjson", ".geojsonl", NULL};
    static const char *const csv[] = {".csv", ".tsv", ".tab", NULL};
    size_t len = name_len(path);
    return ends_with_any(path, len, jsonl) ? FILE_JSONL
           : ends_with_any(path, len, csv) ? FILE_CSV
                                           : FILE_LINES;
}

static enum file_format format_of(const char *path, const char *format, bool is_folder)
{
    static const char *const names[] = {"jsonl", "lines", "csv", "text"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(format, names[i]) == 0)
            return (enum file_format)i;
    if (is_folder)
        return FILE_TEXT;
    return format_of_name(path);
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

static int walk(struct file_corpus *corpus, const char *folder, const struct level *level,
                char *err, size_t err_size);

static int add_or_say(struct file_corpus *corpus, const char *path, char *err, size_t err_size)
{
    int rc = add(corpus, path);
    if (rc != 0)
        snprintf(err, err_size, "out of memory for the names of %zu files", corpus->n);
    return rc;
}

/* Is it the folder that is walked, or one above it? Then a link has led back there. */
static bool is_circle(const struct level *level, const struct stat *about)
{
    for (; level; level = level->above)
        if (level->device == about->st_dev && level->inode == about->st_ino)
            return true;
    return false;
}

static int visit(struct file_corpus *corpus, const char *path, const struct level *level, char *err,
                 size_t err_size)
{
    struct stat about;
    if (stat(path, &about) != 0) {
        if (errno == ENOENT || errno == ELOOP) /* a link to nowhere, or to itself */
            return 0;
        if (file_is_unreadable(-errno)) /* it is an error of its own when its turn comes */
            return add_or_say(corpus, path, err, err_size);
        int rc = -errno;
        snprintf(err, err_size, "%s cannot be read: %s", path, strerror(errno));
        return rc;
    }
    if (S_ISDIR(about.st_mode)) {
        struct level below = {level, about.st_dev, about.st_ino, level->depth + 1};
        return is_circle(level, &about) ? 0 : walk(corpus, path, &below, err, err_size);
    }
    /* Sockets, devices, and pipes that nobody may ever write to. */
    if (!S_ISREG(about.st_mode))
        return 0;
    corpus->bytes += (uint64_t)about.st_size;
    int rc = add_or_say(corpus, path, err, err_size);
    /* A .json in a folder is a document more often than lines. */
    corpus->n_of_records +=
        rc == 0 && format_of_name(path) != FILE_LINES && !ends_with(path, name_len(path), ".json");
    return rc;
}

/* What is in a folder that is open. */
static int walk_entries(struct file_corpus *corpus, const char *folder, DIR *dir,
                        const struct level *level, char *err, size_t err_size)
{
    int rc = 0;
    size_t slash = strlen(folder);
    bool has_slash = slash > 0 && folder[slash - 1] == '/';
    for (struct dirent *entry; rc == 0 && (entry = readdir(dir));) {
        /* . and .., and what people and tools hide: .git, .DS_Store, half-written downloads. */
        if (entry->d_name[0] == '.')
            continue;
        size_t size = slash + strlen(entry->d_name) + 2;
        char *path = malloc(size);
        if (!path) {
            snprintf(err, err_size, "out of memory");
            return -ENOMEM;
        }
        snprintf(path, size, "%s%s%s", folder, has_slash ? "" : "/", entry->d_name);
        rc = visit(corpus, path, level, err, err_size);
        free(path);
    }
    return rc;
}

static int walk(struct file_corpus *corpus, const char *folder, const struct level *level,
                char *err, size_t err_size)
{
    /* Each level holds a descriptor open and a frame of the stack. */
    if (level->depth >= MAX_DEPTH) {
        snprintf(err, err_size, "%s cannot be read: folders in folders, %d deep", folder,
                 MAX_DEPTH);
        return -ELOOP;
    }
    DIR *dir = opendir(folder);
    /* Only one below the corpus; the corpus itself has to be readable. */
    if (!dir && level->above && file_is_unreadable(-errno))
        return add_or_say(corpus, folder, err, err_size);
    if (!dir) {
        int rc = -errno;
        snprintf(err, err_size, "%s cannot be read: %s", folder, strerror(-rc));
        return rc;
    }
    int rc = walk_entries(corpus, folder, dir, level, err, err_size);
    closedir(dir);
    return rc;
}

bool file_is_unreadable(int rc)
{
    return rc == -EACCES || rc == -EPERM || rc == -ENOENT || rc == -ENOTDIR || rc == -ELOOP ||
           rc == -ENAMETOOLONG;
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
    corpus.is_guessed = strcmp(format, "auto") == 0;
    if (is_folder) {
        size_t len = strlen(path);
        /* Keys are paths below the folder: they stay the same when the corpus is moved. */
        corpus.root_len = len + (path[len - 1] != '/');
        struct level top = {NULL, about.st_dev, about.st_ino, 0};
        rc = walk(&corpus, path, &top, err, err_size);
        if (rc == 0 && corpus.n == 0) {
            snprintf(err, err_size, "%s holds no files", path);
            rc = -ENOENT;
        }
        if (rc == 0)
            /* readdir's order is the file system's: shards and places need the same one on every
             * machine. */
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
