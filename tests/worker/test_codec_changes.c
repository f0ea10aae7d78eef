/*
 * test_codec_changes.c: rows as they come from a database's log, deletes and versions.
 *
 * The envelopes are those of Debezium's documentation for PostgreSQL and MySQL, shortened.
 */
#include "tests/worker/test_codec.h"

#define SOURCE                                                                                     \
    "\"source\":{\"version\":\"2.7\",\"connector\":\"postgresql\",\"ts_ms\":1700000000123,"        \
    "\"snapshot\":\"false\",\"lsn\":24023128,\"table\":\"posts\"}"
#define SCHEMA                                                                                     \
    "\"schema\":{\"type\":\"struct\",\"fields\":[{\"type\":\"struct\",\"fields\":[{\"type\":"      \
    "\"string\",\"parameters\":{\"allowed\":\"true\"},\"field\":\"body\"}],\"field\":\"after\"}]}"
#define ROW(text) "{\"id\":7,\"title\":\"T\",\"body\":" text ",\"lang\":\"de\"}"
#define EVENT(op, before, after)                                                                   \
    "{\"before\":" before ",\"after\":" after "," SOURCE ",\"op\":\"" op "\",\"ts_ms\":1}"

enum { WRITTEN, DELETED, UNCHANGED };

static const struct {
    const char *value, *key;
    int what;
    const char *text, *id;
    bool is_number;
    int64_t version; /* -1: none */
    uint32_t n_fields;
} cases[] = {
    /* Whole envelopes. */
    {EVENT("c", "null", ROW("\"first\"")), "{\"id\":7}", WRITTEN, "first", "7", true, 24023128, 1},
    {EVENT("r", "null", ROW("\"first\"")), NULL, WRITTEN, "first", "7", true, 24023128, 1},
    {EVENT("u", "null", ROW("\"other\"")), NULL, WRITTEN, "other", "7", true, 24023128, 1},
    {EVENT("u", ROW("\"one\""), ROW("\"two\"")), NULL, WRITTEN, "two", "7", true, 24023128, 1},
    {EVENT("u", ROW("\"one\""), ROW("\"one\"")), NULL, UNCHANGED, NULL, "7", true, 24023128, 0},
    {EVENT("u", "null", ROW("\"__debezium_unavailable_value\"")), NULL, UNCHANGED, NULL, "7", true,
     24023128, 0},
    {EVENT("d", ROW("\"one\""), "null"), NULL, DELETED, NULL, "7", true, 24023128, 0},
    {EVENT("d", "{\"id\":7,\"body\":null}", "null"), NULL, DELETED, NULL, "7", true, 24023128, 0},
    {EVENT("d", "null", "null"), "{\"id\":7}", DELETED, NULL, "7", true, 24023128, 0},
    {EVENT("d", "null", "null"), "{\"schema\":{\"type\":\"struct\"},\"payload\":{\"pk\":\"x\"}}",
     DELETED, NULL, "x", false, 24023128, 0},
    /* A text that was taken away is not a producer's mistake here. */
    {EVENT("u", ROW("\"one\""), ROW("null")), NULL, DELETED, NULL, "7", true, 24023128, 0},
    {EVENT("u", ROW("\"one\""), ROW("\"\"")), NULL, DELETED, NULL, "7", true, 24023128, 0},
    {EVENT("u", ROW("\"one\""), "{\"id\":7,\"lang\":\"de\"}"), NULL, DELETED, NULL, "7", true,
     24023128, 0},
    /* MongoDB's connector sends rows as strings. */
    {EVENT("c", "null", "\"{\\\"_id\\\":{\\\"$oid\\\":\\\"5f\\\"},\\\"body\\\":\\\"m\\\"}\""),
     "{\"id\":\"{\\\"$oid\\\":\\\"5f\\\"}\"}", WRITTEN, "m", "{\"$oid\":\"5f\"}", false, 24023128,
     1},
    {EVENT("d", "\"{\\\"id\\\":7}\"", "null"), NULL, DELETED, NULL, "7", true, 24023128, 0},
    /* With a schema around. */
    {"{" SCHEMA ",\"payload\":" EVENT("c", "null", ROW("\"first\"")) "}", NULL, WRITTEN, "first",
     "7", true, 24023128, 1},
    {"{" SCHEMA ",\"payload\":" EVENT("d", ROW("\"first\""), "null") "}", NULL, DELETED, NULL, "7",
     true, 24023128, 0},
    {"{\"schema\":null,\"payload\":null}", "{\"id\":7}", DELETED, NULL, "7", true, -1, 0},
    /* Flattened: the row, perhaps with what is added to it. */
    {"{\"id\":7,\"body\":\"first\",\"lsn\":5}", NULL, WRITTEN, "first", "7", true, 5, 1},
    {"{\"id\":7,\"body\":\"first\",\"__op\":\"u\",\"__deleted\":\"false\",\"lsn\":5}", NULL,
     WRITTEN, "first", "7", true, 5, 3},
    {"{\"id\":7,\"body\":null,\"__deleted\":\"true\",\"lsn\":5}", NULL, DELETED, NULL, "7", true, 5,
     0},
    {"{\"id\":7,\"body\":\"x\",\"__deleted\":true,\"lsn\":5}", NULL, DELETED, NULL, "7", true, 5,
     0},
    {"{\"id\":7,\"body\":\"x\",\"__op\":\"d\",\"lsn\":5}", NULL, DELETED, NULL, "7", true, 5, 0},
    {"{\"id\":7,\"body\":null,\"__op\":\"u\",\"lsn\":5}", NULL, DELETED, NULL, "7", true, 5, 0},
    {"{\"id\":7,\"body\":\"__debezium_unavailable_value\",\"__op\":\"u\",\"lsn\":5}", NULL,
     UNCHANGED, NULL, "7", true, 5, 0},
    {"{" SCHEMA ",\"payload\":{\"id\":7,\"body\":\"x\",\"__deleted\":\"true\",\"lsn\":5}}", NULL,
     DELETED, NULL, "7", true, 5, 0},
    {"{\"id\":7,\"body\":\"x\",\"__deleted\":1,\"lsn\":5}", NULL, DELETED, NULL, "7", true, 5, 0},
    {"{\"id\":7,\"body\":\"x\",\"__deleted\":0,\"lsn\":5}", NULL, WRITTEN, "x", "7", true, 5, 2},
    {"{\"id\":7,\"body\":\"x\",\"__deleted\":null,\"lsn\":5}", NULL, WRITTEN, "x", "7", true, 5, 2},
    /* As ExtractNewRecordState writes them unless it is told to add more. */
    {"{\"id\":7,\"body\":\"__debezium_unavailable_value\",\"lsn\":5}", NULL, UNCHANGED, NULL, "7",
     true, 5, 0},
    /* Ours. */
    {"{\"id\":\"a\",\"delete\":true,\"lsn\":5}", NULL, DELETED, NULL, "a", false, 5, 0},
    {"{\"delete\":true,\"lsn\":5}", "key", DELETED, NULL, "key", false, 5, 0},
    {"{\"id\":\"a\",\"body\":\"x\",\"delete\":false,\"lsn\":5}", NULL, WRITTEN, "x", "a", false, 5,
     2},
    {"{\"id\":\"a\",\"body\":\"x\",\"delete\":\"never\",\"lsn\":5}", NULL, WRITTEN, "x", "a", false,
     5, 2},
    /* What only looks like one. */
    {"{\"id\":7,\"body\":\"x\",\"op\":\"d\",\"before\":{},\"lsn\":5}", NULL, WRITTEN, "x", "7",
     true, 5, 3},
    {"{\"id\":7,\"body\":\"x\",\"payload\":{},\"schema\":{},\"lsn\":5}", NULL, WRITTEN, "x", "7",
     true, 5, 3},
};

