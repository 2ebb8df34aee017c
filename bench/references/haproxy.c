/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * HAProxy's peers, as they hand a stick-table to a process that has just been started: entries a second. The first
 * process is given a table by its command socket, an IPv6 address and five counters for each flow. A measurement: the
 * second is started, learns the table over the loopback, and is ended. The time is from when it last had nothing until
 * it has all; what it takes to start is not in it.
 *
 * The first has the first core, the second the other.
 */

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "bench.h"
#include "references/reference.h"
#include "references/servers.h"

#define PATIENCE_NS 20000000000ull
#define RETRY_US 500u
#define BATCH 64u /* entries in one line */
#define LINE_BYTES 16384u
#define NOBODY 1u /* a port */

enum { FIRST, SECOND, NODES };

struct peers {
    char folder[32];
    pid_t pids[NODES];
    uint32_t flows;
};

static const char configuration[] = "global\n"
                                    "    stats socket %s/%u.socket mode 600 level admin\n"
                                    "    localpeer peer%u\n"
                                    "    nbthread 1\n"
                                    "defaults\n"
                                    "    timeout connect 5s\n"
                                    "    timeout client 1h\n"
                                    "    timeout server 1h\n"
                                    "peers pair\n"
                                    "    peer peer0 127.0.0.1:%u\n"
                                    "    peer peer1 127.0.0.1:%u\n"
                                    "backend t\n"
                                    "    stick-table type ipv6 size %u expire 1h store "
                                    "gpc0,conn_cnt,http_req_cnt,bytes_in_cnt,bytes_out_cnt peers pair\n";

/* Two ports of the loopback that nobody has. */
static bool free_ports(unsigned *ports)
{
    int sockets[NODES];
    bool got = true;

    for (unsigned i = 0; i < NODES; i++) {
        struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t size = sizeof at;
        sockets[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        got &= sockets[i] >= 0 && bind(sockets[i], (const struct sockaddr *)&at, sizeof at) == 0 &&
               getsockname(sockets[i], (struct sockaddr *)&at, &size) == 0;
        ports[i] = ntohs(at.sin_port);
    }
    for (unsigned i = 0; i < NODES; i++)
        if (sockets[i] >= 0)
            close(sockets[i]);
    return got;
}

/* One line to a command socket, and the answer; false: nobody is there. */
static bool tell(const struct peers *peers, unsigned node, const char *line, char *answer, size_t size)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int stream = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    size_t length = strlen(line), got = 0;
    ssize_t n = -1;

    snprintf(at.sun_path, sizeof at.sun_path, "%s/%u.socket", peers->folder, node);
    if (stream >= 0 && connect(stream, (const struct sockaddr *)&at, sizeof at) == 0 &&
        send(stream, line, length, MSG_NOSIGNAL) == (ssize_t)length)
        while (got < size - 1 && (n = recv(stream, answer + got, size - 1 - got, 0)) > 0)
            got += (size_t)n;
    if (stream >= 0)
        close(stream);
    answer[got] = '\0';
    return n >= 0;
}

/* -1: it does not say. */
static long entries(const struct peers *peers, unsigned node)
{
    char text[512];
    const char *used = tell(peers, node, "show table\n", text, sizeof text) ? strstr(text, "used:") : NULL;

    return used ? strtol(used + strlen("used:"), NULL, 10) : -1;
}

static bool fill(const struct peers *peers)
{
    static char line[LINE_BYTES], answer[LINE_BYTES];

    for (uint32_t done = 0; done < peers->flows;) {
        size_t at = 0;
        for (uint32_t i = 0; i < BATCH && done < peers->flows; i++, done++)
            at += (size_t)snprintf(line + at, sizeof line - at,
                                   "set table t key 2001:db8::%x:%x data.gpc0 %u data.conn_cnt 1 data.http_req_cnt %u "
                                   "data.bytes_in_cnt %u data.bytes_out_cnt %u;",
                                   done >> 16, done & 0xffff, 1 + done % 7, 1 + done % 1000, 1000 + done, 5000 + done);
        line[at - 1] = '\n';
        if (!tell(peers, FIRST, line, answer, sizeof answer))
            return false;
    }
    return entries(peers, FIRST) == (long)peers->flows;
}

static void start(struct peers *peers, unsigned node)
{
    char command[128];

    snprintf(command, sizeof command, "exec haproxy -db -f %s/%u.conf", peers->folder, node);
    peers->pids[node] = server_start(command, node, -1);
}

/* NULL, or what is missing. */
static const char *open_peers(struct peers *peers)
{
    unsigned ports[NODES];

    if (!servers_installed("haproxy"))
        return "haproxy is not installed";
    if (!free_ports(ports))
        return "no ports of the loopback for haproxy";
    for (unsigned node = 0; node < NODES; node++) {
        char name[16];
        snprintf(name, sizeof name, "%u.conf", node);
        /* Only the second connects to the other: two connections at once, and HAProxy begins anew after a while. */
        if (!servers_file(peers->folder, name, configuration, peers->folder, node, node, ports[FIRST],
                          node == FIRST ? NOBODY : ports[SECOND], peers->flows + 1024))
            return "no files for haproxy";
    }
    start(peers, FIRST);
    for (uint64_t begin = bench_now(); entries(peers, FIRST) != 0; usleep(RETRY_US))
        if (bench_now() - begin > PATIENCE_NS)
            return "haproxy does not start";
    return fill(peers) ? NULL : "haproxy does not take entries";
}

/* Entries a second; 0: it has failed. */
static double teach(struct peers *peers)
{
    uint64_t begin = bench_now(), from = begin, now;
    long has;

    start(peers, SECOND);
    do {
        usleep(RETRY_US);
        now = bench_now();
        has = entries(peers, SECOND);
        from = has == 0 ? now : from;
    } while (has < (long)peers->flows && now - begin < PATIENCE_NS);
    now = bench_now();
    server_end(peers->pids[SECOND]);
    peers->pids[SECOND] = 0;
    return has < (long)peers->flows ? 0 : peers->flows * 1e9 / (double)(now - from);
}

int main(int argc, char **argv)
{
    struct reference_options options;
    struct peers peers = {.pids = {0}};

    if (!reference_options(argc, argv, &options))
        return 2;
    peers.flows = options.flows;
    bench_pin(0);
    const char *missing = servers_folder(peers.folder) ? open_peers(&peers) : "no folder for haproxy";
    reference_ready(missing);
    while (!missing && reference_asked()) {
        double rate = teach(&peers);
        if (rate == 0)
            break;
        reference_answer(&rate, 1);
    }
    for (unsigned node = 0; node < NODES; node++)
        server_end(peers.pids[node]);
    servers_remove(peers.folder);
    return 0;
}
