/*
 * gguf.c: see gguf.h.
 *
 * Owns:    the file or files, their mappings and the readers by key and by name.
 * Refuses: to look at the file's own words; gguf_directory.c has checked them.
 * Threads: none of its own; nothing changes after open.
 * Why:     the weights stay in the page cache, shared by every worker of the machine.
 */
#include "inference/gguf.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "inference/gguf_directory.h"

enum { PARTS_MAX = 999 /* of a model; those of hundreds of gigabytes have some dozens */ };

/* One file. Keys are those of the first, tensors those of all. */
struct part {
    const uint8_t *bytes;
    size_t size;
    bool mapped; /* by us, to be unmapped by us */
    struct gguf_directory directory;
};

struct gguf {
    size_t n_parts;
    struct part *parts; /* [n_parts] */
    size_t n_tensors;   /* of all parts */
};

static int part_read(struct part *part, const void *bytes, size_t size, bool mapped,
                     const char *name, char *err, size_t err_size)
{
    int rc = gguf_directory_read(&part->directory, bytes, size, name, err, err_size);
    if (rc)
        return rc;
    part->bytes = bytes;
    part->size = size;
    part->mapped = mapped;
    return 0;
}

static int gguf_alloc(struct gguf **out, const char *name, char *err, size_t err_size)
{
    struct gguf *gguf = calloc(1, sizeof *gguf);
    if (gguf)
        gguf->parts = calloc(PARTS_MAX, sizeof *gguf->parts); /* touched only where used */
    if (gguf && gguf->parts) {
        *out = gguf;
        return 0;
    }
    free(gguf);
    if (err_size)
        snprintf(err, err_size, "%s: no memory for its directory; free some", name);
    return -ENOMEM;
}

static uint64_t part_number(const struct part *part, const char *name)
{
    const struct gguf one = {.n_parts = 1, .parts = (struct part *)(uintptr_t)part};
    uint64_t value;
    return gguf_uint(&one, name, &value) == 0 ? value : 0;
}

int gguf_open_memory(struct gguf **out, const void *bytes, size_t size, const char *name, char *err,
                     size_t err_size)
{
    struct gguf *gguf = NULL;
    int rc = gguf_alloc(&gguf, name, err, err_size);
    if (rc)
        return rc;
    rc = part_read(&gguf->parts[0], bytes, size, false, name, err, err_size);
    if (rc) {
        gguf_close(gguf);
        return rc;
    }
    gguf->n_parts = 1;
    gguf->n_tensors = gguf->parts[0].directory.n_tensors;
    *out = gguf;
    return 0;
}

/* O_NONBLOCK: a named pipe must be an error, not a wait for its writer. */
static int file_open(const char *path, size_t *size, char *err, size_t err_size)
{
    struct stat st;
    const char *what;
    int rc;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &st) < 0) {
        /* Now: close below may change errno. */
        rc = -errno;
        what = strerror(errno);
        goto fail;
    }
    if (!S_ISREG(st.st_mode)) {
        bool folder = S_ISDIR(st.st_mode);
        rc = folder ? -EISDIR : -EINVAL;
        what = folder ? "it is a folder" : "it is not a regular file";
        goto fail;
    }
    if ((uintmax_t)st.st_size > SIZE_MAX) {
        rc = -EFBIG;
        what = "it is larger than this machine's addresses";
        goto fail;
    }
    *size = (size_t)st.st_size;
    return fd;

fail:
    if (fd >= 0)
        close(fd);
    if (err_size)
        snprintf(err, err_size,
                 "%s: cannot open the model: %s; name a .gguf file this user may read", path, what);
    return rc;
}

static int part_open(struct part *part, const char *path, char *err, size_t err_size)
{
    size_t size = 0;
    int fd = file_open(path, &size, err, err_size);
    if (fd < 0)
        return fd;
    if (size == 0) { /* which mmap would refuse with words that help nobody */
        close(fd);
        return part_read(part, "", 0, false, path, err, err_size);
    }
    /* Private of a file that is only read: the pages are those of the page cache, for all
     * processes. */
    void *map = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    int rc = map == MAP_FAILED ? -errno : 0;
    close(fd);
    if (rc) {
        if (err_size)
            snprintf(err, err_size, "%s: cannot map the model: %s", path, strerror(-rc));
        return rc;
    }
    /* Only advice: nearly all of it is needed soon, so a cold disk may read ahead of the faults. */
    (void)madvise(map, size, MADV_WILLNEED);
    rc = part_read(part, map, size, true, path, err, err_size);
    if (rc)
        munmap(map, size);
    return rc;
}