static struct decode_options row_options(enum input_format format)
{
    struct decode_options options = test_options[format];
    options.text_field = "body";
    options.skip_unchanged = true;
    options.version_by = VERSION_FIELD;
    options.version_field = "lsn";
    return options;
}

static void expect_request(const struct message *message, const struct decode_options *options,
                           size_t i)
{
    struct arena arena = {0};
    struct request request;
    struct refusal why;
    if (codec_decode(message, options, &arena, &request, &why) != 0)
        fail_msg("case %zu: %s: %s", i, why.code, why.reason);
    assert_int_equal(request.is_deleted, cases[i].what == DELETED);
    assert_int_equal(request.is_unchanged, cases[i].what == UNCHANGED);
    assert_int_equal(request.n_items, cases[i].what == WRITTEN);
    assert_int_equal(request.id.len, strlen(cases[i].id));
    assert_memory_equal(request.id.ptr, cases[i].id, request.id.len);
    assert_int_equal(request.id_is_number, cases[i].is_number);
    assert_int_equal(request.n_fields, cases[i].n_fields);
    assert_int_equal(request.has_version, cases[i].version >= 0);
    if (request.has_version)
        assert_int_equal(request.version, cases[i].version);
    if (cases[i].text) {
        assert_int_equal(request.items[0].text.len, strlen(cases[i].text));
        assert_memory_equal(request.items[0].text.ptr, cases[i].text, strlen(cases[i].text));
    }
    arena_close(&arena);
}

