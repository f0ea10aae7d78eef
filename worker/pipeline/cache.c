/*
 * cache.c: see cache.h.
 *
 * A key is the SHA-256 of the text as the session is given it, prompt and title included, and of
 * all else that decides its vector. Not a faster hash: an equal digest of two texts would give one
 * the vector of the other, silently, and texts on a queue may come from somebody who would like
 * that. It is nothing beside embedding.
 */
#include "worker/pipeline/cache.h"

#include <assert.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "worker/pipeline/cache_internal.h"
#include "worker/pipeline/embedder.h"

struct cache {
    struct cache_memory *memory; /* NULL: none */
    struct cache_disk *disk;     /* NULL: none */
    size_t dim;
    struct cache_key context; /* of all that decides a vector beside its text */
};

struct cache_lane {
    struct cache *cache;
    const struct embedder *embedder;
    struct session *session;
    EVP_MD_CTX *digest;
    size_t room;            /* of each array, in texts */
    struct cache_key *keys; /* of all texts of a call */
    uint32_t *missing;      /* those of them that are in neither place ... */
    struct text
        *texts; /* ... as the session is given them, and what it gives, where the caller wants it */
    struct embed_result *results;
    float **rows;
};

/*
 * Vectors are the same bytes only for the same model, kernels, precision and version of the engine.
 * Names cannot vouch for the last, nor for what is not in the model's fingerprint: the vector of a
 * known text does.
 */
static int probe(const struct model *model, const struct embedder *embedder,
                 const struct session_options *options, float *row)
{
    static const char words[] = "The ferry leaves at seven, and the last one goes at 23:45.";
    struct text text = {words, sizeof words - 1};
    struct embed_result result;
    struct session *session;
    int rc = embedder->open(&session, model, options);
    if (rc)
        return rc;
    embedder->embed(session, &text, 1, &row, &result);
    embedder->close(session);
    return result.status;
}

static int find_context(struct cache *cache, const struct model *model,
                        const struct embedder *embedder, const struct session_options *options)
{
    const struct model_info *info = embedder->info(model);
    char names[256];
    /* too_long and bad_utf8 change what of a text is embedded, so they belong to the key. */
    int len = snprintf(names, sizeof names, "%s %s %s %zu %d %d", info->fingerprint, info->kernels,
                       info->precision, cache->dim, options->too_long, options->bad_utf8);
    assert(len > 0 && (size_t)len < sizeof names); /* a digest over a cut name would mix models */
    float *row = calloc(cache->dim, sizeof *row);
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    int rc = row && digest ? 0 : -ENOMEM;
    if (!rc && cache->disk) /* memory knows this process alone */
        rc = probe(model, embedder, options, row);
    if (!rc && (EVP_DigestInit_ex(digest, EVP_sha256(), NULL) != 1 ||
                EVP_DigestUpdate(digest, names, (size_t)len) != 1 ||
                EVP_DigestUpdate(digest, row, cache->dim * sizeof *row) != 1 ||
                EVP_DigestFinal_ex(digest, cache->context.bytes, NULL) != 1))
        rc = -ENOMEM;
    EVP_MD_CTX_free(digest);
    free(row);
    return rc;
}

int cache_open(struct cache **out, const struct cache_options *options, const struct model *model,
               const struct embedder *embedder, const struct session_options *session, char *err,
               size_t err_size)
{
    *out = NULL;
    bool on_disk = options->folder && options->folder[0];
    if (!on_disk && options->memory_bytes == 0)
        return 0;
    struct cache *cache = calloc(1, sizeof *cache);
    int rc = cache ? 0 : -ENOMEM;
    /* What any -ENOMEM below says; what fails otherwise has a sentence of its own. */
    snprintf(err, err_size, "out of memory for the cache: lower cache_memory");
    if (!rc) {
        cache->dim = session->dim ? session->dim : embedder->info(model)->dim;
        rc = cache_memory_open(&cache->memory, options->memory_bytes, cache->dim);
    }
    if (!rc && on_disk && options->beside)
        rc = cache_disk_join(&cache->disk, options->beside->disk, cache->dim);
    else if (!rc && on_disk)
        rc = cache_disk_open(&cache->disk, options->folder, options->disk_bytes, cache->dim, err,
                             err_size);
    if (!rc) {
        rc = find_context(cache, model, embedder, session);
        if (rc)
            snprintf(err, err_size, "the cache cannot prove the model: %s", uv_strerror(rc));
    }
    if (rc)
        cache_close(cache);
    else
        *out = cache;
    return rc;
}

void cache_close(struct cache *cache)
{
    if (!cache)
        return;
    cache_memory_close(cache->memory);
    cache_disk_close(cache->disk);
    free(cache);
}

uint64_t cache_on_disk(const struct cache *cache)
{
    return cache->disk ? cache_disk_entries(cache->disk) : 0;
}

void cache_flush(struct cache *cache)
{
    if (cache && cache->disk)
        cache_disk_flush(cache->disk);
}

bool cache_complaint(struct cache *cache, char *why, size_t size)
{
    return cache && cache->disk && cache_disk_complaint(cache->disk, why, size);
}

int cache_look(const struct cache_options *options, char *said, size_t size)
{
    return cache_disk_look(options->folder, options->disk_bytes, said, size);
}

int cache_lane_open(struct cache_lane **out, struct cache *cache, const struct embedder *embedder,
                    struct session *session)
{
    struct cache_lane *lane = calloc(1, sizeof *lane);
    if (!lane)
        return -ENOMEM;
    lane->cache = cache;
    lane->embedder = embedder;
    lane->session = session;
    lane->digest = EVP_MD_CTX_new();
    if (!lane->digest || EVP_DigestInit_ex(lane->digest, EVP_sha256(), NULL) != 1) {
        cache_lane_close(lane);
        return -ENOMEM;
    }
    *out = lane;
    return 0;
}

