/*
 * fuzz_migration.c: what a migration of files finds beside an index when it starts: its journal, a
 * manifest, and files in whatever state a death, a copy or a person left them in. Run by
 * scripts/fuzz.
 *
 * Byte 0: 0 to 127 a state that a death can leave, else any state. Bytes 1 to 3: which files there
 * are; byte 4: how far it had come; the rest: the journal (of any state), and the manifest.
 * A state that a death can leave must be finished, with every file where it belongs; of any state
 * no more is asked than an answer, and a sentence if it is no.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/index/handover.h"
#include "worker/index/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define OUT     "corpus.npy"
#define FRESH   "corpus.next.npy"
#define OLD     "corpus.old.npy"
#define JOURNAL OUT ".handover"

/* In the order in which they are linked and renamed: those of handover.c. */
static const char *const suffixes[] = {"",       ".ids.jsonl", ".deleted.jsonl", ".errors.jsonl",
                                       ".state", ".index"};
enum { N = sizeof suffixes / sizeof *suffixes, HEAD = 5 };

static char folder[] = "/dev/shm/embedmill-fuzz-XXXXXX";

static void expect(int is_so)
{
    if (!is_so)
        abort();
}

static const char *path_of(const char *name, size_t i)
{
    static char paths[4][60];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s%s", name, suffixes[i]);
    return path;
}

static void write_bytes(const char *path, const void *bytes, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    expect(fd >= 0 && write(fd, bytes, len) == (ssize_t)len && close(fd) == 0);
}

static void make(const char *name, unsigned has, const char *text)
{
    for (size_t i = 0; i < N; i++)
        if (has >> i & 1)
            write_bytes(path_of(name, i), text, strlen(text));
}

static void empty(void)
{
    static const char *const names[] = {OUT, FRESH, OLD};
    for (size_t n = 0; n < 3; n++)
        handover_remove(names[n]);
    unlink(JOURNAL);
    unlink(JOURNAL ".new");
}

static void leave(void)
{
    empty();
    expect(chdir("/") == 0);
    rmdir(folder);
}

static void enter(void)
{
    static bool is_there;
    if (!is_there) {
        expect(mkdtemp(folder) && chdir(folder) == 0);
        atexit(leave);
        is_there = true;
    }
    empty();
}

/* Each file of an index that has one holds this text; the others are not there. */
static void expect_files(const char *name, unsigned has, const char *text)
{
    for (size_t i = 0; i < N; i++) {
        char got[20] = "";
        int fd = open(path_of(name, i), O_RDONLY | O_CLOEXEC);
        expect((fd >= 0) == (has >> i & 1));
        if (fd < 0)
            continue;
        expect(read(fd, got, sizeof got - 1) == (ssize_t)strlen(text) && strcmp(got, text) == 0);
        close(fd);
    }
}

/* As handover.c does it, up to a death: some files of the old index have their second name; all
 * have, and some that only it has are gone; all are, and some of the new one have taken the first.
 */
static void die_after(unsigned n_steps, unsigned old_has, unsigned new_has)
{
    write_bytes(JOURNAL, "begun\n", 6);
    for (size_t i = 0; i < N && n_steps > 0; i++, n_steps--)
        if (old_has >> i & 1)
            expect(link(path_of(OUT, i), path_of(OLD, i)) == 0);
    if (n_steps == 0)
        return;
    write_bytes(JOURNAL, "linked\n", 7);
    n_steps--;
    for (size_t i = 0; i < N && n_steps > 0; i++, n_steps--)
        if (old_has & ~new_has & 1u << i)
            expect(unlink(path_of(OUT, i)) == 0);
    for (size_t i = 0; i < N && n_steps > 0; i++, n_steps--)
        if (new_has >> i & 1)
            expect(rename(path_of(FRESH, i), path_of(OUT, i)) == 0);
}

static void finish_try(const uint8_t *data)
{
    char err[700] = "";
    unsigned old_has = data[1] | 1u, new_has = data[2] | 1u, n_steps = data[4] % (3 * N + 3);
    make(OUT, old_has, "old");
    make(FRESH, new_has, "new");
    if (n_steps > 0)
        die_after(n_steps - 1, old_has, new_has);
    if (data[3] % 4 == 0) /* it died again as it wrote its journal */
        write_bytes(JOURNAL ".new", "lin", 3);
    expect(handover_run(OUT, FRESH, OLD, err, sizeof err) == 0);
    expect(!handover_is_open(OUT));
    expect_files(OUT, new_has, "new");
    expect_files(OLD, old_has, "old");
    expect_files(FRESH, 0, "");
    /* The next one must not overwrite what is kept. */
    make(FRESH, new_has, "newer");
    expect(handover_run(OUT, FRESH, OLD, err, sizeof err) < 0 && strstr(err, OLD));
    expect_files(OLD, old_has, "old");
}

static void any_try(const uint8_t *data, size_t size)
{
    char err[700] = "";
    make(OUT, data[1], "old");
    make(FRESH, data[2], "new");
    make(OLD, data[3], "older");
    if (data[4] % 3 > 0)
        write_bytes(JOURNAL, data + HEAD, size - HEAD);
    int rc = handover_run(OUT, FRESH, OLD, err, sizeof err);
    expect(rc == 0 || (rc < 0 && err[0]));
    expect(rc != 0 || !handover_is_open(OUT));
    if (data[1] & 1) /* what is searched is never missing */
        expect(access(OUT, F_OK) == 0);
}

static void manifest_try(const uint8_t *data, size_t size)
{
    char err[1200] = "", value[100];
    struct manifest there = {.len = 0}, ours = {.len = 0};
    empty();
    write_bytes(path_of(OUT, 5), data, size);
    int rc = manifest_read(&there, OUT, err, sizeof err);
    expect(rc == 0 || err[0]);
    manifest_add(&ours, "model", "a model");
    manifest_add(&ours, "dim", "128");
    rc = manifest_compare(&ours, OUT, data[size - 1] % 2, err, sizeof err);
    expect(rc == 0 || err[0]);
    if (rc == 0 && data[size - 1] % 2) /* it says the same, or vectors of two models would mix */
        expect(manifest_get(&there, "dim", value, sizeof value) && strcmp(value, "128") == 0);
    /* What is read is what was written. */
    expect(manifest_write(&ours, OUT, err, sizeof err) == 0);
    expect(manifest_read(&there, OUT, err, sizeof err) == 0 && there.len == ours.len &&
           memcmp(there.text, ours.text, ours.len) == 0);
    unlink(OUT ".index.new");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size <= HEAD)
        return 0;
    enter();
    if (data[0] < 128)
        finish_try(data);
    else
        any_try(data, size);
    manifest_try(data + HEAD, size - HEAD);
    return 0;
}
