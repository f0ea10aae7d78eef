/*
 * magic.h: what bytes are that are not text in UTF-8, by how they begin.
 *
 * Owns:    the table of magic numbers, of packers and of binary formats; NUL bytes; the marks and
 *          escapes of other encodings, and what is not UTF-8 for the most part.
 * Refuses: nothing itself: whoever reads a file or a message decides what becomes of it.
 * Threads: no state.
 * Why:     a tokenizer takes any bytes, so a packed file or a picture would become vectors like any
 *          text, and nobody would see it.
 */
#ifndef MAGIC_H
#define MAGIC_H

#include <stddef.h>

/* More than so many bytes are not looked at. */
enum { MAGIC_BYTES = 4096 };

enum magic_kind {
    MAGIC_GZIP,
    MAGIC_ZSTD,    /* a frame, a skippable frame or one of a version before 0.8 */
    MAGIC_PACKED,  /* by any other packer or archiver */
    MAGIC_UTF16LE, /* with its byte order mark */
    MAGIC_UTF16BE,
    MAGIC_WIDE,    /* UTF-32, UTF-16 without its mark, or another encoding that tells its name */
    MAGIC_FOREIGN, /* mostly not UTF-8: an encoding that does not tell its name, or binary data */
    MAGIC_BINARY,
    MAGIC_NUL, /* NUL bytes, and nothing else is known */
};

struct magic {
    enum magic_kind kind;
    const char *name; /* for a sentence: "bzip2 data", "a PNG image" */
    const char *tool; /* writes its text to standard output: "bzip2 -dc"; NULL: no one command */
};

/*
 * What the len bytes at ptr are the beginning of; NULL: of text, as far as can be told. More bytes
 * tell more: 4 do for most packers, 262 for tar. Magic numbers that are words of a language, too
 * (BZh, PAR1), count only with the bytes that follow them in such a file and never in a text.
 */
const struct magic *magic_find(const char *ptr, size_t len);

#endif
