/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "peers/loop.h"
#include "policy.h"

#define ADDRESS "an address with a port, such as 10.0.0.1:7946 or [fd00::1]:7946"
#define HOST "a number from 1 to 127"
#define SECRET_LEAST 16
#define SECRET_MOST 4096
#define QUEUE_MOST 500000000u /* less than any lease: what waits departs before its end */

static bool read_host(struct conf_node node, uint16_t *host)
{
    uint32_t number;

    if (!conf_u32(node, 1, EXACT_MAX_HOSTS - 1, &number))
        return false;
    *host = (uint16_t)number;
    return true;
}

static bool read_address(struct conf_node node, struct datagram_member *member)
{
    const char *text;

    if (!conf_string(node, &text))
        return false;
    if (peers_parse_address(text, member))
        return true;
    conf_expected(node, ADDRESS);
    return false;
}

/* The file's content is the secret; nobody else may be able to read it. */
static void read_key(struct exchange_config *exchange, struct conf_node node)
{
    char secret[SECRET_MOST];
    struct stat status;
    const char *path;
    ssize_t length = -1;
    int fd;

    if (!conf_string(node, &path))
        return;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        conf_fail(node, "expected a file that can be read, got '%.80s' (%s)", path, strerror(errno));
        return;
    }
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && (status.st_mode & 077) == 0)
        length = read(fd, secret, sizeof secret);
    close(fd);
    if (length < 0)
        conf_fail(node, "expected a file that only its owner may use (mode 0600), got '%.80s'", path);
    else if (length < SECRET_LEAST || length == SECRET_MOST)
        conf_fail(node, "expected a file of %d to %d bytes, got '%.80s'", SECRET_LEAST, SECRET_MOST - 1, path);
    else if (!datagram_key(secret, (size_t)length, exchange->key))
        conf_fail(node, "the library for the key cannot be used");
    explicit_bzero(secret, sizeof secret);
}

static void read_member(struct exchange_config *exchange, struct conf_node node)
{
    static const char *const keys[] = {"host", "address", NULL};
    struct datagram_member member = {0};
    uint16_t host = 0;

    if (!conf_map(node, keys))
        return;
    struct conf_node number = conf_need(node, "host", HOST);
    if (!read_host(number, &host) || !read_address(conf_need(node, "address", ADDRESS), &member))
        return;
    if (host == exchange->self || exchange->members[host].version != 0) {
        conf_expected(number, "the number of another host, each once");
        return;
    }
    member.host = host;
    member.version = 1;
    exchange->members[host] = member;
}

void policy_read_peers(struct policy *policy, struct conf_node node)
{
    static const char *const keys[] = {"host", "home", "listen", "key", "members", "fanout", NULL};
    struct exchange_config *exchange;
    uint32_t fanout = 0;

    if (!conf_present(node) || !conf_map(node, keys))
        return;
    exchange = policy->exchange = calloc(1, sizeof *exchange);
    if (!exchange) {
        conf_fail(node, "out of memory");
        return;
    }
    read_host(conf_need(node, "host", HOST), &exchange->self);
    read_host(conf_need(node, "home", HOST ", the same on all hosts"), &exchange->home);
    read_address(conf_need(node, "listen", ADDRESS), &exchange->listen);
    read_key(exchange, conf_need(node, "key", "a file with a secret that all hosts have"));
    if (conf_u32(conf_get(node, "fanout"), 1, EXACT_MAX_HOSTS, &fanout))
        exchange->fanout = fanout;
    struct conf_node list = conf_get(node, "members");
    if (conf_present(list) && !conf_list(list))
        return;
    for (unsigned i = 0; i < conf_count(list); i++)
        read_member(exchange, conf_item(list, i));
    if (exchange->home != exchange->self && exchange->home != 0 && exchange->members[exchange->home].version == 0)
        conf_fail(conf_get(node, "home"), "expected this host's number, or a member's");
}

void policy_read_distribute(struct policy *policy, struct limit *limit, const struct sm_bucket_rate *rate,
                            struct conf_node node)
{
    static const char *const names[] = {"exact", "pool", "fps", "grd", "gtb", "split", NULL};
    static const enum drl_mode modes[] = {DRL_MODES, DRL_POOL, DRL_FPS, DRL_GRD, DRL_GTB, DRL_SPLIT};
    struct conf_node how = conf_get(node, "distribute"), interval = conf_get(node, "interval");
    struct exchange_config *exchange = policy->exchange;
    const struct limit_key *key = &policy->keys[limit->key];
    bool keyed = key->by != SM_BY_ALL || limit->prefixes;
    unsigned chosen;

    limit->distributed = -1;
    if (!conf_present(how) && conf_present(interval))
        conf_fail(interval, "expected distribute: beside it");
    if (!conf_present(how) || !conf_enum(how, names, &chosen))
        return;
    if (!exchange)
        conf_fail(how, "expected a section peers: in the file");
    else if (exchange->limit_count == SHARE_MOST)
        conf_fail(how, "expected at most %u distributed limits", SHARE_MOST);
    else if (keyed && modes[chosen] != DRL_MODES && modes[chosen] != DRL_POOL && modes[chosen] != DRL_SPLIT)
        conf_fail(how, "expected exact, pool or split where a limit has keys or prefixes: %s knows one bucket",
                  names[chosen]);
    else if (keyed && limit->queue > 0 && modes[chosen] == DRL_POOL)
        conf_fail(how,
                  "expected exact or split where a limit with keys shapes: a key's share and lease are two queues");
    else if (limit->queue > 0 && modes[chosen] == DRL_GRD)
        conf_fail(how, "expected another mode where a limit shapes: grd drops by chance, and has nothing to wait for");
    else if (limit->queue > QUEUE_MOST)
        conf_fail(conf_get(node, "exceed"), "expected a queue of at most 500ms where a limit is distributed");
    else if (limit->borrows)
        conf_fail(how, "expected no ceil where a limit is distributed: its guarantee would be one host's");
    else {
        struct exchange_limit *shared = &exchange->limits[limit->distributed = (int)exchange->limit_count++];
        *shared = (struct exchange_limit){.name = limit->name,
                                          .exact = chosen == 0,
                                          .keyed = keyed ? key->name : NULL,
                                          .packets = limit->packets,
                                          .mode = modes[chosen],
                                          .rate = rate->rate,
                                          .burst = rate->burst,
                                          .interval_ns = chosen == 0 ? 100000000 : 50000000,
                                          .queue_ns = limit->queue};
        conf_duration(interval, 10000000, 1000000000, &shared->interval_ns);
    }
}
