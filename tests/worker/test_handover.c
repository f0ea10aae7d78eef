/*
 * test_handover.c: an index takes the name of another, from every state that a death can leave.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "worker/index/handover.h"

/* In the order in which they are linked and renamed. */
static const char *const suffixes[] = {"",       ".ids.jsonl", ".deleted.jsonl", ".errors.jsonl",
                                       ".state", ".index"};
enum { N = sizeof suffixes / sizeof *suffixes };

#define OUT     "corpus.npy"
#define FRESH   "corpus.next.npy"
#define OLD     "corpus.old.npy"
#define OLD_HAS 0x37u /* bits of suffixes: no errors */
#define NEW_HAS 0x3bu /* no deletes */

static char err[700];

static void path_of(const char *name, size_t i, char out[200])
{
    snprintf(out, 200, "%s%s", name, suffixes[i]);
}

static void write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void make(const char *name, unsigned has, const char *text)
{
    char path[200];
    for (size_t i = 0; i < N; i++)
        if (has >> i & 1) {
            path_of(name, i, path);
            write_text(path, text);
        }
}

static void expect(const char *name, unsigned has, const char *text)
{
    char path[200], got[20];
    for (size_t i = 0; i < N; i++) {
        path_of(name, i, path);
        FILE *file = fopen(path, "r");
        if (!(has >> i & 1)) {
            assert_null(file);
            continue;
        }
        assert_non_null(file);
        assert_non_null(fgets(got, sizeof got, file));
        assert_string_equal(got, text);
        fclose(file);
    }
}

static void expect_done(void)
{
    expect(OUT, NEW_HAS, "new");
    expect(OLD, OLD_HAS, "old");
    expect(FRESH, 0, "");
    assert_false(handover_is_open(OUT));
}

static void clear(void)
{
    handover_remove(OUT);
    handover_remove(FRESH);
    handover_remove(OLD);
    unlink(OUT ".handover");
    make(OUT, OLD_HAS, "old");
    make(FRESH, NEW_HAS, "new");
}

static int run(void)
{
    err[0] = '\0';
    return handover_run(OUT, FRESH, OLD, err, sizeof err);
}

static void link_some(size_t n)
{
    char from[200], to[200];
    for (size_t i = 0; i < n; i++) {
        path_of(OUT, i, from);
        path_of(OLD, i, to);
        if (OLD_HAS >> i & 1)
            assert_int_equal(link(from, to), 0);
    }
}

static void test_whole(void **state)
{
    (void)state;
    clear();
    assert_int_equal(run(), 0);
    expect_done();
    assert_int_equal(run(), -EEXIST); /* the old one of before is not overwritten */
    assert_non_null(strstr(err, OLD));
    expect_done();
}

static void test_interrupted(void **state)
{
    char from[200], to[200];
    (void)state;
    for (size_t n = 0; n <= N; n++) { /* while the old one gets its second name */
        clear();
        write_text(OUT ".handover", "begun\n");
        link_some(n);
        assert_true(handover_is_open(OUT));
        assert_int_equal(run(), 0);
        expect_done();
    }
    for (size_t n = 0; n <= N; n++) { /* while the new one takes the first */
        clear();
        link_some(N);
        write_text(OUT ".handover", "linked\n");
        for (size_t i = 0; i < n; i++) {
            path_of(FRESH, i, from);
            path_of(OUT, i, to);
            if (NEW_HAS >> i & 1)
                assert_int_equal(rename(from, to), 0);
            else
                unlink(to);
        }
        assert_int_equal(run(), 0);
        expect_done();
    }
}

static void test_busy(void **state)
{
    (void)state;
    const char *const names[] = {OUT, FRESH};
    for (size_t i = 0; i < 2; i++) {
        clear();
        int fd = open(names[i], O_RDWR);
        assert_int_equal(flock(fd, LOCK_EX), 0);
        assert_int_equal(run(), -EBUSY);
        assert_non_null(strstr(err, names[i]));
        expect(OUT, OLD_HAS, "old");
        expect(FRESH, NEW_HAS, "new");
        assert_false(handover_is_open(OUT));
        close(fd);
        assert_int_equal(run(), 0);
        expect_done();
    }
}