static void changes_test(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct bytes packed = msgpack_of(cases[i].value);
        struct message message =
            message_of(bytes_copy((struct bytes){cases[i].value, strlen(cases[i].value)}));
        if (cases[i].key)
            message.key = (struct bytes){cases[i].key, strlen(cases[i].key)};
        struct bytes json = message.value;
        struct decode_options options = row_options(INPUT_AUTO);
        if (strstr(cases[i].value, SOURCE))
            options.version_field = "source.lsn";
        expect_request(&message, &options, i);
        options.format = INPUT_JSON;
        expect_request(&message, &options, i);
        message.value = packed;
        options.format = INPUT_MSGPACK;
        expect_request(&message, &options, i);
        free((void *)packed.ptr);
        free((void *)json.ptr);
    }
}

/* Without the option a change with the same text is written: its other fields may be new. */
static void unchanged_test(void **state)
{
    (void)state;
    struct arena arena = {0};
    struct request request;
    struct refusal why;
    struct decode_options options = row_options(INPUT_JSON);
    options.skip_unchanged = false;
    options.version_by = VERSION_NONE;
    const char same[] = EVENT("u", ROW("\"one\""), ROW("\"one\""));
    struct message message = message_of(BYTES(same));
    assert_int_equal(codec_decode(&message, &options, &arena, &request, &why), 0);
    assert_false(request.is_unchanged);
    assert_int_equal(request.n_items, 1);
    const char new_title[] = EVENT("u", "{\"id\":7,\"title\":\"S\",\"body\":\"one\"}",
                                   "{\"id\":7,\"title\":\"T\",\"body\":\"one\"}");
    options.skip_unchanged = true;
    message = message_of(BYTES(new_title));
    assert_int_equal(codec_decode(&message, &options, &arena, &request, &why), 0);
    assert_false(request.is_unchanged);
    arena_close(&arena);
}

