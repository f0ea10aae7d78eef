/*
 * handover.c: see handover.h. First the old index gets its second name, by hard links, then each
 * file of the new one takes the first name, by rename: OUT is never missing.
 */
#include "worker/index/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const suffixes[] = {
    "", ".ids.jsonl", ".deleted.jsonl", ".errors.jsonl", ".state", ".index",
};
enum { N_SUFFIXES = sizeof suffixes / sizeof *suffixes };

/* What OUT.handover holds once the old index has its second name; then the inode of the new one. */
#define LINKED "linked\n"

static int join(const char *output, const char *suffix, char out[HANDOVER_PATH])
{
    int n = snprintf(out, HANDOVER_PATH, "%s%s", output, suffix);
    return n < HANDOVER_PATH ? 0 : -ENAMETOOLONG;
}

int handover_name(const char *output, const char *word, char out[HANDOVER_PATH])
{
    const char *slash = strrchr(output, '/'), *dot = strrchr(output, '.');
    size_t len = dot && dot > output && (!slash || dot > slash + 1) ? (size_t)(dot - output)
                                                                    : strlen(output);
    int n = snprintf(out, HANDOVER_PATH, "%.*s.%s%s", (int)len, output, word, output + len);
    /* Behind it come suffixes, the longest of 14 bytes (.deleted.jsonl). */
    return n < HANDOVER_PATH - 20 ? 0 : -ENAMETOOLONG;
}

bool handover_is_open(const char *output)
{
    char path[HANDOVER_PATH];
    return join(output, ".handover", path) == 0 && access(path, F_OK) == 0;
}

static int sync_folder(const char *output)
{
    char folder[HANDOVER_PATH];
    const char *slash = strrchr(output, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - output) + 1 : 1,
             slash ? output : ".");
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd < 0 || fsync(fd) != 0 ? -errno : 0;
    if (fd >= 0)
        close(fd);
    return rc;
}

static int write_journal(const char *output, const char *text)
{
    char path[HANDOVER_PATH], fresh[HANDOVER_PATH];
    int rc = join(output, ".handover", path);
    if (rc == 0)
        rc = join(output, ".handover.new", fresh);
    FILE *file = rc == 0 ? fopen(fresh, "we") : NULL;
    if (!file)
        return rc ? rc : -errno;
    if (fputs(text, file) < 0 || fflush(file) != 0 || fsync(fileno(file)) != 0)
        rc = -errno;
    if (fclose(file) != 0 && rc == 0)
        rc = -errno;
    /* By its name it is whole: a torn one would be read as not linked yet. */
    if (rc == 0 && rename(fresh, path) != 0)
        rc = -errno;
    return rc ? rc : sync_folder(output);
}

/* inode: of the new index, or 0 where the journal does not say. */
static bool read_linked(const char *output, uintmax_t *inode)
{
    char path[HANDOVER_PATH], text[32] = ""; /* 20 digits and the end of their line */
    FILE *file = join(output, ".handover", path) == 0 ? fopen(path, "re") : NULL;
    bool linked = file && fgets(text, sizeof text, file) && strcmp(text, LINKED) == 0;
    *inode = 0;
    if (linked && fgets(text, sizeof text, file))
        *inode = strtoumax(text, NULL, 10);
    if (file)
        fclose(file);
    return linked;
}

static bool is_linked(const char *output)
{
    uintmax_t inode;
    return read_linked(output, &inode);
}

/* The file of the new index was renamed, as the journal has it. */
static bool is_renamed(const char *output)
{
    struct stat is;
    uintmax_t inode;
    return read_linked(output, &inode) && inode != 0 && stat(output, &is) == 0 &&
           is.st_ino == inode;
}

static int write_linked(const char *output, const char *fresh)
{
    struct stat is = {0};
    char text[40];
    if (stat(fresh, &is) != 0) /* its name is taken already */
        return write_journal(output, LINKED);
    snprintf(text, sizeof text, LINKED "%ju\n", (uintmax_t)is.st_ino);
    return write_journal(output, text);
}