/* "NAME-00001-of-00003.gguf", as gguf-split and llama.cpp write it: where the number stands in
 * path, or NULL. */
static char *split_number(char *path, uint64_t n_parts)
{
    char end[32];
    size_t len = strlen(path);
    int end_len = snprintf(end, sizeof end, "-of-%05u.gguf", (unsigned)n_parts);
    /* 6: five digits and the '-' before them. */
    if (len < (size_t)end_len + 6 || strcmp(path + len - (size_t)end_len, end) != 0)
        return NULL;
    char *number = path + len - (size_t)end_len - 5;
    return number[-1] == '-' && strspn(number, "0123456789") == 5 ? number : NULL;
}

__attribute__((format(printf, 4, 5))) static int refuse(const char *path, char *err,
                                                        size_t err_size, const char *format, ...)
{
    va_list args;
    int used = err_size ? snprintf(err, err_size, "%s: ", path) : 0;
    va_start(args, format);
    if (used >= 0 && (size_t)used < err_size)
        vsnprintf(err + used, err_size - (size_t)used, format, args);
    va_end(args);
    return -EINVAL;
}

/* No tensor of the last part is one of an earlier part. */
static int parts_compare(const struct gguf *gguf, const char *path, char *err, size_t err_size)
{
    const struct gguf_directory *last = &gguf->parts[gguf->n_parts - 1].directory;
    for (size_t i = 0; i < last->n_tensors; i++)
        /* Of two tensors with one name nobody knows which is meant. */
        for (size_t p = 0; p + 1 < gguf->n_parts; p++)
            if (gguf_directory_tensor(&gguf->parts[p].directory, last->entries[i].tensor.name))
                return refuse(path, err, err_size,
                              "a tensor of it is in part %zu, too; fetch all parts again", p + 1);
    return 0;
}

/* The parts behind the first. path is changed on the way. */
static int parts_open(struct gguf *gguf, char *path, uint64_t n_parts, char *err, size_t err_size)
{
    char *number = n_parts <= PARTS_MAX ? split_number(path, n_parts) : NULL;
    if (!number)
        return refuse(path, err, err_size,
                      "it is one of %llu parts of a model, and its name must be NAME-00001-of-%05u"
                      ".gguf so that the others are found; give all parts back their names",
                      (unsigned long long)n_parts, (unsigned)n_parts);
    if (memcmp(number, "00001", 5) != 0 || part_number(&gguf->parts[0], "split.no") != 0)
        return refuse(path, err, err_size,
                      "it is not the first part of the model; name the file -00001-of-%05u.gguf",
                      (unsigned)n_parts);
    for (uint64_t i = 1; i < n_parts; i++) {
        char digits[8];
        snprintf(digits, sizeof digits, "%05u", (unsigned)i + 1);
        /* Five digits, as split_number has found: the path keeps its length. */
        memcpy(number, digits, 5);
        struct part *part = &gguf->parts[i];
        int rc = part_open(part, path, err, err_size);
        if (rc == -ENOENT) /* which callers take for a model that is not there */
            return refuse(path, err, err_size,
                          "part %u of %u of the model is missing; all parts must lie beside the "
                          "first under their own names",
                          (unsigned)i + 1, (unsigned)n_parts);
        if (rc)
            return rc;
        /* Counted before it is checked, so that gguf_close unmaps it when a check fails. */
        assert(gguf->n_parts < n_parts && n_parts <= PARTS_MAX);
        gguf->n_parts++;
        gguf->n_tensors += part->directory.n_tensors;
        if (part_number(part, "split.no") != i || part_number(part, "split.count") != n_parts)
            return refuse(path, err, err_size,
                          "it says it is another part than its name says; fetch it again");
        rc = parts_compare(gguf, path, err, err_size);
        if (rc)
            return rc;
    }
    uint64_t n_tensors = part_number(&gguf->parts[0], "split.tensors.count");
    /* Files that do not say it (0) are taken at their parts' word. */
    if (n_tensors && n_tensors != gguf->n_tensors)
        return refuse(path, err, err_size,
                      "the parts hold %zu tensors and the model has %llu; fetch all parts again",
                      gguf->n_tensors, (unsigned long long)n_tensors);
    return 0;
}

