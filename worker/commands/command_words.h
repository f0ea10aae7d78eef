/*
 * command_words.h: the short form of a command line ("CORPUS -o OUT") into flags of options.
 *
 * Owns:    the copies of the words.
 * Threads: the main thread.
 * Why:     what people type often is short, and every option keeps its one name.
 */
#ifndef COMMAND_WORDS_H
#define COMMAND_WORDS_H

/* "-o" to "--file-output": a short flag that has a value, and what it is short for. */
struct word_alias {
    const char *flag, *option;
};

struct words {
    char **argv; /* [argc], owned */
    int argc;
};

/*
 * fixed: flags put in front; aliases: ended by flag NULL; places: the options of words that belong
 * to no flag, in order, ended by NULL; more words than these are left for config_read to refuse.
 * A flag is taken to have a value, but for --help, --print-config and --no-... 0 or -ENOMEM.
 */
int words_open(struct words *out, int argc, char *const *argv, const char *const *fixed,
               const struct word_alias *aliases, const char *const *places);
void words_close(struct words *words);
/* The value of the last "--option=value"; NULL: none. */
const char *words_find(const struct words *words, const char *option);

#endif
