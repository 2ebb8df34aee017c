/* SPDX-License-Identifier: BSD-2-Clause */
#include "conf/service.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/rundir.h"
#include "conf/units.h"

const char *const service_strategies[] = {"move", "drain", "new-flows-only", "restart", NULL};

enum service_strategy service_strategy(const char *name)
{
    for (unsigned i = 0; service_strategies[i]; i++)
        if (strcmp(name, service_strategies[i]) == 0)
            return (enum service_strategy)(SERVICE_MOVE + i);
    return SERVICE_STRATEGY_NONE;
}

static void read_strategy(struct service *service, struct conf_node node)
{
    unsigned place = 0;
    conf_enum(conf_get(node, "strategy"), service_strategies, &place);
    service->strategy = (enum service_strategy)(SERVICE_MOVE + place);
    struct conf_node idle = conf_get(node, "idle");
    if (conf_present(idle) && !service_stays(service->strategy))
        conf_fail(idle, "expected only with strategy drain or new-flows-only");
    else
        conf_duration(idle, 1000000, 86400000000000, &service->idle_ns);
}

static void read_name(struct service *service, struct conf_node node)
{
    if (conf_string(node, &service->name) && !service_name_valid(service->name))
        conf_expected(node, "1 to 63 of a-z, 0-9 and -");
}

/* The keys that a packet always has, and `all`: tunnels are only some packets' and VLANs nobody's key. */
static void read_steer(struct service *service, struct conf_node node)
{
    static const char *const names[] = {"flow", "host-pair", "source", "destination", "all", NULL};
    static const enum sm_granularity keys[] = {SM_BY_FLOW, SM_BY_HOST_PAIR, SM_BY_SOURCE, SM_BY_DESTINATION, SM_BY_ALL};
    unsigned place = 0;
    service->steered = conf_enum(node, names, &place);
    service->steer = keys[place];
}

static void read_middlebox(struct service *service, struct conf_node node)
{
    static const char *const keys[] = {"exec", "args", "steer", "strategy", "idle", "pcap", "output", "threads", NULL};
    if (!conf_map(node, keys))
        return;
    read_steer(service, conf_get(node, "steer"));
    read_strategy(service, node);
    conf_string(conf_need(node, "exec", "a program"), &service->exec);
    conf_bool(conf_get(node, "pcap"), &service->pcap);
    conf_string(conf_get(node, "output"), &service->output);
    conf_u32(conf_get(node, "threads"), 1, SERVICE_MAX_REPLICAS, &service->threads);
    if (service->pcap && service->threads > 1)
        conf_expected(conf_get(node, "threads"), "1 for a program of libpcap");
    struct conf_node args = conf_get(node, "args");
    unsigned count = conf_present(args) && conf_list(args) ? conf_count(args) : 0;
    service->args = calloc(count + 1, sizeof(*service->args));
    if (!service->args) {
        conf_fail(node, "out of memory");
        return;
    }
    for (unsigned i = 0; i < count; i++) {
        struct conf_node arg = conf_item(args, i);
        service->args[i] = conf_text(arg);
        if (!service->args[i])
            conf_expected(arg, "text");
    }
}

static void read_replicas(struct service *service, struct conf_node node)
{
    static const char *const keys[] = {"start", "min", "max", NULL};
    if (!conf_present(node) || !conf_map(node, keys))
        return;
    uint32_t *start = &service->replicas.start, *min = &service->replicas.min, *max = &service->replicas.max;
    struct conf_node start_node = conf_get(node, "start"), min_node = conf_get(node, "min"),
                     max_node = conf_get(node, "max");
    conf_u32(min_node, 1, SERVICE_MAX_REPLICAS, min);
    if (!conf_u32(max_node, 1, SERVICE_MAX_REPLICAS, max) && *max < *min)
        *max = *min;
    if (!conf_u32(start_node, 1, SERVICE_MAX_REPLICAS, start))
        *start = *min;
    if (*max < *min)
        conf_fail(max_node, "expected at least min (%u), got '%u'", *min, *max);
    if (*start < *min || *start > *max)
        conf_fail(conf_present(start_node) ? start_node : max_node, "expected min (%u) to max (%u), got '%u'", *min,
                  *max, *start);
}

