/*
 * tokenizer_charsmap.c: see tokenizer_charsmap.h.
 */
#include "inference/tokenizer_charsmap.h"

#include <string.h>

static uint32_t u32_at(const uint8_t *p)
{
    uint32_t value;
    memcpy(&value, p, sizeof value);
    return value;
}

bool charsmap_open(struct charsmap *map, const uint8_t *bytes, size_t size)
{
    if (size < sizeof(uint32_t))
        return false;
    size_t trie_size = u32_at(bytes);
    if (trie_size > size - sizeof(uint32_t) || trie_size % sizeof(uint32_t) || trie_size == 0)
        return false;
    *map = (struct charsmap){.units = bytes + sizeof(uint32_t),
                             .n_units = trie_size / sizeof(uint32_t),
                             .texts = (const char *)bytes + sizeof(uint32_t) + trie_size,
                             .n_texts = size - sizeof(uint32_t) - trie_size};
    /* So every strlen below ends inside the map. */
    return map->n_texts > 0 && map->texts[map->n_texts - 1] == '\0';
}

/* Of a unit of the trie: where its children are from it, the byte it is for (with the highest bit,
 * none), whether a value follows. */
static uint32_t unit_offset(uint32_t unit)
{
    /* Bit 9 set: the offset counts in steps of 256. */
    return unit >> 10 << ((unit & 1u << 9) >> 6);
}

static uint32_t unit_label(uint32_t unit)
{
    return unit & (1u << 31 | 0xff);
}

static bool unit_has_leaf(uint32_t unit)
{
    return unit >> 8 & 1;
}

const char *charsmap_find(const struct charsmap *map, const uint8_t *bytes, size_t n, size_t *len)
{
    size_t at = unit_offset(u32_at(map->units));
    for (size_t i = 0; i < n && bytes[i]; i++) {
        at ^= bytes[i];
        /* Before every read: a hostile trie may point anywhere. */
        if (at >= map->n_units)
            return NULL;
        uint32_t unit = u32_at(map->units + at * sizeof(uint32_t));
        if (unit_label(unit) != bytes[i])
            return NULL;
        at ^= unit_offset(unit);
        if (!unit_has_leaf(unit))
            continue;
        if (at >= map->n_units)
            return NULL;
        /* The first leaf on the way is the shortest match, and the judge stops there. */
        size_t text = u32_at(map->units + at * sizeof(uint32_t)) & ~(1u << 31);
        if (text >= map->n_texts)
            return NULL;
        *len = strlen(map->texts + text); /* the last byte is a NUL */
        return map->texts + text;
    }
    return NULL;
}

bool charsmap_joins(uint32_t code)
{
    size_t low = 0, high = joiner_ranges_n;
    /* Most texts are below U+0300 throughout. */
    if (code < joiner_ranges[0].first)
        return false;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (code > joiner_ranges[middle].last)
            low = middle + 1;
        else
            high = middle;
    }
    return low < joiner_ranges_n && code >= joiner_ranges[low].first;
}

bool charsmap_is_joined(uint32_t code)
{
    return code >= 0x20 && !(code >= 0x7f && code <= 0x9f) && code != 0x61c && code != 0x200b &&
           code != 0x200e && code != 0x200f && code != 0x2028 && code != 0x2029 && code != 0xfeff;
}
