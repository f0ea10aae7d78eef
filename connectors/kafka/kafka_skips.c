/*
 * kafka_skips.c: see kafka_skips.h.
 */
#include "connectors/kafka/kafka_skips.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/kafka/kafka_source.h"

#define CALL_MS       5000
#define QUESTIONS_MAX 1024 /* asked at once */

enum kind {
    KIND_RESET,     /* the library has reset an offset that was out of range */
    KIND_TRUNCATED, /* ... because the partition has lost records */
    KIND_START,     /* assigned: is there an offset, and is it still the same topic? */
    KIND_REGRESS,   /* the end seems to lie before one that was seen */
};

struct kafka_question {
    struct kafka_question *next;
    enum kind kind;
    char *topic;
    int32_t partition;
    int64_t from;          /* where reading was to go on; -1: not known */
    int64_t seen_end;      /* the furthest end of the partition that we have seen; -1: none */
    int64_t was_committed; /* when the partition was ours before; -1: nothing, or not known */
    int64_t committed;     /* answers: the group's offset, -1: none ... */
    int64_t low, high;     /* ... and the partition's limits; -1: no answer */
};

/* Questions on a thread. The second of the two that are done with it, thread and loop, frees it. */
struct kafka_inquiry {
    rd_kafka_t *rk;
    struct kafka_question *questions;
    atomic_int n_done;
};

/* How far we were when a partition was given up. */
struct kafka_memory {
    struct kafka_memory *next;
    char *topic;
    int32_t partition;
    int64_t position, seen_end, committed;
};

static void questions_free(struct kafka_question *question)
{
    while (question) {
        struct kafka_question *next = question->next;
        free(question->topic);
        free(question);
        question = next;
    }
}

/* ---- on the thread */

static void ask_committed(rd_kafka_t *rk, struct kafka_question *question)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, question->topic, question->partition);
    if (rd_kafka_committed(rk, list, CALL_MS) || list->elems[0].err)
        question->high = -1; /* as if there were no answer at all */
    else
        question->committed = list->elems[0].offset >= 0 ? list->elems[0].offset : -1;
    rd_kafka_topic_partition_list_destroy(list);
}

static void ask(rd_kafka_t *rk, struct kafka_question *question)
{
    int64_t low, high;
    if (rd_kafka_query_watermark_offsets(rk, question->topic, question->partition, &low, &high,
                                         CALL_MS))
        /* high stays -1: judge takes that for no answer. */
        return;
    question->low = low;
    question->high = high;
    if (question->kind == KIND_START)
        ask_committed(rk, question);
}

static void inquiry_leave(struct kafka_inquiry *inquiry)
{
    /* The first of the two only says that it is done; the other may be reading. */
    if (atomic_fetch_add(&inquiry->n_done, 1) == 0)
        return;
    questions_free(inquiry->questions);
    free(inquiry);
}

static void run(void *arg)
{
    struct kafka_inquiry *inquiry = arg;
    for (struct kafka_question *q = inquiry->questions; q; q = q->next)
        ask(inquiry->rk, q);
    inquiry_leave(inquiry);
}

/* ---- reports */

static void report(struct kafka_source *source, const struct kafka_question *question,
                   enum skip_reason reason, int64_t from, int64_t to, int64_t n, const char *why)
{
    char part[320], from_text[24], to_text[24];
    const struct skipped skipped = {
        .reason = reason, .part = part, .from = from_text, .to = to_text, .n = n, .why = why};
    snprintf(part, sizeof part, "%s/%d", question->topic, (int)question->partition);
    snprintf(from_text, sizeof from_text, from < 0 ? "unknown" : "%" PRId64, from);
    snprintf(to_text, sizeof to_text, to < 0 ? "unknown" : "%" PRId64, to);
    source_skipped(&source->base, &skipped);
}

/* The end of the partition has been seen further off: this is another log, or it was cut. */
static void report_recreated(struct kafka_source *source, const struct kafka_question *question,
                             int64_t to)
{
    int64_t unread = question->seen_end > question->from ? question->seen_end - question->from : 0;
    report(
        source, question, SKIPPED_TOPIC_RECREATED, question->from, to,
        question->from < 0 ? -1 : unread,
        "the topic was deleted and made again, or its end was lost: what was unread of it, as of "
        "the last look, is gone; stop the workers before a topic is deleted");
}

