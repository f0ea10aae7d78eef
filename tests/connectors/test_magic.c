/*
 * test_magic.c: what is not text, and texts that look like it.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "connectors/magic.h"

/* From memory of exactly that size, so that the address sanitizer sees a byte too many. */
static const struct magic *find(const char *bytes, size_t len)
{
    char *copy = malloc(len ? len : 1);
    assert_non_null(copy);
    memcpy(copy, bytes, len);
    const struct magic *found = magic_find(copy, len);
    free(copy);
    return found;
}

static void expect(const char *bytes, size_t len, enum magic_kind kind, const char *name)
{
    const struct magic *found = find(bytes, len);
    if (!found)
        fail_msg("expected %s, and nothing was found", name);
    assert_string_equal(found->name, name);
    assert_int_equal(found->kind, kind);
}
#define EXPECT(literal, kind, name) expect(literal, sizeof(literal) - 1, kind, name)

static void packed(void **state)
{
    (void)state;
    EXPECT("\x1f\x8b\x08\0", MAGIC_GZIP, "gzip data");
    EXPECT("\x28\xb5\x2f\xfd\x24\x0b", MAGIC_ZSTD, "Zstandard data");
    EXPECT("\x50\x2a\x4d\x18\4\0\0\0", MAGIC_ZSTD, "Zstandard data");
    EXPECT("\x5f\x2a\x4d\x18\0\0\0\0", MAGIC_ZSTD, "Zstandard data");
    EXPECT("\x25\xb5\x2f\xfd\x24\x0b", MAGIC_ZSTD, "Zstandard data");
    EXPECT("BZh91AY&SY\x8c\x22", MAGIC_PACKED, "bzip2 data");
    EXPECT("BZh11AY&SY\x8c\x22", MAGIC_PACKED, "bzip2 data");
    EXPECT("BZh9\x17\x72\x45\x38\x50\x90\0\0\0\0", MAGIC_PACKED, "bzip2 data"); /* of nothing */
    EXPECT("\xfd\x37zXZ\0\0\4", MAGIC_PACKED, "xz data");
    EXPECT("\x04\x22\x4d\x18\x64\x40", MAGIC_PACKED, "LZ4 data");
    EXPECT("7z\xbc\xaf\x27\x1c\0\4", MAGIC_PACKED, "a 7z archive");
    EXPECT("PK\3\4\x14\0", MAGIC_PACKED,
           "a zip archive (docx, xlsx, odt, epub and jar are some, too)");
    char tar[512] = "texts/a.txt";
    memcpy(tar + 257, "ustar", 5);
    expect(tar, sizeof tar, MAGIC_PACKED, "a tar archive");
    expect(tar, 262, MAGIC_PACKED, "a tar archive");
    expect(tar, 261, MAGIC_NUL, "binary data (it holds NUL bytes)");

    char deflated[300];
    unsigned long len = sizeof deflated;
    const char *text = "The ferry leaves at seven, the last one at ten past eleven, and on Sundays "
                       "there is none before nine.";
    assert_int_equal(
        compress((unsigned char *)deflated, &len, (const unsigned char *)text, strlen(text)), Z_OK);
    expect(deflated, len, MAGIC_PACKED, "zlib data");
    for (size_t n = 12; n < len; n++) /* cut on the way */
        expect(deflated, n, MAGIC_PACKED, "zlib data");
    EXPECT("H4sIACnIDGsC/6tWKkmtKFGyUlBKVEhLLSqqVKoF\n", MAGIC_PACKED, "gzip data in base64");
    EXPECT("KLUv/SQLWQAAYSBmZXJyeSBhbmQgYQ==", MAGIC_PACKED, "Zstandard data in base64");
}

static void binary(void **state)
{
    (void)state;
    EXPECT("\x89PNG\r\n\x1a\n", MAGIC_BINARY, "a PNG image");
    EXPECT("\xff\xd8\xff\xe0", MAGIC_BINARY, "a JPEG image");
    EXPECT("%PDF-1.7\n%\xe2\xe3", MAGIC_BINARY, "a PDF document");
    EXPECT("%!PS-Adobe-3.0 EPSF-3.0\n", MAGIC_BINARY, "a PostScript document");
    EXPECT("\x7f"
           "ELF\2\1\1",
           MAGIC_BINARY, "a program (ELF)");
    EXPECT("PAR1\x15\4\x15\x10", MAGIC_BINARY, "a Parquet file");
    EXPECT("\x93NUMPY\1\0v\0", MAGIC_BINARY, "a NumPy array");
    EXPECT("SQLite format 3\0\x10", MAGIC_BINARY, "an SQLite database");
    EXPECT("RIFF\x24\x10\1\1WEBPVP8 ", MAGIC_BINARY, "a WebP image");
    EXPECT("\0\0\0\x20"
           "ftypisom",
           MAGIC_BINARY, "a film (MP4) or an image (HEIC, AVIF)");
    EXPECT("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n", MAGIC_BINARY,
           "a pointer of Git LFS, in place of the file");
    EXPECT("text, and \0", MAGIC_NUL, "binary data (it holds NUL bytes)");
    EXPECT("\0", MAGIC_NUL, "binary data (it holds NUL bytes)");
    srand(7);
    for (size_t round = 0; round < 1000; round++) {
        char noise[200];
        for (size_t i = 0; i < sizeof noise; i++)
            noise[i] = (char)(rand() % 255 + 1); /* no NUL */
        if (!find(noise, sizeof noise))
            fail_msg("round %zu of the noise was taken for text", round);
    }
}

