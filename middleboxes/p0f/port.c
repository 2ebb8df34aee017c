/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * p0f as two services. The original's files are included as they are, over tables for the flow in hand and memory until
 * the next packet. In the service of flows a flow is put there from the arena, parse_packet() does what it always did,
 * and what is left goes back. Hosts are blank there, and only lines about HTTP are said: what else a packet tells goes
 * out as a note. In the service of hosts notes are the packets: with what is known of the host they go through the same
 * functions once more. While the original works no call of the runtime is made, so no replica dies there.
 */
#define _FROM_FP_HTTP /* as fp_http.c does before it includes what the others do, too */
#include "config.h"
#include "p0f.h"

#define main static __attribute__((unused)) original_main
#define start_observation original_start_observation
#include "p0f.c"
#undef main
#undef start_observation

#include <assert.h>
#include <stdio_ext.h>
#include <sys/mman.h>

#include "checksum.h"
#include "fp_mtu.h"
#include "program.h"

#define MEMORY_BYTES (16 * MAX_FLOW_DATA) /* a request, a response, the headers of one, what is printed */
static u8 *const memory_bytes = (u8 *)0x60000000;
static u32 memory_used;

/* A copy, or zeroes; with a zero behind. The configuration stays where it is: it asks for DFL_ck_alloc(). */
static void *memory(const void *from, u32 size)
{
    u8 *at = memory_bytes + memory_used;

    memory_used += size / 16 * 16 + 16;
    assert(memory_used <= MEMORY_BYTES);
    at[size] = '\0';
    return from ? memcpy(at, from, size) : memset(at, 0, size);
}

#undef CP /* checks what its own allocator has put before memory */
#undef FLOW_BUCKETS
#undef HOST_BUCKETS
#undef ck_alloc
#undef ck_realloc_kb
#undef ck_memdup
#undef ck_memdup_str
#undef ck_free
#define CP(at) (at)
#define FLOW_BUCKETS 1
#define HOST_BUCKETS 1
#define ck_alloc(size) memory(NULL, size)
#define ck_realloc_kb(old, size) ((old) ? (old) : memory(NULL, MAX_FLOW_DATA))
#define ck_memdup memory
#define ck_memdup_str memory
#define ck_free(at) ((void)(at))
#define snprintf(...) (log_file ? snprintf(__VA_ARGS__) : 0) /* of lines: NULL where this one is not wanted */

enum { UDP = 17, PART = 1600, MOST = 3 * PART }; /* bytes of lines in a packet, and because of one; the rest is cut */
enum { NOTE_TCP = 1, NOTE_CLOCK = 2, NOTE_HTTP = 4 }; /* calls of the original */
#define KNOWN offsetof(struct packet_flow, http_tmp)

static struct note { /* read by a program of the same build */
    uint64_t time;   /* ns */
    u8 calls, to_srv, dishonest, via;
    u32 matched, date; /* of HTTP: the signature's number from 1, 0: none */
    u8 flow[KNOWN];    /* of the original's; its pointers are not followed */
    struct packet_data packet;
    char software[HTTP_MAX_HDR_VAL + 1];
} note;

static int note_call(u8 call, u8 to_srv, const struct packet_data *pk, const struct packet_flow *f)
{
    if (!note.calls) { /* the first call changes the flow */
        memcpy(note.flow, f, KNOWN);
        note.packet = *pk, note.packet.payload = NULL, note.to_srv = to_srv;
    }
    return note.calls |= call;
}

#define fingerprint_tcp(to_srv, pk, f) (note_call(NOTE_TCP, to_srv, pk, f), fingerprint_tcp(to_srv, pk, f))
#define check_ts_tcp(to_srv, pk, f) note_call((pk)->ts1 && !(f)->sendsyn ? NOTE_CLOCK : 0, to_srv, pk, f)
#include "process.c"
#undef fingerprint_tcp
#undef check_ts_tcp

#include "fp_http.c"