static void report_reset(struct kafka_source *source, const struct kafka_question *question,
                         struct kafka_partition *part)
{
    bool is_latest = source->skips.reset == RESET_LATEST;
    int64_t from = question->from, to = is_latest ? question->high : question->low;
    if (part && from >= 0 && from < part->accounted) /* was reported as far as that */
        from = part->accounted;
    if (question->from >= 0 && question->from < question->low) {
        if (to > from)
            report(source, question, SKIPPED_RETENTION, from, to, to - from,
                   is_latest ? "these records were deleted before the group had read them, and "
                               "auto.offset.reset=latest leaves out the rest, too: raise the "
                               "topic's retention, or start more workers"
                             : "these records were deleted before the group had read them: raise "
                               "the topic's retention, or start more workers");
        /* A reset that comes again before anything is committed must not count one loss twice. */
        if (part && to > part->accounted)
            part->accounted = to;
    } else if (question->seen_end >= question->from && question->from >= 0) {
        report_recreated(source, question, to);
    } else {
        report(source, question, SKIPPED_OFFSET_BEYOND_END, from, to,
               is_latest ? question->high - question->low : -1,
               is_latest ? "the group's offset lies behind the end of the partition, and "
                           "auto.offset.reset=latest skips everything already there: set the "
                           "group's offsets"
                         : "the group's offset lies behind the end of the partition: it was set "
                           "by hand, or the topic was made again; the partition is read from its "
                           "beginning");
    }
}

static void report_start(struct kafka_source *source, const struct kafka_question *question)
{
    bool is_latest = source->skips.reset == RESET_LATEST;
    int64_t n = question->high - question->low;
    /* Only with its topic does a group lose an offset, or get a smaller one. */
    if (question->committed < question->was_committed)
        report_recreated(source, question, is_latest ? question->high : question->low);
    else if (question->committed < 0 && is_latest && n > 0)
        report(source, question, SKIPPED_NO_OFFSET, question->low, question->high, n,
               "the group has no offset here, and auto.offset.reset=latest leaves out what is "
               "there: set auto.offset.reset=earliest to read it");
}

static void judge(struct kafka_source *source, const struct kafka_question *question)
{
    struct kafka_partition *part =
        kafka_partition_find(source, question->topic, question->partition);
    if (question->high < 0 && question->kind == KIND_RESET) {
        report(source, question, SKIPPED_OFFSET_BEYOND_END, question->from, -1, -1,
               "the group's offset was out of range, and the brokers do not say what there is");
        return;
    }
    if (question->high < 0) /* asked again with the next sign of it */
        return;
    if (question->kind == KIND_RESET)
        report_reset(source, question, part);
    else if (question->kind == KIND_TRUNCATED)
        report(source, question, SKIPPED_TRUNCATED, question->from, -1, -1,
               "a broker that lacks records of this partition became its leader (unclean leader "
               "election); where reading goes on, auto.offset.reset says");
    else if (question->kind == KIND_START)
        report_start(source, question);
    else if (question->high < question->seen_end)
        report_recreated(source, question, question->low);
    if (part && question->high < part->seen_end)
        part->seen_end = question->high;
    /* Answered: the same offset reset once more is news. */
    if (part)
        part->reset_from = -1;
}

/* ---- questions */

static bool has(const struct kafka_question *question, bool is_start, const char *topic,
                int32_t partition)
{
    for (; question; question = question->next)
        if ((question->kind == KIND_START) == is_start && question->partition == partition &&
            strcmp(question->topic, topic) == 0)
            return true;
    return false;
}

/* One question about a jump in a partition at a time: the first sign of it says from where. NULL:
 * one is being asked, or no memory, and then it is only not reported. */
