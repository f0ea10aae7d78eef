/*
 * gguf.c: see gguf.h.
 *
 * Owns:    the file, its mapping and the readers by key and by name.
 * Refuses: to look at the file's own words; gguf_directory.c has checked them.
 * Threads: none of its own; nothing changes after open.
 * Why:     the weights stay in the page cache, shared by every worker of the machine.
 */
#include "inference/gguf.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "inference/gguf_directory.h"

struct gguf {
    const uint8_t *bytes;
    size_t size;
    bool mapped; /* by us, to be unmapped by us */
    struct gguf_directory directory;
};

static int gguf_make(struct gguf **out, const void *bytes, size_t size, bool mapped,
                     const char *name, char *err, size_t err_size)
{
    struct gguf *gguf = calloc(1, sizeof *gguf);
    if (!gguf) {
        if (err_size)
            snprintf(err, err_size, "%s: no memory for its directory; free some", name);
        return -ENOMEM;
    }
    int rc = gguf_directory_read(&gguf->directory, bytes, size, name, err, err_size);
    if (rc) {
        free(gguf);
        return rc;
    }
    gguf->bytes = bytes;
    gguf->size = size;
    gguf->mapped = mapped;
    *out = gguf;
    return 0;
}

int gguf_open_memory(struct gguf **out, const void *bytes, size_t size, const char *name, char *err,
                     size_t err_size)
{
    return gguf_make(out, bytes, size, false, name, err, err_size);
}

/* O_NONBLOCK: a named pipe must be an error, not a wait for its writer. */
static int file_open(const char *path, size_t *size, char *err, size_t err_size)
{
    struct stat st;
    const char *what;
    int rc;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &st) < 0) {
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

int gguf_open(struct gguf **out, const char *path, char *err, size_t err_size)
{
    size_t size = 0;
    int fd = file_open(path, &size, err, err_size);
    if (fd < 0)
        return fd;
    if (size == 0) { /* which mmap would refuse with words that help nobody */
        close(fd);
        return gguf_open_memory(out, "", 0, path, err, err_size);
    }
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
    rc = gguf_make(out, map, size, true, path, err, err_size);
    if (rc)
        munmap(map, size);
    return rc;
}

void gguf_close(struct gguf *gguf)
{
    if (!gguf)
        return;
    gguf_directory_free(&gguf->directory);
    if (gguf->mapped)
        munmap((void *)(uintptr_t)gguf->bytes, gguf->size);
    free(gguf);
}

size_t gguf_file_size(const struct gguf *gguf)
{
    return gguf->size;
}

struct gguf_str gguf_metadata(const struct gguf *gguf)
{
    size_t len = gguf->directory.data_at < gguf->size ? gguf->directory.data_at : gguf->size;
    return (struct gguf_str){.ptr = (const char *)gguf->bytes, .len = len};
}

static int key_find(const struct gguf *gguf, const char *name, const struct gguf_key **out)
{
    const struct gguf_key *key =
        gguf_directory_key(&gguf->directory, (struct gguf_str){.ptr = name, .len = strlen(name)});
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
    uint64_t number = 0;
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
        *out = key->value.data[0] != 0;
    return rc;
}

int gguf_string(const struct gguf *gguf, const char *name, struct gguf_str *out)
{
    const struct gguf_key *key;
    size_t at = 0;
    int rc = key_find(gguf, name, &key);
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

size_t gguf_n_tensors(const struct gguf *gguf)
{
    return gguf->directory.n_tensors;
}

const struct gguf_tensor *gguf_tensor_at(const struct gguf *gguf, size_t i)
{
    assert(i < gguf->directory.n_tensors);
    return &gguf->directory.entries[i].tensor;
}

const struct gguf_tensor *gguf_tensor_find(const struct gguf *gguf, const char *name)
{
    return gguf_directory_tensor(&gguf->directory,
                                 (struct gguf_str){.ptr = name, .len = strlen(name)});
}
