/*
 * test_codec_walk.c: the msgpack walker against msgpack-c.
 */
#include "tests/worker/test_codec.h"

#include "worker/codec/msgpack_walk.h"

/* Every type at the edges of its encodings, written by msgpack-c, read by the walker. */
static void sizes_test(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 2, 4, 8, 15, 16, 17, 31, 32, 255, 256, 65535, 65536};
    char *bytes = calloc(1, 65536);
    assert_non_null(bytes);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t size = sizes[i];
        msgpack_sbuffer buffer;
        msgpack_packer packer;
        msgpack_sbuffer_init(&buffer);
        msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
        msgpack_pack_array(&packer, 5);
        msgpack_pack_str(&packer, size);
        msgpack_pack_str_body(&packer, bytes, size);
        msgpack_pack_bin(&packer, size);
        msgpack_pack_bin_body(&packer, bytes, size);
        msgpack_pack_ext(&packer, size, -7);
        msgpack_pack_ext_body(&packer, bytes, size);
        msgpack_pack_array(&packer, size);
        for (size_t k = 0; k < size; k++)
            msgpack_pack_nil(&packer);
        msgpack_pack_map(&packer, size);
        for (size_t k = 0; k < 2 * size; k++)
            msgpack_pack_true(&packer);
        assert_int_equal(msgpack_walk_check((struct bytes){buffer.data, buffer.size}, 2), WALK_OK);
        assert_int_equal(msgpack_walk_check((struct bytes){buffer.data, buffer.size}, 1),
                         WALK_DEPTH);
        struct walk walk = {buffer.data, buffer.data + buffer.size};
        struct walk_value value;
        static const enum walk_type types[] = {WALK_ARRAY, WALK_STR, WALK_BIN, WALK_EXT};
        for (int k = 0; k < 4; k++) {
            assert_int_equal(msgpack_walk_next(&walk, &value), WALK_OK);
            assert_int_equal(value.type, types[k]);
            assert_int_equal(k ? value.bytes.len : value.count, k ? size : 5);
        }
        assert_int_equal(value.ext_type, -7);
        assert_int_equal(msgpack_walk_skip(&walk), WALK_OK);
        assert_int_equal(msgpack_walk_next(&walk, &value), WALK_OK);
        assert_int_equal(value.type, WALK_MAP);
        assert_int_equal(value.count, size);
        msgpack_sbuffer_destroy(&buffer);
    }
    free(bytes);
}

static void numbers_test(void **state)
{
    (void)state;
    for (int shift = 0; shift < 64; shift++) {
        for (int add = -1; add <= 1; add++) {
            uint64_t natural = (UINT64_C(1) << shift) + (uint64_t)add;
            int64_t integer = -(int64_t)(natural >> 1);
            msgpack_sbuffer buffer;
            msgpack_packer packer;
            msgpack_sbuffer_init(&buffer);
            msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
            msgpack_pack_uint64(&packer, natural);
            msgpack_pack_int64(&packer, integer);
            msgpack_pack_fix_int64(&packer, integer);
            msgpack_pack_double(&packer, (double)integer);
            msgpack_pack_float(&packer, (float)shift + 0.5f);
            struct walk walk = {buffer.data, buffer.data + buffer.size};
            struct walk_value value;
            assert_int_equal(msgpack_walk_next(&walk, &value), WALK_OK);
            assert_int_equal(value.type, natural > INT64_MAX ? WALK_UINT : WALK_INT);
            assert_true(value.type == WALK_UINT ? value.natural == natural
                                                : value.integer == (int64_t)natural);
            for (int k = 0; k < 2; k++) {
                assert_int_equal(msgpack_walk_next(&walk, &value), WALK_OK);
                assert_int_equal(value.type, WALK_INT);
                assert_true(value.integer == integer);
            }
            assert_int_equal(msgpack_walk_next(&walk, &value), WALK_OK);
            assert_int_equal(value.type, WALK_FLOAT);
            assert_true(value.real == (double)integer);
            assert_int_equal(msgpack_walk_next(&walk, &value), WALK_OK);
            assert_true(value.real == (double)shift + 0.5);
            assert_ptr_equal(walk.at, walk.end);
            assert_int_equal(msgpack_walk_next(&walk, &value), WALK_CUT);
            msgpack_sbuffer_destroy(&buffer);
        }
    }
}