static bool is_same_file(const char *a, const char *b)
{
    struct stat of_a, of_b;
    return stat(a, &of_a) == 0 && stat(b, &of_b) == 0 && of_a.st_ino == of_b.st_ino &&
           of_a.st_dev == of_b.st_dev;
}

/* The old index gets its second name; or what it lost of the first. */
static int link_old(const char *output, const char *old)
{
    char from[HANDOVER_PATH], to[HANDOVER_PATH];
    for (size_t i = 0; i < N_SUFFIXES; i++) {
        if (join(output, suffixes[i], from) != 0 || join(old, suffixes[i], to) != 0)
            return -ENAMETOOLONG;
        /* There already: an earlier attempt was interrupted. Missing: not every index has every
         * file. */
        if (link(from, to) != 0 && errno != EEXIST && errno != ENOENT)
            return -errno;
    }
    return sync_folder(output);
}

/* What only the old one has beside it goes: before anything of the new one is renamed, for later
 * only OLD would tell whose it is. */
static int unlink_rest(const char *output, const char *fresh, const char *old)
{
    char from[HANDOVER_PATH], to[HANDOVER_PATH], kept[HANDOVER_PATH];
    for (size_t i = 1; i < N_SUFFIXES; i++) {
        if (join(fresh, suffixes[i], from) != 0 || join(output, suffixes[i], to) != 0 ||
            join(old, suffixes[i], kept) != 0)
            return -ENAMETOOLONG;
        /* Only while it is still the old one's file: a second attempt meets those of the new one
         * here. */
        if (access(from, F_OK) != 0 && is_same_file(to, kept) && unlink(to) != 0)
            return -errno;
    }
    return sync_folder(output);
}

/* The new one takes the first. */
static int rename_fresh(const char *output, const char *fresh)
{
    char from[HANDOVER_PATH], to[HANDOVER_PATH];
    for (size_t i = 0; i < N_SUFFIXES; i++) {
        if (join(fresh, suffixes[i], from) != 0 || join(output, suffixes[i], to) != 0)
            return -ENAMETOOLONG;
        /* Missing: renamed by an attempt that was interrupted behind it, or never made. */
        if (rename(from, to) != 0 && errno != ENOENT)
            return -errno;
    }
    return sync_folder(output);
}

