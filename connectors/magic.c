/*
 * magic.c: see magic.h.
 */
#include "connectors/magic.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "connectors/utf8.h"

struct entry {
    struct magic magic;
    size_t offset, len;
    const char *bytes;
};

#define AT(offset, literal) (offset), sizeof(literal) - 1, literal
#define PACKED(name, tool, literal)                                                                \
    {                                                                                              \
        {MAGIC_PACKED, name, tool}, AT(0, literal)                                                 \
    }
#define BINARY(name, literal)                                                                      \
    {                                                                                              \
        {MAGIC_BINARY, name, NULL}, AT(0, literal)                                                 \
    }
#define TOOL(name, tool, literal)                                                                  \
    {                                                                                              \
        {MAGIC_BINARY, name, tool}, AT(0, literal)                                                 \
    }
#define WIDE(kind, name, iconv, bytes)                                                             \
    {                                                                                              \
        {kind, name, "iconv -t UTF-8 -f " iconv}, AT(0, bytes)                                     \
    }

#define ZIP "a zip archive (docx, xlsx, odt, epub and jar are some, too)"

/* The first that fits counts: UTF-32LE begins like UTF-16LE. */
static const struct entry entries[] = {
    {{MAGIC_GZIP, "gzip data", "gzip -dc"}, AT(0, "\x1f\x8b")},
    {{MAGIC_ZSTD, "Zstandard data", "zstd -dc"}, AT(0, "\x28\xb5\x2f\xfd")},
    PACKED("bzip2 data", "bzip2 -dc", "BZh91AY&SY"), /* other block sizes: see is_bzip2 */
    PACKED("xz data", "xz -dc", "\xfd\x37zXZ\0"),
    PACKED("LZMA data", "xz -dc", "\x5d\0\0"),
    PACKED("lzip data", "lzip -dc", "LZIP\1"),
    PACKED("LZ4 data", "lz4 -dc", "\x04\x22\x4d\x18"),
    PACKED("LZ4 data", "lz4 -dc", "\x02\x21\x4c\x18"), /* before version 1.0 */
    PACKED("lzop data", "lzop -dc", "\x89LZO\0"),
    PACKED("snappy data", NULL, "\xff\x06\0\0sNaPpY"),
    PACKED("snappy data", NULL, "\x82SNAPPY\0"), /* as programs in Java write it */
    PACKED("compress data (.Z)", "gzip -dc", "\x1f\x9d"),
    PACKED("pack data (.z)", "gzip -dc", "\x1f\x1e"),
    PACKED("lrzip data", "lrzip -dcQ", "LRZI\0"),
    PACKED(ZIP, "unzip -p", "PK\3\4"),
    PACKED(ZIP, "unzip -p", "PK\5\6"),
    PACKED(ZIP, "unzip -p", "PK\7\x08"),
    PACKED("a 7z archive", "7z x -so", "7z\xbc\xaf\x27\x1c"),
    PACKED("a RAR archive", "unrar p -inul", "Rar!\x1a\x07"),
    PACKED("a cabinet archive", NULL, "MSCF\0\0\0\0"),
    PACKED("an xar archive", NULL, "xar!\0"),
    PACKED("an ar archive (deb is one, too)", NULL, "!<arch>\n"),
    PACKED("an RPM package", NULL, "\xed\xab\xee\xdb"),
    {{MAGIC_PACKED, "a tar archive", "tar -xOf"}, AT(257, "ustar")},
    WIDE(MAGIC_WIDE, "UTF-32 text", "UTF-32", "\xff\xfe\0\0"),
    WIDE(MAGIC_WIDE, "UTF-32 text", "UTF-32", "\0\0\xfe\xff"),
    WIDE(MAGIC_UTF16LE, "UTF-16 text", "UTF-16", "\xff\xfe"),
    WIDE(MAGIC_UTF16BE, "UTF-16 text", "UTF-16", "\xfe\xff"),
    WIDE(MAGIC_WIDE, "GB 18030 text", "GB18030", "\x84\x31\x95\x33"),
    WIDE(MAGIC_WIDE, "UTF-7 text", "UTF-7", "+/v8-"),
    WIDE(MAGIC_WIDE, "UTF-EBCDIC text", "UTF-EBCDIC", "\xdd\x73\x66\x73"),
    WIDE(MAGIC_WIDE, "SCSU text", "SCSU", "\x0e\xfe\xff"),
    WIDE(MAGIC_WIDE, "BOCU-1 text", "BOCU-1", "\xfb\xee\x28"),
    BINARY("a NumPy array", "\x93NUMPY"),
    BINARY("a Parquet file", "PAR1\x15"),
    BINARY("an encrypted Parquet file", "PARE\x15"),
    BINARY("an Arrow file", "ARROW1\0"),
    BINARY("an Avro file", "Obj\1"),
    BINARY("an HDF5 file", "\x89HDF\r\n\x1a\n"),
    BINARY("a Python pickle", "\x80\4\x95"),
    BINARY("a Python pickle", "\x80\5\x95"),
    BINARY("an SQLite database", "SQLite format 3\0"),
    BINARY("a GGUF model", "GGUF\2\0\0\0"),
    BINARY("a GGUF model", "GGUF\3\0\0\0"),
    BINARY("a program (ELF)", "\x7f"
                              "ELF"),
    BINARY("a program (Mach-O)", "\xcf\xfa\xed\xfe"),
    BINARY("a program (Mach-O) or a Java class", "\xca\xfe\xba\xbe\0\0\0"),
    BINARY("a WebAssembly module", "\0asm"),
    BINARY("a PNG image", "\x89PNG\r\n\x1a\n"),
    BINARY("a JPEG image", "\xff\xd8\xff"),
    BINARY("a GIF image", "GIF87a"),
    BINARY("a GIF image", "GIF89a"),
    BINARY("a TIFF image", "II*\0"),
    BINARY("a TIFF image", "MM\0*"),
    BINARY("a font", "wOFF\0\1\0\0"),
    BINARY("a font", "wOF2\0\1\0\0"),
    {{MAGIC_BINARY, "a WebP image", NULL}, AT(8, "WEBPVP8")},
    {{MAGIC_BINARY, "a sound file (WAV)", NULL}, AT(8, "WAVEfmt ")},
    {{MAGIC_BINARY, "a film (AVI)", NULL}, AT(8, "AVI LIST")},
    BINARY("a sound file (Ogg)", "OggS\0"),
    BINARY("a sound file (FLAC)", "fLaC\0"),
    BINARY("a sound file (MP3)", "ID3\2"),
    BINARY("a sound file (MP3)", "ID3\3"),
    BINARY("a sound file (MP3)", "ID3\4"),
    BINARY("a film (Matroska)", "\x1a\x45\xdf\xa3"),
    TOOL("a PDF document", "pdftotext", "%PDF-1."),
    TOOL("a PDF document", "pdftotext", "%PDF-2."),
    TOOL("a PostScript document", "ps2ascii", "%!PS-Adobe-"),
    BINARY("a Microsoft Office document", "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),
    BINARY("an RTF document", "{\\rtf1"),
    TOOL("a pointer of Git LFS, in place of the file", "git lfs pull --include",
         "version https://git-lfs.github.com/spec/"),
    BINARY("a serialized object of Java", "\xac\xed\0\5"),
    BINARY("encrypted data (OpenSSL)", "Salted__"),
    BINARY("encrypted data (age)", "age-encryption.org/v"),
    BINARY("encrypted data (git-crypt)", "\0GITCRYPT\0"),
    BINARY("encrypted data (Ansible Vault)", "$ANSIBLE_VAULT;"),
    TOOL("encrypted data (PGP)", "gpg --decrypt", "-----BEGIN PGP MESSAGE-----"),
    TOOL("encrypted data (age)", "age --decrypt", "-----BEGIN AGE ENCRYPTED FILE-----"),
    BINARY("CMS data (encrypted or signed)", "-----BEGIN CMS-----"),
    BINARY("PKCS #7 data (encrypted, signed or certificates)", "-----BEGIN PKCS7-----"),
    TOOL("uuencoded data", "uudecode -o /dev/stdout", "begin 644 "),
    TOOL("uuencoded data", "uudecode -o /dev/stdout", "begin-base64 "),
    BINARY("yEnc data", "=ybegin line="),
};

static const struct magic zstd_skippable = {MAGIC_ZSTD, "Zstandard data", "zstd -dc"};
static const struct magic bzip2 = {MAGIC_PACKED, "bzip2 data", "bzip2 -dc"};
static const struct magic zlib = {MAGIC_PACKED, "zlib data", "pigz -dcz"};
static const struct magic mp4 = {MAGIC_BINARY, "a film (MP4) or an image (HEIC, AVIF)", NULL};
static const struct magic dos_program = {MAGIC_BINARY, "a program (EXE)", NULL};
static const struct magic utf16le = {MAGIC_WIDE, "UTF-16 text without a byte order mark",
                                     "iconv -t UTF-8 -f UTF-16LE"};
static const struct magic utf16be = {MAGIC_WIDE, "UTF-16 text without a byte order mark",
                                     "iconv -t UTF-8 -f UTF-16BE"};
static const struct magic iso2022jp = {MAGIC_WIDE, "ISO-2022-JP text",
                                       "iconv -t UTF-8 -f ISO-2022-JP"};
static const struct magic iso2022kr = {MAGIC_WIDE, "ISO-2022-KR text",
                                       "iconv -t UTF-8 -f ISO-2022-KR"};
static const struct magic iso2022cn = {MAGIC_WIDE, "ISO-2022-CN text",
                                       "iconv -t UTF-8 -f ISO-2022-CN"};
static const struct magic foreign = {
    MAGIC_FOREIGN,
    "text in another encoding (GBK, Shift-JIS, KOI8-R, Windows-1251 or the like), or binary data",
    "iconv -t UTF-8 -f ENCODING"};
static const struct magic gzip64 = {MAGIC_PACKED, "gzip data in base64", "base64 -d"};
static const struct magic zstd64 = {MAGIC_PACKED, "Zstandard data in base64", "base64 -d"};
static const struct magic bzip64 = {MAGIC_PACKED, "bzip2 data in base64", "base64 -d"};
static const struct magic xz64 = {MAGIC_PACKED, "xz data in base64", "base64 -d"};
static const struct magic with_nul = {MAGIC_NUL, "binary data (it holds NUL bytes)", NULL};
static const struct magic with_controls = {MAGIC_BINARY, "binary data (or packed or encrypted)",
                                           NULL};

static bool fits(const struct entry *entry, const char *ptr, size_t len)
{
    return len >= entry->offset + entry->len &&
           memcmp(ptr + entry->offset, entry->bytes, entry->len) == 0;
}

/* Formats whose first bytes vary. */
static const struct magic *vary(const unsigned char *at, size_t len)
{
    if (len >= 4 && (at[0] & 0xf0) == 0x50 && memcmp(at + 1, "\x2a\x4d\x18", 3) == 0)
        return &zstd_skippable;
    if (len >= 4 && (at[0] == 0x1e || (at[0] >= 0x22 && at[0] <= 0x27)) &&
        memcmp(at + 1, "\xb5\x2f\xfd", 3) == 0)
        return &zstd_skippable; /* of versions 0.1 to 0.7 */
    if (len >= 10 && memcmp(at, "BZh", 3) == 0 && at[3] >= '1' && at[3] <= '9' &&
        (memcmp(at + 4, "1AY&SY", 6) == 0 || memcmp(at + 4, "\x17\x72\x45\x38\x50\x90", 6) == 0))
        return &bzip2;
    if (len >= 12 && at[0] == 0 && at[1] == 0 && memcmp(at + 4, "ftyp", 4) == 0)
        return &mp4;
    /* Two letters that begin names, too; the header of a program is binary and has a NUL. */
    if (len >= 64 && memcmp(at, "MZ", 2) == 0 && memchr(at, 0, 64))
        return &dos_program;
    return NULL;
}

/* Is what stands beside each NUL, in units of two bytes, a character of ASCII that text has? */
static bool only_ascii_beside(const char *ptr, size_t len, bool is_low_first)
{
    for (size_t i = 0; i < len; i++) {
        size_t beside = is_low_first ? i - 1 : i + 1;
        if (ptr[i] != '\0' || beside >= len)
            continue;
        unsigned char c = (unsigned char)ptr[beside];
        if (c >= 0x7f || (c < ' ' && c != '\n' && c != '\r' && c != '\t'))
            return false;
    }
    return true;
}

/* Bytes of text in UTF-16 without a mark: every other one is NUL, and never one of the rest. */
static const struct magic *nul(const char *ptr, size_t len)
{
    size_t zeros[2] = {0, 0};
    for (size_t i = 0; i < len; i++)
        zeros[i % 2] += ptr[i] == '\0';
    size_t half = len / 2;
    if (zeros[0] + zeros[1] == 0)
        return NULL;
    /* Three quarters: western text has a character above U+00FF here and there. */
    if (half >= 2 && zeros[0] == 0 && zeros[1] >= half - half / 4)
        return &utf16le;
    if (half >= 2 && zeros[1] == 0 && zeros[0] >= half - half / 4)
        return &utf16be;
    /* Other alphabets have their spaces and line ends in common with ASCII. */
    if ((zeros[0] == 0) != (zeros[1] == 0) && zeros[0] + zeros[1] >= 2 &&
        only_ascii_beside(ptr, len, zeros[1] > 0))
        return zeros[1] > 0 ? &utf16le : &utf16be;
    return &with_nul;
}

/* A NUL character of UTF-16: it is not text, whatever its first two bytes. */
static bool has_zero_unit(const char *ptr, size_t len)
{
    for (size_t i = 0; i + 1 < len; i += 2)
        if (ptr[i] == '\0' && ptr[i + 1] == '\0')
            return true;
    return false;
}

/* How many of the bytes belong to no character of UTF-8. */
static size_t count_bad(const char *ptr, size_t len)
{
    size_t bad = 0;
    for (size_t at = 0; at < len;) {
        int step = utf8_next(ptr + at, len - at);
        if (step < 0 && at + UTF8_LONGEST <= len) /* the last may be cut */
            bad += (size_t)-step;
        at += (size_t)(step < 0 ? -step : step);
    }
    return bad;
}

/*
 * Short binary data may have no NUL byte. Text in Latin-1, Windows-1252, Shift-JIS and their like
 * is not UTF-8 either, but no text has control characters beside white space, escapes of terminals
 * and the ends of old formats; of random bytes one in ten is.
 */
static const struct magic *controls(const char *ptr, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)ptr[i];
        /* 0x1a ends files of DOS, 0x1b begins escapes of terminals, 0x1e records of RFC 7464. */
        n += (c < 0x20 && c != 0x1a && c != 0x1b && c != 0x1e && (c < 0x08 || c > 0x0d)) ||
             c == 0x7f;
    }
    /* One in 32 is far below chance (one in ten) and far above what gets into text by accident. */
    return n > 0 && n * 32 >= len && count_bad(ptr, len) > 0 ? &with_controls : NULL;
}