static void test_names(void **state)
{
    static const char *const names[][2] = {
        {"corpus.npy", "corpus.next.npy"},
        {"a.b/corpus.npy", "a.b/corpus.next.npy"},
        {"a.b/corpus", "a.b/corpus.next"},
        {"a/.npy", "a/.npy.next"},
    };
    char out[HANDOVER_PATH], path[HANDOVER_PATH + 1];
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_int_equal(handover_name(names[i][0], "next", out), 0);
        assert_string_equal(out, names[i][1]);
    }
    memset(path, 'x', HANDOVER_PATH);
    path[HANDOVER_PATH - 10] = '\0';
    assert_int_equal(handover_name(path, "next", out), -ENAMETOOLONG);
}

/* Somebody removed the new index of one that was interrupted: OUT stays, and is the old one. */
static void test_missing(void **state)
{
    (void)state;
    for (size_t n_linked = 0; n_linked <= N; n_linked++) {
        clear();
        handover_remove(FRESH);
        link_some(n_linked);
        write_text(OUT ".handover", n_linked == N ? "linked\n" : "begun\n");
        assert_int_equal(run(), -ENOENT);
        assert_non_null(strstr(err, FRESH ", which was to take the name " OUT ", is missing"));
        expect(OUT, OLD_HAS, "old");
        /* What it advises to do. */
        unlink(OUT ".handover");
        handover_remove(OLD);
        make(FRESH, NEW_HAS, "new");
        assert_int_equal(run(), 0);
        expect_done();
    }
}

/* As handover.c does it, up to a death: n of the new files are renamed. */
static void die_renaming(size_t n, bool has_inode)
{
    char from[200], to[200], text[60];
    struct stat fresh;
    clear();
    link_some(N);
    assert_int_equal(stat(FRESH, &fresh), 0);
    snprintf(text, sizeof text, "linked\n%ju\n", (uintmax_t)fresh.st_ino);
    write_text(OUT ".handover", has_inode ? text : "linked\n");
    for (size_t i = 0; i < N; i++) {
        path_of(OUT, i, to);
        if (!(NEW_HAS >> i & 1))
            unlink(to);
    }
    for (size_t i = 0; i < n; i++) {
        path_of(FRESH, i, from);
        path_of(OUT, i, to);
        if (NEW_HAS >> i & 1)
            assert_int_equal(rename(from, to), 0);
    }
}

static void rename_all(const char *a, const char *b)
{
    char from[200], to[200];
    for (size_t i = 0; i < N; i++) {
        path_of(a, i, from);
        path_of(b, i, to);
        if (rename(from, to) == 0)
            unlink(from); /* both were one file: as `mv` does */
    }
}

/* Somebody removed OUT, of which OLD is the last copy: that is not to be removed, too. */
static void test_output_missing(void **state)
{
    (void)state;
    for (size_t n = 1; n <= N; n++) { /* OUT was the new one */
        die_renaming(n, n % 2);
        unlink(OUT);
        assert_int_equal(run(), -ENOENT);
        assert_non_null(strstr(err, OUT " and " FRESH " are missing. " OLD " is the old index: "
                                        "remove " OUT ".handover and what else lies beside " OUT
                                        " and " FRESH ", rename " OLD));
        expect(OLD, OLD_HAS, "old");
        handover_remove(OUT);
        handover_remove(FRESH);
        unlink(OUT ".handover");
        rename_all(OLD, OUT);
        make(FRESH, NEW_HAS, "new");
        assert_int_equal(run(), 0);
        expect_done();
    }
    for (size_t n = 1; n <= N; n++) { /* OUT was the old one, not all of which has a second name */
        clear();
        link_some(n);
        write_text(OUT ".handover", "begun\n");
        unlink(OUT);
        unlink(FRESH);
        assert_int_equal(run(), -ENOENT);
        assert_non_null(strstr(err,
                               OLD " is the old index: rename it and what lies beside it to " OUT
                                   ", remove " OUT ".handover"));
        rename_all(OLD, OUT);
        unlink(OUT ".handover");
        handover_remove(FRESH);
        expect(OUT, OLD_HAS, "old");
        make(FRESH, NEW_HAS, "new");
        assert_int_equal(run(), 0);
        expect_done();
    }
    die_renaming(1, true);
    unlink(OUT);
    unlink(OLD);
    assert_int_equal(run(), -ENOENT);
    assert_non_null(strstr(err, "no index is left"));
}

