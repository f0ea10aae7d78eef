/*
 * command_top.c: `embedmill top`: one or many workers at a glance, from their own endpoints.
 *
 * Owns:    asking all of them at once, again and again, and the table.
 * Refuses: history: that is Prometheus' business.
 * Threads: the main thread.
 * Why:     at night, over ssh, without a dashboard. Plain ANSI on a terminal; else one table, whose
 *          rates are of one interval.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <uv.h>

#include "worker/commands/command.h"
#include "worker/commands/http_get.h"
#include "worker/commands/scrape.h"

static const struct command_ending endings[] = {
    {COMMAND_OK, "All workers answered."},
    {COMMAND_USAGE, NULL},
    {COMMAND_UNAVAILABLE, "Some did not (--once)."},
    COMMAND_END,
};

static const struct option table[] = {
    {"addresses", OPTION_TEXT, NULL, NULL, 0, 0, "HOST:PORT",
     "The workers' --metrics-listen, with commas between; not given: that of "
     "EMBEDMILL_METRICS_LISTEN, else 127.0.0.1:9464."},
    {"interval", OPTION_TEXT, "2", NULL, 0, 0, "SECONDS", "Between two looks."},
    {"once", OPTION_BOOL, "false", NULL, 0, 0, NULL,
     "Print one table and exit, as when output is not a terminal."},
    {NULL, 0, NULL, NULL, 0, 0, NULL, NULL},
};

enum { PATIENCE_MS = 5000 };

struct node {
    struct top *top;
    const char *address;
    struct http_get *request; /* NULL: none under way */
    int status;               /* of the last answer */
    struct scrape now, before;
    uint64_t now_ms, before_ms; /* 0: none */
};

struct top {
    uv_loop_t loop;
    uv_timer_t timer;
    uv_signal_t interrupt, terminate;
    struct node *nodes; /* [n_nodes] */
    size_t n_nodes, n_pending, n_rounds;
    uint64_t interval_ms;
    bool once, all_answered, stopping;
};

/* 1234567 as "1235k"; -1 as "-". */
static const char *short_number(double value, char out[16])
{
    if (value < 0 || !isfinite(value))
        snprintf(out, 16, "-");
    else if (value >= 1e7)
        snprintf(out, 16, "%.0fM", value / 1e6);
    else if (value >= 1e5)
        snprintf(out, 16, "%.0fk", value / 1e3);
    else if (value > 0 && value < 100 && value != floor(value))
        snprintf(out, 16, "%.1f", value);
    else
        snprintf(out, 16, "%.0f", value);
    return out;
}

static double rate(double now, double before, double seconds)
{
    if (seconds <= 0)
        return -1;
    return now >= before ? (now - before) / seconds : now / seconds; /* it was restarted */
}

struct row {
    const char *name, *state;
    double texts, tokens, lag, inflight, p50, p95, e2e, dead, faults, busy, cpu, memory;
};

static void print_row(const struct row *row, int width)
{
    char b[11][16], cpu[16], busy[24], line[300];
    double scale[] = {row->texts,
                      row->tokens,
                      row->lag,
                      row->inflight,
                      row->p50 < 0 ? -1 : row->p50 * 1e3,
                      row->p95 < 0 ? -1 : row->p95 * 1e3,
                      row->e2e,
                      row->dead,
                      row->faults,
                      row->busy < 0 ? -1 : row->busy * 100,
                      row->memory < 0 ? -1 : row->memory / (1 << 20)};
    for (size_t i = 0; i < sizeof scale / sizeof scale[0]; i++)
        short_number(scale[i], b[i]);
    snprintf(busy, sizeof busy, "%s%s", b[9], row->busy < 0 ? "" : "%");
    snprintf(line, sizeof line, "%-22.22s %-8.8s %7s %8s %7s %6s %6s %6s %7s %5s %5s %5s %5s %6s",
             row->name, row->state, b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], busy,
             short_number(row->cpu, cpu), b[10]);
    printf("%.*s", width, line);
}

static const struct row nothing = {.texts = -1,
                                   .tokens = -1,
                                   .lag = -1,
                                   .inflight = -1,
                                   .p50 = -1,
                                   .p95 = -1,
                                   .e2e = -1,
                                   .dead = -1,
                                   .faults = -1,
                                   .busy = -1,
                                   .cpu = -1,
                                   .memory = -1};

static bool is_up(const struct node *node)
{
    return node->status == 200 && node->now.valid;
}

