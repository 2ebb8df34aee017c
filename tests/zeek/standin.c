/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Stands in for Zeek where there is none: the calls to libpcap that Zeek makes, in its order and with its arguments,
 * and logs in its format. It knows TCP and UDP of IPv4 and IPv6 over Ethernet: connections by their ends, one line each
 * in conn.log when it ends; and stats.log, with what libpcap counted, by whom. LogAscii::use_json=T writes JSON.
 *
 * usage: standin (-i INTERFACE | -r CAPTURE) [NAME.zeek | VARIABLE=VALUE]...
 */

#include <arpa/inet.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pcap/pcap.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BUCKETS 65536u

struct ends {
    uint8_t family, protocol, address[2][16];
    uint16_t port[2];
};

struct connection {
    struct connection *next;
    struct ends ends; /* the originator's first */
    struct timeval start;
    char uid[20];
    uint64_t packets[2], bytes[2];
};

static struct connection *table[BUCKETS];
static volatile sig_atomic_t told;
static bool json;
static char peer[64] = "zeek";
static char opened[32];
static struct timeval now;
static uint64_t packets_seen;

static void on_signal(int number)
{
    told = number;
}

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "fatal error: problem with %s (%s)\n", what, why);
    exit(1);
}

/* Zeek's: the instance and a counter, hashed, behind a C. Here at random. */
static void make_uid(char uid[static 20])
{
    static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    uint8_t bytes[17];
    int random = open("/dev/urandom", O_RDONLY | O_CLOEXEC);

    if (random < 0 || read(random, bytes, sizeof bytes) != sizeof bytes)
        fail("seeds", "/dev/urandom");
    close(random);
    uid[0] = 'C';
    for (unsigned i = 0; i < sizeof bytes; i++)
        uid[i + 1] = digits[bytes[i] % 62];
    uid[18] = '\0';
}

static void stamp(char text[static 32])
{
    time_t seconds = time(NULL);

    strftime(text, 32, "%Y-%m-%d-%H-%M-%S", localtime(&seconds));
}

/* ---- connections ---- */

static uint16_t read16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

/* The ends of a packet, and the bytes of its IP packet; false: it is none that we know. */
static bool parse(const uint8_t *data, uint32_t length, struct ends *ends, uint32_t *bytes)
{
    uint32_t type = length >= 14 ? read16(data + 12) : 0, l4;

    memset(ends, 0, sizeof *ends);
    if (type == 0x0800 && length >= 34 && (read16(data + 20) & 0x3fff) == 0) {
        ends->family = AF_INET;
        ends->protocol = data[23];
        memcpy(ends->address[0], data + 26, 4);
        memcpy(ends->address[1], data + 30, 4);
        *bytes = read16(data + 16);
        l4 = 14 + (data[14] & 15u) * 4;
    } else if (type == 0x86dd && length >= 54) {
        ends->family = AF_INET6;
        ends->protocol = data[20];
        memcpy(ends->address[0], data + 22, 16);
        memcpy(ends->address[1], data + 38, 16);
        *bytes = read16(data + 18) + 40u;
        l4 = 54;
    } else {
        return false;
    }
    if ((ends->protocol != IPPROTO_TCP && ends->protocol != IPPROTO_UDP) || l4 + 4 > length)
        return false;
    ends->port[0] = read16(data + l4);
    ends->port[1] = read16(data + l4 + 2);
    return true;
}

static struct ends turned(const struct ends *ends)
{
    struct ends other = *ends;

    memcpy(other.address, ends->address[1], 16);
    memcpy(other.address[1], ends->address[0], 16);
    other.port[0] = ends->port[1];
    other.port[1] = ends->port[0];
    return other;
}

static uint32_t bucket_of(const struct ends *ends)
{
    uint32_t sum = ends->protocol + (uint32_t)ends->port[0] * 31 + (uint32_t)ends->port[1] * 31;

    for (unsigned i = 0; i < 16; i++)
        sum += (ends->address[0][i] + (uint32_t)ends->address[1][i]) << (i % 4 * 3);
    return sum % BUCKETS;
}