static struct kafka_question *question_add(struct kafka_source *source, enum kind kind,
                                           const char *topic, int32_t partition)
{
    struct kafka_skips *skips = &source->skips;
    struct kafka_question **last = &skips->questions;
    bool is_start = kind == KIND_START;
    if (has(skips->questions, is_start, topic, partition) ||
        (skips->inquiry && has(skips->inquiry->questions, is_start, topic, partition)))
        return NULL;
    struct kafka_question *question = calloc(1, sizeof *question);
    char *copy = question ? strdup(topic) : NULL;
    if (!copy) {
        free(question);
        return NULL;
    }
    *question = (struct kafka_question){.kind = kind,
                                        .topic = copy,
                                        .partition = partition,
                                        .from = -1,
                                        .seen_end = -1,
                                        .was_committed = -1,
                                        .committed = -1,
                                        .low = -1,
                                        .high = -1};
    /* At the end: they are asked in the order in which they were seen. */
    while (*last)
        last = &(*last)->next;
    return *last = question;
}

static void inquiry_open(struct kafka_source *source)
{
    struct kafka_skips *skips = &source->skips;
    struct kafka_inquiry *inquiry = calloc(1, sizeof *inquiry);
    if (!inquiry)
        return;
    inquiry->rk = source->rk;
    inquiry->questions = skips->questions;
    struct kafka_question *last = inquiry->questions;
    for (size_t i = 1; i < QUESTIONS_MAX && last->next; i++)
        last = last->next;
    struct kafka_question *rest = last->next;
    last->next = NULL;                                     /* before the thread reads it */
    if (kafka_client_help(source->client, run, inquiry)) { /* no thread: another time */
        last->next = rest;
        free(inquiry);
        return;
    }
    skips->questions = rest;
    skips->inquiry = inquiry;
}

void kafka_skips_tick(struct kafka_source *source)
{
    struct kafka_skips *skips = &source->skips;
    struct kafka_inquiry *inquiry = skips->inquiry;
    if (!inquiry && skips->questions && !source->ask)
        inquiry_open(source);
    if (!inquiry || atomic_load(&inquiry->n_done) == 0)
        return;
    skips->inquiry = NULL;
    kafka_client_helped(source->client);
    for (const struct kafka_question *q = inquiry->questions; q; q = q->next)
        judge(source, q);
    /* The thread was joined, so this is the second: it frees the questions. */
    inquiry_leave(inquiry);
}

/* ---- signs */

bool kafka_skips_parse(const char *text, char topic[256], int32_t *partition, int64_t *from)
{
    static const char mark[] = "]: offset reset (at offset ";
    const char *at = strstr(text, mark), *begin = at;
    if (!at)
        return false;
    while (begin > text && begin[-1] != '[')
        begin--;
    if (begin - 2 < text || begin[-2] != ' ')
        return false;
    *partition = (int32_t)strtol(begin, NULL, 10);
    const char *end = begin - 2, *name = end;
    while (name > text && name[-1] != ' ')
        name--;
    if (end == name || end - name > 255)
        return false;
    snprintf(topic, 256, "%.*s", (int)(end - name), name);
    at += sizeof mark - 1;
    *from = *at >= '0' && *at <= '9' ? strtoll(at, NULL, 10) : -1;
    return true;
}

bool kafka_skips_on_line(struct kafka_source *source, const char *text)
{
    char topic[256];
    int32_t partition;
    int64_t from;
    if (!kafka_skips_parse(text, topic, &partition, &from))
        return false;
    bool is_cut = strstr(text, "truncat") != NULL;
    struct kafka_partition *part = kafka_partition_find(source, topic, partition);
    if (part && from >= 0 && from == part->reset_from)
        return true; /* the same, tried again */
    struct kafka_question *question =
        question_add(source, is_cut ? KIND_TRUNCATED : KIND_RESET, topic, partition);
    if (part) {
        part->reset_from = from;
        /* The offset that comes may lie before the group's, and the library would not commit it. */
        part->commit_back = true;
    }
    if (!question)
        return true;
    question->from = from;
    question->seen_end = part ? part->seen_end : -1;
    return true;
}