static void wide(void **state)
{
    (void)state;
    EXPECT("\xff\xfe"
           "a\0",
           MAGIC_UTF16LE, "UTF-16 text");
    EXPECT("\xfe\xff\0a", MAGIC_UTF16BE, "UTF-16 text");
    EXPECT("\xff\xfe\0\0a\0\0\0", MAGIC_WIDE, "UTF-32 text");
    EXPECT("\0\0\xfe\xff\0\0\0a", MAGIC_WIDE, "UTF-32 text");
    EXPECT("\xff\xfe"
           "a\0\0\0b\0",
           MAGIC_NUL, "binary data (it holds NUL bytes)");
    EXPECT("i\0d\0\t\0t\0e\0x\0t\0", MAGIC_WIDE, "UTF-16 text without a byte order mark");
    EXPECT("\0i\0d\0\t\0t\0e\0x\0t", MAGIC_WIDE, "UTF-16 text without a byte order mark");
    EXPECT("\x04\x1f\x04\x30\0 \x04\x40\x04\x3e\0\n", MAGIC_WIDE,
           "UTF-16 text without a byte order mark"); /* Cyrillic */
    EXPECT("\x6e\x30\x08\x67 \0\x4c\x88\n\0", MAGIC_WIDE, "UTF-16 text without a byte order mark");
    EXPECT("ab\0\x90xy\0\x91", MAGIC_NUL, "binary data (it holds NUL bytes)");
    EXPECT("F\0\xe4\0h\0r\0\x36\x26", MAGIC_WIDE, "UTF-16 text without a byte order mark");
}

static void other_encodings(void **state)
{
    (void)state;
    const char *mostly =
        "text in another encoding (GBK, Shift-JIS, KOI8-R, Windows-1251 or the like), or binary "
        "data";
    EXPECT("\x83t\x83"
           "F\x83\x8a\x81[\x82\xcd\x8e\xb5\x8e\x9e\x82\xc9\x8fo\x82\xe9",
           MAGIC_FOREIGN, mostly); /* Shift-JIS */
    EXPECT("\xc6\xe5\xf0\xf0\xe8 \xee\xf2\xf5\xee\xe4\xe8\xf2", MAGIC_FOREIGN, mostly);
    EXPECT("\xb6\xc9\xc2\xd6\xc6\xdf\xb5\xe3\xb3\xf6\xb7\xa2", MAGIC_FOREIGN, mostly); /* GBK */
    EXPECT("\x85\x99\x99\xa8@\x93\x85\x81\xa5\x85\xa2@\x81\xa3@\xa2\x85", MAGIC_FOREIGN,
           mostly); /* EBCDIC */
    /* A word of which hardly a letter is left. */
    EXPECT("\xc6\xe5\xf0\xf0\xe8", MAGIC_FOREIGN, mostly); /* KOI8-R */
    EXPECT("\xc4\xe3\xba\xc3", MAGIC_FOREIGN, mostly);     /* GBK */
    EXPECT("\xcf\xe0\xf0\xee\xec\n", MAGIC_FOREIGN, mostly);
    EXPECT("\x84\x31\x95\x33\xb6\xc9", MAGIC_WIDE, "GB 18030 text");
    EXPECT("+/v8-Ferry", MAGIC_WIDE, "UTF-7 text");
    EXPECT("\x1b$B%U%'%j!<\x1b(B", MAGIC_WIDE, "ISO-2022-JP text");
    EXPECT("\x1b$)C\x0e\x46\x64", MAGIC_WIDE, "ISO-2022-KR text");
}

/* Texts that people have, as strange as they begin. */
static void texts(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "B",
        "BZh is how bzip2 begins",
        "BZh9",
        "PK",
        "PAR1",
        "PAR1 is a magic number",
        "MZ",
        "MZ is how programs for DOS begin, and this line is long enough to be one of them",
        "RIFF",
        "Rar!",
        "Obj",
        "ORC",
        "ID3 tags",
        "LZIP",
        "II*",
        "%PDF",
        "%!PS",
        "{\\rtf",
        "OggS",
        "fLaC",
        "x^2 + y^2",
        "x\xda\xa9 begins so",
        "ustar",
        "wOFF",
        "070701 and 070707",
        "Fahrplan der F\xe4hren: der letzte F\xe4hrmann f\xe4hrt um zehn", /* Latin-1 */
        "caf\xe9",
        "n\xe9 en",
        "Z\xfcrich", /* Latin-1, of which something is left */
        "H4sI is how gzip begins in base64",
        "+/v8 is a valve",
        "version https://git",
        "-----BEGIN PGP",
        "begin 644",
        "\x1b(B\x1b[m a terminal",
        "\xef\xbb\xbfwith a mark",
        "\xef\xbb\xbf",
        "\x1b[31mred\x1b[0m",
        "\x1e{\"text\":\"a\"}\n",
        "\f\f\f",
        "last line\n\x1a",
        "\xe4",
        "\xff",
        "\xfe",
        "\x1f",
        "\x28\xb5\x2f",
        "\1\2\3 valid UTF-8 with controls is a text that someone wrote",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        const struct magic *found = find(texts[i], strlen(texts[i]));
        if (found)
            fail_msg("'%s' was taken for %s", texts[i], found->name);
    }
}

/* Cut anywhere, whatever its alphabet. */
static void cut_texts(void **state)
{
    (void)state;
    static char line[1 << 16];
    FILE *from = fopen(TESTS_DIR "/data/texts.jsonl", "r");
    assert_non_null(from);
    while (fgets(line, sizeof line, from))
        for (size_t len = 1; len <= strlen(line) && len < 300; len++)
            assert_null(find(line, len));
    fclose(from);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packed),          cmocka_unit_test(binary), cmocka_unit_test(wide),
        cmocka_unit_test(other_encodings), cmocka_unit_test(texts),  cmocka_unit_test(cut_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
