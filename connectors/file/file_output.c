/*
 * file_output.c: see file_output.h.
 *
 * Why:     data first, then the state that counts them in, each flushed to the disk before the
 *          next: whatever is torn by a death lies behind the lengths in the state. The header of an
 *          .npy is written between the two; one that counts more rows than the state is corrected
 *          by opening.
 */
#include "connectors/file/file_output.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "connectors/buffer.h"
#include "connectors/file/file_state.h"
#include "connectors/json.h"
#include "connectors/npy.h"
#include "connectors/utf8.h"

#define WRITE_AT  (1u << 20) /* bytes gathered before they are written */
#define PATH_ROOM 4200

/* One of the files and what was not yet written of it. */
struct output_file {
    const char *suffix;
    int fd; /* -1: not made yet */
    bool touched;
    uint64_t length; /* without what is in the buffer */
    struct buffer buffer;
};

enum { OUTPUT, IDS, ERRORS, DELETED, N_FILES };

struct file_output {
    char *path;
    const char *descr; /* of an .npy; NULL: OUT is none */
    struct output_file files[N_FILES];
    struct file_state state;
    uint64_t rows;
    size_t row_bytes; /* 0 until the first row */
    struct file_place place;
};

static int name_of(const struct file_output *output, const char *suffix, char out[PATH_ROOM])
{
    int n = snprintf(out, PATH_ROOM, "%s%s", output->path, suffix);
    /* Room for ".new" behind ".state" (file_state.c). */
    return n < PATH_ROOM - 10 ? 0 : -ENAMETOOLONG;
}

static int fail_file(const struct file_output *output, const char *doing, const char *suffix,
                     int rc, char *err, size_t err_size)
{
    snprintf(err, err_size, "%s %s%s: %s%s", doing, output->path, suffix, strerror(-rc),
             rc == -ENOSPC ? "; make room and start again, it goes on where it stopped" : "");
    return rc;
}

static int flush(struct file_output *output, struct output_file *file, char *err, size_t err_size)
{
    int rc = file_write_all(file->fd, file->buffer.ptr, file->buffer.len);
    /* Part of it may be in the file: the sink fails, and opening anew cuts that off. */
    if (rc != 0)
        return fail_file(output, "writing", file->suffix, rc, err, err_size);
    file->touched |= file->buffer.len > 0;
    file->buffer.len = 0;
    return 0;
}

/* Cut to length, to be appended to. */
static int open_file(struct file_output *output, struct output_file *file, uint64_t length,
                     char *err, size_t err_size)
{
    char path[PATH_ROOM];
    struct stat about;
    int rc = name_of(output, file->suffix, path);
    if (rc == 0) {
        /* OUT is open since claim, which has locked it. */
        if (file->fd < 0)
            file->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (file->fd < 0 || fstat(file->fd, &about) != 0)
            rc = -errno;
        else if (!S_ISREG(about.st_mode))
            rc = -EINVAL;
    }
    if (rc != 0)
        return fail_file(output, "opening", file->suffix, rc, err, err_size);
    /* Confirmed bytes are gone: the input has forgotten them, so nobody can write them again. */
    if ((uint64_t)about.st_size < length) {
        snprintf(err, err_size,
                 "%s is shorter than %s.state says it was; remove both to start over", path,
                 output->path);
        return -EIO;
    }
    /* What lies behind was written after the last state, and comes again from the input. */
    if (ftruncate(file->fd, (off_t)length) != 0 || lseek(file->fd, 0, SEEK_END) < 0)
        return fail_file(output, "cutting", file->suffix, -errno, err, err_size);
    file->length = length;
    return 0;
}

/* What was not counted in: errors of a line that may be whole by now, deletes. */
static void forget_file(const struct file_output *output, const struct output_file *file)
{
    char path[PATH_ROOM];
    if (name_of(output, file->suffix, path) == 0)
        unlink(path);
}

/* OUT is not there: what an earlier one left beside it must not be taken for its own. */
static void forget(const struct file_output *output)
{
    static const char *const suffixes[] = {".state", ".ids.jsonl", ".errors.jsonl",
                                           ".deleted.jsonl"};
    char path[PATH_ROOM];
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++)
        if (name_of(output, suffixes[i], path) == 0)
            unlink(path);
}

/*
 * Take OUT for this process and find out whether it is ours: it has a state, or nothing in it yet.
 * From then on it has one, for a death may come right behind the first bytes.
 */