struct flow {
    u8 known[KNOWN], client[16], server[16], ip_ver, under_way; /* under_way: there is a message */
};

struct message { /* at the same addresses in every process */
    struct http_sig sig;
    u32 used;
    u8 bytes[3 * MAX_FLOW_DATA + 4096]; /* request, response, headers; what each takes beside */
};

struct host {
    struct host_data data;
    struct tcp_sig tcp[2]; /* its last SYN+ACK and SYN, and what they match */
    struct tcp_sig_record tcp_matched[2];
    struct http_sig http[2]; /* its last response and request */
    struct http_sig_record http_matched[2];
};

static sm_class flows, messages, hosts, clocks;
static uint16_t seen;
static bool of_hosts, to_file;
static char lines[4 * MAX_FLOW_DATA]; /* of the packet: nothing in p0f says more */
static struct pcap_pkthdr header;

static void begin(uint64_t time, bool hosts_turn)
{
    header.ts = (struct timeval){(time_t)(time / 1000000000), (suseconds_t)(time % 1000000000 / 1000)};
    cur_time = &header.ts;
    host_b[0] = host_by_age = newest_host = NULL, host_cnt = 0;
    memory_used = 0, of_hosts = hosts_turn;
    if (!to_file)
        __fpurge(lf); /* `lines`, which are its buffer */
}

void start_observation(char *keyword, u8 field_cnt, u8 to_srv, struct packet_flow *f)
{
    const struct http_sig *sig = &f->http_tmp;
    bool http = strncmp(keyword, "http", 4) == 0;

    log_file = http != of_hosts ? fp_file : NULL;
    if (http && !of_hosts) {
        note.calls |= NOTE_HTTP;
        note.matched = sig->matched ? (u32)(sig->matched - sigs[to_srv]) + 1 : 0;
        note.date = sig->date, note.dishonest = sig->dishonest, note.via = sig->via != NULL;
        strncpy(note.software, sig->sw ? (char *)sig->sw : "", sizeof note.software - 1);
    }
    original_start_observation(keyword, field_cnt, to_srv, f);
}

/* A UDP packet with the headers of `cause`, but from the host that sent it to itself: so it has the host's key. */
static void emit(struct sm_replica *replica, struct sm_packet *cause, const char *magic, const void *data, size_t bytes)
{
    const struct sm_headers *at = sm_packet_headers(cause);
    uint8_t packet[SM_MAX_SEND_BYTES], *ip = packet + at->l3, *udp = packet + at->l4;
    uint16_t length = (uint16_t)(8 + 4 + bytes);
    bool v4 = at->family == 4;

    if ((size_t)at->l4 + length > sizeof packet)
        return; /* no link has such a header */
    memcpy(packet, sm_packet_data(cause), at->l4 + 4u);
    ip[v4 ? 9 : 6] = UDP;
    memcpy(ip + (v4 ? 16 : 24), ip + (v4 ? 12 : 8), v4 ? 4 : 16);
    store16(ip + (v4 ? 2 : 4), (uint16_t)((v4 ? at->l4 - at->l3 : 0) + length));
    store16(udp + 4, length);
    store16(udp + 6, 0); /* no checksum: nothing that is not seen from here (RFC 6935) */
    if (v4)              /* its own: of all but itself */
        store16(ip + 10, 0), store16(ip + 10, checksum_finish(checksum_add(0, ip, at->l4 - at->l3)));
    memcpy(udp + 8, magic, 4);
    memcpy(udp + 8 + 4, data, bytes);
    sm_packet_send(replica, cause, packet, at->l4 + (uint32_t)length);
}

/* What such a packet brings; NULL: it is another one. */
static const uint8_t *payload(const struct sm_packet *packet, const char *magic, size_t *bytes)
{
    const struct sm_headers *headers = sm_packet_headers(packet);
    const uint8_t *from = sm_packet_data(packet) + headers->l4 + 8;

    *bytes = sm_packet_caplen(packet) - headers->l4 - (size_t)(8 + 4); /* where there is no room: too many */
    bool ours = headers->protocol == UDP && headers->l4 && *bytes <= SM_MAX_SEND_BYTES && !memcmp(from, magic, 4);
    return ours ? from + 4 : NULL;
}