/*
 * Text of the west of Europe in Latin-1 is nearly all ASCII, and what is lost with U+FFFD is a
 * letter here and there. Where a third of the bytes is lost, a vector of the rest says nothing.
 */
enum { BAD_LEAST = 6, BAD_PART = 3, FEW_LEAST = 2, FEW_MOST = 16 };

/* The same of a word or two, of which more than half must be lost; only the last character may be
 * cut. */
static size_t count_lost(const char *ptr, size_t len)
{
    size_t lost = 0;
    for (size_t at = 0; at < len;) {
        int step = utf8_next(ptr + at, len - at);
        size_t bytes = (size_t)(step < 0 ? -step : step);
        lost += step < 0 && at + bytes < len ? bytes : 0;
        at += bytes;
    }
    return lost;
}

static bool is_foreign(const char *ptr, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++)
        n += (unsigned char)ptr[i] >= 0x80;
    /* Two thirds and more are ASCII: whatever the rest is, the words can be read. */
    if (n < FEW_LEAST || n * BAD_PART < len)
        return false;
    size_t bad = count_bad(ptr, len);
    if (bad >= BAD_LEAST)
        return bad * BAD_PART >= len;
    bad = n < FEW_MOST ? count_lost(ptr, len) : 0;
    return bad >= FEW_LEAST && bad * 2 > len;
}

