/*
 * dead_letter_codes.c: see dead_letter_codes.h.
 */
#include "connectors/dead_letter_codes.h"

#define CODE(code, stage, meaning, remedy) [DEAD_LETTER_##code] = {#code, #stage, meaning, remedy}

const struct dead_letter_code dead_letter_codes[N_DEAD_LETTER_CODES] = {
    CODE(no_body, decode, "no value, or the field for it is missing",
         "send it, or set `redis.body`"),
    CODE(empty_text, decode, "the value or a text has no bytes", "leave it out"),
    CODE(no_text, decode,
         "neither `text` nor `texts`, or `texts` empty, or an entry without `text`", "send one"),
    CODE(text_too_large, decode, "a text has more bytes than `max_text_size`",
         "split it, or raise the option"),
    CODE(value_too_large, decode, "JSON or msgpack above 64 MiB", "send fewer texts in a message"),
    CODE(too_many_texts, decode,
         "more than `max_texts`, chunks counted, or than the one of a [row](vector-stores.md) in a "
         "queue",
         "send fewer, or raise the option"),
    CODE(too_many_values, decode, "too many keys and values in JSON, or keys in a msgpack map",
         "send fewer, or msgpack"),
    CODE(too_deep, decode, "nested more than 16 deep", "flatten the fields"),
    CODE(bad_json, decode, "not a JSON object, cut, encoded twice, NaN, a number out of range",
         "repair the producer, or set `raw`"),
    CODE(bad_msgpack, decode, "cut, damaged, not a map, a key that is not a string, bytes after it",
         "repair the producer"),
    CODE(not_text, decode,
         "packed, UTF-16, binary (in a folder: the whole file), or in the frame of a schema "
         "registry and not JSON",
         "unpack it, or send UTF-8, JSON or msgpack"),
    CODE(bad_field, decode, "wrong type, bad length of an id, or keys that exclude each other",
         "see the tables above"),
    CODE(table_truncated, decode,
         "a change says that a table was truncated (Debezium's `t`), which names no rows",
         "remove its vectors by hand, or rebuild the index"),
    CODE(duplicate_field, decode, "a key appears twice", "send each key once"),
    CODE(duplicate_id, decode, "two texts of a message have the same id",
         "give each its own, or none"),
    CODE(ids_mismatch, decode, "`ids` or `titles` is not as long as `texts`",
         "send one for each text, or null"),
    CODE(unknown_prompt, decode, "`prompt` is not the name of a prompt",
         "the sentence lists the names"),
    CODE(unknown_model, decode,
         "the field that `model_field` names has another name than the models",
         "the sentence lists the names"),
    CODE(text_too_long, embed,
         "more tokens than the model takes, `too_long=error`; with `chunk`: title and prompt take "
         "more than half of a chunk",
         "split, or set `chunk` or `truncate`; shorten the title"),
    CODE(bad_utf8, embed, "a text or a field is not UTF-8, `bad_utf8=error`",
         "repair, or set `replace`"),
    CODE(bad_embedding, embed, "the result is not a unit vector",
         "a fault of the worker: report it"),
    CODE(output_too_large, publish,
         "the output is larger than the broker takes; or each text is written alone (rows, Redis "
         "`key` and `hash`) and the message's fields, written for each, would be above 64 MiB "
         "(with `hash` each counts 160 bytes more)",
         "send fewer texts in a message or less beside them, or raise `chunk_tokens`"),
    CODE(output_refused, publish,
         "the broker refuses this output and takes others: the sentence has its words",
         "act on them"),
    CODE(key_wrong_type, publish,
         "Redis `hash`: the key of a text holds another type; the sentence names it",
         "delete the key, or choose another `redis.output_prefix`"),
    CODE(key_reserved, publish,
         "Redis `key` and `hash`: `redis.output_prefix` and the id make the name of a stream that "
         "the worker reads or puts dead letters in, or of a key of embedmill's own "
         "(`embedmill:made-with:` and others), or the id ends in `#`",
         "send another id, or choose another prefix"),
    CODE(key_not_allowed, publish,
         "Redis `key` and `hash`: this user may write other keys but not this one; the sentence "
         "names it",
         "allow the key (`ACL SETUSER`), or send other ids"),
    CODE(too_many_deliveries, receive, "workers died or stalled over it too often",
         "look at it before sending again"),
    CODE(line_too_long, receive, "standard input only: above `stdin.max_line`",
         "split it, or raise the option"),
    CODE(record_too_long, receive, "files only: above `file.max_record`",
         "split it, or raise the option"),
    CODE(bad_csv, receive,
         "files only: a row with other columns than the header, or with lost quotes; in a folder a "
         "file without the column",
         "repair it"),
    CODE(damaged_file, receive,
         "a file in a folder that is cut or damaged: from there on it was not read",
         "fetch or pack it again"),
    CODE(unreadable_file, receive,
         "a file or folder in a folder that this user may not read, or that is gone since the "
         "folder was listed",
         "allow it, or put it back"),
    CODE(no_output, decode, "`pull` only: not an output of a worker",
         "see [indexing](indexing.md)"),
    CODE(wrong_dtype, decode, "`pull` only: an output of another `dtype`",
         "see [indexing](indexing.md)"),
    CODE(wrong_model, decode,
         "`pull` only: an output of another model or precision than those in OUT",
         "gather it into another OUT"),
};
