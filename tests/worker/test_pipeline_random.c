/*
 * test_pipeline_random.c: random brokers, messages, faults and drains, and what must hold for all:
 *
 *   - every message is taken exactly once in each run, by ack or by release, and acked only after
 *     its record was confirmed; the credit is never exceeded; records keep the order of messages
 *     (all checked by the fake broker as it goes);
 *   - over several runs, each resuming what the last one released, every message ends as what it
 *     is: an output with its own vectors, or a dead letter with its own code; and once, but for
 *     those the sink confirmed after the source had failed and could take no ack;
 *   - all this is the same bytes with a cache, in memory, on disk or both.
 *
 * EMBEDMILL_TEST_SEED=n runs that seed alone, EMBEDMILL_TEST_ROUNDS=n so many.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/support/cache_folder.h"
#include "tests/support/pipeline_rig.h"
#include "worker/pipeline/cache.h"

enum { MAX_MESSAGES = 200, MAX_TEXTS = 30, MAX_RUNS = 6 };

/* What a message must come to. */
struct expected {
    char value[MAX_TEXTS * 48];
    char texts[MAX_TEXTS][32];
    size_t n_texts;
    const char *dead_code; /* NULL: an output */
};

static struct expected expected[MAX_MESSAGES];
static uint64_t n_hits;
static uint64_t seed;

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fail_msg("seed %llu, message %zu: %s", (unsigned long long)seed, i, #condition);       \
    } while (0)

static const char *text_make(struct fake *fake, char out[32], const char **dead_code)
{
    static const struct {
        const char *word, *code;
    } bad[] = {{"@long", "text_too_long"}, {"@bytes", "bad_utf8"}, {"@nan", "bad_embedding"}};
    const char *word = "";
    if (fake_random(fake, 60) == 0) {
        size_t which = fake_random(fake, 3);
        word = bad[which].word;
        if (!*dead_code)
            *dead_code = bad[which].code;
    }
    /* Few enough different ones that equal texts meet in a batch. */
    snprintf(out, 32, "t%u%s%.*s", (unsigned)fake_random(fake, 150), word,
             (int)fake_random(fake, 12), " lorem ipsum");
    return out;
}

static void message_make(struct fake *fake, size_t i)
{
    struct expected *e = &expected[i];
    struct fake_message *message = &fake->messages[i];
    memset(e, 0, sizeof *e);
    message->value = e->value;
    if (fake_random(fake, 20) == 0) {
        snprintf(e->value, sizeof e->value, "{\"texts\":[]}");
        e->dead_code = "no_text";
    } else if (fake_random(fake, 3) == 0) {
        e->n_texts = 1 + fake_random(fake, MAX_TEXTS);
        size_t at = (size_t)sprintf(e->value, "{\"texts\":[");
        for (size_t t = 0; t < e->n_texts; t++)
            at += (size_t)sprintf(e->value + at, "%s\"%s\"", t ? "," : "",
                                  text_make(fake, e->texts[t], &e->dead_code));
        sprintf(e->value + at, "]}");
    } else {
        e->n_texts = 1;
        strcpy(e->value, text_make(fake, e->texts[0], &e->dead_code));
    }
    uint64_t chance = fake_random(fake, 100);
    message->fate = chance < 3    ? FATE_TOO_LARGE
                    : chance < 5  ? FATE_DEAD_TOO_LARGE
                    : chance < 7  ? FATE_REFUSED
                    : chance < 10 ? FATE_NOT_OURS
                    : chance < 25 ? FATE_ACKED
                    : chance < 26 ? FATE_UNANSWERED
                                  : FATE_PUBLISHED;
    if (!e->dead_code && (message->fate == FATE_TOO_LARGE || message->fate == FATE_DEAD_TOO_LARGE))
        e->dead_code = "output_too_large";
    if (!e->dead_code && message->fate == FATE_REFUSED)
        e->dead_code = "output_refused";
}

static void rig_random(struct rig *rig)
{
    struct fake *fake = &rig->fake;
    fake->random = seed;
    fake->script.layout = fake_random(fake, 2) ? SINK_PER_TEXT : SINK_PER_MESSAGE;
    fake->script.burst_max = 1 + fake_random(fake, 40);
    fake->script.confirm_max = 1 + fake_random(fake, 40);
    fake->script.tick_ms = (unsigned)fake_random(fake, 2);
    fake->script.shuffle = fake_random(fake, 2);
    fake->script.link_waits_percent = (unsigned)fake_random(fake, 20);
    struct pipeline_options *o = &rig->options;
    o->n_threads = 1 + fake_random(fake, 4);
    o->n_batches = 1 + fake_random(fake, 4);
    o->batch_texts = 1 + fake_random(fake, 20);
    o->batch_bytes = 20 + fake_random(fake, 2000);
    o->linger_ms = fake_random(fake, 3);
    o->drain_ms = 20 + fake_random(fake, 60);
    for (size_t i = 0; i < fake->n; i++)
        message_make(fake, i);
}

