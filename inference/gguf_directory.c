/*
 * gguf_directory.c: see gguf_directory.h.
 *
 * Owns:    every check of the file's own words. Vocabulary strings stay where they are: 262,144 of
 *          them are walked once to know that they end inside the file.
 * Refuses: recursion, copies of file data, and trust in any number before it met its bound.
 * Threads: none of its own.
 * Why:     every overflow in the CVE list of GGUF readers is a count multiplied, or a length added,
 *          before it was compared. Here all reading goes through take(), which compares with the
 *          bytes that are left, and the few products go through the overflow builtins.
 */
#include "inference/gguf_directory.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers are read as the file has them");

enum {
    HEADER_SIZE = 24,
    MIN_KEY_SIZE = 8 + 1 + 4 + 1,            /* name length, a letter, type, the smallest value */
    MIN_TENSOR_SIZE = 8 + 1 + 4 + 8 + 4 + 8, /* the same, n_dims, a dim, type, offset */
    MAX_ENTRIES = 65536,  /* keys or tensors; models have hundreds. Bounds the heap at 10 MB */
    MAX_KEY_NAME = 65535, /* of the specification */
    MAX_TENSOR_NAME = 64, /* of the specification */
    DEFAULT_ALIGNMENT = 32,
    MIN_ALIGNMENT = 8,       /* of the specification: a multiple of 8 */
    MAX_ALIGNMENT = 2 << 20, /* a huge page; nothing wants more */
    SHOWN_NAME = 64          /* bytes of a name that fit in a message */
};

/* Where the checks have come to, and what to call it. */
struct reader {
    const uint8_t *bytes;
    size_t size;
    size_t at;
    const char *file;
    const char *part;     /* "key", "tensor", or NULL in the header */
    uint64_t index, n;    /* of the part */
    struct gguf_str name; /* of the part, as far as known */
    char *err;
    size_t err_size;
};

static const char DAMAGED[] = "the file is damaged or cut short: fetch it again";
static const char NOT_OURS[] = "use a current little-endian GGUF of the model (version 2 or 3)";

const char *gguf_str_show(struct gguf_str text, char *out, size_t size)
{
    assert(size > 4);
    size_t n = text.len < size - 4 ? text.len : size - 4;
    for (size_t i = 0; i < n; i++)
        out[i] = text.ptr[i] >= ' ' && text.ptr[i] <= '~' ? text.ptr[i] : '?';
    memcpy(out + n, "...", 4);
    if (n == text.len)
        out[n] = '\0';
    return out;
}

__attribute__((format(printf, 3, 4))) static int refuse(const struct reader *reader,
                                                        const char *remedy, const char *format, ...)
{
    char what[256], where[160] = "", shown[SHOWN_NAME + 4];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    /* By its name once that is known, else by its number. */
    if (reader->part && reader->name.len)
        snprintf(where, sizeof where, "%s '%s': ", reader->part,
                 gguf_str_show(reader->name, shown, sizeof shown));
    else if (reader->part)
        snprintf(where, sizeof where, "%s %llu of %llu: ", reader->part,
                 (unsigned long long)reader->index + 1, (unsigned long long)reader->n);
    if (reader->err_size)
        snprintf(reader->err, reader->err_size, "%s: %s%s; %s", reader->file, where, what, remedy);
    return -EINVAL;
}

/* The only way forward in the file: n bytes, all of them there, or an error. */
static int take(struct reader *reader, uint64_t n, const char *what, const uint8_t **out)
{
    assert(reader->at <= reader->size);
    size_t left = reader->size - reader->at;
    if (n > left)
        return refuse(reader, DAMAGED, "%s of %llu bytes at byte %zu, where the file has %zu left",
                      what, (unsigned long long)n, reader->at, left);
    *out = reader->bytes + reader->at;
    reader->at += n;
    return 0;
}