static void on_packet(const struct pcap_pkthdr *header, const uint8_t *data)
{
    struct ends ends;
    uint32_t bytes = 0;

    packets_seen++;
    now = header->ts;
    if (!parse(data, header->caplen, &ends, &bytes))
        return;
    const struct ends back = turned(&ends);
    struct connection **place = &table[bucket_of(&ends)], *c = *place;
    while (c && memcmp(&c->ends, &ends, sizeof ends) != 0 && memcmp(&c->ends, &back, sizeof back) != 0)
        c = c->next;
    if (!c) {
        c = calloc(1, sizeof *c);
        if (!c)
            fail("memory", "none");
        *c = (struct connection){.next = *place, .ends = ends, .start = header->ts};
        make_uid(c->uid);
        *place = c;
    }
    const unsigned way = memcmp(&c->ends, &ends, sizeof ends) != 0;
    c->packets[way]++;
    c->bytes[way] += bytes;
}

/* ---- logs ---- */

static FILE *log_open(const char *path, const char *fields, const char *types)
{
    char name[64];

    snprintf(name, sizeof name, "%s.log", path);
    FILE *file = fopen(name, "we");
    if (!file)
        fail("log", name);
    if (!json)
        fprintf(file,
                "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\t%s\n#open\t%s\n"
                "#fields\t%s\n#types\t%s\n",
                path, opened, fields, types);
    return file;
}

static void log_close(FILE *file)
{
    char text[32];

    stamp(text);
    if (!json)
        fprintf(file, "#close\t%s\n", text);
    fclose(file);
}

static void write_connection(FILE *file, const struct connection *c)
{
    const char *protocol = c->ends.protocol == IPPROTO_TCP ? "tcp" : "udp";
    char a[INET6_ADDRSTRLEN], b[INET6_ADDRSTRLEN];

    inet_ntop(c->ends.family, c->ends.address[0], a, sizeof a);
    inet_ntop(c->ends.family, c->ends.address[1], b, sizeof b);
    fprintf(file,
            json ? "{\"ts\":%ld.%06ld,\"uid\":\"%s\",\"id.orig_h\":\"%s\",\"id.orig_p\":%u,\"id.resp_h\":\"%s\","
                   "\"id.resp_p\":%u,\"proto\":\"%s\",\"orig_pkts\":%" PRIu64 ",\"orig_ip_bytes\":%" PRIu64
                   ",\"resp_pkts\":%" PRIu64 ",\"resp_ip_bytes\":%" PRIu64 "}\n"
                 : "%ld.%06ld\t%s\t%s\t%u\t%s\t%u\t%s\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\n",
            (long)c->start.tv_sec, (long)c->start.tv_usec, c->uid, a, c->ends.port[0], b, c->ends.port[1], protocol,
            c->packets[0], c->bytes[0], c->packets[1], c->bytes[1]);
}

static void write_logs(const struct pcap_stat *stats)
{
    FILE *file = log_open("conn",
                          "ts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\torig_pkts\torig_ip_bytes"
                          "\tresp_pkts\tresp_ip_bytes",
                          "time\tstring\taddr\tport\taddr\tport\tenum\tcount\tcount\tcount\tcount");
    for (unsigned i = 0; i < BUCKETS; i++)
        for (const struct connection *c = table[i]; c; c = c->next)
            write_connection(file, c);
    log_close(file);
    file = log_open("stats", "ts\tpeer\tpkts_proc\tpkts_link\tpkts_dropped", "time\tstring\tcount\tcount\tcount");
    fprintf(file,
            json ? "{\"ts\":%ld.%06ld,\"peer\":\"%s\",\"pkts_proc\":%" PRIu64 ",\"pkts_link\":%u,\"pkts_dropped\":%u}\n"
                 : "%ld.%06ld\t%s\t%" PRIu64 "\t%u\t%u\n",
            (long)now.tv_sec, (long)now.tv_usec, peer, packets_seen, stats->ps_recv, stats->ps_drop);
    log_close(file);
    file = log_open("loaded_scripts", "name", "string");
    fputs(json ? "{\"name\":\"base/init-bare.zeek\"}\n" : "base/init-bare.zeek\n", file);
    log_close(file);
}

