/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef RATELIMITER_POLICY_H
#define RATELIMITER_POLICY_H

/* The policy file: what is limited, by what key, to what rate, and what happens to packets beyond it. */

#include <splitmerge/packet.h>
#include <splitmerge/types.h>

#include "conf/conf.h"
#include "mark.h"
#include "pair.h"
#include "peers/exchange.h"
#include "prefixes.h"
#include <splitmerge/bucket.h>

#define POLICY_MAX_LIMITS 256 /* of a file */
#define POLICY_MAX_KEYS 24    /* different ones of a file: each is a flow class */
#define POLICY_MAX_TAGS 65535 /* allowances: limits, and the prefixes that have their own */
#define POLICY_MAX_NAME 41    /* "limit:NAME" is a drop reason */

/* What has a bucket of its own. */
struct limit_key {
    enum sm_granularity by;
    uint8_t prefix4, prefix6; /* bits of an address that count; 0: all */
    char name[32];
};

/* A set of limits, by their numbers. */
struct limit_set {
    uint64_t word[POLICY_MAX_LIMITS / 64];
};

struct limit {
    const char *name;
    struct conf_node node;     /* where it stands in the file */
    int filter;                /* number in policy.filters; -1: every IP packet */
    unsigned key;              /* number in policy.keys */
    uint16_t tag;              /* number in policy.allowed; with prefixes, the first's */
    struct prefixes *prefixes; /* they lead to tags; NULL: it has one tag, and matches whatever the address */
    uint32_t prefix_count;
    enum sm_granularity prefixes_of; /* SM_BY_SOURCE or SM_BY_DESTINATION */
    bool packets;                    /* a packet costs 1, else its length */
    bool drops;                      /* what exceeds is dropped, else marked: */
    struct mark mark;
    uint64_t queue;   /* it is delayed first, and dropped where that would be for longer, ns; 0: never delayed */
    int parent;       /* -1: none */
    bool borrows;     /* it has a ceil: what its guarantee lacks it may borrow from its parent */
    uint64_t reserve; /* what borrowers leave of its buckets, bytes or packets; see pair.h */
    struct limit_set with_parents; /* itself and all its ancestors */
    int distributed;               /* number in policy.exchange->limits; -1: this host has it alone */
};

/* A filter. Limits that say the same have it together: it is compiled once, and run once for a packet. */
struct filter {
    const char *text;
    struct conf_node node;     /* where it stands first */
    struct sm_filter *program; /* set by policy_compile(); until then it matches every packet */
};

/* Limits are numbered in the order in which they are asked: children before their parents, else as in the file. */
struct policy {
    struct conf *conf; /* owns all strings */
    const char *file;  /* its name, while it is read */
    unsigned count, filter_count, key_count, allowed_count;
    struct limit limits[POLICY_MAX_LIMITS];
    struct filter filters[POLICY_MAX_LIMITS];
    struct limit_key keys[POLICY_MAX_KEYS];
    struct limit_set by_key[POLICY_MAX_KEYS]; /* the limits of each key */
    struct allowance *allowed;
    struct prefix *prefix;            /* of those from `count` on */
    struct exchange_config *exchange; /* NULL: no peers */
};

/*
 * Read a policy. NULL: *error has one line, "FILE:LINE: KEY: expected ...". policy_parse() reads from memory, `name`
 * standing for the file in errors.
 */
struct policy *policy_load(const char *file, struct sm_errbuf *error);
struct policy *policy_parse(const char *name, const char *text, size_t length, struct sm_errbuf *error);

/* NULL is allowed. */
void policy_free(struct policy *policy);

/* Compile the limits' filters for a link type (DLT_*). False: *error as above. */
bool policy_compile(struct policy *policy, int linktype, struct sm_errbuf *error);

/* The prefix that an allowance is of, by its number. */
static inline const struct prefix *policy_prefix(const struct policy *policy, uint32_t number)
{
    return &policy->prefix[number - policy->count];
}

/* The limits that apply to a packet, and the tag of each. */
struct match {
    struct limit_set set;
    uint16_t tag[POLICY_MAX_LIMITS]; /* of members */
};

/* Those that match it, with their parents, as far as it has their key and is in one of their prefixes. False: none. */
bool policy_match(const struct policy *policy, const struct sm_packet *packet, struct match *match);

/* For the parts of the reader of policies. */

/* A rate or a burst in the unit of the limit, which has its rate already. False, and nothing is set: it is none. */
bool policy_parse_rate(const struct limit *limit, const char *text, uint64_t *rate);
bool policy_parse_burst(const struct limit *limit, const char *text, uint64_t *burst);

/* What the keys of a limit, or the line of a prefix, say. */
struct terms {
    uint64_t rate, burst;
    uint64_t ceil; /* 0: none */
};

/* Read `prefixes:` of a limit; *shortest has, for each family, the fewest bits that one of them has (none: -1). */
void policy_read_prefixes(struct policy *policy, struct limit *limit, const struct terms *terms, struct conf_node node,
                          int shortest[2]);

struct allowance policy_allow(const struct terms *terms);

/* Read `parent:` of all limits, put them in order, and see what parents keep for their children. False: no memory. */
bool policy_read_tree(struct policy *policy);

int policy_find(const struct policy *policy, unsigned count, const char *name); /* -1: there is none of the name */

/* Read `peers:`; `distribute:` and `interval:` of a limit, whose key is read. */
void policy_read_peers(struct policy *policy, struct conf_node node);
void policy_read_distribute(struct policy *policy, struct limit *limit, const struct sm_bucket_rate *rate,
                            struct conf_node node);

static inline void limit_set_put(struct limit_set *set, unsigned number)
{
    set->word[number / 64] |= 1ull << number % 64;
}

static inline bool limit_set_has(const struct limit_set *set, unsigned number)
{
    return set->word[number / 64] >> number % 64 & 1;
}

static inline void limit_set_remove(struct limit_set *set, const struct limit_set *other)
{
    for (unsigned i = 0; i < POLICY_MAX_LIMITS / 64; i++)
        set->word[i] &= ~other->word[i];
}

static inline void limit_set_add(struct limit_set *set, const struct limit_set *other)
{
    for (unsigned i = 0; i < POLICY_MAX_LIMITS / 64; i++)
        set->word[i] |= other->word[i];
}

/* Walk a set in the order in which limits are asked: the first member that is not below `from`, or -1. */
static inline int limit_set_next(const struct limit_set *set, unsigned from)
{
    for (unsigned i = from / 64; i < POLICY_MAX_LIMITS / 64; i++) {
        uint64_t word = set->word[i];

        if (i == from / 64)
            word &= ~0ull << from % 64;
        if (word)
            return (int)(i * 64 + (unsigned)__builtin_ctzll(word));
    }
    return -1;
}

#endif
