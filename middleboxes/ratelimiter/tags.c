/* SPDX-License-Identifier: BSD-2-Clause */
#include "tags.h"

#include <splitmerge/splitmerge.h>
#include <stdlib.h>
#include <string.h>

/*
 * Overview.  A prefix's tag is a hash of what it is. Two prefixes may have the same tag where no key can be in both:
 * the first bits of their addresses, as many as all keys and prefixes of the limit have, tell them apart. Else the one
 * whose hash is lower has the tag and the other the next free one. So tags go by what is in a policy and not by the
 * order; and what is added or taken away changes another's only where they meet. Its bucket's record, which says whose
 * it is, is then taken for none: nobody gets a bucket that is another's.
 *
 * Limits.  FOR_PREFIXES tags.
 */

#define FOR_PREFIXES (65536u - SM_MAX_REASONS)

/* Who has a tag: the prefixes of a class whose addresses begin with the same bits have it once. */
struct claim {
    uint64_t head[2];
    uint32_t number; /* of the allowance */
    unsigned key;
    uint16_t tag;
    uint8_t family; /* 0: nobody */
};

struct claims {
    struct claim *slots;
    uint32_t mask;
};

static uint64_t mix(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * 0x9e3779b97f4a7c15ull;
    return hash ^ hash >> 29;
}

static uint64_t hash_of(const struct limit *limit, const struct prefix *prefix)
{
    uint64_t hash = 0;

    for (const char *at = limit->name; *at; at++)
        hash = mix(hash, (uint8_t)*at);
    if (prefix)
        hash = mix(mix(mix(hash, prefix->family * 256u + prefix->bits), prefix->word[0]), prefix->word[1]);
    hash = mix(hash, hash >> 32);
    return hash ? hash : 1;
}

/* The first bits of an address that keys and prefixes of the limit all have. */
static unsigned head_bits(const struct policy *policy, const struct limit *limit, uint8_t family)
{
    const struct limit_key *key = &policy->keys[limit->key];
    uint8_t counts = family == 4 ? key->prefix4 : key->prefix6;
    unsigned bits = counts ? counts : family == 4 ? 32 : 128;

    if (key->by != limit->prefixes_of)
        return 0;
    for (uint32_t i = 0; i < limit->prefix_count; i++) {
        const struct prefix *prefix = policy_prefix(policy, limit->tag + i);
        if (prefix->family == family && prefix->bits < bits)
            bits = prefix->bits;
    }
    return bits;
}

/* The place of a claim, or the empty one where it would be. */
static struct claim *find_claim(const struct claims *claims, const struct claim *wanted)
{
    uint64_t hash = mix(mix(mix(0, wanted->head[0]), wanted->head[1]), wanted->key << 16 | wanted->tag);

    for (uint32_t at = (uint32_t)hash & claims->mask;; at = (at + 1) & claims->mask) {
        struct claim *slot = &claims->slots[at];
        if (slot->family == 0 ||
            (slot->family == wanted->family && slot->tag == wanted->tag && slot->key == wanted->key &&
             slot->head[0] == wanted->head[0] && slot->head[1] == wanted->head[1]))
            return slot;
    }
}

/* Give a prefix its tag; whom that takes it from, and whom that one takes it from, the next. */
static void claim_tag(struct tags *tags, struct claims *claims, struct claim claim)
{
    claim.tag = (uint16_t)(SM_MAX_REASONS + tags->of[claim.number] % FOR_PREFIXES);
    for (;;) {
        struct claim *slot = find_claim(claims, &claim), before = *slot;

        if (before.family == 0 || tags->of[claim.number] < tags->of[before.number]) {
            *slot = claim;
            tags->tag[claim.number] = claim.tag;
            claim = before;
        }
        if (before.family == 0)
            return;
        claim.tag = claim.tag == UINT16_MAX ? SM_MAX_REASONS : (uint16_t)(claim.tag + 1);
    }
}

static void claim_tags(struct tags *tags, const struct policy *policy, struct claims *claims, unsigned limit_number)
{
    const struct limit *limit = &policy->limits[limit_number];
    const unsigned bits[2] = {head_bits(policy, limit, 4), head_bits(policy, limit, 6)};

    for (uint32_t i = 0; i < limit->prefix_count; i++) {
        const struct prefix *prefix = policy_prefix(policy, limit->tag + i);
        struct claim claim = {.number = limit->tag + i, .key = limit->key, .family = prefix->family};

        prefix_cut(claim.head, prefix->word, bits[prefix->family == 6]);
        tags->of[claim.number] = hash_of(limit, prefix);
        claim_tag(tags, claims, claim);
    }
}

static void index_numbers(struct tags *tags, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        uint32_t at = (uint32_t)tags->of[i] & tags->mask;
        while (tags->slots[at] != 0)
            at = (at + 1) & tags->mask;
        if (tags->of[i] != 0)
            tags->slots[at] = i + 1;
    }
}

int tags_make(struct tags *tags, const struct policy *policy, const uint16_t *reasons)
{
    uint32_t prefixes = policy->allowed_count - policy->count, room = 64;
    struct claims claims;

    *tags = (struct tags){NULL, NULL, NULL, 0};
    if (prefixes > FOR_PREFIXES)
        return SM_E_LIMIT;
    while (room < 2 * policy->allowed_count)
        room *= 2;
    tags->mask = room - 1;
    tags->of = calloc(policy->allowed_count, sizeof(*tags->of));
    tags->tag = calloc(policy->allowed_count, sizeof(*tags->tag));
    tags->slots = calloc(room, sizeof(*tags->slots));
    claims = (struct claims){calloc(room, sizeof(*claims.slots)), room - 1};
    int status = tags->of && tags->tag && tags->slots && claims.slots ? 0 : SM_E_NO_MEMORY;
    for (unsigned i = 0; status == 0 && i < policy->count; i++) {
        const struct limit *limit = &policy->limits[i];

        if (limit->prefixes) {
            claim_tags(tags, policy, &claims, i);
            continue;
        }
        tags->of[limit->tag] = hash_of(limit, NULL);
        tags->tag[limit->tag] = reasons[i];
    }
    if (status == 0)
        index_numbers(tags, policy->allowed_count);
    free(claims.slots);
    return status;
}

void tags_free(struct tags *tags)
{
    free(tags->of);
    free(tags->tag);
    free(tags->slots);
    *tags = (struct tags){NULL, NULL, NULL, 0};
}

int64_t tags_number(const struct tags *tags, uint64_t of)
{
    for (uint32_t at = (uint32_t)of & tags->mask; tags->slots[at] != 0; at = (at + 1) & tags->mask)
        if (tags->of[tags->slots[at] - 1] == of)
            return tags->slots[at] - 1;
    return -1;
}