int gguf_open(struct gguf **out, const char *path, char *err, size_t err_size)
{
    struct gguf *gguf = NULL;
    int rc = gguf_alloc(&gguf, path, err, err_size);
    if (rc)
        return rc;
    rc = part_open(&gguf->parts[0], path, err, err_size);
    if (rc)
        goto fail;
    gguf->n_parts = 1;
    gguf->n_tensors = gguf->parts[0].directory.n_tensors;
    uint64_t n_parts = part_number(&gguf->parts[0], "split.count");
    if (n_parts > 1) {
        /* A copy, into which parts_open writes the number of each part. */
        char *name = strdup(path);
        if (!name)
            (void)refuse(path, err, err_size, "no memory for its name; free some");
        rc = name ? parts_open(gguf, name, n_parts, err, err_size) : -ENOMEM;
        free(name);
        if (rc)
            goto fail;
    }
    *out = gguf;
    return 0;
fail:
    gguf_close(gguf);
    return rc;
}

void gguf_close(struct gguf *gguf)
{
    if (!gguf)
        return;
    /* Only parts that are counted: one that failed to open was undone by part_open. */
    for (size_t i = 0; i < gguf->n_parts; i++) {
        gguf_directory_free(&gguf->parts[i].directory);
        if (gguf->parts[i].mapped)
            munmap((void *)(uintptr_t)gguf->parts[i].bytes, gguf->parts[i].size);
    }
    free(gguf->parts);
    free(gguf);
}

size_t gguf_file_size(const struct gguf *gguf)
{
    size_t size = 0;
    for (size_t i = 0; i < gguf->n_parts; i++)
        size += gguf->parts[i].size;
    return size;
}

struct gguf_str gguf_metadata(const struct gguf *gguf)
{
    const struct part *first = &gguf->parts[0];
    /* A file without tensors may end before the place where their data would begin. */
    size_t len = first->directory.data_at < first->size ? first->directory.data_at : first->size;
    return (struct gguf_str){.ptr = (const char *)first->bytes, .len = len};
}

static int key_find(const struct gguf *gguf, const char *name, const struct gguf_key **out)
{
    const struct gguf_key *key = gguf_directory_key(
        &gguf->parts[0].directory, (struct gguf_str){.ptr = name, .len = strlen(name)});
    if (!key)
        return -ENOENT;
    *out = key;
    return 0;
}

int gguf_uint(const struct gguf *gguf, const char *name, uint64_t *out)
{
    const struct gguf_key *key;
    int rc = key_find(gguf, name, &key);
    if (rc)
        return rc;
    bool is_signed = false;
    switch (key->type) {
    case GGUF_I8:
    case GGUF_I16:
    case GGUF_I32:
    case GGUF_I64:
        is_signed = true;
        break;
    case GGUF_U8:
    case GGUF_U16:
    case GGUF_U32:
    case GGUF_U64:
        break;
    default:
        return -EINVAL;
    }
    const struct gguf_array *value = &key->value;
    if (is_signed && (value->data[value->size - 1] & 0x80)) /* the sign, little-endian */
        return -EINVAL;
    /* The file is little-endian, as are all machines that embedmill is built for. */
    uint64_t number = 0;
    assert(value->size <= sizeof number);
    memcpy(&number, value->data, value->size);
    *out = number;
    return 0;
}

int gguf_float(const struct gguf *gguf, const char *name, double *out)
{
    const struct gguf_key *key;
    int rc = key_find(gguf, name, &key);
    if (rc)
        return rc;
    float single;
    if (key->type == GGUF_F64) {
        /* NaN passes here: bind_float compares with its bounds. */
        memcpy(out, key->value.data, sizeof *out);
    } else if (key->type == GGUF_F32) {
        memcpy(&single, key->value.data, sizeof single);
        *out = (double)single;
    } else {
        return -EINVAL;
    }
    return 0;
}

