/* SPDX-License-Identifier: BSD-2-Clause */
#include "policy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/units.h"

static const char *const limit_keys[] = {"name",   "match",  "per",      "rate",       "ceil",     "burst",
                                         "exceed", "parent", "prefixes", "distribute", "interval", NULL};

int policy_find(const struct policy *policy, unsigned count, const char *name)
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
    before = policy_find(policy, index, name);
    if (before >= 0)
        conf_fail(node, "expected a name of its own, '%s' is limits[%d] already", name, before);
    else
        policy->limits[index].name = name;
}

/* The filter's number: that of an equal one, or a new one. */
static void read_match(struct policy *policy, struct limit *limit, struct conf_node node)
{
    struct filter filter = {.node = node};

    limit->filter = -1;
    if (!conf_string(node, &filter.text))
        return;
    for (unsigned i = 0; limit->filter < 0 && i < policy->filter_count; i++)
        if (strcmp(policy->filters[i].text, filter.text) == 0)
            limit->filter = (int)i;
    if (limit->filter >= 0)
        return;
    limit->filter = (int)policy->filter_count++;
    policy->filters[limit->filter] = filter;
}

#define PER "flow, host-pair, source, destination, all, vlan, tunnel, inner-source or inner-destination"

/* "/24": 1 to `most` bits; *text is moved behind it. */
static bool read_bits(const char **text, unsigned most, uint8_t *bits)
{
    char *end;
    unsigned long value;

    if ((*text)[0] != '/' || (*text)[1] < '1' || (*text)[1] > '9')
        return false;
    value = strtoul(*text + 1, &end, 10);
    *text = end;
    *bits = (uint8_t)value;
    return value <= most;
}

/* "source/24", "source/24/64": the bits that count of an IPv4 and of an IPv6 address. */
static bool read_prefixed(const char *text, struct limit_key *key)
{
    static const enum sm_granularity one_way[] = {SM_BY_SOURCE, SM_BY_DESTINATION, SM_BY_INNER_SOURCE,
                                                  SM_BY_INNER_DESTINATION};
    const char *bits = strchr(text, '/');

    for (unsigned i = 0; i < sizeof(one_way) / sizeof(*one_way); i++) {
        const char *name = sm_granularity_name(one_way[i]);

        if (strlen(name) != (size_t)(bits - text) || strncmp(name, text, strlen(name)) != 0)
            continue;
        key->by = one_way[i];
        return read_bits(&bits, 32, &key->prefix4) &&
               (*bits == '\0' || (read_bits(&bits, 128, &key->prefix6) && *bits == '\0'));
    }
    return false;
}

static bool read_key(struct conf_node node, struct limit_key *key)
{
    const char *names[SM_GRANULARITY_COUNT + 1] = {NULL}, *text = conf_text(node);
    unsigned value;

    if (text && strchr(text, '/')) {
        if (strlen(text) < sizeof(key->name) && read_prefixed(text, key))
            return true;
        conf_expected(node, "source, destination, inner-source or inner-destination with the bits that count of an "
                            "IPv4 address (/24) or also of an IPv6 one (/24/64)");
        return false;
    }
    for (unsigned i = 0; i < SM_GRANULARITY_COUNT; i++)
        names[i] = sm_granularity_name((enum sm_granularity)i);
    if (!conf_enum(node, names, &value))
        return false;
    key->by = (enum sm_granularity)value;
    return true;
}

/* The number of a key: that of an equal one, or a new one. */
static unsigned add_key(struct policy *policy, struct conf_node node, struct limit_key key)
{
    const char *name = sm_granularity_name(key.by);
    unsigned number = 0;

    key.prefix4 = key.prefix4 == 32 ? 0 : key.prefix4;
    key.prefix6 = key.prefix6 == 128 ? 0 : key.prefix6;
    if (key.prefix4 || key.prefix6)
        snprintf(key.name, sizeof(key.name), "%s/%u/%u", name, key.prefix4 ? key.prefix4 : 32,
                 key.prefix6 ? key.prefix6 : 128);
    else
        snprintf(key.name, sizeof(key.name), "%s", name);
    while (number < policy->key_count && strcmp(policy->keys[number].name, key.name) != 0)
        number++;
    if (number < policy->key_count)
        return number;
    if (number == POLICY_MAX_KEYS) {
        conf_fail(node, "expected at most %d different keys in a file", POLICY_MAX_KEYS);
        return 0;
    }
    policy->keys[policy->key_count++] = key;
    return number;
}