static const struct {
    const char *value, *code, *sentence;
} refusals[] = {
    {EVENT("t", "null", "null"), "table_truncated", "the table was truncated"},
    {"{\"__op\":\"t\",\"__deleted\":\"false\"}", "table_truncated", "the table was truncated"},
    {EVENT("m", "null", "null"), "bad_field", "a message of pg_logical_emit_message"},
    {EVENT("x", "null", "null"), "bad_field", "field 'op' is not one of c, r, u, d and t"},
    {EVENT("c", "null", "\"x\""), "bad_field", "field 'after' of the change is not a map"},
    {EVENT("c", "null", "{\"id\":7,\"body\":5}"), "bad_field", "field 'body' is an integer"},
    {"{" SCHEMA ",\"payload\":[1]}", "bad_field", "field 'payload' of the change is not a map"},
    {"{\"id\":7,\"body\":\"x\"}", "bad_field", "the version in 'lsn' is not there"},
    {"{\"id\":7,\"body\":\"x\",\"lsn\":-1}", "bad_field", "is not a version"},
    {"{\"id\":7,\"body\":\"x\",\"lsn\":1.5}", "bad_field", "is not a version"},
    {"{\"id\":7,\"body\":\"x\",\"lsn\":\"12:3\"}", "bad_field", "is not a version"},
    {"{\"id\":7,\"delete\":true}", "bad_field", "the version in 'lsn' is not there"},
    /* What is meant is not sure, and a delete is for good. */
    {"{\"id\":7,\"delete\":true,\"body\":\"x\",\"lsn\":1}", "bad_field",
     "both 'delete' and 'body'"},
    {"{\"id\":7,\"delete\":true,\"texts\":[\"x\"],\"lsn\":1}", "bad_field",
     "both 'delete' and 'texts'"},
    {"{\"ids\":[7,8],\"delete\":true,\"lsn\":1}", "bad_field", "both 'delete' and 'ids'"},
    {"{\"id\":7,\"body\":\"x\",\"__deleted\":\"t\",\"lsn\":1}", "bad_field",
     "neither true nor false"},
    {"{\"id\":7,\"body\":\"x\",\"__deleted\":2,\"lsn\":1}", "bad_field", "neither true nor false"},
    {"{\"id\":7,\"body\":\"x\",\"__deleted\":\"2026-01-01\",\"lsn\":1}", "bad_field",
     "neither true nor false"},
    {"{\"id\":7,\"delete\":\"true\",\"body\":\"x\",\"lsn\":1}", "bad_field",
     "both 'delete' and 'body'"},
    {"{\"id\":7,\"delete\":\"true\",\"lsn\":1}", "bad_field", "field 'delete' is a string"},
    {"{\"id\":7,\"delete\":1,\"lsn\":1}", "bad_field", "field 'delete' is an integer"},
    /* A delete of nobody knows what. */
    {"{\"delete\":true,\"lsn\":1}", "bad_field", "a delete has to name its text"},
    {"{\"id\":null,\"delete\":true,\"lsn\":1}", "bad_field", "a delete has to name its text"},
    {EVENT("d", "null", "null"), "bad_field", "a delete has to name its text"},
    {EVENT("d", "{\"pk\":7}", "null"), "bad_field", "a delete has to name its text"},
    {"{\"schema\":null,\"payload\":null}", "bad_field", "a delete has to name its text"},
    {"{\"pk\":7,\"__deleted\":\"true\",\"lsn\":1}", "bad_field", "a delete has to name its text"},
    /* What the connector did not know. */
    {EVENT("c", "null", ROW("\"__debezium_unavailable_value\"")), "no_text", "the row is new"},
    {EVENT("u", "null", "{\"id\":7,\"title\":\"__debezium_unavailable_value\",\"body\":\"x\"}"),
     "no_text", "column 'title' has __debezium_unavailable_value"},
    {"{\"id\":7,\"title\":\"__debezium_unavailable_value\",\"body\":\"x\",\"lsn\":1}", "no_text",
     "column 'title'"},
    {"{\"id\":\"__debezium_unavailable_value\",\"body\":\"x\",\"lsn\":1}", "no_text",
     "column 'id'"},
    {EVENT("u", "null", "null"), "bad_field", "field 'after' of the change is not a map"},
    {EVENT("c", "null", "\"{\\\"body\\\":\""), "bad_json", "ends too early"},
    /* Events without a row, of connectors that leave out what is null. */
    {"{" SOURCE ",\"op\":\"t\",\"ts_ms\":1}", "table_truncated", "the table was truncated"},
    {"{" SOURCE ",\"op\":\"m\",\"message\":{\"prefix\":\"p\"}}", "bad_field",
     "a message of pg_logical_emit_message"},
    /* A column of another name is not a text that was taken away: it would delete every row. */
    {EVENT("c", "null", "{\"id\":7,\"content\":\"x\"}"), "no_text", "text_field"},
    {EVENT("u", "{\"id\":7,\"content\":\"x\"}", "{\"id\":7,\"content\":\"y\"}"), "no_text",
     "text_field"},
    {"{\"id\":7,\"content\":\"x\",\"__op\":\"u\",\"lsn\":1}", "no_text", "text_field"},
    {"{\"id\":7,\"content\":\"x\",\"__deleted\":\"false\",\"lsn\":1}", "no_text", "text_field"},
    {"{\"id\":7,\"body\":null,\"__op\":\"other\",\"lsn\":1}", "no_text", "text_field"},
    {"{\"id\":[],\"delete\":true,\"lsn\":1}", "bad_field", "field 'id' is an array"},
};