/* Both are nobody's else. The descriptors hold that until they are closed. */
static int lock(const char *output, int *fd, char *err, size_t err_size)
{
    *fd = open(output, O_RDWR | O_CLOEXEC);
    if (*fd < 0) {
        snprintf(err, err_size, "opening %s: %s", output, strerror(errno));
        return -errno;
    }
    if (flock(*fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    snprintf(err, err_size, "%s is being written by another process: stop it, and start this again",
             output);
    return -EBUSY;
}

static int begin(const char *output, const char *fresh, const char *old, int fds[2], char *err,
                 size_t err_size)
{
    if (access(old, F_OK) == 0) {
        snprintf(err, err_size,
                 "%s is there, from an earlier migration: remove it and what lies beside it, or "
                 "call it something else",
                 old);
        return -EEXIST;
    }
    int rc = lock(output, &fds[0], err, err_size);
    if (rc == 0)
        rc = lock(fresh, &fds[1], err, err_size);
    if (rc == 0 && (rc = write_journal(output, "begun\n")) != 0)
        snprintf(err, err_size, "%s.handover cannot be written: %s", output, strerror(-rc));
    return rc;
}

/* Neither is there. What is left of the old index must not go, too. */
static void say_gone(const char *output, const char *fresh, const char *old, char *err,
                     size_t err_size)
{
    if (access(old, F_OK) != 0)
        snprintf(err, err_size,
                 "%s, %s and %s are missing: no index is left. Remove %s.handover and what else "
                 "lies beside them, and make the index again",
                 output, fresh, old, output);
    else if (is_linked(output)) /* beside OUT there may be files of the new one */
        snprintf(err, err_size,
                 "%s and %s are missing. %s is the old index: remove %s.handover and what else "
                 "lies beside %s and %s, rename %s and what lies beside it to %s, and start the "
                 "migration again",
                 output, fresh, old, output, output, fresh, old, output);
    else /* beside OUT there may be the only files of the old one */
        snprintf(err, err_size,
                 "%s and %s are missing. %s is the old index: rename it and what lies beside it to "
                 "%s, remove %s.handover and what lies beside %s, and start the migration again",
                 output, fresh, old, output, output, fresh);
}

/*
 * Interrupted, and then somebody removed an index. The first file of the new one is renamed first:
 * as long as OUT is not that file, all of OUT is the old one, and to go on would leave nothing
 * under its name.
 */
static int check_fresh(const char *output, const char *fresh, const char *old, char *err,
                       size_t err_size)
{
    bool is_there = access(output, F_OK) == 0, has_old = access(old, F_OK) == 0;
    if (access(fresh, F_OK) == 0 || is_renamed(output) ||
        (is_there && has_old && !is_same_file(output, old)))
        return 0;
    /* What unlink_rest took from OUT is beside OLD. */
    int rc = is_there && has_old && is_linked(output) ? link_old(old, output) : 0;
    if (rc != 0)
        snprintf(err, err_size,
                 "%s is missing, and %s cannot get back what lies beside %s: %s; start the "
                 "migration again",
                 fresh, output, old, strerror(-rc));
    else if (!is_there)
        say_gone(output, fresh, old, err, err_size);
    else if (has_old || !is_linked(output))
        snprintf(err, err_size,
                 "%s, which was to take the name %s, is missing. %s is the old index: remove "
                 "%s.handover and %s with what lies beside it, and start the migration again",
                 fresh, output, output, output, old);
    else /* either was removed after OUT was replaced, or both before */
        snprintf(err, err_size,
                 "%s and %s are missing, so %s may be the new index or the old one: %s.index says "
                 "which model it is of. Remove %s.handover; if it is the old one, start the "
                 "migration again",
                 fresh, old, output, output, output);
    return -ENOENT;
}

int handover_run(const char *output, const char *fresh, const char *old, char *err, size_t err_size)
{
    char journal[HANDOVER_PATH];
    int fds[2] = {-1, -1}, rc = 0;
    if (!handover_is_open(output))
        rc = begin(output, fresh, old, fds, err, err_size);
    else
        rc = check_fresh(output, fresh, old, err, err_size);
    if (rc != 0)
        goto done;
    /* Not twice: once the journal says so, OUT may have files of the new index, which would be
     * linked to the name of the old one. All steps below may be done again. */
    if (!is_linked(output)) {
        rc = link_old(output, old);
        if (rc == 0)
            rc = write_linked(output, fresh);
    }
    if (rc == 0)
        rc = unlink_rest(output, fresh, old);
    if (rc == 0)
        rc = rename_fresh(output, fresh);
    if (rc == 0)
        rc = join(output, ".handover", journal);
    /* The last step: from here on OUT is read again, and all beside it is the new one's. */
    if (rc == 0 && unlink(journal) != 0)
        rc = -errno;
    if (rc != 0)
        snprintf(err, err_size, "%s cannot take the name %s: %s; start the migration again", fresh,
                 output, strerror(-rc));
done:
    for (size_t i = 0; i < 2; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    return rc;
}

void handover_remove(const char *output)
{
    char path[HANDOVER_PATH];
    /* An empty name removes nothing: else the files .index and .state of this folder would go. */
    for (size_t i = 0; output[0] && i < N_SUFFIXES; i++)
        if (join(output, suffixes[i], path) == 0)
            unlink(path);
}
