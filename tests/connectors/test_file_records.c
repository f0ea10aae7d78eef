/*
 * test_file_records.c: lines, rows and files, cut at every byte.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/file/file_records.h"
#include "connectors/utf8.h"

/* All records of a file in one string: "line|value" or "line!problem <value>", each with a newline;
 * a ~ before it where the file ends in the record. */
struct found {
    char text[4000];
    size_t len;
    int rc;
    char err[300];
};

static void take(struct file_records *records, struct found *found)
{
    struct file_record record;
    int rc;
    while ((rc = file_records_next(records, &record, found->err, sizeof found->err)) > 0) {
        if (!record.value.ptr)
            continue;
        const struct bytes *value = &record.value;
        bool bad = record.problem.code;
        int n = snprintf(found->text + found->len, sizeof found->text - found->len,
                         "%llu%s%s%s%s%s%.*s%s%s\n", (unsigned long long)record.line,
                         bad ? "!" : "|", bad ? record.problem.code : "", bad ? ": " : "",
                         bad ? record.problem.reason : "", bad ? " <" : "", (int)value->len,
                         value->ptr, bad ? ">" : "", record.is_open ? "~" : "");
        found->len += (size_t)n;
        assert_true(found->len < sizeof found->text);
    }
    if (rc < 0)
        found->rc = rc;
}

static bool refuse_bad_utf8, maybe_json, is_guessed;
static char delimiter; /* 0: the file tells */

/* Feed it in two pieces, cut at `at`, each from memory of exactly its size. */
static void read_cut(enum file_format format, const char *bytes, size_t len, size_t at,
                     struct found *found)
{
    struct file_records_options options = {format,     60,         {"text", "id", refuse_bad_utf8},
                                           maybe_json, is_guessed, "body"};
    struct file_records *records;
    assert_int_equal(file_records_open(&records, &options), 0);
    file_records_begin(records, delimiter);
    memset(found, 0, sizeof *found);
    for (int piece = 0; piece < 2 && found->rc == 0; piece++) {
        size_t n = piece ? len - at : at;
        char *copy = malloc(n ? n : 1);
        assert_non_null(copy);
        memcpy(copy, bytes + (piece ? at : 0), n);
        assert_int_equal(file_records_feed(records, copy, n), 0);
        free(copy);
        take(records, found);
    }
    file_records_end(records);
    if (found->rc == 0)
        take(records, found);
    file_records_close(records);
}

static void expect(enum file_format format, const char *bytes, size_t len, const char *wanted)
{
    struct found found;
    for (size_t at = 0; at <= len; at++) {
        read_cut(format, bytes, len, at, &found);
        assert_int_equal(found.rc, 0);
        assert_string_equal(found.text, wanted);
    }
}
#define EXPECT(format, literal, wanted) expect(format, literal, sizeof(literal) - 1, wanted)

static void lines(void **state)
{
    (void)state;
    EXPECT(FILE_LINES, "", "");
    EXPECT(FILE_LINES, "\n\n", "");
    EXPECT(FILE_LINES, "\xef\xbb\xbfone\r\ntwo\n\n\r\nfive, \"5\"\nlast",
           "1|one\n2|two\n5|five, \"5\"\n6|last~\n");
    EXPECT(FILE_JSONL, "{\"text\":\"a\"}\n{\"text\":\"b\"}\n",
           "1|{\"text\":\"a\"}\n2|{\"text\":\"b\"}\n");
    EXPECT(FILE_JSONL, "\xef\xbb\xbf\xef\xbb\xbf{\"text\":\"a\"}\n \t \n\r\n{\"text\":\"b\"}\n  ",
           "1|{\"text\":\"a\"}\n4|{\"text\":\"b\"}\n");
    EXPECT(FILE_LINES,
           "short\n1234567890123456789012345678901234567890123456789012345678901\nnext\n",
           "1|short\n2!record_too_long: longer than file.max_record, 60 bytes <>\n3|next\n");
    EXPECT(FILE_LINES, "123456789012345678901234567890123456789012345678901234567890\r\nnext",
           "1|123456789012345678901234567890123456789012345678901234567890\n2|next~\n");
}