static void read_per(struct policy *policy, struct limit *limit, struct conf_node node)
{
    struct limit_key key = {0};

    if (read_key(node, &key))
        limit->key = add_key(policy, node, key);
}

/*
 * Each prefix has a bucket: the key is the address, cut to the shortest prefix so that it is one within each of them,
 * and the tag tells them apart. Where a prefix is everything, its bucket can only be one for all replicas.
 */
static void key_by_prefix(struct policy *policy, struct limit *limit, struct conf_node node, const int shortest[2])
{
    struct limit_key key = {.by = limit->prefixes_of};

    if (shortest[0] == 0 || shortest[1] == 0)
        key.by = SM_BY_ALL;
    else
        key = (struct limit_key){.by = limit->prefixes_of,
                                 .prefix4 = shortest[0] > 0 ? (uint8_t)shortest[0] : 0,
                                 .prefix6 = shortest[1] > 0 ? (uint8_t)shortest[1] : 0};
    limit->key = add_key(policy, node, key);
}

/* A rate in packets is counted as if each were a byte of 8 bits: see bucket.h. */
static bool read_rate(struct conf_node node, bool *packets, uint64_t *units)
{
    uint64_t rate, scale;

    if (!conf_rate(node, &rate, packets))
        return false;
    scale = *packets ? 8 : 1;
    if (rate > SM_BUCKET_MAX_RATE / scale)
        conf_expected(node, *packets ? "at most 125000Mpps" : "at most 1000Gbit");
    else
        *units = rate * scale;
    return rate <= SM_BUCKET_MAX_RATE / scale;
}

static void read_ceil(struct limit *limit, struct terms *terms, struct conf_node node)
{
    bool packets;

    limit->borrows = conf_present(node);
    if (!read_rate(node, &packets, &terms->ceil))
        return;
    if (packets != limit->packets)
        conf_expected(node, limit->packets ? "packets, as the rate is in packets" : "bits, as the rate is in bits");
    else if (terms->ceil < terms->rate)
        conf_expected(node, "at least the rate");
}

bool policy_parse_rate(const struct limit *limit, const char *text, uint64_t *rate)
{
    uint64_t number, scale = limit->packets ? 8 : 1;
    bool packets;

    if (!unit_rate(text, &number, &packets) || packets != limit->packets || number == 0 ||
        number > SM_BUCKET_MAX_RATE / scale)
        return false;
    *rate = number * scale;
    return true;
}

bool policy_parse_burst(const struct limit *limit, const char *text, uint64_t *burst)
{
    uint64_t number;

    if (!(limit->packets ? unit_count(text, &number) : unit_size(text, &number)) || number < 1 ||
        number > SM_BUCKET_MAX_BURST)
        return false;
    *burst = number;
    return true;
}