/* Somebody removed OLD: OUT is the new one if the journal says so, else nobody knows. */
static void test_old_missing(void **state)
{
    (void)state;
    for (size_t n = 0; n <= N; n++) {
        die_renaming(n, true);
        handover_remove(OLD);
        assert_int_equal(run(), 0);
        expect(OUT, NEW_HAS, "new");
        expect(FRESH, 0, "");
        assert_false(handover_is_open(OUT));
    }
    die_renaming(N, false);
    handover_remove(OLD);
    assert_int_equal(run(), -ENOENT);
    assert_non_null(strstr(err, OUT " may be the new index or the old one: " OUT ".index says"));
    expect(OUT, NEW_HAS, "new");
    die_renaming(0, true);
    handover_remove(OLD);
    handover_remove(FRESH);
    assert_int_equal(run(), -ENOENT);
    assert_non_null(strstr(err, OUT " may be the new index or the old one"));
}

/* The journal of a real run says which file is the new one: it cannot go on where it renames. */
static void test_journal(void **state)
{
    char text[60] = "", line[60];
    struct stat fresh;
    (void)state;
    clear();
    assert_int_equal(stat(FRESH, &fresh), 0);
    unlink(OUT ".state");
    assert_int_equal(mkdir(OUT ".state", 0700), 0); /* a file cannot take the name of a folder */
    write_text(OUT ".handover", "begun\n");
    write_text(OLD ".state", "old");
    assert_int_not_equal(run(), 0);
    FILE *file = fopen(OUT ".handover", "r");
    assert_non_null(file);
    assert_non_null(fgets(text, sizeof text, file));
    assert_non_null(fgets(text, sizeof text, file));
    fclose(file);
    snprintf(line, sizeof line, "%ju\n", (uintmax_t)fresh.st_ino);
    assert_string_equal(text, line);
    assert_int_equal(rmdir(OUT ".state"), 0);
    handover_remove(OLD); /* too early, and yet it ends well */
    assert_int_equal(run(), 0);
    expect(OUT, NEW_HAS, "new");
    expect(FRESH, 0, "");
}

/* Somebody removed the new index when OUT had lost already what only the old one has beside it. */
static void test_missing_late(void **state)
{
    (void)state;
    die_renaming(0, true);
    handover_remove(FRESH);
    assert_int_equal(run(), -ENOENT);
    assert_non_null(strstr(err, OUT " is the old index: remove " OUT ".handover"));
    expect(OUT, OLD_HAS, "old");
}

/* Of no index nothing is removed: not the files of this folder that are called as the suffixes. */
static void test_remove_nothing(void **state)
{
    (void)state;
    make("", ~1u, "mine");
    handover_remove("");
    expect("", ~1u, "mine");
    for (size_t i = 1; i < N; i++)
        unlink(suffixes[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),        cmocka_unit_test(test_missing),
        cmocka_unit_test(test_interrupted),  cmocka_unit_test(test_busy),
        cmocka_unit_test(test_names),        cmocka_unit_test(test_output_missing),
        cmocka_unit_test(test_old_missing),  cmocka_unit_test(test_journal),
        cmocka_unit_test(test_missing_late), cmocka_unit_test(test_remove_nothing),
    };
    char folder[] = "/tmp/embedmill-handover-XXXXXX";
    if (!mkdtemp(folder) || chdir(folder) != 0)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    handover_remove(OUT);
    handover_remove(FRESH);
    handover_remove(OLD);
    unlink(OUT ".handover");
    if (chdir("/") != 0 || rmdir(folder) != 0)
        return failed ? failed : 1;
    return failed;
}
