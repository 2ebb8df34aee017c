/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * conntrackd's bulk resynchronisation, as firewalls in pairs do it when one of them has been away: entries a second.
 * Two network namespaces with a link between them, each with a conntrackd that keeps step reliably (FTFW). The first's
 * kernel knows a connection for each flow (a UDP packet to an address of its own, over the loopback), and its
 * conntrackd has them in its cache. A measurement: the second's cache is empty, the first is told to send its own
 * (conntrackd -B), until the second has all.
 *
 * Both namespaces end with us. The first's conntrackd has the first core, the second's the other.
 */

#include <arpa/inet.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "references/reference.h"
#include "references/servers.h"

#define PATIENCE_NS 20000000000ull
#define RETRY_US 1000u
#define LOOPBACK 0x7f010000u /* flow 0 */
#define DISCARD 9

enum { FIRST, SECOND, NODES };

struct pair {
    char folder[32];
    int spaces[NODES]; /* we are in the first */
    pid_t pids[NODES];
    uint32_t flows;
};

static const char configuration[] = "Sync {\n"
                                    "    Mode FTFW { ResendQueueSize %u CommitTimeout 1800 ACKWindowSize 300 "
                                    "DisableExternalCache off StartupResync no }\n"
                                    "    UDP {\n"
                                    "        IPv4_address 10.9.0.%u\n"
                                    "        IPv4_Destination_Address 10.9.0.%u\n"
                                    "        Port 3780\n"
                                    "        Interface sync%u\n"
                                    "        SndSocketBuffer 33554432\n"
                                    "        RcvSocketBuffer 33554432\n"
                                    "        Checksum on\n"
                                    "    }\n"
                                    "}\n"
                                    "General {\n"
                                    "    HashSize %u\n"
                                    "    HashLimit %u\n"
                                    "    LogFile off\n"
                                    "    Syslog off\n"
                                    "    LockFile %s/%u.lock\n"
                                    "    UNIX { Path %s/%u.socket }\n"
                                    "    NetlinkBufferSize 2097152\n"
                                    "    NetlinkBufferSizeMaxGrowth 33554432\n"
                                    "}\n";

/* In the second namespace; its parent's is the first. */
static const char link_text[] =
    "ip link add sync1 type veth peer name sync0 netns $PPID && ip addr add 10.9.0.2/24 dev "
    "sync1 && ip link set sync1 up && ip link set lo up";

/* That a rule asks for them makes the kernel keep connections. What a packet was for ends with its first look. */
static const char keep_text[] = "ip link set lo up && ip addr add 10.9.0.1/24 dev sync0 && ip link set sync0 up && "
                                "echo 3600 > /proc/sys/net/netfilter/nf_conntrack_udp_timeout && "
                                "nft 'add table t; add chain t c { type filter hook input priority 0; }; add rule t c "
                                "udp dport 9 ct state new drop'";

static uint32_t number_in(const char *path)
{
    unsigned long number = 0;
    FILE *file = fopen(path, "re");

    if (file && fscanf(file, "%lu", &number) != 1)
        number = 0;
    if (file)
        fclose(file);
    return (uint32_t)number;
}

/* A new network namespace, which we are in from now on. */
static int new_space(void)
{
    return unshare(CLONE_NEWNET) == 0 ? open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC) : -1;
}

/* The kernel's, of the first. */
static bool make_connections(uint32_t flows)
{
    int udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool sent = udp >= 0;

    for (uint32_t i = 0; sent && i < flows; i++) {
        struct sockaddr_in to = {
            .sin_family = AF_INET, .sin_port = htons(DISCARD), .sin_addr.s_addr = htonl(LOOPBACK + i)};
        sent = sendto(udp, "", 1, 0, (const struct sockaddr *)&to, sizeof to) == 1;
    }
    if (udp >= 0)
        close(udp);
    return sent && number_in("/proc/sys/net/netfilter/nf_conntrack_count") >= flows;
}