/* Exactly one of the keys that say what a port is; its node. */
static struct conf_node read_kind(struct conf_node port, const char *const *kinds, const char *what, unsigned *kind)
{
    struct conf_node found = {port.conf, 0};
    for (unsigned i = 0; kinds[i]; i++) {
        struct conf_node node = conf_get(port, kinds[i]);
        if (conf_present(node) && conf_present(found))
            conf_fail(node, "expected one of %s, got two", what);
        else if (conf_present(node)) {
            found = node;
            *kind = i;
        }
    }
    if (!conf_present(found))
        conf_fail(port, "expected one of %s, got none", what);
    return found;
}

/* `key` means something only for ports of one kind. */
static void only_with(struct conf_node port, const char *key, bool allowed, const char *kind)
{
    struct conf_node node = conf_get(port, key);
    if (conf_present(node) && !allowed)
        conf_fail(node, "expected only with %s", kind);
}

static void read_driver(struct conf_node port, bool is_interface, enum service_driver *driver, uint32_t *threads)
{
    static const char *const names[] = {"auto", "pcap", "xdp", "xdp-native", "xdp-generic", NULL};
    unsigned place = SERVICE_DRIVER_AUTO;
    only_with(port, "driver", is_interface, "interface");
    conf_enum(conf_get(port, "driver"), names, &place);
    *driver = (enum service_driver)place;
    only_with(port, "threads", *driver >= SERVICE_DRIVER_XDP, "driver xdp, xdp-native or xdp-generic");
    conf_u32(conf_get(port, "threads"), 0, SERVICE_MAX_THREADS, threads);
}

static void read_pace(struct service_in *in, struct conf_node node)
{
    const char *text = conf_text(node);
    bool packets = false;
    if (!conf_present(node))
        return;
    if (text && strcmp(text, "max") == 0)
        in->pace = SERVICE_PACE_MAX;
    else if (text && strcmp(text, "recorded") == 0)
        in->pace = SERVICE_PACE_RECORDED;
    else if (text && unit_rate(text, &in->pace_pps, &packets) && packets && in->pace_pps)
        in->pace = SERVICE_PACE_RATE;
    else
        conf_expected(node, "recorded, max or a packet rate such as 50kpps");
}

static void read_generator(struct service_in *in, struct conf_node node)
{
    static const char *const keys[] = {"flows", "size", "count", "rate", NULL};
    in->generator.flows = 1000;
    in->generator.size = 64;
    if (!conf_map(node, keys))
        return;
    conf_u32(conf_get(node, "flows"), 1, UINT32_MAX, &in->generator.flows);
    conf_u32(conf_get(node, "size"), 64, 1500, &in->generator.size);
    conf_u64(conf_get(node, "count"), 0, UINT64_MAX, &in->generator.count);
    bool packets = true;
    struct conf_node rate = conf_get(node, "rate");
    if (conf_rate(rate, &in->generator.rate, &packets) && !packets)
        conf_expected(rate, "a packet rate such as 50kpps");
}

static void read_in(struct service_in *in, struct conf_node node)
{
    static const char *const keys[] = {"pcap", "interface", "generator", "pace", "driver", "threads", NULL};
    static const char *const kinds[] = {"pcap", "interface", "generator", NULL};
    if (!conf_map(node, keys))
        return;
    unsigned kind = 0;
    struct conf_node what = read_kind(node, kinds, "pcap, interface, generator", &kind);
    in->kind = kind == 0 ? SERVICE_PORT_CAPTURE : kind == 1 ? SERVICE_PORT_INTERFACE : SERVICE_PORT_GENERATOR;
    if (in->kind == SERVICE_PORT_GENERATOR)
        read_generator(in, what);
    else
        conf_string(what, &in->name);
    only_with(node, "pace", in->kind == SERVICE_PORT_CAPTURE, "pcap");
    read_pace(in, conf_get(node, "pace"));
    read_driver(node, in->kind == SERVICE_PORT_INTERFACE, &in->driver, &in->threads);
}