static void refusals_test(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        struct decode_options options = row_options(INPUT_JSON);
        struct message message =
            message_of((struct bytes){refusals[i].value, strlen(refusals[i].value)});
        if (strstr(refusals[i].value, SOURCE))
            options.version_field = "source.lsn";
        expect_refused(&message, &options, refusals[i].code, refusals[i].sentence);
    }
}

/* 0: refused. */
static int64_t version_of(const char *value)
{
    char json[200];
    struct arena arena = {0};
    struct request request = {0};
    struct refusal why;
    struct decode_options options = row_options(INPUT_JSON);
    snprintf(json, sizeof json, "{\"id\":1,\"body\":\"x\",\"lsn\":\"%s\"}", value);
    struct message message = message_of((struct bytes){json, strlen(json)});
    int err = codec_decode(&message, &options, &arena, &request, &why);
    arena_close(&arena);
    return err ? 0 : request.version;
}

static void versions_test(void **state)
{
    (void)state;
    assert_int_equal(version_of("12"), 12);
    assert_int_equal(version_of("9223372036854775807"), INT64_MAX);
    assert_int_equal(version_of("9223372036854775808"), 0);
    assert_int_equal(version_of("16/B374D848"), 0x16B374D848);
    assert_int_equal(version_of("7FFFFFFF/FFFFFFFF"), INT64_MAX);
    assert_int_equal(version_of("80000000/0"), 0);
    assert_int_equal(version_of("1/100000000"), 0);
    assert_int_equal(version_of("/1"), 0);
    assert_int_equal(version_of("1/"), 0);
    /* Seconds by `date -u -d ... +%s`. */
    assert_int_equal(version_of("1970-01-01T00:00:01Z"), 1000000);
    assert_int_equal(version_of("2000-02-29T12:34:56.5Z"), 951827696500000);
    assert_int_equal(version_of("2000-03-01T00:00:00Z"), 951868800000000);
    assert_int_equal(version_of("2026-11-30T00:00:00.123456789+02:00"), 1795989600123456);
    assert_int_equal(version_of("2100-03-01 00:00:00-00:30"), 4107544200000000);
    assert_int_equal(version_of("2026-13-01T00:00:00Z"), 0);
    assert_int_equal(version_of("2026-01-01T00:00:00"), 0);
    assert_int_equal(version_of("2026-01-01T00:00:00+2:00"), 0);
    assert_int_equal(version_of("1969-12-31T00:00:00Z"), 0);
}

