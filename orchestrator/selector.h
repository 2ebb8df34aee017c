/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_ORCHESTRATOR_SELECTOR_H
#define SM_ORCHESTRATOR_SELECTOR_H

/*
 * Selectors of `move` and `flows`: "shards:0-99,200", or an expression in libpcap's language that runs over a raw IP
 * header made from a flow's key. A flow with a two-way key matches when either direction does.
 */

#include <splitmerge/types.h>

#include "placement.h"

struct selector {
    char *text;
    struct sm_filter *filter; /* NULL: by shard */
    bool shards[PLACEMENT_SHARDS];
};

/* 0, or SM_E_SYNTAX with a line in *error; *selector is the caller's until selector_free(), which takes NULL. */
int selector_create(struct selector **selector, const char *text, struct sm_errbuf *error);
void selector_free(struct selector *selector);

/* selector_create() for its error alone. */
int selector_check(const char *text, struct sm_errbuf *error);

/* Whether the selector names shards, so that no flow needs to be looked at. */
static inline bool selector_by_shard(const struct selector *selector)
{
    return !selector->filter;
}

/* Whether a flow is selected. `shard` may be beyond the table (flows of shared classes): by shard it then is not. */
bool selector_match(const struct selector *selector, const struct sm_key *key, uint32_t shard);

#endif