static void read_out(struct service_out *out, struct conf_node node)
{
    static const char *const keys[] = {"pcap", "interface", "discard", "order", "driver", "threads", NULL};
    static const char *const kinds[] = {"pcap", "interface", "discard", NULL};
    static const char *const orders[] = {"flow", "arrival", NULL};
    if (!conf_map(node, keys))
        return;
    unsigned kind = 0, order;
    struct conf_node what = read_kind(node, kinds, "pcap, interface, discard", &kind);
    out->kind = kind == 0 ? SERVICE_PORT_CAPTURE : kind == 1 ? SERVICE_PORT_INTERFACE : SERVICE_PORT_DISCARD;
    bool discard = true;
    if (out->kind != SERVICE_PORT_DISCARD)
        conf_string(what, &out->name);
    else if (conf_bool(what, &discard) && !discard)
        conf_expected(what, "true");
    order = out->kind == SERVICE_PORT_CAPTURE ? SERVICE_ORDER_ARRIVAL : SERVICE_ORDER_FLOW;
    conf_enum(conf_get(node, "order"), orders, &order);
    out->order = (enum service_order)order;
    read_driver(node, out->kind == SERVICE_PORT_INTERFACE, &out->driver, &out->threads);
}

static void read_ports(struct service *service, struct conf_node node)
{
    static const char *const keys[] = {"in", "out", NULL};
    if (!conf_map(node, keys))
        return;
    read_in(&service->in, conf_need(node, "in", "a port"));
    struct conf_node out = conf_get(node, "out");
    if (service->mode == SERVICE_INLINE)
        read_out(&service->out, conf_need(node, "out", "a port (mode is inline)"));
    else
        conf_fail(out, "expected no out port in tap mode");
    if (service->out.kind == SERVICE_PORT_INTERFACE && service->out.order == SERVICE_ORDER_ARRIVAL &&
        (service->in.threads > 1 || service->out.threads > 1))
        conf_expected(conf_get(out, "order"), "flow where several threads send");
    /* AF_XDP takes packets from the host, and a tap is to leave them. */
    if (service->mode == SERVICE_TAP && service->in.driver >= SERVICE_DRIVER_XDP)
        conf_expected(conf_get(conf_get(node, "in"), "driver"), "auto or pcap in tap mode");
}

static void read_limits(struct service *service, struct conf_node node)
{
    static const char *const keys[] = {"flows", "bindings", "memory", "hold", "shape", "unresponsive", NULL};
    static const char *const hold_keys[] = {"bytes", "time", NULL};
    if (!conf_present(node) || !conf_map(node, keys))
        return;
    conf_u32(conf_get(node, "flows"), 1, UINT32_MAX, &service->limits.flows);
    conf_u32(conf_get(node, "bindings"), 1, 1u << 24, &service->limits.bindings);
    conf_size(conf_get(node, "memory"), 1u << 20, SERVICE_MAX_MEMORY, &service->limits.memory);
    conf_size(conf_get(node, "shape"), 4096, 1ull << 36, &service->limits.shape_bytes);
    conf_duration(conf_get(node, "unresponsive"), 500000000, 3600000000000, &service->limits.unresponsive_ns);
    struct conf_node hold = conf_get(node, "hold");
    if (!conf_present(hold) || !conf_map(hold, hold_keys))
        return;
    conf_size(conf_get(hold, "bytes"), 1, 1ull << 46, &service->limits.hold_bytes);
    conf_duration(conf_get(hold, "time"), 1, 3600000000000, &service->limits.hold_ns);
}

/* "127.0.0.1:9464". */
static void read_metrics(struct service_metrics *metrics, struct conf_node node)
{
    const char *text = NULL;
    char address[INET_ADDRSTRLEN];
    struct in_addr in;
    uint64_t port;
    if (!conf_string(node, &text))
        return;
    const char *colon = strrchr(text, ':');
    size_t length = colon ? (size_t)(colon - text) : sizeof(address);
    snprintf(address, sizeof(address), "%.*s", (int)(length < sizeof(address) ? length : 0), text);
    bool right = inet_pton(AF_INET, address, &in) == 1 && ntohl(in.s_addr) >> 24 == 127 &&
                 unit_count(colon + 1, &port) && port >= 1 && port <= UINT16_MAX;
    if (right)
        *metrics = (struct service_metrics){text, in.s_addr, (uint16_t)port};
    else
        conf_expected(node, "a loopback address and a port such as 127.0.0.1:9464");
}