static void read_burst(const struct limit *limit, struct terms *terms, struct conf_node node)
{
    const char *text = conf_text(node);

    if (!conf_present(node) || terms->rate == 0)
        return;
    if (!limit->packets)
        conf_size(node, 1, SM_BUCKET_MAX_BURST, &terms->burst);
    else if (!text || !policy_parse_burst(limit, text, &terms->burst))
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

static void read_shape(struct limit *limit, struct conf_node node)
{
    static const char *const keys[] = {"queue", NULL};

    if (conf_map(node, keys))
        conf_duration(conf_need(node, "queue", "the longest delay, such as 50ms"), 1, SM_MAX_DELAY_NS, &limit->queue);
}

static void read_exceed(struct limit *limit, struct conf_node node)
{
    static const char *const keys[] = {"mark", "shape", NULL};
    const char *text = conf_text(node);
    struct conf_node mark, shape;

    limit->drops = true;
    if (!conf_present(node) || (text && strcmp(text, "drop") == 0) || (!text && !conf_map(node, keys)))
        return;
    mark = conf_get(node, "mark");
    shape = conf_get(node, "shape");
    if (text || conf_present(mark) == conf_present(shape)) {
        conf_expected(node, "drop, {mark: ce}, {mark: {dscp: CODEPOINT}} or {shape: {queue: TIME}}");
        return;
    }
    limit->drops = conf_present(shape);
    if (limit->drops)
        read_shape(limit, shape);
    else
        read_mark(limit, mark);
}

struct allowance policy_allow(const struct terms *terms)
{
    struct allowance allowed = {.rate = {.rate = terms->rate, .burst = terms->burst}};

    if (terms->ceil == 0)
        return allowed;
    allowed.own = allowed.rate;
    allowed.rate.rate = terms->ceil;
    return allowed;
}

/* What has a bucket of its own: by the key that is given or, without one, each prefix. */
static void read_keys(struct policy *policy, struct limit *limit, const struct terms *terms)
{
    struct conf_node prefixes = conf_get(limit->node, "prefixes"), per = conf_get(limit->node, "per");
    int shortest[2];

    if (conf_present(prefixes))
        policy_read_prefixes(policy, limit, terms, prefixes, shortest);
    if (limit->prefixes && !conf_present(per))
        key_by_prefix(policy, limit, prefixes, shortest);
    else if (!conf_present(prefixes) || conf_present(per))
        read_per(policy, limit, conf_need(limit->node, "per", PER));
}

static void read_limit(struct policy *policy, unsigned index, struct conf_node node)
{
    struct limit *limit = &policy->limits[index];
    struct terms terms = {0};

    *limit = (struct limit){.node = node, .filter = -1, .parent = -1, .tag = (uint16_t)index, .distributed = -1};
    if (!conf_map(node, limit_keys))
        return;
    read_name(policy, index, conf_need(node, "name", "a name"));
    read_match(policy, limit, conf_get(node, "match"));
    read_rate(conf_need(node, "rate", "a rate such as 10Mbit or 1kpps"), &limit->packets, &terms.rate);
    read_ceil(limit, &terms, conf_get(node, "ceil"));
    read_burst(limit, &terms, conf_need(node, "burst", "a size such as 16KiB, or a number of packets"));
    policy->allowed[index] = policy_allow(&terms);
    read_keys(policy, limit, &terms);
    read_exceed(limit, conf_get(node, "exceed"));
    if (limit->borrows && limit->queue > 0)
        conf_fail(conf_get(node, "ceil"), "expected none, as the limit shapes: it has no use for what others leave");
    policy_read_distribute(policy, limit, &policy->allowed[index].rate, node);
}

/* False: out of memory. */
static bool read_policy(struct policy *policy)
{
    static const char *const keys[] = {"limits", "peers", NULL};
    struct conf_node root = conf_root(policy->conf), list;

    if (!conf_map(root, keys))
        return true;
    policy_read_peers(policy, conf_get(root, "peers"));
    list = conf_need(root, "limits", "a list of limits");
    if (!conf_list(list))
        return true;
    const unsigned count = conf_count(list);
    if (count < 1 || count > POLICY_MAX_LIMITS) {
        conf_fail(list, "expected 1 to %d limits, got %u", POLICY_MAX_LIMITS, count);
        return true;
    }
    policy->count = count;
    policy->allowed = calloc(policy->count, sizeof(*policy->allowed));
    if (!policy->allowed)
        return false;
    policy->allowed_count = policy->count;
    for (unsigned i = 0; i < policy->count; i++)
        read_limit(policy, i, conf_item(list, i));
    return policy_read_tree(policy);
}

/* Takes `conf`, which may be NULL: then *error is set already. */
static struct policy *policy_of(struct conf *conf, const char *file, struct sm_errbuf *error)
{
    struct policy *policy;

    if (!conf)
        return NULL;
    policy = calloc(1, sizeof(*policy));
    if (policy)
        *policy = (struct policy){.conf = conf, .file = file};
    else
        conf_free(conf);
    if (policy && read_policy(policy) && !conf_error(conf))
        return policy;
    snprintf(error->text, sizeof(error->text), "%s",
             policy && conf_error(conf) ? conf_error(conf) : sm_strerror(SM_E_NO_MEMORY));
    policy_free(policy);
    return NULL;
}

struct policy *policy_load(const char *file, struct sm_errbuf *error)
{
    return policy_of(conf_load(file, error), file, error);
}

struct policy *policy_parse(const char *name, const char *text, size_t length, struct sm_errbuf *error)
{
    return policy_of(conf_parse(name, text, length, error), name, error);
}

void policy_free(struct policy *policy)
{
    if (!policy)
        return;
    for (unsigned i = 0; i < policy->filter_count; i++)
        sm_filter_destroy(policy->filters[i].program);
    for (unsigned i = 0; i < policy->count; i++)
        prefixes_destroy(policy->limits[i].prefixes);
    free(policy->allowed);
    free(policy->prefix);
    free(policy->exchange);
    conf_free(policy->conf);
    free(policy);
}
