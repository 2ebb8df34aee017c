/* SPDX-License-Identifier: BSD-2-Clause */

/* Which limits a packet meets. */

#include <stdio.h>
#include <string.h>

#include "policy.h"

bool policy_compile(struct policy *policy, int linktype, struct sm_errbuf *error)
{
    for (unsigned i = 0; i < policy->filter_count; i++) {
        struct filter *filter = &policy->filters[i];
        struct sm_errbuf why = {{0}};
        int status;

        sm_filter_destroy(filter->program);
        filter->program = NULL;
        status = sm_filter_create(&filter->program, linktype, filter->text, &why);
        if (status == 0)
            continue;
        conf_fail(filter->node, "expected a filter as for tcpdump, got '%.48s' (%.80s)", filter->text,
                  why.text[0] ? why.text : sm_strerror(status));
        snprintf(error->text, sizeof(error->text), "%s", conf_error(policy->conf));
        return false;
    }
    return true;
}

/* What each filter says of the packet, one bit each. Where there is none nobody looks into the packet: a cache miss. */
static void run_filters(const struct policy *policy, const struct sm_packet *packet, struct limit_set *says)
{
    *says = (struct limit_set){{0}};
    if (policy->filter_count == 0)
        return;
    const uint8_t *data = sm_packet_data(packet);
    uint32_t caplen = sm_packet_caplen(packet), len = sm_packet_len(packet);
    for (unsigned i = 0; i < policy->filter_count; i++) {
        const struct sm_filter *program = policy->filters[i].program;

        if (!program || sm_filter_match(program, data, caplen, len))
            limit_set_put(says, i);
    }
}

/* Whether a packet has a key: all have addresses, not all have tags, or are in a tunnel. */
static bool has_key(const struct sm_packet *packet, enum sm_granularity by)
{
    struct sm_key key;

    if (by < SM_BY_VLAN)
        return true;
    sm_packet_key(packet, by, &key);
    return by == SM_BY_VLAN ? (key.a_port | key.b_port) != 0 : key.protocol != 0;
}

/* The tag of the prefix that a packet's address is in, or -1. */
static int64_t tag_of(const struct limit *limit, const struct sm_packet *packet)
{
    const struct sm_headers *headers = sm_packet_headers(packet);
    const uint8_t *source = sm_packet_data(packet) + headers->l3 + (headers->family == 4 ? 12 : 8);
    uint32_t size = headers->family == 4 ? 4 : 16;

    return prefixes_find(limit->prefixes, headers->family, limit->prefixes_of == SM_BY_SOURCE ? source : source + size);
}

bool policy_match(const struct policy *policy, const struct sm_packet *packet, struct match *match)
{
    struct limit_set says, beside = {{0}};
    bool any = false;

    run_filters(policy, packet, &says);
    match->set = (struct limit_set){{0}};
    for (unsigned i = 0; i < policy->count; i++) {
        const struct limit *limit = &policy->limits[i];
        int64_t tag = limit->tag;

        if (limit->prefixes && (tag = tag_of(limit, packet)) < 0) {
            limit_set_put(&beside, i);
            continue;
        }
        match->tag[i] = (uint16_t)tag;
        if (limit->filter >= 0 && !limit_set_has(&says, (unsigned)limit->filter))
            continue;
        limit_set_add(&match->set, &limit->with_parents);
        any = true;
    }
    limit_set_remove(&match->set, &beside);
    for (unsigned i = 0; any && i < policy->key_count; i++)
        if (!has_key(packet, policy->keys[i].by))
            limit_set_remove(&match->set, &policy->by_key[i]);
    return any;
}
