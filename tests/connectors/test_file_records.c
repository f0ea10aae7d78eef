/*
 * test_file_records.c: lines, rows and files, cut at every byte.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/file/file_records.h"
#include "connectors/utf8.h"

/* All records of a file in one string: "line|value" or "line!problem", each with a newline. */
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
        int n = snprintf(found->text + found->len, sizeof found->text - found->len, "%llu%c%.*s\n",
                         (unsigned long long)record.line, record.problem ? '!' : '|',
                         (int)(record.problem ? strlen(record.problem) : record.value.len),
                         record.problem ? record.problem : record.value.ptr);
        found->len += (size_t)n;
        assert_true(found->len < sizeof found->text);
    }
    if (rc < 0)
        found->rc = rc;
}

/* Feed it in two pieces, cut at `at`, each from memory of exactly its size. */
static void read_cut(enum file_format format, const char *bytes, size_t len, size_t at,
                     struct found *found)
{
    struct file_records_options options = {format, 60, "text", "id"};
    struct file_records *records;
    assert_int_equal(file_records_open(&records, &options), 0);
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
           "1|one\n2|two\n5|five, \"5\"\n6|last\n");
    EXPECT(FILE_JSONL, "{\"text\":\"a\"}\n{\"text\":\"b\"}\n",
           "1|{\"text\":\"a\"}\n2|{\"text\":\"b\"}\n");
    EXPECT(FILE_LINES,
           "short\n1234567890123456789012345678901234567890123456789012345678901\nnext\n",
           "1|short\n2!record_too_long: longer than file.max_record, 60 bytes\n3|next\n");
    EXPECT(FILE_LINES, "123456789012345678901234567890123456789012345678901234567890\r\nnext",
           "1|123456789012345678901234567890123456789012345678901234567890\n2|next\n");
}

static void whole_files(void **state)
{
    (void)state;
    EXPECT(FILE_TEXT, "", "");
    EXPECT(FILE_TEXT, "\xef\xbb\xbfone\n\ntwo\n", "1|one\n\ntwo\n\n");
    EXPECT(FILE_TEXT, "1234567890123456789012345678901234567890123456789012345678901234567890",
           "1!record_too_long: longer than file.max_record, 60 bytes\n");
}

static void rows(void **state)
{
    (void)state;
    EXPECT(FILE_CSV, "", "");
    EXPECT(FILE_CSV, "text\n", "");
    EXPECT(FILE_CSV, "text\none\n\ntwo", "2|{\"text\":\"one\"}\n4|{\"text\":\"two\"}\n");
    EXPECT(FILE_CSV,
           "\xef\xbb\xbfid,text,tag\r\n1,\"a, \"\"b\"\"\r\nc\",x\r\n2,,\r\n\"3\",\"\",\"\"\r\n",
           "2|{\"id\":\"1\",\"text\":\"a, \\\"b\\\"\\r\\nc\",\"tag\":\"x\"}\n"
           "4|{\"id\":\"2\",\"text\":\"\"}\n5|{\"id\":\"3\",\"text\":\"\"}\n");
    EXPECT(FILE_CSV, "\"text\",\"a\nb\"\nx,y\n", "3|{\"text\":\"x\",\"a\\nb\":\"y\"}\n");
    /* A quote inside a bare field is one; keys that mean something else are left out. */
    EXPECT(FILE_CSV, "text,ids,,text,tag,tag\n5\" disk,1,2,3,4,5\n",
           "2|{\"text\":\"5\\\" disk\",\"tag\":\"4\"}\n");
    EXPECT(FILE_CSV, "text,b\none\nfour,5,6\nseven,\"8\"9\nten,11\n",
           "2!bad_csv: the row has 1 fields and the header has 2\n"
           "3!bad_csv: the row has 3 fields and the header has 2\n"
           "4!bad_csv: text follows a closing quote\n5|{\"text\":\"ten\",\"b\":\"11\"}\n");
    EXPECT(FILE_CSV, "text,b\na,\"b\nc,d\n", "2!bad_csv: a quote is opened and never closed\n");
    EXPECT(FILE_CSV, "text\n\"a\"\"\"\n\"\"\"\"\n",
           "2|{\"text\":\"a\\\"\"}\n3|{\"text\":\"\\\"\"}\n");
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
        cmocka_unit_test(lines),          cmocka_unit_test(whole_files), cmocka_unit_test(rows),
        cmocka_unit_test(no_such_column), cmocka_unit_test(utf8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
