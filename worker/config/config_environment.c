/*
 * config_environment.c: see config_environment.h.
 */
#include "worker/config/config_environment.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/config/environment.h"
#include "worker/config/name.h"

#define PREFIX     "EMBEDMILL_"
#define PREFIX_LEN (sizeof PREFIX - 1)

/*
 * Kubernetes sets SERVICE_HOST, SERVICE_PORT[_NAME], PORT and PORT_<n>_<protocol>[...] for every
 * service of the namespace, so a service called embedmill or embedmill-redis lands in our prefix.
 */
static bool is_kubernetes(const char *name, const char *value)
{
    if (name_ends_with(name, "SERVICE_HOST") || strstr(name, "SERVICE_PORT"))
        return true;
    if (name_ends_with(name, "_PORT"))
        return strncmp(value, "tcp://", 6) == 0 || strncmp(value, "udp://", 6) == 0;
    const char *port = strstr(name, "_PORT_");
    return port && isdigit((unsigned char)port[6]) &&
           (strstr(port, "_TCP") || strstr(port, "_UDP"));
}

/*
 * The option a variable stands for; full: the name of the value. Below a map every underscore is a
 * dot: KAFKA_SASL_PASSWORD is kafka.sasl.password.
 */
static const struct option *find(const struct options *options, const char *name, char full[128])
{
    char variable[128];
    const struct option *option, *map = NULL;
    for (size_t i = 0; (option = options_at(options, i)); i++) {
        options_variable_name(option->name, variable, sizeof variable);
        size_t len = strlen(variable);
        if (option->type != OPTION_MAP && strcmp(variable, name) == 0) {
            snprintf(full, 128, "%s", option->name);
            return option;
        }
        /* To the end of the table: an option of that very name goes before what is below a map. */
        if (option->type == OPTION_MAP && strncmp(variable, name, len) == 0 && name[len] == '_' &&
            name[len + 1])
            map = option;
    }
    if (!map)
        return NULL;
    size_t n = 0;
    for (; name[n] && n + 1 < 128; n++)
        full[n] = name[n] == '_' ? '.' : (char)tolower((unsigned char)name[n]);
    full[n] = '\0';
    return map;
}

/* One line break at the end is the editor's, not the secret's. */
static int read_secret(const char *where, const char *path, char *out, size_t size, char *err,
                       size_t err_size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    /* One read: secrets are small files, and a pipe gives what was written at once. */
    ssize_t n = fd < 0 ? -1 : read(fd, out, size);
    int error = errno;
    if (fd >= 0)
        close(fd);
    if (n < 0) {
        snprintf(err, err_size, "%s: cannot read %.200s: %s", where, path, strerror(error));
        return -EBADMSG;
    }
    /* Full: it may have been longer. A NUL: the file is a key in binary, or not a secret at all. */
    if ((size_t)n == size || memchr(out, '\0', (size_t)n)) {
        snprintf(err, err_size, "%s: %.200s does not hold a secret: expected one line of text",
                 where, path);
        return -EBADMSG;
    }
    if (n > 0 && out[n - 1] == '\n')
        n--;
    if (n > 0 && out[n - 1] == '\r')
        n--;
    out[n] = '\0';
    return 0;
}

static int set_from_file(struct options *options, char *const *environment, const char *name,
                         const char *full, const char *path, char *err, size_t err_size)
{
    char where[160], secret[4096];
    size_t value_len = strlen(name) - 5; /* without _FILE */
    snprintf(where, sizeof where, PREFIX "%.100s", name);
    const char *both = environment_get(environment, where, PREFIX_LEN + value_len);
    if (both && both[0]) {
        snprintf(err, err_size, "%s: " PREFIX "%.*s is set too; expected only one of them", where,
                 (int)value_len, name);
        return -EBADMSG;
    }
    int rc = read_secret(where, path, secret, sizeof secret, err, err_size);
    if (rc == 0)
        rc = options_set(options, full, secret, ORIGIN_ENVIRONMENT, where, err, err_size);
    explicit_bzero(secret, sizeof secret);
    return rc;
}

