/*
 * nats_dead_letters.c: reads the dead letters out of the stream that holds them, puts them back.
 *
 * Owns:    where a letter goes back to; that it is deleted when it is there.
 * Refuses: a stream that lets nobody delete: a letter could be put back again and again.
 * Threads: the calling one, and the library's own.
 * Why:     a letter goes back under an id of its own, not the one that the input had: a stream
 *          remembers ids longer than messages and would drop it. The id is that of the letter, so
 *          that a crash between putting it back and deleting it does not put it back twice.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/dead_letters.h"
#include "connectors/nats/nats_call.h"
#include "connectors/nats/nats_json.h"
#include "connectors/nats/nats_record.h"

static const char *const options[] = {"nats.", NULL};

struct nats_dead_letters {
    struct dead_letters base;
    struct nats_config config;
    struct nats_call call;
    const char *to; /* named by the user; NULL: on the input */
    char stream[160];
    char created[40]; /* when: with a sequence it names a letter for good */
    uint64_t last;    /* the last one there was when it was opened */
    bool may_delete;
    struct nats_stored letter;
    char position[240], origin[240];
};

static struct nats_dead_letters *self(struct dead_letters *dlq)
{
    return (struct nats_dead_letters *)dlq;
}

/* ---- opening */

static int find_letters(struct nats_dead_letters *dlq, char *err, size_t err_size)
{
    struct nats_call *call = &dlq->call;
    const char *subject = dlq->config.dead_letter_subject;
    struct nats_error error = {0};
    int rc = nats_call_find_stream(call, subject, dlq->stream, err, err_size);
    if (!rc && !dlq->stream[0]) {
        snprintf(err, err_size,
                 "no stream stores subject %.100s: correct nats.dead_letter_subject, or create one "
                 "(nats stream add NAME --subjects %.100s)",
                 subject, subject);
        return -ENOENT;
    }
    if (!rc)
        rc = nats_call_api(call, "STREAM.INFO.", dlq->stream, "", &error, err, err_size);
    if (!rc && error.code) {
        snprintf(err, err_size, "stream %.100s: %.200s (%" PRId64 ")", dlq->stream, error.text,
                 error.err_code);
        rc = -EIO;
    }
    if (rc)
        return rc;
    /* Letters of later are not met: those that are put back may die again. */
    dlq->last = (uint64_t)nats_json_number(call->body, "state.last_seq", 0);
    dlq->may_delete = !nats_json_bool(call->body, "config.deny_delete");
    nats_json_text(call->body, "created", dlq->created, sizeof dlq->created);
    return 0;
}

static int nats_dead_letters_close(struct dead_letters *base, char *err, size_t err_size)
{
    struct nats_dead_letters *dlq = self(base);
    (void)err, (void)err_size;
    if (!dlq)
        return 0;
    nats_stored_close(&dlq->letter);
    nats_call_close(&dlq->call);
    nats_config_clear(&dlq->config);
    free(dlq);
    return 0;
}

static int nats_dead_letters_open(struct dead_letters **out, const struct settings *settings,
                                  const char *to, char *err, size_t err_size)
{
    struct nats_dead_letters *dlq = calloc(1, sizeof *dlq);
    if (!dlq) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    dlq->base.ops = &nats_dead_letters;
    dlq->to = to;
    int rc = nats_config_read(&dlq->config, settings, err, err_size);
    const struct nats_config *config = &dlq->config;
    if (!rc && to &&
        (!nats_subject_is_literal(to) || strcmp(to, config->output_subject) == 0 ||
         strcmp(to, config->dead_letter_subject) == 0)) {
        snprintf(
            err, err_size,
            "'%.200s' is not a subject, or one of dead letters or outputs: name one that is an "
            "input",
            to);
        rc = -ENOTSUP;
    }
    if (!rc)
        rc = nats_call_open(&dlq->call, config, err, err_size);
    if (!rc)
        rc = find_letters(dlq, err, err_size);
    if (rc) {
        nats_dead_letters_close(&dlq->base, NULL, 0);
        return rc;
    }
    *out = &dlq->base;
    return 0;
}

/* ---- looking through them */

static void read_letter(struct nats_dead_letters *dlq, struct dead_letter *out)
{
    const struct nats_stored *stored = &dlq->letter;
    struct bytes stream = nats_stored_find(stored, "_stream");
    struct bytes sequence = nats_stored_find(stored, "_sequence");
    snprintf(dlq->position, sizeof dlq->position, "%s %" PRIu64, dlq->stream, stored->sequence);
    *out = (struct dead_letter){
        .position = bytes_of(dlq->position),
        .origin = nats_stored_find(stored, "_position"),
        .code = nats_stored_find(stored, "_code"),
        .reason = nats_stored_find(stored, "_error"),
        .value = {stored->value.ptr ? stored->value.ptr : "", stored->value.len}};
    if (!stream.ptr || !sequence.ptr)
        return;
    snprintf(dlq->origin, sizeof dlq->origin, "%.*s %.*s", stream.len < 200 ? (int)stream.len : 200,
             stream.ptr, sequence.len < 20 ? (int)sequence.len : 20, sequence.ptr);
    out->origin = bytes_of(dlq->origin);
}