static int take_u32(struct reader *reader, const char *what, uint32_t *out)
{
    const uint8_t *p = NULL;
    int rc = take(reader, sizeof *out, what, &p);
    if (!rc)
        memcpy(out, p, sizeof *out);
    return rc;
}

static int take_u64(struct reader *reader, const char *what, uint64_t *out)
{
    const uint8_t *p = NULL;
    int rc = take(reader, sizeof *out, what, &p);
    if (!rc)
        memcpy(out, p, sizeof *out);
    return rc;
}

static int take_str(struct reader *reader, const char *what, struct gguf_str *out)
{
    uint64_t len;
    const uint8_t *p = NULL;
    int rc = take_u64(reader, what, &len);
    if (!rc)
        rc = take(reader, len, what, &p);
    if (!rc)
        *out = (struct gguf_str){.ptr = (const char *)p, .len = len};
    return rc;
}

static int take_name(struct reader *reader, size_t max, struct gguf_str *out)
{
    struct gguf_str name;
    int rc = take_str(reader, "a name", &name);
    if (rc)
        return rc;
    if (name.len == 0)
        return refuse(reader, DAMAGED, "the name is empty");
    /* From here on messages call the key or tensor by its name. */
    reader->name = name;
    if (name.len > max)
        return refuse(reader, DAMAGED, "a name of %zu bytes, where %zu are allowed", name.len, max);
    *out = name;
    return 0;
}

