/*
 * test_made_with.c: which vectors may go into one output, and what is said about others.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "connectors/made_with.h"

#define OURS "model: A\nmodel_fingerprint: 12ab\ndim: 256\nchunks: none\n"

static char why[720];

static bool fits(const char *there, size_t len)
{
    why[0] = '\0';
    return made_with_fits((struct bytes){there, len}, OURS, "x.table", "table t", "TRUNCATE m", why,
                          sizeof why);
}

static bool fits_text(const char *there)
{
    return fits(there, strlen(there));
}

static void test_same(void **state)
{
    (void)state;
    assert_true(fits_text(OURS));
    assert_true(fits(OURS, sizeof OURS - 2)); /* without its last newline */
    /* A name is for people, the order does not count, and later versions may write more lines. */
    assert_true(fits_text("dim: 256\nextra: 1\nchunks: none\nmodel: B\nmodel_fingerprint: 12ab"));
}

static void test_differs(void **state)
{
    static const char *const others[] = {
        "model: A\nmodel_fingerprint: 12ac\ndim: 256\nchunks: none\n",
        "model: A\nmodel_fingerprint: 12ab\ndim: 25\nchunks: none\n",
        "model: A\nmodel_fingerprint: 12ab\ndim: 2560\nchunks: none\n",
        "model: A\nmodel_fingerprint: 12ab\nchunks: none\n",
        "model: A\nmodel_fingerprint: 12ab\nxdim: 256\nchunks: none\n",
        "model_fingerprint: 12ab dim: 256\nchunks: none\n",
        "",
        "\n\n",
        "dim: ",
    };
    (void)state;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_false(fits_text(others[i]));
    assert_false(fits(OURS, 9)); /* cut in the middle of a line */
    assert_false(fits(NULL, 0));

    assert_false(fits_text(others[0]));
    assert_non_null(strstr(why, "x.table: the vectors in table t"));
    assert_non_null(strstr(why, "12ac"));
    assert_non_null(strstr(why, "12ab"));
    assert_non_null(strstr(why, "allow_mixed"));
    assert_non_null(strstr(why, "TRUNCATE m"));
    assert_false(fits_text(others[3]));
    assert_non_null(strstr(why, "dim: nothing"));
}

/* What somebody else wrote there may be anything. */
static void test_long(void **state)
{
    char there[5000] = "dim: ";
    (void)state;
    memset(there + 5, 'x', sizeof there - 5);
    assert_false(fits(there, sizeof there));
    assert_true(strlen(why) < sizeof why - 1);
}

/* Nobody takes a note that is held for his own, an older release neither. */
static void test_held(void **state)
{
    static const char held[] = MADE_WITH_HELD "was model_fingerprint: 12ab\nwas dim: 256\n";
    (void)state;
    assert_true(made_with_is_held((struct bytes){held, strlen(held)}));
    assert_false(made_with_is_held((struct bytes){held, 5}));
    assert_false(made_with_is_held((struct bytes){OURS, strlen(OURS)}));
    assert_false(fits_text(held));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same),
        cmocka_unit_test(test_differs),
        cmocka_unit_test(test_held),
        cmocka_unit_test(test_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