static int refuse_unknown(const struct options *options, const char *name, char *err,
                          size_t err_size)
{
    char variable[128];
    if (strcmp(name, "CONFIG") == 0) {
        snprintf(err, err_size, PREFIX "CONFIG: the file is named by the flag --config only");
        return -EBADMSG;
    }
    const char *near = options_nearest(options, name);
    if (near)
        options_variable_name(near, variable, sizeof variable);
    snprintf(err, err_size, PREFIX "%.100s: unknown option%s%s%s", name,
             near ? "; did you mean " PREFIX : "; --help lists all", near ? variable : "",
             near ? "?" : "");
    return -EBADMSG;
}

static int read_variable(struct options *options, char *const *environment, const char *name,
                         const char *value, char *err, size_t err_size)
{
    char where[160], base[128], full[128];
    const struct option *option = find(options, name, full);
    /* Only an unknown name is refused when empty: a template leaves known ones empty on purpose. */
    if (is_kubernetes(name, value) || (option && value[0] == '\0'))
        return 0;
    snprintf(where, sizeof where, PREFIX "%.120s", name);
    /* KAFKA_SASL_PASSWORD_FILE is the file of a secret below the map, and not its key
     * password.file. */
    if (option && !(option->type == OPTION_MAP && name_ends_with(name, "_FILE")))
        return options_set(options, full, value, ORIGIN_ENVIRONMENT, where, err, err_size);
    if (name_ends_with(name, "_FILE")) {
        snprintf(base, sizeof base, "%.*s", (int)(strlen(name) - 5), name);
        option = find(options, base, full);
        if (option && (option->type == OPTION_SECRET || option->type == OPTION_MAP))
            return value[0] == '\0'
                       ? 0
                       : set_from_file(options, environment, name, full, value, err, err_size);
        if (option) {
            snprintf(err, err_size, "%s: %s is not a secret; expected its value in " PREFIX "%s",
                     where, option->name, base);
            return -EBADMSG;
        }
    }
    return refuse_unknown(options, name, err, err_size);
}

static bool is_ours(const char *variable)
{
    return strncmp(variable, PREFIX, PREFIX_LEN) == 0 &&
           strncmp(variable + PREFIX_LEN, "TEST_", 5) != 0 && strchr(variable, '=');
}

/* As names below a map are read; the end of a name is before all else. */
static int name_char(char c)
{
    return c == '=' ? '\0' : c == '_' ? '.' : tolower((unsigned char)c);
}

static int compare(const void *left, const void *right)
{
    char *const *a = *(char *const *const *)left, *const *b = *(char *const *const *)right;
    size_t i = 0;
    while (name_char((*a)[i]) == name_char((*b)[i]) && (*a)[i] != '=')
        i++;
    int order = name_char((*a)[i]) - name_char((*b)[i]);
    return order ? order : (a > b) - (a < b); /* of one name the last counts */
}

/* By name: the order of variables is by chance, and that of models means something. */
int config_environment_read(struct options *options, char *const *environment, char *err,
                            size_t err_size)
{
    size_t n = 0, n_ours = 0;
    int rc = 0;
    while (environment && environment[n])
        n++;
    char *const **ours = malloc((n + 1) * sizeof *ours);
    if (!ours) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    for (size_t i = 0; i < n; i++)
        if (is_ours(environment[i]))
            ours[n_ours++] = &environment[i];
    qsort(ours, n_ours, sizeof *ours, compare);
    for (size_t i = 0; i < n_ours && rc == 0; i++) {
        const char *name = *ours[i] + PREFIX_LEN, *value = strchr(name, '=') + 1;
        char cut[128];
        snprintf(cut, sizeof cut, "%.*s", (int)(value - 1 - name), name);
        rc = read_variable(options, environment, cut, value, err, err_size);
    }
    free(ours);
    return rc;
}
