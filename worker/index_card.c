/*
 * index_card.c: see index_card.h.
 */
#include "worker/index_card.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define HEAD "embedmill-index 1\n"

void index_card_add(struct index_card *card, const char *name, const char *value)
{
    if (card->len == 0)
        card->len = (size_t)snprintf(card->text, sizeof card->text, HEAD);
    int n = snprintf(card->text + card->len, sizeof card->text - card->len, "%s: %.*s\n", name,
                     (int)strcspn(value, "\n"), value);
    if (n > 0 && (size_t)n < sizeof card->text - card->len)
        card->len += (size_t)n;
    card->text[card->len] = '\0';
}

bool index_card_get(const struct index_card *card, const char *name, char *out, size_t size)
{
    size_t len = strlen(name);
    for (const char *line = card->text; *line; line += strcspn(line, "\n"), line += *line == '\n')
        if (strncmp(line, name, len) == 0 && strncmp(line + len, ": ", 2) == 0) {
            const char *value = line + len + 2;
            snprintf(out, size, "%.*s", (int)strcspn(value, "\n"), value);
            return true;
        }
    return false;
}

static int path_of(const char *output, char *path, size_t size, char *err, size_t err_size)
{
    if ((size_t)snprintf(path, size, "%s.index", output) < size)
        return 0;
    snprintf(err, err_size, "the name of the output is too long");
    return -ENAMETOOLONG;
}

int index_card_read(struct index_card *card, const char *output, char *err, size_t err_size)
{
    char path[4200];
    int rc = path_of(output, path, sizeof path, err, err_size);
    FILE *file = rc == 0 ? fopen(path, "re") : NULL;
    if (!file) {
        rc = rc ? rc : -errno;
        snprintf(err, err_size, "%s cannot be read: %s", path, strerror(-rc));
        return rc;
    }
    card->len = fread(card->text, 1, sizeof card->text - 1, file);
    card->text[card->len] = '\0';
    fclose(file);
    if (strncmp(card->text, HEAD, strlen(HEAD)) == 0)
        return 0;
    snprintf(err, err_size, "%s is damaged or of another version", path);
    return -EBADMSG;
}

int index_card_write(const struct index_card *card, const char *output, char *err, size_t err_size)
{
    char path[4200];
    int rc = path_of(output, path, sizeof path, err, err_size);
    FILE *file = rc == 0 ? fopen(path, "we") : NULL;
    if (rc != 0)
        return rc;
    if (!file || fwrite(card->text, 1, card->len, file) != card->len || fflush(file) != 0)
        rc = -errno;
    if (file && fclose(file) != 0 && rc == 0)
        rc = -errno;
    if (rc != 0)
        snprintf(err, err_size, "%s cannot be written: %s", path, strerror(-rc));
    return rc;
}

static int compare(const struct index_card *card, const struct index_card *there,
                   const char *output, char *err, size_t err_size)
{
    const char *line = card->text + strlen(HEAD);
    for (; *line; line += strcspn(line, "\n") + 1) {
        char name[64], ours[512] = "", theirs[512] = "nothing";
        snprintf(name, sizeof name, "%.*s", (int)strcspn(line, ":"), line);
        index_card_get(card, name, ours, sizeof ours);
        index_card_get(there, name, theirs, sizeof theirs);
        if (strcmp(ours, theirs) == 0)
            continue;
        snprintf(err, err_size,
                 "%s was begun with %s: %s, and this is %s: %s; name another output, or remove "
                 "this one to begin anew",
                 output, name, theirs, name, ours);
        return -EEXIST;
    }
    return 0;
}

int index_card_compare(const struct index_card *card, const char *output, bool begun, char *err,
                       size_t err_size)
{
    struct index_card there;
    int rc = index_card_read(&there, output, err, err_size);
    if (rc == -ENOENT)
        return 0; /* the sink refuses what was not made here, and continues what `run` made */
    if (rc == -EBADMSG && !begun) {
        snprintf(err, err_size, "%s.index is there and no card of an index: name another output",
                 output);
        return -EEXIST;
    }
    return rc || !begun ? rc : compare(card, &there, output, err, err_size);
}
