/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef RATELIMITER_TAGS_H
#define RATELIMITER_TAGS_H

/*
 * What buckets are known by, so that they outlive a policy: the name of their limit and, where it has prefixes, the
 * prefix. Its place in the file says nothing.
 */

#include "policy.h"

/* All by the number of an allowance. Made once, then read by any thread. */
struct tags {
    uint64_t *of;          /* a hash of name and prefix, never 0; it stands in the bucket's record */
    uint16_t *tag;         /* of the bucket's key */
    uint32_t *slots, mask; /* numbers + 1, by `of` */
};

/*
 * `reasons`: by number of a limit, of its drop reason, below SM_MAX_REASONS, which the name has for good: that is the
 * tag of a limit without prefixes. SM_E_LIMIT: there are too many prefixes; SM_E_NO_MEMORY. tags_free() in any case.
 */
int tags_make(struct tags *tags, const struct policy *policy, const uint16_t *reasons);
void tags_free(struct tags *tags);

/* The number of what a record is of, -1: the policy does not have it any more. */
int64_t tags_number(const struct tags *tags, uint64_t of);

#endif