/* CR alone ends lines where nothing else does; elsewhere it is a part of them. */
static void carriage_returns(void **state)
{
    (void)state;
    EXPECT(FILE_LINES, "one\rtwo\r\rfour", "1|one\n2|two\n4|four~\n");
    EXPECT(FILE_LINES, "one\rtwo\r", "1|one\n2|two\n");
    EXPECT(FILE_LINES, "one\r", "1|one\r~\n");
    EXPECT(FILE_LINES, "10 %\r20 %\r\ntwo\rtwo\r\n", "1|10 %\r20 %\n2|two\rtwo\n");
    EXPECT(FILE_LINES, "one\r\r\ntwo\r\r\n", "1|one\r\n2|two\r\n");
    EXPECT(FILE_JSONL, "{\"text\":\"a\"}\r{\"text\":\"b\"}\r",
           "1|{\"text\":\"a\"}\n2|{\"text\":\"b\"}\n");
    /* Whatever comes behind the longest record: what ends the lines is known by then. */
    EXPECT(FILE_LINES,
           "123456789012345678901234567890\r123456789012345678901234567890\rb\r\nc\rd\ne",
           "1|123456789012345678901234567890\n2|123456789012345678901234567890\n3|b\n4|c\n5|d\n"
           "6|e~\n");
}

static void whole_files(void **state)
{
    (void)state;
    EXPECT(FILE_TEXT, "", "");
    EXPECT(FILE_TEXT, "\xef\xbb\xbfone\n\ntwo\n", "1|one\n\ntwo\n\n");
    EXPECT(FILE_TEXT, "1234567890123456789012345678901234567890123456789012345678901234567890",
           "1!record_too_long: longer than file.max_record, 60 bytes <>\n");
}

static void rows(void **state)
{
    (void)state;
    EXPECT(FILE_CSV, "", "");
    EXPECT(FILE_CSV, "text\n", "");
    EXPECT(FILE_CSV, "text\none\n\ntwo", "2|{\"text\":\"one\"}\n4|{\"text\":\"two\"}~\n");
    EXPECT(FILE_CSV,
           "\xef\xbb\xbfid,text,tag\r\n1,\"a, \"\"b\"\"\r\nc\",x\r\n2,,\r\n\"3\",\"\",\"\"\r\n",
           "2|{\"id\":\"1\",\"text\":\"a, \\\"b\\\"\\r\\nc\",\"tag\":\"x\"}\n"
           "4|{\"id\":\"2\",\"text\":\"\"}\n5|{\"id\":\"3\",\"text\":\"\"}\n");
    EXPECT(FILE_CSV, "\"text\",\"a\nb\"\nx,y\n", "3|{\"text\":\"x\",\"a\\nb\":\"y\"}\n");
    /* A quote inside a bare field is one; keys that mean something else are left out. */
    EXPECT(FILE_CSV, "text,ids,,tag,tag\n5\" disk,1,2,4,5\n",
           "2|{\"text\":\"5\\\" disk\",\"tag\":\"4\"}\n");
    EXPECT(FILE_CSV, "text,b\none\nfour,5,6\nseven,\"8\"9\nten,11\n",
           "2!bad_csv: the row has 1 field and the header has 2 <one>\n"
           "3!bad_csv: the row has 3 fields and the header has 2 <four,5,6>\n"
           "4!bad_csv: text follows a closing quote "
           "<seven,\"8\"9>\n5|{\"text\":\"ten\",\"b\":\"11\"}\n");
    EXPECT(FILE_CSV, "text\n\"a\"\"\"\n\"\"\"\"\n",
           "2|{\"text\":\"a\\\"\"}\n3|{\"text\":\"\\\"\"}\n");
}

