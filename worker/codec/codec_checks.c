/*
 * codec_checks.c: what every form of input is held to.
 *
 * Owns:    refusals, names of fields, the limits on texts and values.
 * Threads: no state.
 */
#include "worker/codec/codec_internal.h"
#include "connectors/dead_letter_codes.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int codec_refuse(struct refusal *why, const char *code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(why->reason, sizeof why->reason, format, args);
    va_end(args);
    why->code = code;
    return -EINVAL;
}

/* The last one wins, as for readers of Kafka headers; a header without a value says nothing. */
struct bytes codec_header(const struct message *message, const char *name)
{
    size_t len = strlen(name);
    for (size_t i = message->n_headers; i-- > 0;) {
        const struct header *header = &message->headers[i];
        if (header->value.len > 0 && header->name.len == len &&
            memcmp(header->name.ptr, name, len) == 0)
            return header->value;
    }
    return (struct bytes){NULL, 0};
}

const char *codec_field_name(const struct decode *decode, int field)
{
    static const char *const names[CODEC_N_FIELDS] = {"text",  "texts",  "id",    "ids",
                                                      "title", "titles", "prompt"};
    const char *text = decode->options->text_field, *id = decode->options->id_field;
    return field == CODEC_FIELD_TEXT && text ? text
           : field == CODEC_FIELD_ID && id   ? id
                                             : names[field];
}

int codec_text_check(const struct decode *decode, struct bytes text, const char *place)
{
    size_t max = decode->options->max_text_bytes;
    if (text.len == 0)
        return codec_refuse(decode->why, DEAD_LETTER(empty_text),
                            "%s is empty; send at least one byte of text, or leave it out", place);
    if (text.len > max)
        return codec_refuse(decode->why, DEAD_LETTER(text_too_large),
                            "%s has %zu bytes and the limit is %zu; split the text or raise the "
                            "limit",
                            place, text.len, max);
    return 0;
}

int codec_size_check(const struct decode *decode)
{
    size_t len = decode->message->value.len;
    if (len > CODEC_VALUE_BYTES_MAX)
        return codec_refuse(decode->why, DEAD_LETTER(value_too_large),
                            "the value has %zu bytes and the limit for JSON and msgpack is %d; "
                            "send fewer texts in one message",
                            len, CODEC_VALUE_BYTES_MAX);
    return 0;
}

size_t codec_values_max(const struct decode *decode)
{
    return CODEC_JSON_VALUES_MAX + 16 * decode->max_texts;
}