static struct row row_of(const struct node *node)
{
    const struct scrape *now = &node->now, *before = node->before_ms ? &node->before : NULL;
    struct row row = nothing;
    row.name = node->address;
    row.state = node->status == -ECONNREFUSED ? "refused"
                : node->status == -ETIMEDOUT  ? "silent"
                : node->status < 0            ? "away"
                : !is_up(node)                ? "no data"
                : now->ready                  ? "ready"
                                              : "waiting";
    if (!is_up(node))
        return row;
    double seconds = before ? (double)(node->now_ms - node->before_ms) / 1e3 : 0;
    row.texts = rate(now->texts, before ? before->texts : 0, seconds);
    row.tokens = rate(now->tokens, before ? before->tokens : 0, seconds);
    row.cpu = rate(now->cpu_seconds, before ? before->cpu_seconds : 0, seconds);
    row.lag = scrape_lag((const struct scrape *const[]){now}, 1);
    row.inflight = now->inflight;
    row.p50 = scrape_quantile(&now->embedding, before ? &before->embedding : NULL, 0.5);
    row.p95 = scrape_quantile(&now->embedding, before ? &before->embedding : NULL, 0.95);
    row.e2e = scrape_quantile(&now->end_to_end, before ? &before->end_to_end : NULL, 0.95);
    row.dead = now->dead_letters;
    row.faults = now->faults;
    row.busy = now->busy_ratio;
    row.memory = now->private_memory;
    return row;
}

static void add(double *sum, double value)
{
    if (value >= 0)
        *sum = (*sum < 0 ? 0 : *sum) + value;
}

/* Of all workers' texts together since the last look; when there was none, since they began. */
static void quantiles_of_all(const struct top *top, struct row *all)
{
    struct scrape_histogram now[2] = {{.n = 0}}, before[2] = {{.n = 0}};
    bool any_before = false;
    for (size_t i = 0; i < top->n_nodes; i++)
        any_before |= is_up(&top->nodes[i]) && top->nodes[i].before_ms;
    for (size_t i = 0; i < top->n_nodes; i++) {
        const struct node *node = &top->nodes[i];
        /* A worker met for the first time has counted since its start: it would outweigh the
         * interval. */
        if (!is_up(node) || (any_before && !node->before_ms))
            continue;
        scrape_add(&now[0], &node->now.embedding);
        scrape_add(&now[1], &node->now.end_to_end);
        if (any_before) {
            scrape_add(&before[0], &node->before.embedding);
            scrape_add(&before[1], &node->before.end_to_end);
        }
    }
    all->p50 = scrape_quantile(&now[0], &before[0], 0.5);
    all->p95 = scrape_quantile(&now[0], &before[0], 0.95);
    all->e2e = scrape_quantile(&now[1], &before[1], 0.95);
}

/* Whether it has a second line, of what it serves over HTTP. */
static bool is_serving(const struct node *node)
{
    return is_up(node) && node->now.serves;
}

/* Below the row of a worker that serves over HTTP, too. */
static void print_served(const struct node *node, int width, const char *end)
{
    const struct scrape *now = &node->now, *before = node->before_ms ? &node->before : NULL;
    double seconds = before ? (double)(node->now_ms - node->before_ms) / 1e3 : 0;
    char b[5][16], line[300];
    double wait = scrape_quantile(&now->http_wait, before ? &before->http_wait : NULL, 0.95);
    double took = scrape_quantile(&now->http_took, before ? &before->http_took : NULL, 0.95);
    if (!is_serving(node))
        return;
    snprintf(line, sizeof line,
             "  http %s requests/s, %s refused/s, %s tokens wait, P95 %s ms of which %s ms waiting",
             short_number(rate(now->requests, before ? before->requests : 0, seconds), b[0]),
             short_number(rate(now->refused, before ? before->refused : 0, seconds), b[1]),
             short_number(now->waiting_tokens, b[2]),
             short_number(took < 0 ? -1 : took * 1e3, b[3]),
             short_number(wait < 0 ? -1 : wait * 1e3, b[4]));
    printf("%.*s%s", width, line, end);
}