/* [0, 2]: processors that this process may use. */
static void read_processors(struct conf_node list, cpu_set_t *processors)
{
    cpu_set_t usable;
    uint32_t number = 0;
    if (!conf_present(list) || !conf_list(list) || sched_getaffinity(0, sizeof usable, &usable) != 0)
        return;
    if (conf_count(list) == 0)
        conf_expected(list, "the number of a processor at least");
    for (unsigned i = 0; i < conf_count(list); i++) {
        struct conf_node item = conf_item(list, i);
        if (!conf_u32(item, 0, CPU_SETSIZE - 1, &number))
            continue;
        if (CPU_ISSET(number, &usable))
            CPU_SET(number, processors);
        else
            conf_fail(item, "expected a processor that may be used here, got '%u'", number);
    }
}

static void read_cpus(struct service *service, struct conf_node node)
{
    static const char *const keys[] = {"switch", "replicas", NULL};
    if (!conf_present(node) || !conf_map(node, keys))
        return;
    read_processors(conf_get(node, "switch"), &service->cpus.worker);
    read_processors(conf_get(node, "replicas"), &service->cpus.replicas);
}

int service_read(struct service *service, struct conf *conf, const char *file, struct sm_errbuf *error)
{
    static const char *const keys[] = {"service", "middlebox", "replicas", "mode", "ports",
                                       "limits",  "metrics",   "cpus",     NULL};
    static const char *const modes[] = {"inline", "tap", NULL};
    struct service s = {
        .file = file,
        .conf = conf,
        .threads = 1,
        .idle_ns = 60000000000,
        .replicas = {.start = 1, .min = 1, .max = 8},
        .limits = {.flows = 4000000,
                   .bindings = 65536,
                   .memory = 1u << 30,
                   .hold_bytes = 64u << 20,
                   .hold_ns = 100000000,
                   .shape_bytes = 64u << 20,
                   .unresponsive_ns = 5000000000},
    };
    struct conf_node root = conf_root(conf);
    unsigned mode = SERVICE_INLINE;
    conf_map(root, keys);
    read_name(&s, conf_need(root, "service", "the service's name"));
    read_middlebox(&s, conf_need(root, "middlebox", "a mapping with exec"));
    read_replicas(&s, conf_get(root, "replicas"));
    conf_enum(conf_get(root, "mode"), modes, &mode);
    s.mode = (enum service_mode)mode;
    read_ports(&s, conf_need(root, "ports", "a mapping with in and out"));
    read_limits(&s, conf_get(root, "limits"));
    read_metrics(&s.metrics, conf_get(root, "metrics"));
    read_cpus(&s, conf_get(root, "cpus"));
    if (conf_error(conf)) {
        snprintf(error->text, sizeof(error->text), "%s", conf_error(conf));
        service_free(&s);
        return SM_E_SYNTAX;
    }
    *service = s;
    return 0;
}

int service_load(struct service *service, const char *file, struct sm_errbuf *error)
{
    struct conf *conf = conf_load(file, error);
    return conf ? service_read(service, conf, file, error) : SM_E_SYNTAX;
}

char *service_expand(const char *text, const char *service, const char *replica)
{
    const struct {
        const char *name, *value;
    } words[] = {{"{service}", service}, {"{replica}", replica}};
    char *expanded = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&expanded, &size);
    while (out && *text) {
        unsigned i = 0;
        while (i < 2 && strncmp(text, words[i].name, strlen(words[i].name)) != 0)
            i++;
        if (i < 2)
            fputs(words[i].value, out);
        else
            fputc(*text, out);
        text += i < 2 ? strlen(words[i].name) : 1;
    }
    if (out && fclose(out) == 0)
        return expanded;
    free(expanded);
    return NULL;
}

void service_free(struct service *service)
{
    free(service->args);
    conf_free(service->conf);
    *service = (struct service){0};
}