static void lines_send(struct sm_replica *replica, struct sm_packet *cause)
{
    size_t length = to_file ? 0 : __fpending(lf);

    if (length > MOST)
        lines[(length = MOST) - 1] = '\n';
    for (size_t at = 0; at < length; at += PART)
        emit(replica, cause, "p0fL", lines + at, length - at < PART ? length - at : PART);
}

static void flows_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    const struct sm_headers *headers = sm_packet_headers(packet);

    sm_packet_drop(packet, seen);
    if (headers->protocol != PROTO_TCP || headers->l4 == 0 || headers->l4 + MIN_TCP4 - 20u > sm_packet_caplen(packet))
        return;
    uint8_t type = sm_packet_data(packet)[headers->l4 + 13] & (TCP_SYN | TCP_ACK | TCP_FIN | TCP_RST);
    sm_flow at = sm_flow_get(replica, flows, packet, 0);
    struct flow *flow = at.state;
    if (!flow && type != TCP_SYN)
        return;
    sm_flow text = {flow && flow->under_way ? sm_flow_get(replica, messages, packet, 0).state : NULL};
    struct message *message = text.state;
    struct packet_flow *f = NULL, *was;

    memset(&note, 0, offsetof(struct note, software));
    begin(note.time = sm_packet_time(packet).ns, false);
    header.caplen = sm_packet_caplen(packet), header.len = sm_packet_len(packet),
    link_type = sm_packet_linktype(packet);
    if (flow) {
        f = memory(NULL, sizeof *f);
        memcpy(f, flow->known, KNOWN);
        f->client = create_host(flow->client, flow->ip_ver);
        f->server = create_host(flow->server, flow->ip_ver);
        if (!message)
            f->request = f->response = NULL;
    }
    u32 first = memory_used;
    if (message)
        f->http_tmp = message->sig, memory(message->bytes, message->used - 1);
    flow_b[0] = flow_by_age = newest_flow = was = f, flow_cnt = f != NULL;
    parse_packet(NULL, &header, sm_packet_data(packet));
    f = flow_by_age;

    bool under_way = f && f == was && f->in_http >= 0 && (f->http_req_done ? f->resp_len : f->req_len) > 0;
    if (message && !under_way)
        sm_flow_close(replica, messages, text);
    if (flow && f != was)
        sm_flow_close(replica, flows, at), at.state = NULL;
    if (f && !at.state && sm_flow_create(replica, flows, packet, 0, &at, NULL) == 0) {
        flow = at.state;
        flow->ip_ver = f->client->ip_ver;
        memcpy(flow->client, f->client->addr, 16);
        memcpy(flow->server, f->server->addr, 16);
    }
    if (at.state)
        memcpy(flow->known, f, KNOWN), flow->under_way = under_way;
    if (under_way && (message || sm_flow_create(replica, messages, packet, 0, &text, NULL) == 0)) {
        message = text.state;
        message->sig = f->http_tmp;
        message->used = memory_used - first;
        assert(message->used <= sizeof message->bytes);
        memcpy(message->bytes, memory_bytes + first, message->used);
    } else if (under_way)
        sm_flow_close(replica, flows, at);
    lines_send(replica, packet);
    if (note.calls)
        emit(replica, packet, "p0fN", &note, note.calls & NOTE_HTTP ? sizeof note : offsetof(struct note, software));
}