/* Random bytes, steered towards heads: the two readers agree on what is one whole value. */
static void agreement_test(void **state)
{
    (void)state;
    uint64_t random = 20240117;
    size_t n_whole = 0, n_cut = 0;
    for (int round = 0; round < 300000; round++) {
        uint64_t start = random;
        char bytes[24];
        size_t len = 1 + random_next(&random) % sizeof bytes;
        for (size_t i = 0; i < len; i++) {
            uint64_t r = random_next(&random);
            bytes[i] = (char)(r & 1 ? 0xc0 + (r >> 8) % 32 : r & 2 ? 0x80 + (r >> 8) % 64 : r >> 8);
            if (r & 12)
                bytes[i] = (char)((r >> 16) % 6);
        }
        if (len > 2 && random_next(&random) % 2)
            bytes[0] = (char)(0x81 + random_next(&random) % 0x1e);
        enum walk_fault fault = msgpack_walk_check((struct bytes){bytes, len}, 32);
        /* At a claim, and beyond a bad key, msgpack-c reserves what is claimed: 256 GiB. */
        if (fault == WALK_COUNT || fault == WALK_KEY)
            continue;
        msgpack_unpacked unpacked;
        size_t used = 0;
        msgpack_unpacked_init(&unpacked);
        msgpack_unpack_return other = msgpack_unpack_next(&unpacked, bytes, len, &used);
        bool agree = fault == WALK_OK         ? other == MSGPACK_UNPACK_SUCCESS && used == len
                     : fault == WALK_TRAILING ? other == MSGPACK_UNPACK_SUCCESS && used < len
                     : fault == WALK_CUT      ? other == MSGPACK_UNPACK_CONTINUE
                     : fault == WALK_BYTE     ? other == MSGPACK_UNPACK_PARSE_ERROR
                                              : true;
        if (!agree)
            fail_msg("seed %llu: the walker says %d, msgpack-c %d", (unsigned long long)start,
                     fault, other);
        n_whole += fault == WALK_OK;
        n_cut += fault == WALK_CUT;
        msgpack_unpacked_destroy(&unpacked);
    }
    assert_true(n_whole > 1000 && n_cut > 1000); /* it did not only meet nonsense */
}

static void faults_test(void **state)
{
    (void)state;
    static const struct {
        struct bytes bytes;
        enum walk_fault fault;
    } cases[] = {
        {BYTES("\xdd\xff\xff\xff\xff"), WALK_COUNT},
        {BYTES("\xdf\x80\x00\x00\x00"), WALK_COUNT},
        {BYTES("\xdc\x00\x03\x01\x02"), WALK_COUNT},
        {BYTES("\x82\xa1k\x01"), WALK_COUNT},
        {BYTES("\xc6\xff\xff\xff\xff"), WALK_COUNT},
        {BYTES("\xc9\xff\xff\xff\xff\x01"), WALK_COUNT},
        {BYTES("\xdb\x00\x00\x00\x02x"), WALK_COUNT},
        {BYTES("\xdb\x00\x00\x00"), WALK_CUT},
        {BYTES("\xcb\x00"), WALK_CUT},
        {BYTES("\xd4"), WALK_CUT},
        {BYTES("\x92\x01\xc1"), WALK_BYTE},
        {BYTES("\x81\x01\x01"), WALK_KEY},
        {BYTES("\x81\xa1k\x81\x01\x01"), WALK_OK}, /* inside, keys are free */
        {BYTES("\x91\x01\x01"), WALK_TRAILING},
        {BYTES("\x80"), WALK_OK},
        {BYTES("\x91\x91\x91\x91\x91\x91\x91\x90"), WALK_OK},
        {BYTES("\x91\x91\x91\x91\x91\x91\x91\x91\x90"), WALK_DEPTH},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct bytes bytes = bytes_copy(cases[i].bytes);
        enum walk_fault fault = msgpack_walk_check(bytes, 8);
        if (fault != cases[i].fault)
            fail_msg("case %zu: %d, expected %d", i, fault, cases[i].fault);
        free((void *)bytes.ptr);
    }
    assert_int_equal(msgpack_walk_check((struct bytes){"", 0}, 8), WALK_CUT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_test),
        cmocka_unit_test(numbers_test),
        cmocka_unit_test(agreement_test),
        cmocka_unit_test(faults_test),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