static int nats_dead_letters_next(struct dead_letters *base, struct dead_letter *out, char *err,
                                  size_t err_size)
{
    struct nats_dead_letters *dlq = self(base);
    struct nats_stored *stored = &dlq->letter;
    /* The sequence of the last letter read, 0 at first. */
    if (stored->sequence >= dlq->last)
        return 0;
    int rc = nats_call_next(&dlq->call, dlq->stream, dlq->config.dead_letter_subject,
                            stored->sequence + 1, stored, err, err_size);
    if (rc != 1 || stored->sequence > dlq->last) /* of later: they died meanwhile */
        return rc < 0 ? rc : 0;
    read_letter(dlq, out);
    return 1;
}

/* ---- putting back */

static const char *choose_target(const struct nats_dead_letters *dlq, char subject[256])
{
    struct bytes from = nats_stored_find(&dlq->letter, "_subject");
    const struct nats_config *config = &dlq->config;
    snprintf(subject, 256, "%.*s", from.len < 256 ? (int)from.len : 0, from.ptr ? from.ptr : "");
    if (dlq->to)
        return dlq->to;
    /* The header is anybody's to write: what is not a subject cannot be published to. */
    if (nats_subject_is_literal(subject))
        return subject;
    return config->subject && nats_subject_is_literal(config->subject) ? config->subject
                                                                       : config->stream;
}

/* As it came, without what the dead letter added. */
static natsMsg *build(const struct nats_dead_letters *dlq, const char *subject)
{
    const struct nats_stored *stored = &dlq->letter;
    natsMsg *message = NULL;
    struct header header;
    char id[300];
    size_t size = 0;
    if (natsMsg_Create(&message, subject, NULL, stored->value.ptr, (int)stored->value.len) !=
        NATS_OK)
        return NULL;
    snprintf(id, sizeof id, "embedmill-replay %s %s %" PRIu64, dlq->stream, dlq->created,
             stored->sequence);
    /* Before the letter's own headers, of which nats_record_is_ours leaves out Nats-Msg-Id. */
    int rc = natsMsgHeader_Set(message, "Nats-Msg-Id", id) == NATS_OK ? 0 : -ENOMEM;
    for (size_t at = 0; !rc && nats_stored_header(stored, &at, &header);)
        if (!nats_record_is_ours(header.name))
            rc = nats_record_add_header(message, header.name, header.value, &size);
    if (!rc)
        return message;
    natsMsg_Destroy(message);
    return NULL;
}

/* 1, or 0: somebody else did. */
static int take_off(struct nats_dead_letters *dlq, char *err, size_t err_size)
{
    char text[80];
    struct nats_error error;
    /* no_erase: overwriting it with random bytes is for secrets, and slow. */
    snprintf(text, sizeof text, "{\"seq\":%" PRIu64 ",\"no_erase\":true}", dlq->letter.sequence);
    int rc =
        nats_call_api(&dlq->call, "STREAM.MSG.DELETE.", dlq->stream, text, &error, err, err_size);
    if (rc || !error.code)
        return rc ? rc : 1;
    if (error.code == 404)
        return 0;
    snprintf(err, err_size, "%s is put back, and cannot be deleted here: %.200s (%" PRId64 ")",
             dlq->position, error.text, error.err_code);
    return -EIO;
}

static int nats_dead_letters_replay(struct dead_letters *base, char *err, size_t err_size)
{
    struct nats_dead_letters *dlq = self(base);
    char subject[256];
    struct nats_error error;
    if (!dlq->may_delete) {
        snprintf(
            err, err_size,
            "stream %.100s has deny_delete, so a dead letter that was put back would stay and be "
            "put back again: allow it to delete",
            dlq->stream);
        return -EACCES;
    }
    const char *target = choose_target(dlq, subject);
    natsMsg *message = build(dlq, target);
    if (!message) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    int rc = nats_call_ask(&dlq->call, message, err, err_size);
    if (rc == -ENOTSUP)
        snprintf(err, err_size, "no stream stores subject %.200s: name another with --to", target);
    if (rc)
        return rc == -ENOTSUP ? -EINVAL : rc;
    nats_reply_error(dlq->call.answer, &error);
    if (error.code || !nats_json_find(dlq->call.body, "seq").ptr) {
        snprintf(err, err_size, "putting %s back on %.100s: %.200s (%" PRId64 ")", dlq->position,
                 target, error.code ? error.text : "no stream answers there", error.err_code);
        return -EIO;
    }
    /* Only now: it is stored where it goes. */
    return take_off(dlq, err, err_size);
}

static const char *find_place(const struct settings *settings)
{
    return settings_model_from(settings, "nats.dead_letter_subject", "nats.stream");
}

const struct dead_letters_ops nats_dead_letters = {
    .options = options,
    .place = find_place,
    .open = nats_dead_letters_open,
    .next = nats_dead_letters_next,
    .replay = nats_dead_letters_replay,
    .close = nats_dead_letters_close,
};