/* What the original does with a packet. `measure`: how fast the host's clock goes by this flow; 0: not known. */
static s16 apply(struct host *host, s16 measure)
{
    u8 to_srv = note.to_srv;
    struct packet_data *pk = &note.packet;
    struct host_data *known = &host->data, *peer = create_host(pk->dst, pk->ip_ver);
    struct tcp_sig *sig = NULL, *tcp = &host->tcp[to_srv], **last_tcp = to_srv ? &known->last_syn : &known->last_synack;
    struct http_sig *http = &host->http[to_srv], **last_http = to_srv ? &known->http_req_os : &known->http_resp;
    struct packet_flow *f = ck_alloc(sizeof *f);

    memcpy(f, note.flow, KNOWN);
    f->client = to_srv ? known : peer, f->server = to_srv ? peer : known;
    f->cli_tps = f->srv_tps = measure;
    *last_tcp = *last_tcp ? tcp : NULL; /* it may point to where the host was before */
    tcp->matched = tcp->matched ? &host->tcp_matched[to_srv] : NULL;
    *last_http = *last_http ? http : NULL;
    http->matched = http->matched ? &host->http_matched[to_srv] : NULL;
    if (note.calls & NOTE_TCP && (sig = fingerprint_tcp(to_srv, pk, f)))
        fingerprint_mtu(to_srv, pk, f);
    if (note.calls & NOTE_CLOCK)
        check_ts_tcp(to_srv, pk, f);
    if (note.calls & NOTE_HTTP) {
        u32 *count = &sig_cnt[to_srv], all = *count;
        f->http_tmp.matched = note.matched ? &sigs[to_srv][note.matched - 1] : NULL;
        f->http_tmp.date = note.date, f->http_tmp.recv_date = get_unix_time();
        f->http_tmp.dishonest = note.dishonest, f->http_tmp.via = note.via ? (u8 *)"" : NULL;
        f->http_tmp.sw = note.software[0] ? (u8 *)note.software : NULL;
        *count = 0; /* it has been matched: there is nothing to match it by any more */
        fingerprint_http(to_srv, f);
        *count = all;
    }
    if (sig) {
        *last_tcp = sig, *tcp = *sig;
        if (sig->matched)
            host->tcp_matched[to_srv] = *sig->matched;
    }
    if (*last_http && *last_http != http) {
        *http = **last_http;
        if (http->matched)
            host->http_matched[to_srv] = *http->matched;
    }
    return to_srv ? f->cli_tps : f->srv_tps;
}

static void hosts_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    struct packet_data *pk = &note.packet;
    const uint8_t *from;
    size_t bytes;
    bool created;

    if (to_file && (from = payload(packet, "p0fL", &bytes)))
        fwrite(from, 1, bytes, lf);
    from = payload(packet, "p0fN", &bytes);
    if (!from || bytes < offsetof(struct note, software) || bytes > sizeof note)
        return;
    sm_packet_drop(packet, seen);
    memcpy(memset(&note, 0, sizeof note), from, bytes); /* which may come from anywhere */
    note.to_srv = note.to_srv != 0, note.software[sizeof note.software - 1] = '\0';
    if (pk->opt_cnt > MAX_TCP_OPT || (pk->ip_ver != IP_VER4 && pk->ip_ver != IP_VER6) ||
        note.matched > sig_cnt[note.to_srv])
        return;
    /* Flows of a host that have the same ports are told apart by their other end. */
    uint16_t tag = (uint16_t)hash32(pk->dst, pk->ip_ver == IP_VER4 ? 4 : 16, note.to_srv);
    sm_flow host, clock = sm_flow_get(replica, clocks, packet, tag);
    if (sm_flow_create(replica, hosts, packet, 0, &host, &created) != 0)
        return;
    begin(note.time, true);
    if (created)
        ((struct host *)host.state)->data = *create_host(pk->src, pk->ip_ver);
    s16 measure = apply(host.state, clock.state && !(note.calls & NOTE_TCP) ? *(s16 *)clock.state : 0);
    if (clock.state || (measure && sm_flow_create(replica, clocks, packet, tag, &clock, NULL) == 0))
        *(s16 *)clock.state = measure;
    lines_send(replica, packet);
}