/* Keys as Kafka Connect writes them say the same with and without a value. */
static void keys_test(void **state)
{
    (void)state;
    static const struct {
        const char *key, *id;
        bool is_number;
    } keys[] = {
        {"doc-1", "doc-1", false},
        {"{\"id\":7}", "7", true},
        {"{\"a\":1,\"id\":\"x\"}", "x", false},
        {"{\"uuid\":\"x\"}", "x", false},
        {"{\"schema\":{\"type\":\"struct\"},\"payload\":{\"id\":8}}", "8", true},
        {"{\"schema\":{\"type\":\"int64\"},\"payload\":8}", "8", true},
        {"{\"a\":1,\"b\":2}", "{\"a\":1,\"b\":2}", false},
        {"{\"id\":1.5}", "{\"id\":1.5}", false},
        {"{\"id\":null}", "{\"id\":null}", false},
        {"{\"id\":\"\"}", "{\"id\":\"\"}", false},
        {"{no json", "{no json", false},
        {"7", "7", false},
        {"\1"
         "0123456789abcdef{\"id\":9}",
         "9", true}, /* in a frame of a schema registry */
        {"\1"
         "0123456789abcdef{\"schema\":{\"type\":\"int64\"},\"payload\":8}",
         "8", true},
        {"\1"
         "0123456789abcdef{\"tenant\":1,\"doc\":2}",
         "{\"tenant\":1,\"doc\":2}", false}, /* several fields: all of it, without the frame */
        {"\1"
         "0123456789abcdefno json",
         "\1"
         "0123456789abcdefno json",
         false},
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        struct arena arena = {0};
        struct refusal why;
        struct request request;
        struct message message = message_of(BYTES("{\"text\":\"x\"}"));
        message.key = bytes_copy((struct bytes){keys[i].key, strlen(keys[i].key)});
        for (int raw = 0; raw < 3; raw++) {
            int err = raw < 2 ? codec_decode(&message, &test_options[raw ? INPUT_RAW : INPUT_AUTO],
                                             &arena, &request, &why)
                              : codec_tombstone(&message, &test_options[INPUT_AUTO], &arena,
                                                &request, &why);
            assert_int_equal(err, 0);
            assert_int_equal(request.id.len, strlen(keys[i].id));
            assert_memory_equal(request.id.ptr, keys[i].id, request.id.len);
            assert_int_equal(request.id_is_number, keys[i].is_number);
            assert_int_equal(request.is_deleted, raw == 2);
        }
        free((void *)message.key.ptr);
        arena_close(&arena);
    }
}

/* The schema of Debezium's MongoDB connector where it is deepest. */
#define MONGODB_SCHEMA                                                                             \
    "{\"type\":\"struct\",\"fields\":[{\"type\":\"string\",\"optional\":true,\"name\":"            \
    "\"io.debezium.data.Json\",\"version\":1,\"field\":\"after\"},{\"type\":\"struct\","           \
    "\"fields\":"                                                                                  \
    "[{\"type\":\"array\",\"items\":{\"type\":\"string\"},\"field\":\"removedFields\"},"           \
    "{\"type\":\"array\",\"items\":{\"type\":\"struct\",\"fields\":[{\"type\":\"string\","         \
    "\"field\":"                                                                                   \
    "\"field\"},{\"type\":\"int32\",\"field\":\"size\"}]},\"field\":\"truncatedArrays\"}],"        \
    "\"field\":\"updateDescription\"}],\"name\":\"m.posts.Envelope\"}"
#define MONGODB(op, after)                                                                         \
    "{\"schema\":" MONGODB_SCHEMA ",\"payload\":{\"before\":null,\"after\":" after                 \
    ",\"updateDescription\":null,\"source\":{\"connector\":\"mongodb\",\"ts_ms\":1},\"op\":\"" op  \
    "\",\"ts_ms\":1,\"transaction\":null}}"
#define MONGODB_KEY(id)                                                                            \
    "{\"schema\":{\"type\":\"struct\",\"fields\":[{\"type\":\"string\",\"field\":\"id\"}]},"       \
    "\"payload\":{\"id\":\"" id "\"}}"