/* Escapes that choose a set of two bytes a character; those of terminals are others. */
static const struct magic *iso2022(const char *ptr, size_t len)
{
    for (const char *at = ptr, *end = ptr + len;
         (at = memchr(at, 0x1b, (size_t)(end - at))) && end - at >= 4; at++) {
        if (at[1] != '$')
            continue;
        if (at[2] == 'B' || at[2] == '@')
            return &iso2022jp;
        if (at[2] == ')' && at[3] == 'C')
            return &iso2022kr;
        if (at[2] == ')' && (at[3] == 'A' || at[3] == 'G'))
            return &iso2022cn;
    }
    return NULL;
}

/* All of it is base64, in lines or not, and begins as what packers write does then. */
static const struct magic *base64(const char *ptr, size_t len)
{
    static const struct {
        const char *begins;
        const struct magic *magic;
    } packers[] = {{"H4sI", &gzip64}, {"KLUv/", &zstd64}, {"QlpoO", &bzip64}, {"/Td6WFoA", &xz64}};
    const struct magic *found = NULL;
    for (size_t i = 0; i < sizeof packers / sizeof packers[0]; i++)
        /* A word or an id may begin so by chance. */
        if (len >= 24 && memcmp(ptr, packers[i].begins, strlen(packers[i].begins)) == 0)
            found = packers[i].magic;
    for (size_t i = 0; found && i < len; i++)
        if (ptr[i] == '\0' ||
            !strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                    "+/=\r\n",
                    ptr[i]))
            return NULL;
    return found;
}

