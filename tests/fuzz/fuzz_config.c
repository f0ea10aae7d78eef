/*
 * fuzz_config.c: any bytes as a configuration file, and as the value of an option. Run by
 * scripts/fuzz.
 *
 * The first byte: 0 to 99 the value of that option, else a file. Whatever is taken must be printed
 * as a file that is taken again.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/config/config_file.h"
#include "worker/config/config_print.h"
#include "worker/config/options.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *environment[] = {"HOME=/home/user", "NAME=value", "EMPTY=", NULL};

static void expect(int is_so)
{
    if (!is_so)
        abort();
}

static struct options *options_new(void)
{
    struct options *options;
    expect(options_open(&options, NULL, NULL, environment) == 0);
    return options;
}

static bool set_value(struct options *options, size_t at, const uint8_t *bytes, size_t len)
{
    char err[600] = "";
    char *value = strndup((const char *)bytes, len);
    size_t n = 0;
    while (options_at(options, n))
        n++;
    const struct option *option = options_at(options, at % n);
    char name[128];
    snprintf(name, sizeof name, "%s%s", option->name,
             option->type == OPTION_MAP ? ".client.id" : "");
    int rc = options_set(options, name, value, ORIGIN_FLAG, "--flag", err, sizeof err);
    expect(rc == 0 || (rc == -EINVAL && err[0]));
    free(value);
    return rc == 0;
}

static bool parse(struct options *options, const char *bytes, size_t len)
{
    char err[1200] = "";
    int rc = config_file_parse(options, "f.yaml", bytes, len, environment, err, sizeof err);
    expect(rc == 0 || (rc == -EBADMSG && strncmp(err, "f.yaml", 6) == 0));
    if (rc != 0 && getenv("FUZZ_VERBOSE"))
        fprintf(stderr, "%s\n", err);
    return rc == 0;
}

static void print_and_parse(const struct options *options)
{
    char *text = NULL;
    size_t len = 0;
    FILE *to = open_memstream(&text, &len);
    expect(to != NULL);
    config_print_effective(options, NULL, to);
    fclose(to);
    struct options *again = options_new();
    expect(parse(again, text, len));
    options_close(again);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct options *options = options_new();
    bool taken = data[0] < 100 ? set_value(options, data[0], data + 1, size - 1)
                               : parse(options, (const char *)data + 1, size - 1);
    if (taken)
        print_and_parse(options);
    options_close(options);
    return 0;
}