static struct kafka_memory **memory_of(struct kafka_skips *skips,
                                       const struct kafka_partition *part)
{
    struct kafka_memory **at = &skips->memories;
    while (*at && ((*at)->partition != part->partition || strcmp((*at)->topic, part->topic) != 0))
        at = &(*at)->next;
    return at;
}

void kafka_skips_on_assign(struct kafka_source *source, const struct kafka_partition *part)
{
    struct kafka_memory *memory = *memory_of(&source->skips, part);
    /* From earliest on nothing can be left out, and without a memory there is
     * nothing to compare. */
    if (source->skips.reset != RESET_LATEST && (!memory || memory->committed < 0))
        return;
    struct kafka_question *question =
        question_add(source, KIND_START, part->topic, part->partition);
    if (!question)
        return;
    question->was_committed = memory ? memory->committed : -1;
    question->from = memory ? memory->position : -1;
    question->seen_end = memory ? memory->seen_end : -1;
}

void kafka_skips_on_revoke(struct kafka_source *source, const struct kafka_partition *part)
{
    struct kafka_memory **at = memory_of(&source->skips, part), *memory = *at;
    if (!part->offsets.next || source->end.closing) /* nothing was read, or nothing comes after */
        return;
    if (!memory) {
        memory = calloc(1, sizeof *memory);
        char *topic = memory ? strdup(part->topic) : NULL;
        if (!topic) {
            free(memory);
            return;
        }
        memory->topic = topic;
        memory->partition = part->partition;
        *at = memory;
    }
    /* Kept by name: the partition itself goes with its last message. */
    memory->position = part->offsets.next;
    memory->seen_end = part->seen_end;
    memory->committed = part->committed;
}

void kafka_skips_on_regress(struct kafka_source *source, struct kafka_partition *part)
{
    if (part->reset_from >= 0) /* the library has said so */
        return;
    struct kafka_question *question =
        question_add(source, KIND_REGRESS, part->topic, part->partition);
    if (!question)
        return;
    question->from = part->offsets.next;
    question->seen_end = part->seen_end;
}

void kafka_skips_on_end(struct kafka_source *source, struct kafka_partition *part, int64_t high)
{
    if (high >= part->seen_end)
        part->seen_end = high;
    else /* or a new leader that does not know yet what was confirmed: the brokers are asked */
        kafka_skips_on_regress(source, part);
}

void kafka_skips_on_unreadable(struct kafka_source *source, const rd_kafka_message_t *native)
{
    struct kafka_question about = {.topic = (char *)rd_kafka_topic_name(native->rkt),
                                   .partition = native->partition};
    char why[300];
    snprintf(why, sizeof why, "records cannot be decoded and are left out: %.200s",
             rd_kafka_message_errstr(native));
    report(source, &about, SKIPPED_UNREADABLE, native->offset, -1, -1, why);
}

void kafka_skips_open(struct kafka_skips *skips, const rd_kafka_conf_t *conf)
{
    static const char *const latest[] = {"latest", "largest", "end"};
    char text[32] = "";
    size_t size = sizeof text;
    *skips = (struct kafka_skips){.reset = RESET_EARLIEST};
    if (rd_kafka_conf_get(conf, "auto.offset.reset", text, &size) != RD_KAFKA_CONF_OK)
        return;
    for (size_t i = 0; i < sizeof latest / sizeof latest[0]; i++)
        if (strcmp(text, latest[i]) == 0)
            skips->reset = RESET_LATEST;
    if (strcmp(text, "error") == 0)
        skips->reset = RESET_ERROR;
}

/* What was not answered in time is reported without numbers. */
void kafka_skips_close(struct kafka_source *source)
{
    struct kafka_skips *skips = &source->skips;
    for (const struct kafka_question *q = skips->questions; q; q = q->next)
        if (q->kind == KIND_RESET)
            judge(source, q);
    questions_free(skips->questions);
    skips->questions = NULL;
    if (skips->inquiry)
        /* The thread may be in a call: then it is the second, and frees all. */
        inquiry_leave(skips->inquiry);
    skips->inquiry = NULL;
    while (skips->memories) {
        struct kafka_memory *memory = skips->memories;
        skips->memories = memory->next;
        free(memory->topic);
        free(memory);
    }
}