/* Sums, and the mean of the shares. */
static struct row row_of_all(const struct top *top, const struct scrape **scrapes)
{
    struct row all = nothing;
    size_t n = 0;
    for (size_t i = 0; i < top->n_nodes; i++) {
        const struct node *node = &top->nodes[i];
        struct row row = row_of(node);
        if (!is_up(node))
            continue;
        scrapes[n++] = &node->now;
        add(&all.texts, row.texts);
        add(&all.tokens, row.tokens);
        add(&all.inflight, row.inflight);
        add(&all.dead, row.dead);
        add(&all.faults, row.faults);
        add(&all.cpu, row.cpu);
        add(&all.memory, row.memory);
        add(&all.busy, row.busy);
    }
    all.name = "all";
    all.state = n == top->n_nodes ? "" : "partly";
    all.busy = n ? all.busy / (double)n : -1;
    all.lag = scrape_lag(scrapes, n);
    quantiles_of_all(top, &all);
    return all;
}

/* How many workers there is room for, in lines, that of those left out included. */
static size_t count_shown(const struct top *top, size_t room)
{
    size_t n_lines = top->n_nodes, n = 0;
    for (size_t i = 0; i < top->n_nodes; i++)
        n_lines += is_serving(&top->nodes[i]);
    if (n_lines <= room)
        return top->n_nodes;
    /* One at least is shown, however small the window is. */
    room -= room > 1;
    for (n_lines = 0; n < top->n_nodes && n_lines < room; n++)
        n_lines += 1 + is_serving(&top->nodes[n]);
    return n_lines > room && n > 1 ? n - 1 : n;
}

static void draw(struct top *top)
{
    struct winsize window;
    bool terminal = !top->once;
    int width = 200, height = 1000;
    const char *end = terminal ? "\x1b[K\r\n" : "\n";
    const struct scrape **scrapes = calloc(top->n_nodes, sizeof *scrapes);
    /* Asked each time: windows change their size. */
    if (terminal && ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 1) {
        width = window.ws_col;
        height = window.ws_row;
    }
    if (terminal)
        fputs("\x1b[H", stdout);
    printf("%.*s%s", width,
           "WORKER                 STATE    TEXTS/S TOKENS/S     LAG FLIGHT    P50    P95   E2E95  "
           "DEAD FAULT  BUSY   CPU    MEM",
           end);
    /* Below them there are the line of all and, when it is needed, that of those left out. */
    size_t room = height > 4 ? (size_t)height - 3 : 1;
    size_t shown = count_shown(top, room);
    for (size_t i = 0; i < shown; i++) {
        struct row row = row_of(&top->nodes[i]);
        print_row(&row, width);
        fputs(end, stdout);
        print_served(&top->nodes[i], width, end);
    }
    if (shown < top->n_nodes)
        printf("%.*s%zu more%s", width > 20 ? width - 20 : 0, "... and ", top->n_nodes - shown,
               end);
    if (scrapes && top->n_nodes > 1) {
        struct row all = row_of_all(top, scrapes);
        print_row(&all, width);
        fputs(end, stdout);
    }
    free(scrapes);
    if (terminal)
        fputs("\x1b[J", stdout);
    fflush(stdout);
}

static void stop(struct top *top)
{
    if (top->stopping)
        return;
    top->stopping = true;
    uv_close((uv_handle_t *)&top->timer, NULL);
    uv_close((uv_handle_t *)&top->interrupt, NULL);
    uv_close((uv_handle_t *)&top->terminate, NULL);
    for (size_t i = 0; i < top->n_nodes; i++)
        if (top->nodes[i].request)
            http_get_cancel(top->nodes[i].request);
}

static void on_answer(void *ctx, int status, const char *body)
{
    struct node *node = ctx;
    struct top *top = node->top;
    bool was_up = is_up(node);
    node->request = NULL;
    node->status = status;
    if (status == 200) {
        node->before = node->now;
        /* After an outage there is no interval to take a rate over. */
        node->before_ms = was_up ? node->now_ms : 0;
        scrape_read(&node->now, body);
        node->now_ms = uv_now(&top->loop);
    }
    top->all_answered &= is_up(node);
    if (--top->n_pending > 0 || top->stopping)
        return;
    /* Rates need two looks. */
    if (!top->once || top->n_rounds == 2)
        draw(top);
    if (top->once && top->n_rounds == 2)
        stop(top);
}

static void on_round(uv_timer_t *timer)
{
    struct top *top = timer->data;
    /* A round that is not over yet: nobody is asked twice at a time. */
    if (top->n_pending > 0)
        return;
    top->n_rounds++;
    top->all_answered = true;
    top->n_pending = top->n_nodes;
    /* The slowest worker may hold up the picture by one interval, never longer. */
    uint64_t patience_ms = top->interval_ms < PATIENCE_MS ? top->interval_ms : PATIENCE_MS;
    for (size_t i = 0; i < top->n_nodes; i++) {
        struct node *node = &top->nodes[i];
        int rc = http_get_open(&node->request, &top->loop, node->address, "/metrics", patience_ms,
                               on_answer, node);
        if (rc != 0)
            on_answer(node, rc, "");
    }
}