/* ---- libpcap ---- */

/* As PcapSource::OpenLive(): each call is made, and a failure of any is the end. */
static pcap_t *open_live(const char *interface)
{
    char error[PCAP_ERRBUF_SIZE] = "";
    bpf_u_int32 net, mask;

    if (pcap_lookupnet(interface, &net, &mask, error) < 0)
        mask = 0xffffff00;
    pcap_t *p = pcap_create(interface, error);
    if (!p)
        fail(interface, error);
    if (pcap_set_snaplen(p, 9216) != 0 || pcap_set_promisc(p, 1) != 0 || pcap_set_timeout(p, 1) != 0 ||
        pcap_set_buffer_size(p, 128 * 1024 * 1024) != 0 || pcap_activate(p) != 0)
        fail(interface, pcap_geterr(p));
    if (pcap_setnonblock(p, 1, error) < 0)
        fail(interface, error);
    return p;
}

static void set_filter(pcap_t *p)
{
    struct bpf_program program;

    if (pcap_compile(p, &program, "ip or not ip", 1, 0xffffff00) < 0 || pcap_setfilter(p, &program) < 0)
        fail("filter", pcap_geterr(p));
    pcap_freecode(&program);
}

/* As the main loop does: wait for the descriptor, take one packet; and its header is written over. */
static void read_all(pcap_t *p, bool live)
{
    struct pollfd ready = {.fd = live ? pcap_get_selectable_fd(p) : -1, .events = POLLIN};

    if (live && ready.fd < 0)
        fail("selectable descriptor", pcap_geterr(p));
    while (!told) {
        struct pcap_pkthdr *header;
        const u_char *data;
        if (live)
            poll(&ready, 1, 100);
        int result = pcap_next_ex(p, &header, &data);
        if (result == PCAP_ERROR)
            fail("packets", pcap_geterr(p));
        if (result == PCAP_ERROR_BREAK && live)
            fail("packets", "a live source came to an end");
        if (result == PCAP_ERROR_BREAK)
            return;
        if (result == 0)
            continue;
        on_packet(header, data);
        header->len = header->caplen = 0;
    }
}

/* `redef peer_description = "NAME";`, or the cluster's name for us. */
static void learn_peer(const char *script)
{
    char line[256];
    FILE *file = fopen(script, "re");

    if (!file)
        fail(script, "can't find");
    while (fgets(line, sizeof line, file))
        (void)!sscanf(line, "redef peer_description = \"%63[^\"]\";", peer);
    fclose(file);
}

int main(int argc, char **argv)
{
    const char *interface = NULL, *capture = NULL;
    char error[PCAP_ERRBUF_SIZE] = "";

    for (int option; (option = getopt(argc, argv, "i:r:")) != -1;)
        *(option == 'i' ? &interface : &capture) = optarg;
    for (int i = optind; i < argc; i++) {
        json = json || strcmp(argv[i], "LogAscii::use_json=T") == 0;
        if (!strchr(argv[i], '='))
            learn_peer(argv[i]);
    }
    if (getenv("CLUSTER_NODE")) {
        snprintf(peer, sizeof peer, "%s", getenv("CLUSTER_NODE"));
        if (access("cluster-layout.zeek", R_OK) != 0)
            fail("cluster-layout", "can't find");
    }
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    stamp(opened);
    pcap_t *p = interface ? open_live(interface) : pcap_open_offline(capture, error);
    if (!p)
        fail(capture, error);
    if (pcap_datalink(p) != DLT_EN10MB)
        fail("link type", "not Ethernet");
    set_filter(p);
    read_all(p, interface != NULL);
    struct pcap_stat stats = {0};
    if (interface && pcap_stats(p, &stats) < 0)
        fail("statistics", pcap_geterr(p));
    pcap_close(p);
    write_logs(&stats);
    return 0;
}
