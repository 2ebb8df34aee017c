/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef RATELIMITER_POLICY_H
#define RATELIMITER_POLICY_H

/* The policy file: what is limited, by what key, to what rate, and what happens to packets beyond it. */

#include <splitmerge/packet.h>
#include <splitmerge/types.h>

#include "bucket.h"
#include "conf/conf.h"
#include "mark.h"

#define POLICY_MAX_LIMITS 256
#define POLICY_MAX_NAME 41 /* "limit:NAME" is a drop reason */

/* A set of limits, by their places in the file. */
struct limit_set {
    uint64_t word[POLICY_MAX_LIMITS / 64];
};

struct limit {
    const char *name;
    const char *match;           /* NULL: every IP packet */
    struct conf_node match_node; /* where it stands in the file */
    struct sm_filter *filter;    /* set by policy_compile() */
    enum sm_granularity per;
    struct bucket_rate rate;
    bool packets; /* a packet costs 1, else its length */
    bool drops;   /* what exceeds is dropped, else marked: */
    struct mark mark;
    int parent;                    /* -1: none */
    struct limit_set with_parents; /* itself and all its ancestors */
};

struct policy {
    struct conf *conf; /* owns all strings */
    struct limit limits[POLICY_MAX_LIMITS];
    unsigned count;
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

/* The limits that apply to a packet: those that match it, with their parents. False: none. */
bool policy_match(const struct policy *policy, const struct sm_packet *packet, struct limit_set *set);

static inline void limit_set_add(struct limit_set *set, const struct limit_set *other)
{
    for (unsigned i = 0; i < POLICY_MAX_LIMITS / 64; i++)
        set->word[i] |= other->word[i];
}

/* Walk a set in file order: the first member that is not below `from`, or -1. */
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