/* RFC 1950; in text these two bytes are common. */
static bool begins_zlib(const unsigned char *at, size_t len)
{
    return len >= 2 && at[0] == 0x78 && (at[0] * 256 + at[1]) % 31 == 0;
}

/* Cut, or short: no NUL and no controls. The second byte is not a letter then, and what follows no
 * UTF-8. */
static bool is_zlib(const unsigned char *at, size_t len)
{
    return begins_zlib(at, len) && at[1] != '^' && len >= 8 &&
           count_bad((const char *)at, len < 64 ? len : 64) > 0;
}

static const struct magic *unnamed(const char *ptr, size_t len)
{
    const struct magic *found = nul(ptr, len);
    if (!found)
        found = controls(ptr, len);
    /* zlib's two bytes are text by themselves; with NULs or controls behind them they are not. */
    if (found)
        return begins_zlib((const unsigned char *)ptr, len) &&
                       (found == &with_nul || found == &with_controls)
                   ? &zlib
                   : found;
    if (is_zlib((const unsigned char *)ptr, len))
        return &zlib;
    found = iso2022(ptr, len);
    if (!found)
        found = base64(ptr, len);
    return !found && is_foreign(ptr, len) ? &foreign : found;
}

const struct magic *magic_find(const char *ptr, size_t len)
{
    assert(ptr || len == 0);
    if (len > MAGIC_BYTES)
        len = MAGIC_BYTES;
    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) {
        const struct magic *magic = &entries[i].magic;
        /* A mark of UTF-16 is two bytes only, which binary data begins with by chance. */
        bool is_marked = magic->kind == MAGIC_UTF16LE || magic->kind == MAGIC_UTF16BE;
        if (fits(&entries[i], ptr, len))
            return is_marked && has_zero_unit(ptr, len) ? &with_nul : magic;
    }
    const struct magic *found = vary((const unsigned char *)ptr, len);
    return found ? found : unnamed(ptr, len);
}