#define OID "5f0e6a6d2f8fb814b56fa181"

/* Row, delete and tombstone of a document have one id, whatever its type. */
static void mongodb_test(void **state)
{
    (void)state;
    static const struct {
        const char *row, *key, *id;
        bool is_number;
    } rows[] = {
        {"{\\\"$oid\\\": \\\"" OID "\\\"}", "{\\\"$oid\\\": \\\"" OID "\\\"}", OID, false},
        {"{\\\"$numberLong\\\": \\\"1004\\\"}", "1004", "1004", true},
        {"{\\\"$numberInt\\\": \\\"-4\\\"}", "{\\\"$numberInt\\\": \\\"-4\\\"}", "-4", true},
        {"1004", "1004", "1004", true},
        {"\\\"abc\\\"", "\\\"abc\\\"", "abc", false},
        {"\\\"1004\\\"", "\\\"1004\\\"", "1004", false},
        {"\\\"no json\\\"", "no json", "no json", false},
    };
    struct decode_options options = test_options[INPUT_AUTO];
    options.text_field = "body";
    options.id_field = "_id";
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int what = 0; what < 3; what++) {
            char value[2000], key[300];
            struct arena arena = {0};
            struct request request;
            struct refusal why = {"", ""};
            snprintf(key, sizeof key, MONGODB_KEY("%s"), rows[i].key);
            snprintf(value, sizeof value,
                     what == 0 ? MONGODB("u", "\"{\\\"_id\\\": %s,\\\"body\\\": \\\"m\\\"}\"")
                               : MONGODB("d", "null"),
                     rows[i].row);
            struct message message = message_of((struct bytes){value, strlen(value)});
            message.key = (struct bytes){key, strlen(key)};
            int err = what < 2 ? codec_decode(&message, &options, &arena, &request, &why)
                               : codec_tombstone(&message, &options, &arena, &request, &why);
            if (err)
                fail_msg("row %zu, %d: %s: %s", i, what, why.code, why.reason);
            assert_int_equal(request.is_deleted, what > 0);
            assert_int_equal(request.id.len, strlen(rows[i].id));
            assert_memory_equal(request.id.ptr, rows[i].id, request.id.len);
            assert_int_equal(request.id_is_number, rows[i].is_number);
            arena_close(&arena);
        }
}

/* What is no id stays refused, and no other column is unpacked. */
static void mongodb_ids_test(void **state)
{
    (void)state;
    struct decode_options options = test_options[INPUT_JSON];
    options.id_field = "_id";
    static const char *const bad[] = {
        "{\"_id\":{\"$oid\":\"\"},\"text\":\"x\"}",
        "{\"_id\":{\"$oid\":7},\"text\":\"x\"}",
        "{\"_id\":{\"$numberLong\":\"1e3\"},\"text\":\"x\"}",
        "{\"_id\":{\"$numberLong\":\"99999999999999999999\"},\"text\":\"x\"}",
        "{\"_id\":{\"$uuid\":\"x\"},\"text\":\"x\"}",
        "{\"_id\":{\"$oid\":\"a\",\"b\":1},\"text\":\"x\"}",
        "{\"_id\":{},\"text\":\"x\"}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct message message = message_of((struct bytes){bad[i], strlen(bad[i])});
        expect_refused(&message, &options, "bad_field", "field '_id' is a map");
    }
    options.id_field = "id";
    struct message message = message_of(BYTES("{\"id\":{\"$oid\":\"a\"},\"text\":\"x\"}"));
    expect_refused(&message, &options, "bad_field", "field 'id' is a map");
}