static void on_signal(uv_signal_t *handle, int number)
{
    (void)number;
    stop(handle->data);
}

static int run(struct top *top)
{
    if (uv_loop_init(&top->loop) != 0)
        return COMMAND_INTERNAL;
    uv_timer_init(&top->loop, &top->timer);
    uv_signal_init(&top->loop, &top->interrupt);
    uv_signal_init(&top->loop, &top->terminate);
    top->timer.data = top->interrupt.data = top->terminate.data = top;
    uv_signal_start(&top->interrupt, on_signal, SIGINT);
    uv_signal_start(&top->terminate, on_signal, SIGTERM);
    uv_timer_start(&top->timer, on_round, 0, top->interval_ms);
    if (!top->once)
        fputs("\x1b[?1049h\x1b[?25l\x1b[2J", stdout); /* a screen of our own, no cursor */
    uv_run(&top->loop, UV_RUN_DEFAULT);
    if (!top->once)
        fputs("\x1b[?25h\x1b[?1049l", stdout);
    uv_loop_close(&top->loop);
    return top->once && !top->all_answered ? COMMAND_UNAVAILABLE : COMMAND_OK;
}

static int refuse(const char *argument, const char *expected)
{
    fprintf(stderr, "embedmill top: %s: expected %s\n", argument, expected);
    return COMMAND_USAGE;
}

static int read_interval(const char *text, uint64_t *out)
{
    char *end;
    double seconds = strtod(text, &end);
    if (*end || !(seconds >= 0.1 && seconds <= 3600))
        return refuse("--interval", "seconds from 0.1 to 3600");
    *out = (uint64_t)(seconds * 1000);
    return COMMAND_OK;
}

/* One node for each address of the list, which is cut at its commas. */
static int open_nodes(struct top *top, char *list)
{
    size_t n = 1;
    for (const char *c = list; *c; c++)
        n += *c == ',';
    top->nodes = calloc(n, sizeof *top->nodes);
    if (!top->nodes)
        return COMMAND_INTERNAL;
    char *rest = list;
    for (char *address; (address = strsep(&rest, ","));) {
        if (!strchr(address, ':'))
            return refuse(address, "HOST:PORT");
        top->nodes[top->n_nodes++] = (struct node){.top = top, .address = address};
    }
    return COMMAND_OK;
}

static int start(const struct invocation *invocation)
{
    const struct settings *settings = invocation->settings;
    const char *addresses = settings_text(settings, "addresses");
    char fallback[300];
    struct top top = {.once = settings_bool(settings, "once") || !isatty(STDOUT_FILENO)};
    if (!addresses) {
        http_get_default_address(fallback, sizeof fallback);
        addresses = fallback;
    }
    char *list = strdup(addresses);
    int code = read_interval(settings_text(settings, "interval"), &top.interval_ms);
    if (code == COMMAND_OK)
        code = list ? open_nodes(&top, list) : COMMAND_INTERNAL;
    if (code == COMMAND_OK)
        code = run(&top);
    free(top.nodes);
    free(list);
    return code;
}

static const char *const positionals[] = {"addresses", NULL};

const struct command command_top = {
    .name = "top",
    .summary = "shows what workers do, live on the terminal",
    .synopsis = "[--interval SECONDS] [--once] [HOST:PORT...]",
    .text = "Show what workers do, from their metrics. Ctrl-C ends it.\n\n"
            "  TEXTS/S and TOKENS/S   embedded, since the last look\n"
            "  LAG                    messages of the input not yet given or acked\n"
            "  FLIGHT                 texts taken and not yet confirmed\n"
            "  P50 and P95            milliseconds of thread time a text\n"
            "  E2E95                  seconds from a message's timestamp to its output, 95th "
            "percentile\n"
            "  DEAD and FAULT         dead letters, and outages of a broker, since the worker's "
            "start\n"
            "  BUSY and CPU           share of the inference threads at work; CPUs used\n"
            "  MEM                    MiB of its own, without the shared model",
    .endings = endings,
    .own = table,
    .syntax = {.positionals = positionals, .repeats = true, .flags_only = true},
    .run = start,
};
