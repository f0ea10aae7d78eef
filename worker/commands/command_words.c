/*
 * command_words.c: see command_words.h.
 */
#include "worker/commands/command_words.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int add(struct words *words, const char *option, const char *value)
{
    size_t size = (option ? strlen(option) + 1 : 0) + strlen(value) + 1;
    char *word = malloc(size);
    if (!word)
        return -ENOMEM;
    snprintf(word, size, "%s%s%s", option ? option : "", option ? "=" : "", value);
    words->argv[words->argc++] = word;
    return 0;
}

static const char *find_alias(const struct word_alias *aliases, const char *word, size_t len)
{
    for (; aliases->flag; aliases++)
        if (strlen(aliases->flag) == len && strncmp(aliases->flag, word, len) == 0)
            return aliases->option;
    return NULL;
}

static bool stands_alone(const char *word)
{
    static const char *const always[] = {"-h", "--help", "--print-config", NULL};
    if (strchr(word, '=') || strncmp(word, "--no-", 5) == 0)
        return true;
    for (size_t i = 0; always[i]; i++)
        if (strcmp(word, always[i]) == 0)
            return true;
    return false;
}

int words_open(struct words *out, int argc, char *const *argv, const char *const *fixed,
               const struct word_alias *aliases, const char *const *places)
{
    int room = argc + 1, rc = 0;
    for (size_t i = 0; fixed[i]; i++)
        room++;
    struct words words = {.argv = calloc((size_t)room, sizeof *words.argv)};
    if (!words.argv)
        return -ENOMEM;
    for (; *fixed && rc == 0; fixed++)
        rc = add(&words, NULL, *fixed);
    for (int i = 0; i < argc && rc == 0; i++) {
        const char *word = argv[i], *next = i + 1 < argc ? argv[i + 1] : NULL;
        size_t len = strcspn(word, "=");
        const char *option = find_alias(aliases, word, len);
        bool is_flag = word[0] == '-' && word[1] != '\0';
        if (option && word[len] == '=')
            rc = add(&words, option, word + len + 1);
        else if (option && next)
            rc = add(&words, option, argv[++i]);
        else if (!is_flag && *places)
            rc = add(&words, *places++, word);
        else
            rc = add(&words, NULL, word);
        if (rc == 0 && is_flag && !option && next && !stands_alone(word))
            rc = add(&words, NULL, argv[++i]);
    }
    if (rc != 0)
        words_close(&words);
    else
        *out = words;
    return rc;
}

void words_close(struct words *words)
{
    for (int i = 0; i < words->argc; i++)
        free(words->argv[i]);
    free(words->argv);
    *words = (struct words){0};
}

const char *words_find(const struct words *words, const char *option)
{
    size_t len = strlen(option);
    for (int i = words->argc - 1; i >= 0; i--)
        if (strncmp(words->argv[i], option, len) == 0 && words->argv[i][len] == '=')
            return words->argv[i] + len + 1;
    return NULL;
}