void cache_lane_close(struct cache_lane *lane)
{
    if (!lane)
        return;
    EVP_MD_CTX_free(lane->digest);
    free(lane->keys);
    free(lane->missing);
    free(lane->texts);
    free(lane->results);
    free(lane->rows);
    free(lane);
}

/* The arrays hold nothing between calls. */
static bool make_room(struct cache_lane *lane, size_t n)
{
    if (n <= lane->room)
        return true;
    free(lane->keys);
    free(lane->missing);
    free(lane->texts);
    free(lane->results);
    free(lane->rows);
    lane->room = n;
    lane->keys = malloc(n * sizeof *lane->keys);
    lane->missing = malloc(n * sizeof *lane->missing);
    lane->texts = malloc(n * sizeof *lane->texts);
    lane->results = malloc(n * sizeof *lane->results);
    lane->rows = malloc(n * sizeof *lane->rows);
    bool has_all = lane->keys && lane->missing && lane->texts && lane->results && lane->rows;
    if (!has_all)
        lane->room = 0;
    return has_all;
}

static bool find_keys(struct cache_lane *lane, const struct text *texts, size_t n)
{
    EVP_MD_CTX *digest = lane->digest;
    const struct cache_key *context = &lane->cache->context;
    for (size_t i = 0; i < n; i++) {
        /* No digest named: that of the first time, which is not looked for again. */
        if (EVP_DigestInit_ex(digest, NULL, NULL) != 1 ||
            EVP_DigestUpdate(digest, context->bytes, sizeof context->bytes) != 1 ||
            EVP_DigestUpdate(digest, texts[i].ptr, texts[i].len) != 1 ||
            EVP_DigestFinal_ex(digest, lane->keys[i].bytes, NULL) != 1)
            return false;
    }
    return true;
}

/* Takes those that are on disk out of lane->missing [n]; returns how many are left. */
static size_t look_on_disk(struct cache_lane *lane, size_t n, float *const *rows,
                           struct embed_result *results)
{
    struct cache *cache = lane->cache;
    struct MDB_txn *moment = cache_disk_begin(cache->disk);
    if (!moment)
        return n;
    size_t n_left = 0;
    for (size_t j = 0; j < n; j++) {
        uint32_t i = lane->missing[j];
        float *row = rows[i];
        if (!cache_disk_get(cache->disk, moment, &lane->keys[i], row, &results[i]))
            /* Closing up behind what is read: n_left is never beyond j. */
            lane->missing[n_left++] = i;
        else if (cache->memory)
            cache_memory_put(cache->memory, &lane->keys[i], row, &results[i]);
    }
    cache_disk_end(moment);
    return n_left;
}

/* Sets rows and results of what is known, lane->missing and hits. */
static void look_up(struct cache_lane *lane, size_t n, float *const *rows,
                    struct embed_result *results, struct cache_hits *hits)
{
    struct cache *cache = lane->cache;
    size_t n_missing = 0;
    for (size_t i = 0; i < n; i++) {
        if (!cache->memory ||
            !cache_memory_get(cache->memory, &lane->keys[i], rows[i], &results[i]))
            lane->missing[n_missing++] = (uint32_t)i;
    }
    assert(n_missing <= n);
    hits->memory = (uint32_t)(n - n_missing);
    if (n_missing && cache->disk) {
        size_t n_left = look_on_disk(lane, n_missing, rows, results);
        hits->disk = (uint32_t)(n_missing - n_left);
        assert(n_left <= n_missing);
        n_missing = n_left;
    }
    hits->misses = (uint32_t)n_missing;
}

static void embed_missing(struct cache_lane *lane, const struct text *texts, size_t n_missing,
                          float *const *rows, struct embed_result *results)
{
    /* The session takes arrays without gaps: the missing side by side, and back to their places. */
    for (size_t j = 0; j < n_missing; j++) {
        lane->texts[j] = texts[lane->missing[j]];
        lane->rows[j] = rows[lane->missing[j]];
    }
    lane->embedder->embed(lane->session, lane->texts, n_missing, lane->rows, lane->results);
    for (size_t j = 0; j < n_missing; j++)
        results[lane->missing[j]] = lane->results[j];
}

static void keep(struct cache_lane *lane, size_t n_missing, float *const *rows,
                 const struct embed_result *results)
{
    struct cache *cache = lane->cache;
    for (size_t j = 0; j < n_missing; j++) {
        uint32_t i = lane->missing[j];
        const float *row = rows[i];
        /* Neither a failure nor damage is kept: the next time may be better. */
        if (results[i].status || !embedder_is_unit(row, cache->dim))
            continue;
        if (cache->memory)
            cache_memory_put(cache->memory, &lane->keys[i], row, &results[i]);
        if (cache->disk)
            cache_disk_put(cache->disk, &lane->keys[i], row, &results[i]);
    }
}

void cache_embed(struct cache_lane *lane, const struct text *texts, size_t n, float *const *rows,
                 struct embed_result *results, struct cache_hits *hits)
{
    /* Until something is found all of them are missing, also when keys cannot be made. */
    *hits = (struct cache_hits){.misses = (uint32_t)n};
    bool can_look = make_room(lane, n) && find_keys(lane, texts, n);
    if (can_look)
        look_up(lane, n, rows, results, hits);
    /* Nothing is known, as in every new corpus, or nothing could be looked up: no copying about. */
    if (hits->misses == n)
        lane->embedder->embed(lane->session, texts, n, rows, results);
    else if (hits->misses)
        embed_missing(lane, texts, hits->misses, rows, results);
    if (can_look)
        keep(lane, hits->misses, rows, results);
}
