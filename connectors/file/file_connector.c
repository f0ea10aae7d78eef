/*
 * file_connector.c: the connectors `file`, `stdin` and `stdout`, and the options of the first two.
 *
 * Owns:    names, defaults and help of the options file.* and stdin.*.
 */
#include "connectors/file/file.h"
#include "connectors/file/lines.h"

static const struct option file_options[] = {
    {"file.path", OPTION_TEXT, NULL, NULL, 0, 0, "PATH",
     "What the source `file` reads: a file (gzip and zstd are unpacked), a folder, or - for "
     "standard input."},
    {"file.format", OPTION_CHOICE, "auto", "auto|jsonl|lines|csv|text", 0, 0, "FORMAT",
     "What one message is: a line (jsonl: of JSON), a row of CSV, or a whole file (text). auto: by "
     "the name; a folder is text."},
    {"file.column", OPTION_TEXT, "text", NULL, 0, 0, "NAME", "CSV: the column to embed."},
    {"file.delimiter", OPTION_TEXT, "auto", NULL, 0, 0, "CHARACTER",
     "CSV: the character between columns, or tab. auto: a tab in a .tsv; else what a line sep=; "
     "says; else the first of , ; tab | with which the header has the column."},
    {"file.id", OPTION_TEXT, "id", NULL, 0, 0, "NAME",
     "CSV: the column with the id; without it the line number is the id."},
    {"file.shard", OPTION_TEXT, "1/1", NULL, 0, 0, "I/N",
     "Take only the I-th of every N records, so that N processes share a corpus."},
    {"file.max_record", OPTION_SIZE, "16MiB", NULL, 1024, 1 << 30, "SIZE",
     "Longest line, row or file; a longer one is an error, and the rest goes on."},
    {"file.output", OPTION_TEXT, NULL, NULL, 0, 0, "FILE",
     "Where the sink `file` writes: vectors alone when the name ends in .npy, else encoded "
     "records. An existing file is continued."},
    {NULL, 0, NULL, NULL, 0, 0, NULL, NULL},
};

static const struct option stdin_options[] = {
    {"stdin.max_line", OPTION_SIZE, "16MiB", NULL, 1024, 1 << 30, "SIZE",
     "Longest line of standard input; a longer one is an error, and the rest goes on."},
    {NULL, 0, NULL, NULL, 0, 0, NULL, NULL},
};

const struct connector file_connector = {
    .name = "file",
    .options = file_options,
    .source = &file_source,
    .sink = &file_sink,
};

const struct connector stdin_connector = {
    .name = "stdin",
    .options = stdin_options,
    .source = &stdin_source,
};

const struct connector stdout_connector = {
    .name = "stdout",
    .sink = &stdout_sink,
};
