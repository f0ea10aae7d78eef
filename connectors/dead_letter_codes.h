/*
 * dead_letter_codes.h: why a message becomes a dead letter: the one table of codes.
 *
 * Owns:    the name of each code, the stage that finds it, what it means, what to do. Metrics begin
 *          with all of them at 0, `embedmill dlq codes` and docs/wire-format.md show them.
 * Refuses: the sentence of a single case; whoever refuses a message writes it.
 * Threads: a constant table.
 * Why:     consumers of dead letters branch on these names: a code that is not in the table does
 *          not compile.
 */
#ifndef DEAD_LETTER_CODES_H
#define DEAD_LETTER_CODES_H

#include <stddef.h>

/* In the order of the documentation. */
enum dead_letter_id {
    DEAD_LETTER_no_body,
    DEAD_LETTER_empty_text,
    DEAD_LETTER_no_text,
    DEAD_LETTER_text_too_large,
    DEAD_LETTER_value_too_large,
    DEAD_LETTER_too_many_texts,
    DEAD_LETTER_too_many_values,
    DEAD_LETTER_too_deep,
    DEAD_LETTER_bad_json,
    DEAD_LETTER_bad_msgpack,
    DEAD_LETTER_not_text,
    DEAD_LETTER_bad_field,
    DEAD_LETTER_table_truncated,
    DEAD_LETTER_duplicate_field,
    DEAD_LETTER_duplicate_id,
    DEAD_LETTER_ids_mismatch,
    DEAD_LETTER_unknown_prompt,
    DEAD_LETTER_unknown_model,
    DEAD_LETTER_text_too_long,
    DEAD_LETTER_bad_utf8,
    DEAD_LETTER_bad_embedding,
    DEAD_LETTER_output_too_large,
    DEAD_LETTER_output_refused,
    DEAD_LETTER_key_wrong_type,
    DEAD_LETTER_key_reserved,
    DEAD_LETTER_key_not_allowed,
    DEAD_LETTER_too_many_deliveries,
    DEAD_LETTER_line_too_long,
    DEAD_LETTER_record_too_long,
    DEAD_LETTER_bad_csv,
    DEAD_LETTER_damaged_file,
    DEAD_LETTER_unreadable_file,
    DEAD_LETTER_no_output,
    DEAD_LETTER_wrong_dtype,
    DEAD_LETTER_wrong_model,
    N_DEAD_LETTER_CODES
};

struct dead_letter_code {
    const char *name;
    const char *stage;            /* that finds it: receive, decode, embed or publish */
    const char *meaning, *remedy; /* in Markdown, as the documentation shows them */
};

extern const struct dead_letter_code dead_letter_codes[N_DEAD_LETTER_CODES];

/* The name of a code of the table: DEAD_LETTER(bad_json) is "bad_json". */
#define DEAD_LETTER(code) (dead_letter_codes[DEAD_LETTER_##code].name)

#endif