int gguf_bool(const struct gguf *gguf, const char *name, bool *out)
{
    const struct gguf_key *key;
    int rc = key_find(gguf, name, &key);
    if (!rc && key->type != GGUF_BOOL)
        rc = -EINVAL;
    if (!rc)
        /* One byte, 0 or 1: gguf_directory.c has refused others. */
        *out = key->value.data[0] != 0;
    return rc;
}

int gguf_string(const struct gguf *gguf, const char *name, struct gguf_str *out)
{
    const struct gguf_key *key;
    size_t at = 0;
    int rc = key_find(gguf, name, &key);
    /* A scalar is kept as an array of one. */
    if (!rc && (key->type != GGUF_STR || !gguf_array_next(&key->value, &at, out)))
        rc = -EINVAL;
    return rc;
}

int gguf_get_array(const struct gguf *gguf, const char *name, struct gguf_array *out)
{
    const struct gguf_key *key;
    int rc = key_find(gguf, name, &key);
    if (!rc && key->type != GGUF_ARRAY)
        rc = -EINVAL;
    if (!rc)
        *out = key->value;
    return rc;
}

/* Checked again, although open did: it costs nothing, and a file written in place stays harmless.
 */
bool gguf_array_next(const struct gguf_array *array, size_t *at, struct gguf_str *out)
{
    uint64_t len;
    if (array->type != GGUF_STR || *at > array->size || array->size - *at < sizeof len)
        return false;
    memcpy(&len, array->data + *at, sizeof len);
    if (len > array->size - *at - sizeof len)
        return false;
    *out =
        (struct gguf_str){.ptr = (const char *)array->data + *at + sizeof len, .len = (size_t)len};
    *at += sizeof len + (size_t)len;
    return true;
}

const char *gguf_type_name(uint32_t type)
{
    static const char *const names[] = {
        [0] = "F32",     [1] = "F16",      [2] = "Q4_0",   [3] = "Q4_1",    [6] = "Q5_0",
        [7] = "Q5_1",    [8] = "Q8_0",     [9] = "Q8_1",   [10] = "Q2_K",   [11] = "Q3_K",
        [12] = "Q4_K",   [13] = "Q5_K",    [14] = "Q6_K",  [15] = "Q8_K",   [16] = "IQ2_XXS",
        [17] = "IQ2_XS", [18] = "IQ3_XXS", [19] = "IQ1_S", [20] = "IQ4_NL", [21] = "IQ3_S",
        [22] = "IQ2_S",  [23] = "IQ4_XS",  [24] = "I8",    [25] = "I16",    [26] = "I32",
        [27] = "I64",    [28] = "F64",     [29] = "IQ1_M", [30] = "BF16",   [34] = "TQ1_0",
        [35] = "TQ2_0",  [39] = "MXFP4",   [40] = "NVFP4", [41] = "Q1_0",   [42] = "Q2_0",
    };
    return type < sizeof names / sizeof *names ? names[type] : NULL;
}

size_t gguf_n_tensors(const struct gguf *gguf)
{
    return gguf->n_tensors;
}

const struct gguf_tensor *gguf_tensor_at(const struct gguf *gguf, size_t i)
{
    const struct part *part = gguf->parts;
    assert(i < gguf->n_tensors);
    /* Parts without tensors are passed over: the first often has keys alone. */
    for (; i >= part->directory.n_tensors; part++)
        i -= part->directory.n_tensors;
    return &part->directory.entries[i].tensor;
}

const struct gguf_tensor *gguf_tensor_find(const struct gguf *gguf, const char *name)
{
    const struct gguf_str wanted = {.ptr = name, .len = strlen(name)};
    for (size_t i = 0; i < gguf->n_parts; i++) {
        const struct gguf_tensor *found = gguf_directory_tensor(&gguf->parts[i].directory, wanted);
        if (found)
            return found;
    }
    return NULL;
}
