/* SPDX-License-Identifier: BSD-2-Clause */
#include "policy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/units.h"

static const char *const limit_keys[] = {"name", "match", "per", "rate", "burst", "exceed", "parent", NULL};

static int find(const struct policy *policy, unsigned count, const char *name)
{
    for (unsigned i = 0; i < count; i++)
        if (policy->limits[i].name && strcmp(policy->limits[i].name, name) == 0)
            return (int)i;
    return -1;
}

static void read_name(struct policy *policy, unsigned index, struct conf_node node)
{
    const char *name;
    int before;

    if (!conf_string(node, &name))
        return;
    if (strlen(name) > POLICY_MAX_NAME ||
        name[strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")] != '\0') {
        conf_expected(node, "at most 41 letters, digits, '-', '_' and '.'");
        return;
    }
    before = find(policy, index, name);
    if (before >= 0)
        conf_fail(node, "expected a name of its own, '%s' is limits[%d] already", name, before);
    else
        policy->limits[index].name = name;
}

static void read_per(struct limit *limit, struct conf_node node)
{
    const char *names[SM_GRANULARITY_COUNT + 1];
    unsigned value;

    for (unsigned i = 0; i < SM_GRANULARITY_COUNT; i++)
        names[i] = sm_granularity_name((enum sm_granularity)i);
    names[SM_GRANULARITY_COUNT] = NULL;
    if (conf_enum(node, names, &value))
        limit->per = (enum sm_granularity)value;
}

/* A rate in packets is counted as if each were a byte of 8 bits: see bucket.h. */
static void read_rate(struct limit *limit, struct conf_node node)
{
    uint64_t rate = 0, scale;

    if (!conf_rate(node, &rate, &limit->packets))
        return;
    scale = limit->packets ? 8 : 1;
    if (rate > BUCKET_MAX_RATE / scale)
        conf_expected(node, limit->packets ? "at most 125000Mpps" : "at most 1000Gbit");
    else
        limit->rate.rate = rate * scale;
}

static void read_burst(struct limit *limit, struct conf_node node)
{
    const char *text = conf_text(node);

    if (!conf_present(node) || limit->rate.rate == 0)
        return;
    if (!limit->packets)
        conf_size(node, 1, BUCKET_MAX_BURST, &limit->rate.burst);
    else if (!text || !unit_count(text, &limit->rate.burst) || limit->rate.burst < 1 ||
             limit->rate.burst > BUCKET_MAX_BURST)
        conf_expected(node, "a number of packets from 1 to 1073741824, such as 100 (the rate is in packets)");
}

static void read_mark(struct limit *limit, struct conf_node node)
{
    static const char *const keys[] = {"dscp", NULL};
    const char *text = conf_text(node);
    struct conf_node dscp;

    if (text && strcmp(text, "ce") == 0) {
        limit->mark.ce = true;
        return;
    }
    if (text) {
        conf_expected(node, "ce or {dscp: CODEPOINT}");
        return;
    }
    if (!conf_map(node, keys))
        return;
    dscp = conf_need(node, "dscp", "a code point such as CS1");
    text = conf_text(dscp);
    if (conf_present(dscp) && (!text || !mark_parse_dscp(text, &limit->mark.dscp)))
        conf_expected(dscp, "CS0 to CS7, AF11 to AF43, EF, VA, LE, or 0 to 63");
}

static void read_exceed(struct limit *limit, struct conf_node node)
{
    static const char *const keys[] = {"mark", NULL};
    const char *text = conf_text(node);

    limit->drops = true;
    if (!conf_present(node) || (text && strcmp(text, "drop") == 0))
        return;
    if (text) {
        conf_expected(node, "drop, {mark: ce} or {mark: {dscp: CODEPOINT}}");
        return;
    }
    limit->drops = false;
    if (conf_map(node, keys))
        read_mark(limit, conf_need(node, "mark", "ce or {dscp: CODEPOINT}"));
}

static void read_limit(struct policy *policy, unsigned index, struct conf_node node)
{
    struct limit *limit = &policy->limits[index];

    limit->parent = -1;
    if (!conf_map(node, limit_keys))
        return;
    read_name(policy, index, conf_need(node, "name", "a name"));
    limit->match_node = conf_get(node, "match");
    conf_string(limit->match_node, &limit->match);
    read_per(limit, conf_need(node, "per", "flow, host-pair, source, destination or all"));
    read_rate(limit, conf_need(node, "rate", "a rate such as 10Mbit or 1kpps"));
    read_burst(limit, conf_need(node, "burst", "a size such as 16KiB, or a number of packets"));
    read_exceed(limit, conf_get(node, "exceed"));
}

/* Parents may stand anywhere in the file, so they are looked up when all names are known. */
static void read_parent(struct policy *policy, unsigned index, struct conf_node node)
{
    const char *name;

    if (!conf_string(node, &name))
        return;
    policy->limits[index].parent = find(policy, policy->count, name);
    if (policy->limits[index].parent < 0)
        conf_expected(node, "the name of a limit of this file");
}

/* A chain longer than there are limits has a cycle. */
static bool add_ancestors(struct policy *policy, unsigned index)
{
    struct limit *limit = &policy->limits[index];
    unsigned steps = 0;

    for (int at = (int)index; at >= 0; at = policy->limits[at].parent) {
        if (steps++ == policy->count)
            return false;
        limit->with_parents.word[at / 64] |= 1ull << at % 64;
    }
    return true;
}

static void read_policy(struct policy *policy)
{
    static const char *const keys[] = {"limits", NULL};
    struct conf_node root = conf_root(policy->conf), list;

    if (!conf_map(root, keys))
        return;
    list = conf_need(root, "limits", "a list of limits");
    if (!conf_list(list))
        return;
    policy->count = conf_count(list);
    if (policy->count < 1 || policy->count > POLICY_MAX_LIMITS) {
        conf_fail(list, "expected 1 to %d limits, got %u", POLICY_MAX_LIMITS, policy->count);
        return;
    }
    for (unsigned i = 0; i < policy->count; i++)
        read_limit(policy, i, conf_item(list, i));
    for (unsigned i = 0; i < policy->count; i++)
        read_parent(policy, i, conf_get(conf_item(list, i), "parent"));
    for (unsigned i = 0; i < policy->count && !conf_error(policy->conf); i++) {
        if (!add_ancestors(policy, i))
            conf_fail(conf_get(conf_item(list, i), "parent"), "expected no circle of parents, but '%s' leads back",
                      policy->limits[policy->limits[i].parent].name);
    }
}

/* Takes `conf`, which may be NULL: then *error is set already. */
static struct policy *policy_of(struct conf *conf, struct sm_errbuf *error)
{
    struct policy *policy;

    if (!conf)
        return NULL;
    policy = calloc(1, sizeof(*policy));
    if (!policy) {
        snprintf(error->text, sizeof(error->text), "%s", sm_strerror(SM_E_NO_MEMORY));
        conf_free(conf);
        return NULL;
    }
    policy->conf = conf;
    read_policy(policy);
    if (conf_error(conf)) {
        snprintf(error->text, sizeof(error->text), "%s", conf_error(conf));
        policy_free(policy);
        return NULL;
    }
    return policy;
}

struct policy *policy_load(const char *file, struct sm_errbuf *error)
{
    return policy_of(conf_load(file, error), error);
}

struct policy *policy_parse(const char *name, const char *text, size_t length, struct sm_errbuf *error)
{
    return policy_of(conf_parse(name, text, length, error), error);
}

void policy_free(struct policy *policy)
{
    if (!policy)
        return;
    for (unsigned i = 0; i < POLICY_MAX_LIMITS; i++)
        sm_filter_destroy(policy->limits[i].filter);
    conf_free(policy->conf);
    free(policy);
}

bool policy_compile(struct policy *policy, int linktype, struct sm_errbuf *error)
{
    for (unsigned i = 0; i < policy->count; i++) {
        struct limit *limit = &policy->limits[i];
        struct sm_errbuf why = {{0}};
        int status;

        if (!limit->match)
            continue;
        sm_filter_destroy(limit->filter);
        limit->filter = NULL;
        status = sm_filter_create(&limit->filter, linktype, limit->match, &why);
        if (status == 0)
            continue;
        conf_fail(limit->match_node, "expected a filter as for tcpdump, got '%.48s' (%.80s)", limit->match,
                  why.text[0] ? why.text : sm_strerror(status));
        snprintf(error->text, sizeof(error->text), "%s", conf_error(policy->conf));
        return false;
    }
    return true;
}

bool policy_match(const struct policy *policy, const struct sm_packet *packet, struct limit_set *set)
{
    const uint8_t *data = sm_packet_data(packet);
    uint32_t caplen = sm_packet_caplen(packet), len = sm_packet_len(packet);
    bool any = false;

    *set = (struct limit_set){{0}};
    for (unsigned i = 0; i < policy->count; i++) {
        const struct limit *limit = &policy->limits[i];

        if (limit->filter && !sm_filter_match(limit->filter, data, caplen, len))
            continue;
        limit_set_add(set, &limit->with_parents);
        any = true;
    }
    return any;
}