static int str_compare(struct gguf_str a, struct gguf_str b)
{
    int order = memcmp(a.ptr, b.ptr, a.len < b.len ? a.len : b.len);
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

/* Bytes of one value; 0 for strings, arrays and numbers that are not a type. */
static size_t type_size(uint32_t type)
{
    static const uint8_t sizes[] = {
        [GGUF_U8] = 1,  [GGUF_I8] = 1,  [GGUF_U16] = 2, [GGUF_I16] = 2,
        [GGUF_U32] = 4, [GGUF_I32] = 4, [GGUF_F32] = 4, [GGUF_BOOL] = 1,
        [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8,
    };
    return type < sizeof sizes ? sizes[type] : 0;
}

/* n values of one type back to back: a scalar is the array of one. */
static int values_take(struct reader *reader, uint32_t type, uint64_t n, struct gguf_array *out)
{
    const uint8_t *data = reader->bytes + reader->at, *p;
    size_t left = reader->size - reader->at, start = reader->at;
    /* A string has at least its length, so a count can be judged before the strings are walked. */
    size_t least = type == GGUF_STR ? sizeof(uint64_t) : type_size(type);
    if (least == 0)
        return refuse(reader, DAMAGED, "value type %u is not one of GGUF's", (unsigned)type);
    /* Divided: the count is the file's word, and its product may overflow. */
    if (n > left / least)
        return refuse(reader, DAMAGED,
                      "%llu values of at least %zu bytes, where the file has %zu left",
                      (unsigned long long)n, least, left);
    int rc = 0;
    struct gguf_str string;
    if (type == GGUF_STR)
        /* Each takes 8 bytes at least, so the walk ends with the file whatever n says. */
        for (uint64_t i = 0; i < n && !rc; i++)
            rc = take_str(reader, "a string", &string);
    else
        rc = take(reader, n * least, "a value", &p);
    if (rc)
        return rc;
    if (type == GGUF_BOOL)
        for (uint64_t i = 0; i < n; i++)
            if (data[i] > 1)
                /* C's bool holds nothing else, and to read one from other bytes is undefined. */
                return refuse(reader, DAMAGED, "a bool is %u, neither 0 nor 1", data[i]);
    *out = (struct gguf_array){
        .type = (enum gguf_type)type, .n = n, .data = data, .size = reader->at - start};
    return 0;
}

static int key_take(struct reader *reader, struct gguf_key *key)
{
    uint32_t type;
    uint64_t n = 1;
    int rc = take_name(reader, MAX_KEY_NAME, &key->name);
    if (!rc)
        rc = take_u32(reader, "a value type", &type);
    if (rc)
        return rc;
    key->type = (enum gguf_type)type;
    if (type == GGUF_ARRAY) {
        rc = take_u32(reader, "an array type", &type);
        if (!rc)
            rc = take_u64(reader, "an array length", &n);
        /* To walk these would take recursion. */
        if (!rc && type == GGUF_ARRAY)
            rc = refuse(reader, NOT_OURS, "an array of arrays, which no known model has");
    }
    return rc ? rc : values_take(reader, type, n, &key->value);
}

static int key_order(const void *a, const void *b)
{
    return str_compare(((const struct gguf_key *)a)->name, ((const struct gguf_key *)b)->name);
}

static int keys_take(struct gguf_directory *directory, struct reader *reader)
{
    /* One more: NULL for no keys at all would look like want of memory. */
    directory->keys = calloc(directory->n_keys + 1, sizeof *directory->keys);
    if (!directory->keys)
        return -ENOMEM;
    reader->part = "key";
    reader->n = directory->n_keys;
    for (size_t i = 0; i < directory->n_keys; i++) {
        reader->index = i;
        reader->name.len = 0;
        int rc = key_take(reader, &directory->keys[i]);
        if (rc)
            return rc;
    }
    /* Sorted, duplicates stand side by side: a hostile number of keys does not cost its square. */
    qsort(directory->keys, directory->n_keys, sizeof *directory->keys, key_order);
    for (size_t i = 1; i < directory->n_keys; i++) {
        reader->name = directory->keys[i].name;
        if (str_compare(directory->keys[i - 1].name, directory->keys[i].name) == 0)
            return refuse(reader, DAMAGED, "the key appears twice");
    }
    return 0;
}

/*
 * Block sizes of ggml's tensor types (ggml.h, ggml-common.h). Only those in gguf.h are ever
 * read; the others are here so that their place in the file is still checked.
 */
struct block {
    uint16_t n; /* values; 0: not known */
    uint16_t bytes;
};

static struct block block_of(uint32_t type)
{
    static const struct block blocks[] = {
        [0] = {1, 4} /* F32 */,         [1] = {1, 2} /* F16 */,
        [2] = {32, 18} /* Q4_0 */,      [3] = {32, 20} /* Q4_1 */,
        [6] = {32, 22} /* Q5_0 */,      [7] = {32, 24} /* Q5_1 */,
        [8] = {32, 34} /* Q8_0 */,      [10] = {256, 84} /* Q2_K */,
        [11] = {256, 110} /* Q3_K */,   [12] = {256, 144} /* Q4_K */,
        [13] = {256, 176} /* Q5_K */,   [14] = {256, 210} /* Q6_K */,
        [16] = {256, 66} /* IQ2_XXS */, [17] = {256, 74} /* IQ2_XS */,
        [18] = {256, 98} /* IQ3_XXS */, [19] = {256, 50} /* IQ1_S */,
        [20] = {32, 18} /* IQ4_NL */,   [21] = {256, 110} /* IQ3_S */,
        [22] = {256, 82} /* IQ2_S */,   [23] = {256, 136} /* IQ4_XS */,
        [24] = {1, 1} /* I8 */,         [25] = {1, 2} /* I16 */,
        [26] = {1, 4} /* I32 */,        [27] = {1, 8} /* I64 */,
        [28] = {1, 8} /* F64 */,        [29] = {256, 56} /* IQ1_M */,
        [30] = {1, 2} /* BF16 */,       [34] = {256, 54} /* TQ1_0 */,
        [35] = {256, 66} /* TQ2_0 */,   [39] = {32, 17} /* MXFP4 */,
        [40] = {64, 36} /* NVFP4 */,    [41] = {128, 18} /* Q1_0 */,
        [42] = {64, 18} /* Q2_0 */,
    };
    return type < sizeof blocks / sizeof *blocks ? blocks[type] : (struct block){0, 0};
}

static int shape_take(struct reader *reader, struct gguf_tensor *tensor, uint64_t *n_values)
{
    int rc = take_u32(reader, "a number of dimensions", &tensor->n_dims);
    if (rc)
        return rc;
    if (tensor->n_dims < 1 || tensor->n_dims > 4)
        return refuse(reader, DAMAGED, "%u dimensions, where 1 to 4 are allowed",
                      (unsigned)tensor->n_dims);
    *n_values = 1;
    for (uint32_t i = 0; i < 4; i++) {
        tensor->shape[i] = 1;
        if (i >= tensor->n_dims)
            continue;
        rc = take_u64(reader, "a dimension", &tensor->shape[i]);
        if (rc)
            return rc;
        if (tensor->shape[i] == 0)
            return refuse(reader, DAMAGED, "dimension %u is 0", (unsigned)i);
        /* ggml counts values in int64. */
        if (__builtin_mul_overflow(*n_values, tensor->shape[i], n_values) || *n_values > INT64_MAX)
            return refuse(reader, DAMAGED, "the product of its dimensions overflows");
    }
    return 0;
}

static int entry_take(struct reader *reader, struct gguf_entry *entry)
{
    struct gguf_tensor *tensor = &entry->tensor;
    uint64_t n_values = 0, size = 0;
    int rc = take_name(reader, MAX_TENSOR_NAME, &tensor->name);
    if (!rc)
        rc = shape_take(reader, tensor, &n_values);
    if (!rc)
        rc = take_u32(reader, "a tensor type", &tensor->type);
    if (!rc)
        rc = take_u64(reader, "an offset", &entry->offset);
    if (rc)
        return rc;
    struct block block = block_of(tensor->type);
    if (block.n && tensor->shape[0] % block.n)
        return refuse(reader, DAMAGED,
                      "rows of %llu values, not a multiple of %u as its type needs",
                      (unsigned long long)tensor->shape[0], block.n);
    /* Divided without a rest, as the first dimension is a multiple of block.n. */
    if (block.n &&
        (__builtin_mul_overflow(n_values / block.n, block.bytes, &size) || size > SIZE_MAX))
        return refuse(reader, DAMAGED, "its size in bytes overflows");
    tensor->size = (size_t)size;
    return 0;
}

static int alignment_get(const struct gguf_directory *directory, struct reader *reader,
                         uint64_t *out)
{
    *out = DEFAULT_ALIGNMENT;
    reader->part = "key";
    reader->name = (struct gguf_str){.ptr = "general.alignment", .len = 17};
    const struct gguf_key *key = gguf_directory_key(directory, reader->name);
    if (!key)
        return 0;
    if (key->type != GGUF_U32)
        return refuse(reader, DAMAGED, "value type %u, where u32 is asked for",
                      (unsigned)key->type);
    uint32_t value;
    memcpy(&value, key->value.data, sizeof value);
    *out = value;
    if (*out < MIN_ALIGNMENT || *out > MAX_ALIGNMENT || (*out & (*out - 1)))
        return refuse(reader, DAMAGED, "it is %llu, not a power of two from %d to %d",
                      (unsigned long long)*out, MIN_ALIGNMENT, MAX_ALIGNMENT);
    return 0;
}

static int entry_place(const struct gguf_directory *directory, struct reader *reader,
                       uint64_t alignment, struct gguf_entry *entry)
{
    struct gguf_tensor *tensor = &entry->tensor;
    reader->name = tensor->name;
    size_t data_size = reader->size > directory->data_at ? reader->size - directory->data_at : 0;
    if (entry->offset % alignment)
        return refuse(reader, DAMAGED, "offset %llu is not a multiple of the alignment %llu",
                      (unsigned long long)entry->offset, (unsigned long long)alignment);
    /* At the end itself, too: of a type whose size is not known there must be at least a byte. */
    if (entry->offset > data_size || tensor->size > data_size - entry->offset ||
        entry->offset == data_size)
        return refuse(reader, DAMAGED, "%zu bytes at offset %llu, where the file has %zu of data",
                      tensor->size, (unsigned long long)entry->offset, data_size);
    if (tensor->size)
        tensor->data = reader->bytes + directory->data_at + entry->offset;
    return 0;
}

static int offset_order(const void *a, const void *b)
{
    uint64_t x = (*(struct gguf_entry *const *)a)->offset,
             y = (*(struct gguf_entry *const *)b)->offset;
    return (x > y) - (x < y);
}

static int name_order(const void *a, const void *b)
{
    return str_compare((*(struct gguf_entry *const *)a)->tensor.name,
                       (*(struct gguf_entry *const *)b)->tensor.name);
}

/* Both checks look at neighbours in a sorted list; the list by name stays for gguf_tensor_find. */
static int entries_compare(struct gguf_directory *directory, struct reader *reader)
{
    char shown[SHOWN_NAME + 4];
    struct gguf_entry **list = directory->by_name;
    for (size_t i = 0; i < directory->n_tensors; i++)
        list[i] = &directory->entries[i];
    qsort(list, directory->n_tensors, sizeof *list, offset_order);
    for (size_t i = 1; i < directory->n_tensors; i++) {
        const struct gguf_entry *before = list[i - 1];
        uint64_t size = before->tensor.size ? before->tensor.size : 1; /* not known: at least 1 */
        reader->name = list[i]->tensor.name;
        /* Not negative: the list is in order of offsets. */
        if (list[i]->offset - before->offset < size)
            return refuse(reader, DAMAGED, "its data overlaps that of tensor '%s'",
                          gguf_str_show(before->tensor.name, shown, sizeof shown));
    }
    qsort(list, directory->n_tensors, sizeof *list, name_order);
    for (size_t i = 1; i < directory->n_tensors; i++) {
        reader->name = list[i]->tensor.name;
        if (str_compare(list[i - 1]->tensor.name, list[i]->tensor.name) == 0)
            return refuse(reader, DAMAGED, "the tensor appears twice");
    }
    return 0;
}

static int tensors_take(struct gguf_directory *directory, struct reader *reader)
{
    uint64_t alignment;
    int rc = alignment_get(directory, reader, &alignment);
    if (rc)
        return rc;
    directory->entries = calloc(directory->n_tensors + 1, sizeof *directory->entries);
    directory->by_name = calloc(directory->n_tensors + 1, sizeof *directory->by_name);
    if (!directory->entries || !directory->by_name)
        return -ENOMEM;
    reader->part = "tensor";
    reader->n = directory->n_tensors;
    for (size_t i = 0; i < directory->n_tensors; i++) {
        reader->index = i;
        reader->name.len = 0;
        rc = entry_take(reader, &directory->entries[i]);
        if (rc)
            return rc;
    }
    /* The sum cannot overflow: `at` is inside the file, and the alignment is 2 MiB at most. */
    size_t past = reader->at % alignment;
    directory->data_at = past ? reader->at + (alignment - past) : reader->at;
    for (size_t i = 0; i < directory->n_tensors; i++) {
        rc = entry_place(directory, reader, alignment, &directory->entries[i]);
        if (rc)
            return rc;
    }
    return entries_compare(directory, reader);
}

/* What people really point at instead of a model deserves its own words. */
static int magic_check(struct reader *reader)
{
    static const char pointer[] = "version https://git-lfs";
    if (reader->size == 0)
        return refuse(reader, "fetch it again", "the file is empty");
    if (reader->size >= sizeof pointer - 1 && !memcmp(reader->bytes, pointer, sizeof pointer - 1))
        return refuse(reader, "run 'git lfs pull', or download the file itself",
                      "this is a Git LFS pointer, not the model");
    if (reader->bytes[0] == '<')
        return refuse(reader, "download the file itself", "this is a web page, not the model");
    if (reader->size < 4 || memcmp(reader->bytes, "GGUF", 4) != 0)
        return refuse(reader, "name a .gguf file", "this is not a GGUF file (wrong first bytes)");
    return 0;
}

static int header_take(struct gguf_directory *directory, struct reader *reader)
{
    const uint8_t *p = NULL;
    uint32_t version;
    uint64_t n_tensors, n_keys;
    int rc = magic_check(reader);
    if (!rc)
        rc = take(reader, 4, "the magic", &p);
    if (!rc)
        rc = take_u32(reader, "the version", &version);
    if (rc)
        return rc;
    /* Version 2 or 3 with its bytes the other way round. */
    if (version && (version & 0xffff) == 0)
        return refuse(reader, NOT_OURS, "the file is big-endian");
    if (version < 2 || version > 3)
        return refuse(reader, NOT_OURS, "GGUF version %u cannot be read", (unsigned)version);
    rc = take_u64(reader, "the number of tensors", &n_tensors);
    if (!rc)
        rc = take_u64(reader, "the number of keys", &n_keys);
    if (rc)
        return rc;
    /* Against what so many take at least: no small file makes a large table. */
    size_t left = reader->size - HEADER_SIZE;
    if (n_keys > left / MIN_KEY_SIZE || n_keys > MAX_ENTRIES)
        return refuse(reader, DAMAGED, "%llu keys cannot be in %zu bytes or are above %d",
                      (unsigned long long)n_keys, left, MAX_ENTRIES);
    left -= n_keys * MIN_KEY_SIZE;
    if (n_tensors > left / MIN_TENSOR_SIZE || n_tensors > MAX_ENTRIES)
        return refuse(reader, DAMAGED, "%llu tensors cannot be in %zu bytes or are above %d",
                      (unsigned long long)n_tensors, left, MAX_ENTRIES);
    directory->n_keys = (size_t)n_keys;
    directory->n_tensors = (size_t)n_tensors;
    return 0;
}

int gguf_directory_read(struct gguf_directory *out, const uint8_t *bytes, size_t size,
                        const char *file, char *err, size_t err_size)
{
    struct gguf_directory directory = {0};
    struct reader reader = {
        .bytes = bytes, .size = size, .file = file, .err = err, .err_size = err_size};
    int rc = header_take(&directory, &reader);
    /* Keys first: one of them is the alignment of the tensors' data. */
    if (!rc)
        rc = keys_take(&directory, &reader);
    if (!rc)
        rc = tensors_take(&directory, &reader);
    if (rc)
        goto fail;
    *out = directory;
    return 0;

fail:
    if (rc == -ENOMEM && err_size)
        snprintf(err, err_size, "%s: no memory for its directory; free some", file);
    gguf_directory_free(&directory);
    return rc;
}

void gguf_directory_free(struct gguf_directory *directory)
{
    free(directory->keys);
    free(directory->entries);
    free(directory->by_name);
}

const struct gguf_key *gguf_directory_key(const struct gguf_directory *directory,
                                          struct gguf_str name)
{
    struct gguf_key wanted = {.name = name};
    return bsearch(&wanted, directory->keys, directory->n_keys, sizeof wanted, key_order);
}

const struct gguf_tensor *gguf_directory_tensor(const struct gguf_directory *directory,
                                                struct gguf_str name)
{
    /* name_order compares through pointers to entries: what is looked for is one, too. */
    struct gguf_entry entry = {.tensor = {.name = name}}, *wanted = &entry;
    struct gguf_entry **found = bsearch(&wanted, directory->by_name, directory->n_tensors,
                                        sizeof *directory->by_name, name_order);
    return found ? &(*found)->tensor : NULL;
}