/* A quote that was lost takes the lines up to the next one with it: they are named, and kept. */
static void lost_quotes(void **state)
{
    (void)state;
    EXPECT(FILE_CSV, "text,b\na,\"b\nc,d\n",
           "2!bad_csv: lines 2 to 4 are one row (was a quote lost?): a quote is opened and never "
           "closed <a,\"b\nc,d\n>~\n");
    EXPECT(FILE_CSV, "text,b\na,\"b\nc,d\ne,\"f\"\ng,h\n",
           "2!bad_csv: lines 2 to 4 are one row (was a quote lost?): text follows a closing quote "
           "<a,\"b\nc,d\ne,\"f\">\n5|{\"text\":\"g\",\"b\":\"h\"}\n");
    EXPECT(FILE_CSV, "text,b\n\"he said \\\"ahoy\\\" twice\",1\nx,y\n",
           "2!bad_csv: text follows a closing quote; a quote inside a quoted cell is written twice "
           "(\"\"), not behind a backslash <\"he said \\\"ahoy\\\" twice\",1>\n"
           "3|{\"text\":\"x\",\"b\":\"y\"}\n");
    EXPECT(FILE_CSV,
           "text\n\"1234567890\n1234567890\n1234567890\n1234567890\n1234567890\n1234567\"\na\n",
           "2!record_too_long: lines 2 to 7 are one row (was a quote lost?), longer than "
           "file.max_record, 60 bytes <>\n8|{\"text\":\"a\"}\n");
}

/* What is between columns is said by an option, by a line sep=, or by the header. */
static void delimiters(void **state)
{
    (void)state;
    static const char wanted[] = "2|{\"id\":\"1\",\"text\":\"a ferry\"}\n";
    EXPECT(FILE_CSV, "id;text\r\n1;a ferry\r\n", wanted);
    EXPECT(FILE_CSV, "id\ttext\n1\ta ferry\n", wanted);
    EXPECT(FILE_CSV, "id|text\n1|a ferry\n", wanted);
    EXPECT(FILE_CSV, "\"id\";\"text\"\n\"1\";\"a ferry\"\n", wanted);
    EXPECT(FILE_CSV, "\"a\nb\";\"text\"\n1;a ferry\n",
           "3|{\"a\\nb\":\"1\",\"text\":\"a ferry\"}\n");
    EXPECT(FILE_CSV, "text;b\n\"a;\nb\";\"c\"\n", "2|{\"text\":\"a;\\nb\",\"b\":\"c\"}\n");
    EXPECT(FILE_CSV, "text;b\na,b;c\n", "2|{\"text\":\"a,b\",\"b\":\"c\"}\n");
    static const char sep[] = "3|{\"id\":\"1\",\"text\":\"a, b\"}\n";
    EXPECT(FILE_CSV, "sep=;\r\nid;text\r\n1;a, b\r\n", sep);
    EXPECT(FILE_CSV, "\xef\xbb\xbfsep=\t\nid\ttext\n1\ta, b\n", sep);
    EXPECT(FILE_CSV, "\"sep=~\"\nid~text\n1~a, b\n", sep);
    EXPECT(FILE_CSV, "SEP=,\nid,text\n1,\"a, b\"\n", sep);
    delimiter = '~';
    EXPECT(FILE_CSV, "id~text\n1~a ferry\n", wanted);
    EXPECT(FILE_CSV, "sep=;\nid~text\n1~a, b\n", sep);
    delimiter = '\t';
    EXPECT(FILE_CSV, "text\na, b\n", "2|{\"text\":\"a, b\"}\n");
    delimiter = 0;
}

