/*
 * command_version.c: `embedmill version`: what this program is, was built with and can talk to.
 */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

#include "connectors/check.h"
#include "connectors/connector.h"
#include "worker/commands/command.h"

#if defined(__x86_64__)
#define ARCHITECTURE "x86_64"
#elif defined(__aarch64__)
#define ARCHITECTURE "aarch64"
#else
#define ARCHITECTURE "other"
#endif

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZER "address"
#elif defined(__SANITIZE_THREAD__)
#define SANITIZER "thread"
#else
#define SANITIZER "none"
#endif

static void print_names(bool json, bool is_source)
{
    const char *before = "";
    for (size_t i = 0; all_connectors[i]; i++) {
        const struct connector *connector = all_connectors[i];
        if (is_source ? !connector->source : !connector->sink)
            continue;
        printf(json ? "%s\"%s\"" : "%s%s", before, connector->name);
        before = json ? ", " : " ";
    }
}

/* A finding_cb. What is known against a library follows its version, and is for `doctor`. */
static void print_library(void *ctx, enum finding how, const char *what, const char *said)
{
    const bool *json = ctx;
    (void)how;
    printf(*json ? ", \"%s\": \"%.*s\"" : ", %s %.*s", what, (int)strcspn(said, ":"), said);
}

static void print_libraries(bool json)
{
    printf(json ? "\"libuv\": \"%s\"" : "libuv %s", uv_version_string());
    for (size_t i = 0; all_connectors[i]; i++)
        if (all_connectors[i]->check && all_connectors[i]->check->library)
            all_connectors[i]->check->library(print_library, &json);
}

static void print_json(void)
{
    printf("{\"version\": \"%s\", \"architecture\": \"%s\", \"compiler\": \"%s\", "
           "\"sanitizer\": \"%s\", \"libuv\": \"%s\", \"libraries\": {",
           EMBEDMILL_VERSION, ARCHITECTURE, __VERSION__, SANITIZER, uv_version_string());
    print_libraries(true);
    printf("}, \"sources\": [");
    print_names(true, true);
    printf("], \"sinks\": [");
    print_names(true, false);
    printf("]}\n");
}

static void print_lines(void)
{
    printf("embedmill %s\n", EMBEDMILL_VERSION);
    printf("built for %s with compiler %s, sanitizer: %s\n", ARCHITECTURE, __VERSION__, SANITIZER);
    printf("libraries: ");
    print_libraries(false);
    printf("\nsources: ");
    print_names(false, true);
    printf("\nsinks: ");
    print_names(false, false);
    printf("\n");
}

static int run(const struct invocation *invocation)
{
    if (settings_bool(invocation->settings, "json"))
        print_json();
    else
        print_lines();
    return COMMAND_OK;
}

static const struct command_ending endings[] = {
    {COMMAND_OK, NULL}, {COMMAND_USAGE, NULL}, COMMAND_END};

static const struct option table[] = {
    {"json", OPTION_BOOL, "false", NULL, 0, 0, NULL, "One JSON object."},
    {NULL, 0, NULL, NULL, 0, 0, NULL, NULL},
};

const struct command command_version = {
    .name = "version",
    .summary = "prints what this program is and was built with",
    .synopsis = "[--json]",
    .text = "Print the version, the compiler, the libraries, and the sources and sinks there are.",
    .endings = endings,
    .own = table,
    .syntax = {.flags_only = true},
    .run = run,
};