/* Often too small for all texts of a round. */
static struct cache *cache_random(struct rig *rig)
{
    struct cache_options options = {.memory_bytes = fake_random(&rig->fake, 3) * 3000,
                                    .folder = fake_random(&rig->fake, 2) ? cache_folder : "",
                                    .disk_bytes = 16 << 20};
    struct cache *cache;
    char err[300] = "";
    if (cache_open(&cache, &options, NULL, rig->options.embedder, &rig->options.session, err,
                   sizeof err) != 0)
        fail_msg("%s", err);
    return cache;
}

/* One life of a worker: to the end of the input, or to a drain or failure somewhere in it. */
static void run_once(struct rig *rig, size_t run)
{
    struct fake *fake = &rig->fake;
    uint64_t choice = fake_random(fake, 5);
    bool last = run == MAX_RUNS - 1;
    fake->script.finite = last || choice >= 2;
    fake->script.source_fails_after = fake->script.sink_fails_after = 0;
    if (!last && choice == 2)
        fake->script.source_fails_after = fake->n_given + 1 + fake_random(fake, fake->n);
    if (!last && choice == 3)
        fake->script.sink_fails_after = fake->n_confirmed + 1 + fake_random(fake, fake->n);
    for (size_t i = 0; last && i < fake->n; i++)
        if (fake->messages[i].fate != FATE_TOO_LARGE &&
            fake->messages[i].fate != FATE_DEAD_TOO_LARGE && fake->messages[i].fate != FATE_REFUSED)
            fake->messages[i].fate = FATE_PUBLISHED;
    fake->script.seed = seed + run * 1000003;

    rig_start(rig);
    if (!last) {
        rig_turn(rig, (unsigned)fake_random(fake, 15));
        pipeline_drain(rig->pipeline);
    }
    while (!rig->ended)
        uv_run(&rig->loop, UV_RUN_ONCE);
    rig_finish(rig, rig->how);
    if (last)
        assert_int_equal(rig->how, PIPELINE_DRAINED);
}

static void check_message(const struct rig *rig, size_t i)
{
    const struct fake_message *message = &rig->fake.messages[i];
    const struct expected *e = &expected[i];
    REQUIRE(message->state == FAKE_ACKED);
    REQUIRE(message->n_outputs + message->n_dead == 1 + message->n_unackable);
    if (e->dead_code) {
        REQUIRE(strcmp(message->dead_code, e->dead_code) == 0);
        if (message->fate != FATE_DEAD_TOO_LARGE)
            REQUIRE(strcmp(message->value_out, e->value) == 0);
        return;
    }
    REQUIRE(message->dead_code[0] == '\0');
    bool per_text = rig->fake.script.layout == SINK_PER_TEXT;
    REQUIRE(message->n_parts == (per_text ? e->n_texts : 1));
    for (size_t t = 0; t < e->n_texts; t++) {
        float vector[RIG_DIM];
        rig_vector("document", NULL, e->texts[t], vector);
        REQUIRE(rig_output_has(rig, i, vector));
        if (per_text)
            REQUIRE(memcmp(message->vector_out + t * sizeof vector, vector, sizeof vector) == 0);
    }
}

static void check_run(const struct rig *rig)
{
    const struct pipeline_stats *stats = &rig->stats;
    size_t i = 0;
    REQUIRE(stats->messages + stats->dead_letters <= stats->received);
    REQUIRE(stats->memory_hits + stats->disk_hits + stats->cache_misses + stats->duplicates >=
                stats->embedded_texts ||
            !rig->options.cache);
    n_hits += stats->memory_hits + stats->disk_hits;
    REQUIRE(stats->waiting_messages == 0 || rig->how != PIPELINE_DRAINED);
    REQUIRE(stats->inflight_texts == 0 || rig->how != PIPELINE_DRAINED);
    REQUIRE(stats->messages + stats->dead_letters + stats->not_ours == stats->received ||
            rig->how != PIPELINE_DRAINED);
}

static void test_nothing_is_lost_and_nothing_is_doubled(void **state)
{
    (void)state;
    const char *one = getenv("EMBEDMILL_TEST_SEED"), *many = getenv("EMBEDMILL_TEST_ROUNDS");
    uint64_t first = one ? strtoull(one, NULL, 10) : 1;
    uint64_t rounds = one ? 1 : many ? strtoull(many, NULL, 10) : 60;
    for (seed = first; seed < first + rounds; seed++) {
        struct rig rig;
        rig_open(&rig, 1 + seed * 37 % MAX_MESSAGES);
        rig.fake.script.seed = seed;
        rig_random(&rig);
        struct cache *cache = rig.options.cache = cache_random(&rig);
        for (size_t run = 0; run < MAX_RUNS; run++) {
            if (run)
                fake_again(&rig.fake);
            run_once(&rig, run);
            check_run(&rig);
        }
        for (size_t i = 0; i < rig.fake.n; i++)
            check_message(&rig, i);
        rig_close(&rig);
        cache_close(cache);
    }
    assert_true(n_hits > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_lost_and_nothing_is_doubled),
    };
    return cmocka_run_group_tests(tests, cache_folder_make, cache_folder_remove);
}