/* Ask a conntrackd by its own command; `answer` may be NULL. */
static bool tell(const struct pair *pair, unsigned node, const char *what, char *answer, size_t size)
{
    char command[128];

    snprintf(command, sizeof command, "conntrackd -C %s/%u.conf %s 2>/dev/null", pair->folder, node, what);
    FILE *pipe = popen(command, "re");
    size_t got = pipe && answer ? fread(answer, 1, size - 1, pipe) : 0;
    if (answer)
        answer[got] = '\0';
    return pipe && pclose(pipe) == 0;
}

/* What a cache has; -1: it does not say. */
static long entries(const struct pair *pair, unsigned node, const char *cache)
{
    char text[4096];
    const char *at = tell(pair, node, "-s cache", text, sizeof text) ? strstr(text, cache) : NULL;

    at = at ? strstr(at, "active objects:") : NULL;
    return at ? strtol(at + strlen("active objects:"), NULL, 10) : -1;
}

/* Until a cache has as many at least, or none. */
static bool wait_for(const struct pair *pair, unsigned node, const char *cache, uint32_t wanted)
{
    for (uint64_t begin = bench_now(); bench_now() - begin < PATIENCE_NS; usleep(RETRY_US)) {
        long has = entries(pair, node, cache);
        if (wanted == 0 ? has == 0 : has >= (long)wanted)
            return true;
    }
    return false;
}

static bool start(struct pair *pair, unsigned node)
{
    char name[16], command[128];

    snprintf(name, sizeof name, "%u.conf", node);
    snprintf(command, sizeof command, "exec conntrackd -C %s/%s", pair->folder, name);
    if (!servers_file(pair->folder, name, configuration, 2 * pair->flows + 4096, node + 1, 2 - node, node,
                      pair->flows / 2 + 16, 2 * pair->flows + 4096, pair->folder, node, pair->folder, node))
        return false;
    pair->pids[node] = server_start(command, node, pair->spaces[node]);
    return pair->pids[node] > 0;
}

/* NULL, or what is missing. */
static const char *open_pair(struct pair *pair)
{
    if (!servers_installed("conntrackd ip nft"))
        return "conntrackd, nftables or iproute2 is not installed";
    if (geteuid() != 0 || (pair->spaces[SECOND] = new_space()) < 0 || (pair->spaces[FIRST] = new_space()) < 0)
        return "needs root, for network namespaces";
    if (!server_wait(server_start(link_text, 0, pair->spaces[SECOND])))
        return "no virtual link between two network namespaces";
    if (!server_wait(server_start(keep_text, 0, -1)))
        return "the kernel keeps no connections here (nf_conntrack)";
    if (number_in("/proc/sys/net/netfilter/nf_conntrack_max") < pair->flows + 64 || !make_connections(pair->flows))
        return "nf_conntrack_max is too small for so many flows";
    if (!start(pair, FIRST) || !start(pair, SECOND) || !wait_for(pair, FIRST, "cache:internal", pair->flows) ||
        !wait_for(pair, SECOND, "cache:external", 0))
        return "conntrackd does not start";
    return NULL;
}

/* Entries a second; 0: it has failed. */
static double resynchronise(const struct pair *pair)
{
    if (!tell(pair, SECOND, "-f external", NULL, 0) || !wait_for(pair, SECOND, "cache:external", 0))
        return 0;
    uint64_t begin = bench_now();
    if (!tell(pair, FIRST, "-B", NULL, 0) || !wait_for(pair, SECOND, "cache:external", pair->flows))
        return 0;
    return pair->flows * 1e9 / (double)(bench_now() - begin);
}

int main(int argc, char **argv)
{
    struct reference_options options;
    struct pair pair = {.spaces = {-1, -1}};

    if (!reference_options(argc, argv, &options))
        return 2;
    pair.flows = options.flows;
    bench_pin(0);
    const char *missing = servers_folder(pair.folder) ? open_pair(&pair) : "no folder for conntrackd";
    reference_ready(missing);
    while (!missing && reference_asked()) {
        double rate = resynchronise(&pair);
        if (rate == 0)
            break;
        reference_answer(&rate, 1);
    }
    for (unsigned node = 0; node < NODES; node++)
        server_end(pair.pids[node]);
    servers_remove(pair.folder);
    return 0;
}