/* What is wrong with the file the original says, and exits. */
static void *load(const char *file, struct sm_errbuf *error)
{
    if (access(file, R_OK) != 0) {
        sprintf(error->text, "%.200s: %s", file, strerror(errno));
        return NULL;
    }
    FILE *output = stdout;
    stdout = stderr; /* standard output is for packets */
    http_init();
    read_config(fp_file = (u8 *)file);
    stdout = output;
    if (!(lf = fopen("/dev/null", "w")) || setvbuf(lf, lines, _IOFBF, sizeof lines) != 0 ||
        memory_bytes != mmap(memory_bytes, MEMORY_BYTES, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0))
        PFATAL("Cannot have memory at %p, or /dev/null.", memory_bytes);
    daemon_mode = 1;           /* says lines to the log only */
    conn_max_age = UINT32_MAX; /* the runtime ends flows */
    return lines;
}

static int add(struct sm_replica *replica, sm_class *cls, const char *name, enum sm_granularity by, size_t size,
               uint64_t hard_s, uint64_t idle_s)
{
    const struct sm_field known = {"known", SM_FIELD_OPAQUE, 0, (uint16_t)size, NULL, 0};
    struct sm_class_options options = {.size = sizeof options, .name = name, .version = 2, .granularity = by};

    options.record_size = size, options.fields = &known, options.field_count = 1;
    options.hard_timeout_ns = hard_s * 1000000000, options.idle_timeout_ns = idle_s * 1000000000;
    return sm_class_register(replica, &options, cls);
}

static int flows_setup(void *user, struct sm_replica *replica)
{
    return add(replica, &flows, "flows", SM_BY_FLOW, sizeof(struct flow), CONN_MAX_AGE + 1, 0)
               ?: add(replica, &messages, "messages", SM_BY_FLOW, sizeof(struct message), CONN_MAX_AGE + 1, 0)
               ?: sm_drop_reason(replica, "seen", &seen);
}

static int hosts_setup(void *user, struct sm_replica *replica)
{
    return add(replica, &hosts, "hosts", SM_BY_HOST_PAIR, sizeof(struct host), 0, HOST_IDLE_LIMIT * 60)
               ?: add(replica, &clocks, "clocks", SM_BY_FLOW, sizeof(s16), CONN_MAX_AGE + 1, 0)
               ?: sm_drop_reason(replica, "seen", &seen);
}

#ifdef OF_HOSTS /* 0: sm-p0f, 1: sm-p0f-hosts */
static bool log_to(void *config, const char *file, struct sm_errbuf *error)
{
    log_file = (u8 *)file;
    if ((to_file = strcmp(file, "-") != 0))
        open_log();
    return true;
}

static void log_end(void *config)
{
    if (fflush(lf) != 0)
        PFATAL("The log cannot be written.");
}

int main(int argc, char **argv)
{
    static const struct program program = {
        .name = OF_HOSTS ? "sm-p0f-hosts" : "sm-p0f",
        .config = "fingerprints",
        .log = "log",
        .on_packet = OF_HOSTS ? hosts_packet : flows_packet,
        .max_sends = SM_MAX_SENDS,
        .load = load,
        .open_log = log_to,
        .setup = OF_HOSTS ? hosts_setup : flows_setup,
        .ended = log_end,
        .usage =
            "usage: sm-p0f --fingerprints FILE --in INPUT --out OUTPUT [options]\n"
            "       sm-p0f-hosts --fingerprints FILE --in INPUT {--out OUTPUT|--log FILE} [options]\n\n"
            "p0f as two services: the second reads what the first writes. FILE: p0f's database (p0f.fp); its log, to\n"
            "which lines are appended, else they are packets of OUTPUT. See sm-p0f(1).\n\n"
            "options: --report FILE, --flows N, --memory SIZE, --check, --help, --version\n"};

    return program_main(&program, argc, argv);
}
#endif

#define sigs tcp_sigs /* fp_http.c has such names, too */
#define sig_cnt tcp_sig_cnt
#define dump_sig dump_tcp_sig
#define dump_flags dump_tcp_flags
#define score_nat score_tcp_nat
#include "fp_tcp.c"