static int claim(struct file_output *output, char *err, size_t err_size)
{
    char path[PATH_ROOM];
    struct stat about;
    int rc = name_of(output, ".state", path);
    if (rc == 0 && stat(output->path, &about) != 0 && errno == ENOENT)
        /* Before OUT is made: a death in between must not leave an old state
         * beside an empty OUT. */
        forget(output);
    int fd = rc == 0 ? open(output->path, O_RDWR | O_CREAT | O_CLOEXEC, 0666) : -1;
    if (fd < 0)
        return fail_file(output, "opening", "", rc ? rc : -errno, err, err_size);
    /* Kept open as long as the lock is to be held; a killed process loses it by itself. */
    output->files[OUTPUT].fd = fd;
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        snprintf(err, err_size, "%s is being written by another process", output->path);
        return -EBUSY;
    }
    if (fstat(fd, &about) != 0)
        return fail_file(output, "opening", "", -errno, err, err_size);
    rc = file_state_read(path, &output->state, err, err_size);
    /* 0: ours, or a state that cannot be read; only where there is no state the bytes decide. */
    if (rc != -ENOENT)
        return rc;
    /* Made a moment ago, or by `touch`: nothing of anybody's is lost. */
    if (about.st_size == 0) {
        rc = file_state_write(path, &output->state);
        return rc == 0 ? 0 : fail_file(output, "writing", ".state", rc, err, err_size);
    }
    snprintf(err, err_size,
             "%s exists and has no %s.state beside it, so it was not made here and is left "
             "alone; name another output, or remove it",
             output->path, output->path);
    return rc;
}

static int write_npy_header(const struct file_output *output)
{
    char header[NPY_HEADER];
    /* "<f4": the bytes of a value; "|u1" has eight dimensions in one. */
    size_t size = output->descr[2] - '0' > 0 ? (size_t)(output->descr[2] - '0') : 1;
    npy_header(header, output->descr, output->rows, output->row_bytes / size);
    ssize_t done = pwrite(output->files[OUTPUT].fd, header, NPY_HEADER, 0);
    return done == NPY_HEADER ? 0 : done < 0 ? -errno : -EIO;
}

bool file_output_is_npy(const char *path)
{
    size_t len = strlen(path);
    return len >= 4 && strcmp(path + len - 4, ".npy") == 0;
}

static const char *descr_of(const char *path, const char *dtype)
{
    static const char *const known[][2] = {
        {"f4", "<f4"}, {"f2", "<f2"}, {"i1", "|i1"}, {"b1", "|u1"}};
    if (!file_output_is_npy(path))
        return NULL;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(dtype, known[i][0]) == 0)
            return known[i][1];
    return known[0][1];
}