/* As spreadsheets of other times and places end lines, name columns and join files. */
static void spreadsheets(void **state)
{
    (void)state;
    static const char wanted[] = "2|{\"id\":\"1\",\"text\":\"a ferry\"}\n"
                                 "3|{\"id\":\"2\",\"text\":\"a boat\"}\n";
    EXPECT(FILE_CSV, "id,text\r1,a ferry\r2,a boat\r", wanted);
    EXPECT(FILE_CSV, "id,text\r\n1,a ferry\r\n2,a boat\r\n\x1a", wanted);
    EXPECT(FILE_CSV, "id,text\r\n1,a ferry\r\n2,a boat\r", wanted);
    EXPECT(FILE_CSV, "ID,Text\n1,a ferry\n2,a boat\n", wanted);
    EXPECT(FILE_CSV, " id , text\n1,a ferry\n2,a boat\n", wanted);
    EXPECT(FILE_CSV, "TEXT,text\na,b\n", "2|{\"TEXT\":\"a\",\"text\":\"b\"}\n");
    EXPECT(FILE_CSV, "text\r\"a\rb\"\rc\r", "2|{\"text\":\"a\\rb\"}\n4|{\"text\":\"c\"}\n");
    /* A mark before every header, quoted or not; of one column "text" is a text. */
    EXPECT(FILE_CSV,
           "\xef\xbb\xbf\"id\",\"text\"\n1,a\n\xef\xbb\xbf\"id\",text\n2,b\nid,text\n\xef\xbb\xbf"
           "3,c\n",
           "2|{\"id\":\"1\",\"text\":\"a\"}\n4|{\"id\":\"2\",\"text\":\"b\"}\n"
           "6|{\"id\":\"3\",\"text\":\"c\"}\n");
    EXPECT(FILE_CSV, "\xef\xbb\xbf\"te\nxt\",text\na,b\n",
           "3|{\"te\\nxt\":\"a\",\"text\":\"b\"}\n");
    /* Two marks, and blanks around a name that nobody sees. */
    EXPECT(FILE_CSV, "\xef\xbb\xbf\xef\xbb\xbf\"id\",text\n1,a ferry\n2,a boat\n", wanted);
    EXPECT(FILE_CSV, "\xe2\x80\x8bid,\xc2\xa0text\xc2\xa0\n1,a ferry\n2,a boat\n", wanted);
    EXPECT(FILE_CSV, "text\ntext\n", "2|{\"text\":\"text\"}\n");
    /* Marks where texts were joined; a Ctrl-Z that ends nothing is a text. */
    EXPECT(FILE_LINES, "\xef\xbb\xbfone\n\xef\xbb\xbftwo\n\x1a\nthree\n\x1a",
           "1|one\n2|two\n3|\x1a\n4|three\n");
}

static void other_encodings(void **state)
{
    (void)state;
    EXPECT(FILE_CSV, "id,text\n1,F\xe4hre\n2,a\n",
           "2|{\"id\":\"1\",\"text\":\"F\xe4hre\"}\n3|{\"id\":\"2\",\"text\":\"a\"}\n");
    EXPECT(FILE_CSV,
           "text,gr\xfc\xdf"
           "e\na,b\n",
           "2|{\"text\":\"a\",\"gr\xef\xbf\xbd\xef\xbf\xbd"
           "e\":\"b\"}\n");
    refuse_bad_utf8 = true;
    EXPECT(FILE_CSV, "id,text\n1,F\xe4hre\n2,a\n",
           "2!bad_utf8: column 'text' is not UTF-8; convert the file first, from Windows-1252 for "
           "example: iconv -f WINDOWS-1252 -t UTF-8 <1,F\xe4hre>\n"
           "3|{\"id\":\"2\",\"text\":\"a\"}\n");
    refuse_bad_utf8 = false;
}