/* Where the order is not in the payload. */
static void orders_test(void **state)
{
    (void)state;
    struct arena arena = {0};
    struct refusal why;
    struct request request;
    struct decode_options options = test_options[INPUT_AUTO];
    struct header header = {BYTES("lsn"), BYTES("77")};
    struct message message = message_of(BYTES("just text"));
    message.order = 41;
    message.timestamp_ms = 1700000000000;
    message.headers = &header;
    message.n_headers = 1;
    static const int64_t wanted[] = {-1, 41, 1700000000000, 77};
    for (int by = VERSION_NONE; by <= VERSION_FIELD; by++) {
        options.version_by = (enum version_by)by;
        options.version_field = "lsn";
        assert_int_equal(codec_decode(&message, &options, &arena, &request, &why), 0);
        assert_int_equal(request.has_version, wanted[by] >= 0);
        if (request.has_version)
            assert_int_equal(request.version, wanted[by]);
        /* A tombstone has no field, but perhaps a header. */
        struct message tombstone = message;
        tombstone.value = (struct bytes){NULL, 0};
        tombstone.key = BYTES("a");
        for (size_t n = 0; n < 2; n++) {
            bool is_lost = by == VERSION_FIELD && n == 0;
            tombstone.n_headers = n;
            assert_int_equal(codec_tombstone(&tombstone, &options, &arena, &request, &why), 0);
            assert_int_equal(request.lacks_version, is_lost);
            assert_int_equal(request.has_version, wanted[by] >= 0 && !is_lost);
        }
    }
    arena_close(&arena);
}

/* The column of the id was not in the log of the database: the only other field of the key may be
 * the name of another text. */
static void nameless_test(void **state)
{
    (void)state;
    static const char *const events[] = {
        EVENT("d", "{\"pk\":3,\"id\":null,\"body\":null}", "null"),
        "{\"pk\":3,\"id\":null,\"__deleted\":\"true\"}",
    };
    struct decode_options options = row_options(INPUT_JSON);
    options.version_by = VERSION_NONE;
    for (size_t i = 0; i < 2; i++) {
        struct arena arena = {0};
        struct request request;
        struct refusal why;
        struct message message = message_of((struct bytes){events[i], strlen(events[i])});
        message.key = BYTES("{\"pk\":3}");
        expect_refused(&message, &options, "bad_field", "column 'id' of the deleted row is null");
        message.key = BYTES("{\"pk\":3,\"id\":9}");
        assert_int_equal(codec_decode(&message, &options, &arena, &request, &why), 0);
        assert_true(request.is_deleted && request.id.len == 1 && *request.id.ptr == '9');
        arena_close(&arena);
    }
}

/* The number of a line is not a name that anybody gave, nor is the position of a message. */
static void places_test(void **state)
{
    (void)state;
    struct header header = {BYTES("id"), BYTES("4")};
    struct arena arena = {0};
    struct request request;
    struct refusal why;
    struct message message = message_of(BYTES("{\"delete\":true}"));
    message.key = BYTES("4");
    message.key_is_place = true;
    expect_refused(&message, &test_options[INPUT_JSON], "bad_field", "has to name its text");
    message.headers = &header;
    message.n_headers = 1;
    expect_refused(&message, &test_options[INPUT_JSON], "bad_field", "has to name its text");
    message.key_is_place = false;
    message.key = (struct bytes){NULL, 0};
    assert_int_equal(codec_decode(&message, &test_options[INPUT_JSON], &arena, &request, &why), 0);
    assert_true(request.is_deleted);
    message.n_headers = 0;
    message.key = BYTES("");
    message.value = (struct bytes){NULL, 0};
    assert_int_equal(codec_tombstone(&message, &test_options[INPUT_AUTO], &arena, &request, &why),
                     -EINVAL);
    assert_string_equal(why.code, "bad_field");
    arena_close(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nameless_test), cmocka_unit_test(places_test),
        cmocka_unit_test(changes_test),  cmocka_unit_test(unchanged_test),
        cmocka_unit_test(refusals_test), cmocka_unit_test(versions_test),
        cmocka_unit_test(keys_test),     cmocka_unit_test(orders_test),
        cmocka_unit_test(mongodb_test),  cmocka_unit_test(mongodb_ids_test),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