int file_output_open(struct file_output **out, const char *path, const char *dtype, char *err,
                     size_t err_size)
{
    struct file_output *output = calloc(1, sizeof *output);
    if (!output || !(output->path = strdup(path))) {
        free(output);
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    output->descr = descr_of(path, dtype);
    output->files[OUTPUT] = (struct output_file){.suffix = "", .fd = -1};
    output->files[IDS] = (struct output_file){.suffix = ".ids.jsonl", .fd = -1};
    output->files[ERRORS] = (struct output_file){.suffix = ".errors.jsonl", .fd = -1};
    output->files[DELETED] = (struct output_file){.suffix = ".deleted.jsonl", .fd = -1};
    int rc = claim(output, err, err_size);
    struct file_state *state = &output->state;
    uint64_t lengths[N_FILES] = {state->output, state->ids, state->errors, state->deleted};
    for (size_t i = 0; i < N_FILES && rc == 0; i++) {
        /* A file that the state knows nothing of is not made before something is to be in it. */
        if (i == OUTPUT || lengths[i] > 0 || (i == IDS && output->descr))
            rc = open_file(output, &output->files[i], lengths[i], err, err_size);
        else if (i == ERRORS || i == DELETED)
            forget_file(output, &output->files[i]);
    }
    output->rows = state->rows;
    output->place = state->place;
    if (rc == 0 && output->rows > 0) {
        output->row_bytes = (size_t)((state->output - NPY_HEADER) / output->rows);
        /* A death between header and state leaves one that counts rows which were just cut off. */
        rc = write_npy_header(output);
    }
    if (rc != 0) {
        file_output_close(output);
        return rc;
    }
    *out = output;
    return 0;
}

bool file_output_begun(const char *path)
{
    const struct file_output output = {.path = (char *)(uintptr_t)path};
    struct file_state state = {.output = 0};
    struct stat about;
    char name[PATH_ROOM], err[300];
    if (stat(path, &about) != 0)
        return false;
    /* Whoever wrote it: to begin there is to be refused or to go on, and never empty. */
    if (about.st_size > 0)
        return true;
    return name_of(&output, ".state", name) == 0 &&
           file_state_read(name, &state, err, sizeof err) == 0 && state.place.records > 0;
}

/* The state does not count it in, so the first row that comes begins anew. */
void file_output_close_empty(struct file_output *output, size_t row_bytes)
{
    if (!output->descr || output->rows > 0)
        return;
    output->row_bytes = row_bytes;
    write_npy_header(output); /* failing it is as it was before: not an array */
}

void file_output_close(struct file_output *output)
{
    if (!output)
        return;
    for (size_t i = 0; i < N_FILES; i++) {
        if (output->files[i].fd >= 0)
            close(output->files[i].fd);
        buffer_close(&output->files[i].buffer);
    }
    free(output->path);
    free(output);
}

struct file_place file_output_place(const struct file_output *output)
{
    return output->state.place;
}

/* A member of an object of JSON: { or a comma, its name, and a string; base64 for what is not
 * UTF-8. */
static void put_member(struct buffer *to, const char *before, const char *name, struct bytes value)
{
    bool is_text = utf8_is_valid(value.ptr, value.len);
    buffer_put_text(to, before);
    buffer_put_text(to, "\"");
    buffer_put_text(to, name);
    buffer_put_text(to, is_text ? "\":" : "_base64\":");
    if (is_text)
        json_put_string(to, value);
    else
        json_put_base64(to, value);
}

static int put_error(struct buffer *to, const struct record *record)
{
    const char *reason = record->dead_reason ? record->dead_reason : "";
    put_member(to, "{", "position", record->origin->position);
    if (record->origin->key.ptr)
        put_member(to, ",", "id", record->origin->key);
    buffer_put_text(to, ",\"code\":");
    json_put_text(to, record->dead_code);
    buffer_put_text(to, ",\"reason\":");
    json_put_text(to, reason);
    if (record->parts[0].value.ptr &&
        (record->parts[0].value.len > 0 || !record->origin->problem.code))
        put_member(to, ",", "value", record->parts[0].value);
    return buffer_put_text(to, "}\n");
}

/* A line of OUT.ids.jsonl: the id; of a piece of a text an object with what it is of. */
static int put_id(struct buffer *to, const struct part *part)
{
    const struct chunk *chunk = part->chunk;
    char numbers[120];
    if (!chunk) {
        json_put_string(to, part->id);
        return buffer_put_text(to, "\n");
    }
    buffer_put_text(to, "{\"id\":");
    json_put_string(to, part->id);
    buffer_put_text(to, ",\"parent\":");
    json_put_string(to, chunk->parent);
    snprintf(numbers, sizeof numbers, ",\"chunk\":%" PRIu32 ",\"start\":%zu,\"end\":%zu}\n",
             chunk->number, chunk->start, chunk->end);
    return buffer_put_text(to, numbers);
}

/*
 * A text that is gone: its id, and how much there was of the output then (rows of an .npy, else
 * bytes), for what is appended behind that is not gone.
 */
static int put_deleted(struct file_output *output, const struct part *part)
{
    struct buffer *to = &output->files[DELETED].buffer;
    const struct output_file *file = &output->files[OUTPUT];
    buffer_put_text(to, "{\"id\":");
    json_put_string(to, part->id);
    buffer_put_text(to, ",\"before\":");
    json_put_natural(to, output->descr ? output->rows : file->length + file->buffer.len);
    return buffer_put_text(to, "}\n");
}

static int put_rows(struct file_output *output, const struct record *record)
{
    struct buffer *rows = &output->files[OUTPUT].buffer;
    for (size_t i = 0; i < record->n_parts; i++) {
        const struct part *part = &record->parts[i];
        if (output->row_bytes == 0) {
            output->row_bytes = part->vector.len;
            /* A place holder: the header is written when the rows are, for only then their number
             * is known. */
            char zeros[NPY_HEADER] = {0};
            buffer_put(rows, zeros, sizeof zeros);
        }
        /* An .npy has one width: of another model, or another dtype than the rows there. */
        if (part->vector.len != output->row_bytes)
            return -EINVAL;
        if (buffer_put(rows, part->vector.ptr, part->vector.len) ||
            put_id(&output->files[IDS].buffer, part))
            return -ENOMEM;
        output->rows++;
    }
    return 0;
}

static int put_payloads(struct buffer *to, const struct record *record)
{
    for (size_t i = 0; i < record->n_parts; i++) {
        const struct bytes *value = &record->parts[i].value;
        buffer_put(to, value->ptr, value->len);
        if (value->len > 0 && value->ptr[0] == '{') /* no msgpack map begins with it */
            buffer_put_text(to, "\n");
    }
    return to->status;
}

static int put_record(struct file_output *output, const struct record *record)
{
    struct file_place behind;
    bool is_open;
    if (file_message_place(record->origin, &behind, &is_open)) {
        /* The pipeline publishes in the order of the source; holes would be lost for good. */
        assert(behind.records > output->place.records);
        output->place = behind;
    } else {
        /* Of a source that remembers itself what is done: the count only says
         * that something was. */
        output->place.records++;
    }
    /* Counted in as well: an error is this record's output. */
    if (record->dead_code)
        return put_error(&output->files[ERRORS].buffer, record);
    if (record->n_documents == 1 && record->documents->is_deleted)
        return put_deleted(output, &record->parts[0]);
    if (output->descr)
        return put_rows(output, record);
    return put_payloads(&output->files[OUTPUT].buffer, record);
}

/* The header last, so that who reads meanwhile finds an id for each row it counts. */
static int sync_all(struct file_output *output, char *err, size_t err_size)
{
    /* Backwards: OUT, of index 0, comes last. */
    for (size_t i = N_FILES; i-- > 0;) {
        struct output_file *file = &output->files[i];
        int rc = 0;
        if (!file->touched)
            continue;
        if (i == OUTPUT && output->descr)
            rc = write_npy_header(output);
        /* The length is what fdatasync keeps beside the bytes; times do not matter. */
        if (rc == 0 && fdatasync(file->fd) != 0)
            rc = -errno;
        if (rc != 0)
            return fail_file(output, "writing", file->suffix, rc, err, err_size);
        file->touched = false;
    }
    return 0;
}

/* All buffers to their files, and those to the disk. */
static int flush_all(struct file_output *output, bool to_disk, char *err, size_t err_size)
{
    int rc = 0;
    for (size_t i = 0; i < N_FILES && rc == 0; i++) {
        struct output_file *file = &output->files[i];
        uint64_t n = file->buffer.len;
        /* The first error or delete: its file is made now, empty. */
        if (n > 0 && file->fd < 0)
            rc = open_file(output, file, 0, err, err_size);
        if (rc == 0 && n > 0)
            rc = flush(output, file, err, err_size);
        if (rc != 0)
            break;
        file->length += n;
    }
    return rc || !to_disk ? rc : sync_all(output, err, err_size);
}

static struct file_state state_of(const struct file_output *output)
{
    return (struct file_state){.place = output->place,
                               .output = output->files[OUTPUT].length,
                               .ids = output->files[IDS].length,
                               .errors = output->files[ERRORS].length,
                               .deleted = output->files[DELETED].length,
                               .rows = output->rows};
}

/*
 * A last line without its end is written and not counted in: whoever writes the corpus may not be
 * done with it. Going on cuts it off and takes the line as it then is.
 */
static bool is_unfinished(const struct record *record)
{
    struct file_place behind;
    bool is_open;
    return file_message_place(record->origin, &behind, &is_open) && is_open;
}

int file_output_write(struct file_output *output, struct record *const *records, size_t n,
                      char *err, size_t err_size)
{
    char path[PATH_ROOM];
    struct file_state sure = output->state;
    for (size_t i = 0; i < n; i++) {
        bool unfinished = is_unfinished(records[i]);
        int rc = 0;
        if (unfinished || output->files[OUTPUT].buffer.len >= WRITE_AT)
            rc = flush_all(output, false, err, err_size);
        if (rc != 0)
            return rc;
        /* Of an unfinished record all buffers are empty here: these are the
         * lengths in front of it. */
        sure = state_of(output);
        rc = put_record(output, records[i]);
        if (rc != 0)
            return fail_file(output, "writing", "", rc, err, err_size);
    }
    int rc = flush_all(output, true, err, err_size);
    if (rc != 0)
        return rc;
    /* Only where nothing was read behind it: an earlier one is counted in with what follows. */
    output->state = n > 0 && is_unfinished(records[n - 1]) ? sure : state_of(output);
    rc = name_of(output, ".state", path);
    if (rc == 0)
        rc = file_state_write(path, &output->state);
    return rc == 0 ? 0 : fail_file(output, "writing", ".state", rc, err, err_size);
}