/* An object a line, also as RFC 7464 has it; anything else is told by two bytes. */
static void json(void **state)
{
    (void)state;
    EXPECT(FILE_JSONL, "\x1e{\"text\":\"a\"}\n\x1e{\"text\":\"b\"}\n",
           "1|{\"text\":\"a\"}\n2|{\"text\":\"b\"}\n");
    EXPECT(FILE_JSONL, "\n\n { \"text\":\"a\"}\n", "3| { \"text\":\"a\"}\n");
    EXPECT(FILE_JSONL, "{\"text\":\"a\"}\n[\n{\n", "1|{\"text\":\"a\"}\n2|[\n3|{\n");
    EXPECT(FILE_JSONL, "{", "1|{~\n");
    EXPECT(FILE_JSONL, "", "");
    EXPECT(FILE_LINES, "[\n{\n", "1|[\n2|{\n");
    static const char *const refused[][2] = {
        {"[{\"text\":\"a\"}]", "it is a JSON array"},
        {"\xef\xbb\xbf \n[\n  {", "it is a JSON array"},
        {"{\n  \"text\": \"a\"\n}\n", "it is pretty-printed JSON"},
        {"\x1e{ \r\n", "it is pretty-printed JSON"},
    };
    for (size_t i = 0; i < 2 * sizeof refused / sizeof refused[0]; i++) {
        maybe_json = i % 2;
        enum file_format format = maybe_json ? FILE_LINES : FILE_JSONL;
        for (size_t at = 0; at <= strlen(refused[i / 2][0]); at++) {
            struct found found;
            read_cut(format, refused[i / 2][0], strlen(refused[i / 2][0]), at, &found);
            assert_int_equal(found.rc, -EINVAL);
            assert_string_equal(found.text, "");
            assert_non_null(strstr(found.err, refused[i / 2][1]));
            assert_non_null(strstr(found.err, "jq -c"));
        }
    }
    maybe_json = true;
    EXPECT(FILE_LINES, "[1] a note\n{ braces }\n", "1|[1] a note\n2|{ braces }\n");
    EXPECT(FILE_LINES, "[\nfor its own sake", "1|[\n2|for its own sake~\n");
    maybe_json = false;
    EXPECT(FILE_LINES, "[\n{\n", "1|[\n2|{\n");
}

/* Lines that nobody called lines are refused when the first looks like a record of something else.
 */
static void other_formats(void **state)
{
    (void)state;
    static const char *const refused[][2] = {
        {"{\"id\": 1, \"text\" : \"a\"}\nb\n", "--file-format jsonl"},
        {"\xef\xbb\xbf\n {\"body\":\"a\"},\r\nb", "--file-format jsonl"},
        {"{\"texts\":[\"a\"]}", "--file-format jsonl"},
        {"id,text\n1,a\n", "--file-format csv"},
        {"\xef\xbb\xbf"
         "\"Text\"|\"no\"\r",
         "--file-format csv"},
        {"id;text;lang", "--file-format csv"},
        {"gr\xc3\xb6\xc3\x9f"
         "e\ttext\n",
         "--file-format csv"},
    };
    is_guessed = true;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        for (size_t at = 0; at <= strlen(refused[i][0]); at++) {
            struct found found;
            read_cut(FILE_LINES, refused[i][0], strlen(refused[i][0]), at, &found);
            assert_int_equal(found.rc, -EINVAL);
            assert_string_equal(found.text, "");
            assert_non_null(strstr(found.err, refused[i][1]));
        }
    EXPECT(FILE_LINES, "", "");
    EXPECT(FILE_LINES, "\n \n", "2| \n");
    EXPECT(FILE_LINES, "text\nid,text\n", "1|text\n2|id,text\n");
    EXPECT(FILE_LINES, "Text, images, sound\nb\n", "1|Text, images, sound\n2|b\n");
    EXPECT(FILE_LINES, "text,text\n", "1|text,text\n");
    EXPECT(FILE_LINES, "{\"name\":\"text\"}\n", "1|{\"name\":\"text\"}\n");
    EXPECT(FILE_LINES, "{ \"text\": is a key\n", "1|{ \"text\": is a key\n");
    EXPECT(FILE_JSONL, "{\"text\":\"a\"}\n", "1|{\"text\":\"a\"}\n");
    maybe_json = true; /* standard input takes both, and no CSV */
    EXPECT(FILE_LINES, "{\"text\":\"a\"}\n", "1|{\"text\":\"a\"}\n");
    struct found found;
    read_cut(FILE_LINES, "id,text\n", 8, 3, &found);
    assert_int_equal(found.rc, -EINVAL);
    maybe_json = is_guessed = false;
    EXPECT(FILE_LINES, "id,text\n", "1|id,text\n");
}

