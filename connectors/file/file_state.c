/*
 * file_state.c: see file_state.h.
 */
#include "connectors/file/file_state.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The last line tells a whole file from a cut one. `deleted` is there where something is. */
#define NUMBERS                                                                                    \
    "embedmill-state 1\nrecords %" PRIu64 "\ndigest %" PRIx64 "\noutput %" PRIu64 "\nids %" PRIu64 \
    "\nerrors %" PRIu64 "\nrows %" PRIu64 "\n"
#define SCAN                                                                                       \
    "embedmill-state 1\nrecords %" SCNu64 "\ndigest %" SCNx64 "\noutput %" SCNu64 "\nids %" SCNu64 \
    "\nerrors %" SCNu64 "\nrows %" SCNu64 "\n%n"

int file_state_read(const char *path, struct file_state *out, char *err, size_t err_size)
{
    char text[400];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    int rc = n < 0 ? -errno : 0, end = 0;
    if (fd >= 0)
        close(fd);
    if (rc != 0) {
        snprintf(err, err_size, "%s cannot be read: %s", path, strerror(-rc));
        return rc;
    }
    text[n] = '\0';
    struct file_state state = {.deleted = 0};
    int last = 0;
    sscanf(text, SCAN, &state.place.records, &state.place.digest, &state.output, &state.ids,
           &state.errors, &state.rows, &end);
    /* Releases before deletes wrote no such line. */
    if (end > 0)
        sscanf(text + end, "deleted %" SCNu64 "\n%n", &state.deleted, &last);
    /* %n is only set when everything before it fits. */
    if (end == 0 || strcmp(text + end + last, "end\n") != 0) {
        snprintf(err, err_size,
                 "%s is damaged or of another version; remove it and the output to start over",
                 path);
        return -EIO;
    }
    *out = state;
    return 0;
}

int file_write_all(int fd, const char *bytes, size_t n)
{
    while (n > 0) {
        ssize_t done = write(fd, bytes, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return -errno;
        bytes += done;
        n -= (size_t)done;
    }
    return 0;
}

/* A name that was given is on the disk when its folder is. */
static int sync_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    char folder[4200] = ".";
    if (slash)
        /* "/OUT.state" lies in "/": one character is kept. */
        snprintf(folder, sizeof folder, "%.*s", slash > path ? (int)(slash - path) : 1, path);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int rc = fsync(fd) == 0 ? 0 : -errno;
    close(fd);
    return rc;
}

int file_state_write(const char *path, const struct file_state *state)
{
    char text[400], fresh[4200];
    int len = snprintf(text, sizeof text, NUMBERS, state->place.records, state->place.digest,
                       state->output, state->ids, state->errors, state->rows);
    /* Left out at 0, so that a release without deletes can go on. */
    if (state->deleted > 0)
        len += snprintf(text + len, sizeof text - (size_t)len, "deleted %" PRIu64 "\n",
                        state->deleted);
    len += snprintf(text + len, sizeof text - (size_t)len, "end\n");
    if ((size_t)snprintf(fresh, sizeof fresh, "%s.new", path) >= sizeof fresh)
        return -ENAMETOOLONG;
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return -errno;
    int rc = file_write_all(fd, text, (size_t)len);
    /* Before the rename: ext4 and XFS may put the name on the disk before the bytes. */
    if (rc == 0 && fsync(fd) != 0)
        rc = -errno;
    close(fd);
    /* Atomic: whoever dies here leaves the old state or the new one. */
    if (rc == 0 && rename(fresh, path) != 0)
        rc = -errno;
    return rc ? rc : sync_folder(path);
}
