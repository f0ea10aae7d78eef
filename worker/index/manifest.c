/*
 * manifest.c: see manifest.h.
 */
#include "worker/index/manifest.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "worker/index/handover.h"

#define HEAD "embedmill-index 1\n"

void manifest_add(struct manifest *manifest, const char *name, const char *value)
{
    if (manifest->len == 0)
        manifest->len = (size_t)snprintf(manifest->text, sizeof manifest->text, HEAD);
    int n = snprintf(manifest->text + manifest->len, sizeof manifest->text - manifest->len,
                     "%s: %.*s\n", name, (int)strcspn(value, "\n"), value);
    /* A line that does not fit is left out whole: half a value would never compare equal. */
    if (n > 0 && (size_t)n < sizeof manifest->text - manifest->len)
        manifest->len += (size_t)n;
    manifest->text[manifest->len] = '\0';
}

bool manifest_get(const struct manifest *manifest, const char *name, char *out, size_t size)
{
    size_t len = strlen(name);
    for (const char *line = manifest->text; *line;
         line += strcspn(line, "\n"), line += *line == '\n')
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

int manifest_read(struct manifest *manifest, const char *output, char *err, size_t err_size)
{
    char path[4200];
    int rc = path_of(output, path, sizeof path, err, err_size);
    manifest->len = 0;
    /* Before the manifest is looked at: which of the two indexes it describes is not certain
     * then. */
    if (rc == 0 && handover_is_open(output)) {
        snprintf(err, err_size,
                 "%s is between two indexes, for a migration was interrupted as they changed "
                 "places: start `embedmill migrate` again",
                 output);
        return -EBUSY;
    }
    FILE *file = rc == 0 ? fopen(path, "re") : NULL;
    if (!file) {
        rc = rc ? rc : -errno;
        snprintf(err, err_size, "%s cannot be read: %s", path, strerror(-rc));
        return rc;
    }
    manifest->len = fread(manifest->text, 1, sizeof manifest->text - 1, file);
    manifest->text[manifest->len] = '\0';
    fclose(file);
    if (strncmp(manifest->text, HEAD, strlen(HEAD)) == 0)
        return 0;
    snprintf(err, err_size, "%s is damaged or of another version", path);
    return -EBADMSG;
}

/* Under another name first: killed in the middle, a truncated manifest would be in the way for
 * good.
 */
int manifest_write(const struct manifest *manifest, const char *output, char *err, size_t err_size)
{
    char path[4200], fresh[4210];
    int rc = path_of(output, path, sizeof path, err, err_size);
    if (rc != 0)
        return rc;
    snprintf(fresh, sizeof fresh, "%s.new", path);
    FILE *file = fopen(fresh, "we");
    if (!file || fwrite(manifest->text, 1, manifest->len, file) != manifest->len ||
        fflush(file) != 0 || fsync(fileno(file)) != 0)
        rc = -errno;
    if (file && fclose(file) != 0 && rc == 0)
        rc = -errno;
    if (rc == 0 && rename(fresh, path) != 0)
        rc = -errno;
    if (rc != 0)
        snprintf(err, err_size, "%s cannot be written: %s", path, strerror(-rc));
    return rc;
}

static int compare(const struct manifest *manifest, const struct manifest *there,
                   const char *output, char *err, size_t err_size)
{
    /* What manifests do not say that were written before there was a choice. */
    static const char *const older[][2] = {
        {"precision", "exact"}, {"text_field", "text"}, {"id_field", "id"}};
    const char *line = manifest->text + strlen(HEAD);
    for (; *line; line += strcspn(line, "\n") + 1) {
        char name[64], ours[512] = "", theirs[512] = "nothing";
        snprintf(name, sizeof name, "%.*s", (int)strcspn(line, ":"), line);
        for (size_t i = 0; i < sizeof older / sizeof older[0]; i++)
            if (strcmp(name, older[i][0]) == 0)
                strcpy(theirs, older[i][1]);
        manifest_get(manifest, name, ours, sizeof ours);
        manifest_get(there, name, theirs, sizeof theirs);
        /* Only what this run names is compared: a manifest of a later release may say more. */
        if (strcmp(ours, theirs) == 0)
            continue;
        snprintf(err, err_size,
                 "%s was begun with %s: %s, and this is %s: %s; name another output, `embedmill "
                 "migrate` this one, or remove it to start over",
                 output, name, theirs, name, ours);
        return -EEXIST;
    }
    return 0;
}

int manifest_compare(const struct manifest *manifest, const char *output, bool begun, char *err,
                     size_t err_size)
{
    struct manifest there;
    int rc = manifest_read(&there, output, err, err_size);
    if (rc == -ENOENT)
        return 0; /* the sink refuses what was not made here, and continues what `run` made */
    if (rc == -EBADMSG && !begun && there.len == 0)
        return 0; /* killed, by a release that wrote it in place */
    if (rc == -EBADMSG && !begun) {
        snprintf(err, err_size,
                 "%s.index exists and is not the manifest of an index: name another output",
                 output);
        return -EEXIST;
    }
    return rc || !begun ? rc : compare(manifest, &there, output, err, err_size);
}
