/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"

#include <arpa/inet.h>
#include <splitmerge/packet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECOND 1000000000ull
#define PREFIX "an IPv4 prefix such as 10.0.0.0/8"
#define PORTS "a range of at least 16384 ports, such as 1024-65535"

static bool parse_prefix(const char *text, uint32_t *address, uint32_t *mask)
{
    char copy[32];
    const char *slash = strchr(text, '/');
    struct in_addr in;
    char *end;

    if (!slash || (size_t)(slash - text) >= sizeof copy || slash[1] < '0' || slash[1] > '9')
        return false;
    memcpy(copy, text, (size_t)(slash - text));
    copy[slash - text] = '\0';
    unsigned long bits = strtoul(slash + 1, &end, 10);
    if (*end != '\0' || bits < 1 || bits > 32 || inet_pton(AF_INET, copy, &in) != 1)
        return false;
    *mask = ~0u << (32 - bits);
    *address = ntohl(in.s_addr);
    return (*address & ~*mask) == 0;
}

static void read_inside(struct nat_config *config, struct conf_node node)
{
    const char *text = conf_text(node);

    if (conf_present(node) && (!text || !parse_prefix(text, &config->inside, &config->mask)))
        conf_expected(node, PREFIX);
}

static void read_address(struct nat_config *config, struct conf_node node)
{
    const char *text = conf_text(node);
    uint8_t *address = config->outside[config->outside_count];

    if (!text || inet_pton(AF_INET, text, address) != 1) {
        conf_expected(node, "an IPv4 address");
        return;
    }
    uint32_t value;
    memcpy(&value, address, sizeof value);
    if ((ntohl(value) & config->mask) == config->inside)
        conf_fail(node, "expected an address that is not inside, got '%s'", text);
    for (unsigned i = 0; i < config->outside_count; i++)
        if (memcmp(config->outside[i], address, 4) == 0)
            conf_fail(node, "'%s' is there twice", text);
    config->outside_count++;
}

static void read_outside(struct nat_config *config, struct conf_node node)
{
    unsigned count = conf_count(node);

    if (!conf_present(node))
        return;
    if (conf_text(node)) {
        read_address(config, node);
        return;
    }
    if (!conf_list(node))
        return;
    if (count < 1 || count > NAT_MAX_ADDRESSES)
        conf_fail(node, "expected 1 to %d addresses, got %u", NAT_MAX_ADDRESSES, count);
    for (unsigned i = 0; i < count && config->outside_count < NAT_MAX_ADDRESSES; i++)
        read_address(config, conf_item(node, i));
}

/* Each shard of the service has ports of its own, so there have to be as many. */
static void read_ports(struct nat_config *config, struct conf_node node)
{
    const char *text = conf_text(node);
    unsigned first, last;
    char more;

    if (!conf_present(node))
        return;
    if (!text || sscanf(text, "%5u-%5u%c", &first, &last, &more) != 2 || first < 1 || last > UINT16_MAX ||
        last < first || last - first + 1 < SM_PACKET_SHARDS) {
        conf_expected(node, PORTS);
        return;
    }
    config->first_port = (uint16_t)first;
    config->last_port = (uint16_t)last;
}

static void read_timeouts(struct nat_config *config, struct conf_node node)
{
    static const char *const keys[] = {"tcp", "transitory", "udp", "icmp", NULL};

    if (!conf_present(node) || !conf_map(node, keys))
        return;
    conf_duration(conf_get(node, "tcp"), SECOND, 31 * 86400 * SECOND, &config->tcp_ns);
    conf_duration(conf_get(node, "transitory"), SECOND, 86400 * SECOND, &config->transitory_ns);
    conf_duration(conf_get(node, "udp"), SECOND, 86400 * SECOND, &config->udp_ns);
    conf_duration(conf_get(node, "icmp"), SECOND, 86400 * SECOND, &config->icmp_ns);
}

/* Takes the conf over. */
static struct nat_config *config_of(struct conf *conf, struct sm_errbuf *error)
{
    static const char *const keys[] = {"inside", "outside", "ports", "timeouts", "ftp", NULL};
    struct nat_config *config = conf ? calloc(1, sizeof *config) : NULL;

    if (!conf)
        return NULL;
    if (!config) {
        snprintf(error->text, sizeof error->text, "%s", sm_strerror(SM_E_NO_MEMORY));
        conf_free(conf);
        return NULL;
    }
    /* RFC 5382 (REQ-5), RFC 4787 (REQ-5), RFC 5508 (REQ-1). */
    *config = (struct nat_config){.first_port = 1024,
                                  .last_port = UINT16_MAX,
                                  .tcp_ns = 7440 * SECOND,
                                  .transitory_ns = 240 * SECOND,
                                  .udp_ns = 300 * SECOND,
                                  .icmp_ns = 60 * SECOND,
                                  .ftp = true};
    struct conf_node root = conf_root(conf);
    conf_map(root, keys);
    read_inside(config, conf_need(root, "inside", PREFIX));
    read_outside(config, conf_need(root, "outside", "an IPv4 address, or a list of them"));
    read_ports(config, conf_get(root, "ports"));
    read_timeouts(config, conf_get(root, "timeouts"));
    conf_bool(conf_get(root, "ftp"), &config->ftp);
    if (conf_error(conf)) {
        snprintf(error->text, sizeof error->text, "%s", conf_error(conf));
        free(config);
        config = NULL;
    }
    conf_free(conf);
    return config;
}

struct nat_config *nat_config_load(const char *file, struct sm_errbuf *error)
{
    return config_of(conf_load(file, error), error);
}

struct nat_config *nat_config_parse(const char *name, const char *text, size_t length, struct sm_errbuf *error)
{
    return config_of(conf_parse(name, text, length, error), error);
}