/* Whatever the bytes, the same records however they are cut when they are read. */
static void any_bytes(void **state)
{
    (void)state;
    static const char *const pieces[] = {
        "text", "\"", "\"\"",         ",",          ";",    "\t",    "\n", "\r", "\r\n",
        "a",    "id", "\xef\xbb\xbf", "\x1a",       "\x1e", "sep=;", "{",  "[",  "\xe4",
        " ",    "\\", "text,b\n",     "id;text\r\n"};
    enum { N = sizeof pieces / sizeof pieces[0], SEED = 20261129 };
    printf("seed %d\n", SEED);
    srand(SEED);
    for (size_t round = 0; round < 4000; round++) {
        char bytes[200] = "";
        for (size_t n = (size_t)rand() % 14; n > 0; n--)
            strcat(bytes, pieces[(size_t)rand() % N]);
        size_t len = strlen(bytes);
        enum file_format format = (enum file_format)(rand() % 4);
        struct found whole, found;
        read_cut(format, bytes, len, len, &whole);
        for (size_t at = 0; at < len; at++) {
            read_cut(format, bytes, len, at, &found);
            if (found.rc != whole.rc || strcmp(found.text, whole.text) != 0)
                fail_msg("round %zu, format %d, cut at %zu of '%s': '%s', not '%s'", round,
                         (int)format, at, bytes, found.text, whole.text);
        }
    }
}

static void several_columns(void **state)
{
    (void)state;
    static const char *const headers[] = {"text,text\na,b\n", "Text,TEXT\na,b\n",
                                          "id,text,id\na,b,c\n"};
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        struct found found;
        read_cut(FILE_CSV, headers[i], strlen(headers[i]), 3, &found);
        assert_int_equal(found.rc, -EINVAL);
        assert_non_null(
            strstr(found.err, i < 2 ? "several columns 'text'" : "several columns 'id'"));
    }
}

static void no_such_column(void **state)
{
    (void)state;
    struct found found;
    read_cut(FILE_CSV, "id,body,\"a,b\"\n1,2,3\n", 20, 3, &found);
    assert_true(found.rc < 0);
    assert_non_null(strstr(found.err, "no column 'text'"));
    assert_non_null(strstr(found.err, "Its columns: id, body, a,b"));
}

static void utf8(void **state)
{
    (void)state;
    static const char *const good[] = {"",
                                       "a",
                                       "\xc3\xa9",
                                       "\xe2\x82\xac",
                                       "\xf0\x9f\x98\x80",
                                       "\xed\x9f\xbf",
                                       "\xf4\x8f\xbf\xbf"};
    static const char *const bad[] = {"\x80",         "\xc0\x80",     "\xc3",
                                      "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                                      "\xf8",         "\xe2\x82",     "a\xff"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_true(utf8_is_valid(good[i], strlen(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(utf8_is_valid(bad[i], strlen(bad[i])));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines),
        cmocka_unit_test(carriage_returns),
        cmocka_unit_test(carriage_returns),
        cmocka_unit_test(whole_files),
        cmocka_unit_test(rows),
        cmocka_unit_test(no_such_column),
        cmocka_unit_test(utf8),
        cmocka_unit_test(lost_quotes),
        cmocka_unit_test(delimiters),
        cmocka_unit_test(spreadsheets),
        cmocka_unit_test(other_encodings),
        cmocka_unit_test(json),
        cmocka_unit_test(several_columns),
        cmocka_unit_test(other_formats),
        cmocka_unit_test(any_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
