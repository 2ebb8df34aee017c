/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Overview.  The original's process.c, with a table of one flow. Before a packet its flow is brought in from the arena,
 * then the original's parse_packet() does what it always did, and what is left of the flow goes back. What a packet
 * says to a host goes out as a note; hosts that the original sees here are blank.
 *
 * Life-cycle.  A flow is made by a SYN, made anew by another one, and ends as the original has it: when nothing more is
 * to be learnt, or CONN_MAX_AGE seconds old. Its place in an HTTP message is not kept: what was said of the message so
 * far is, segment by segment, and is said again to the original's parser. Most messages fit one segment.
 *
 * Concurrency.  Between begin() and end() no call of the runtime is made, so whoever dies does not die there.
 *
 * Limits.  Flows: the service's. What finds no room is not followed, and counted.
 */

#include "note.h"

#include "fp_http.h"

#include "p0f.h"

static struct tcp_sig *watch_tcp(u8 to_srv, struct packet_data *pk, struct packet_flow *f);
static void watch_clock(u8 to_srv, struct packet_data *pk, struct packet_flow *f);

#define fingerprint_tcp watch_tcp
#define check_ts_tcp watch_clock
#include "process.c"
#undef fingerprint_tcp
#undef check_ts_tcp

struct flow {
    uint32_t bucket, created, cli_seq, srv_seq, req_len, resp_len;
    uint16_t syn_mss;
    uint8_t from_b; /* its client is endpoint b of the key */
    uint8_t acked, sendsyn, req_done;
    int8_t in_http;
    uint8_t unused;
    uint32_t said_bytes;
    uint8_t *said; /* the message under way: segments, each behind its length in two bytes */
};

static const struct sm_field flow_fields[] = {
    {"acked", SM_FIELD_BOOL, offsetof(struct flow, acked), 1, NULL, 0},
    {"request", SM_FIELD_UINT, offsetof(struct flow, req_len), 4, "B", 0},
    {"response", SM_FIELD_UINT, offsetof(struct flow, resp_len), 4, "B", 0},
    {"mss", SM_FIELD_UINT, offsetof(struct flow, syn_mss), 2, "B", 0},
};

static sm_class flows;
static uint16_t seen;
static struct note note;

void clock_set(uint64_t ns)
{
    static struct timeval now;

    now = (struct timeval){.tv_sec = (time_t)(ns / 1000000000), .tv_usec = (suseconds_t)(ns % 1000000000 / 1000)};
    cur_time = &now;
}

/* ---- notes ---- */

static void note_call(uint8_t call, u8 to_srv, const struct packet_flow *f)
{
    note.calls |= call;
    note.to_srv = to_srv;
    note.ip_ver = f->client->ip_ver;
    note.sendsyn = f->sendsyn;
    note.cli_port = f->cli_port;
    note.srv_port = f->srv_port;
    memcpy(note.client, f->client->addr, sizeof note.client);
    memcpy(note.server, f->server->addr, sizeof note.server);
}

/* Field by field: what the original leaves unset does not leave this process. */
static void note_packet(const struct packet_data *pk)
{
    note.packet = (struct packet_data){.ip_ver = pk->ip_ver,
                                       .tcp_type = pk->tcp_type,
                                       .ttl = pk->ttl,
                                       .tos = pk->tos,
                                       .mss = pk->mss,
                                       .win = pk->win,
                                       .wscale = pk->wscale,
                                       .tot_hdr = pk->tot_hdr,
                                       .opt_cnt = pk->opt_cnt,
                                       .opt_eol_pad = pk->opt_eol_pad,
                                       .ts1 = pk->ts1,
                                       .quirks = pk->quirks,
                                       .ip_opt_len = pk->ip_opt_len,
                                       .pay_len = pk->pay_len};
    memcpy(note.packet.opt_layout, pk->opt_layout, pk->opt_cnt);
}

static struct tcp_sig *watch_tcp(u8 to_srv, struct packet_data *pk, struct packet_flow *f)
{
    note.syn_mss = f->syn_mss;
    note_packet(pk);
    struct tcp_sig *sig = fingerprint_tcp(to_srv, pk, f);
    note_call(NOTE_TCP, to_srv, f);
    return sig;
}

/* The host's clock is the host's: here is nothing to compare with. */
static void watch_clock(u8 to_srv, struct packet_data *pk, struct packet_flow *f)
{
    if (!pk->ts1 || f->sendsyn)
        return;
    note_packet(pk);
    note_call(NOTE_CLOCK, to_srv, f);
}

void note_http(u8 to_srv, const struct packet_flow *f)
{
    const struct http_sig *sig = &f->http_tmp;

    note_call(NOTE_HTTP, to_srv, f);
    note.line = sig->matched ? sig->matched->line_no : 0;
    note.date = sig->date;
    note.dishonest = sig->dishonest;
    note.via = sig->via != NULL;
    memset(note.language, 0, sizeof note.language + sizeof note.software);
    if (sig->lang)
        strncpy(note.language, (char *)sig->lang, sizeof note.language - 1);
    if (sig->sw)
        strncpy(note.software, (char *)sig->sw, sizeof note.software - 1);
}

/* ---- a flow, in and out ---- */

static struct host_data *host_at(const u8 *address, u8 version)
{
    struct host_data *host = lookup_host((u8 *)address, version);

    host = host ? host : create_host((u8 *)address, version);
    host->use_cnt++;
    return host;
}

/* Say the message under way to the original's parser, as it was said before. */
static void say_again(struct packet_flow *f, const struct flow *flow)
{
    u8 **text = flow->req_done ? &f->response : &f->request;
    u32 *length = flow->req_done ? &f->resp_len : &f->req_len;
    uint16_t bytes;

    for (uint32_t at = 0; at < flow->said_bytes; at += sizeof bytes + bytes) {
        memcpy(&bytes, flow->said + at, sizeof bytes);
        *text = ck_realloc_kb(*text, *length + bytes + 1);
        memcpy(*text + *length, flow->said + at + sizeof bytes, bytes);
        *length += bytes;
        process_http(!flow->req_done, f);
    }
}

static struct packet_flow *flow_in(const struct flow *flow, const struct sm_key *key)
{
    struct packet_flow *f = ck_alloc(sizeof *f);

    f->client = host_at(flow->from_b ? key->b : key->a, key->family);
    f->server = host_at(flow->from_b ? key->a : key->b, key->family);
    f->cli_port = flow->from_b ? key->b_port : key->a_port;
    f->srv_port = flow->from_b ? key->a_port : key->b_port;
    f->bucket = flow->bucket, f->created = flow->created;
    f->next_cli_seq = flow->cli_seq, f->next_srv_seq = flow->srv_seq;
    f->syn_mss = flow->syn_mss, f->acked = flow->acked, f->sendsyn = flow->sendsyn;
    f->http_req_done = flow->req_done;
    f->in_http = flow->req_done;
    say_again(f, flow);
    f->req_len = flow->req_len, f->resp_len = flow->resp_len;
    if (flow->in_http < 0)
        f->in_http = -1;
    flow_b[f->bucket] = flow_by_age = newest_flow = f;
    flow_cnt = 1;
    return f;
}

/* What there is to keep of it, but for what was said. */
static struct flow flow_out(const struct packet_flow *f, const struct sm_key *key)
{
    uint32_t bytes = key->family == 4 ? 4 : 16;

    return (struct flow){.bucket = f->bucket,
                         .created = f->created,
                         .cli_seq = f->next_cli_seq,
                         .srv_seq = f->next_srv_seq,
                         .req_len = f->req_len,
                         .resp_len = f->resp_len,
                         .syn_mss = f->syn_mss,
                         .from_b = f->cli_port != key->a_port || memcmp(f->client->addr, key->a, bytes) != 0,
                         .acked = f->acked,
                         .sendsyn = f->sendsyn,
                         .req_done = f->http_req_done,
                         .in_http = f->in_http};
}

/* Keep what was said of the message since `before`. False: there is no room. */
static bool keep_said(struct sm_replica *replica, sm_flow at, const struct flow *before, const struct flow *after,
                      const u8 *text)
{
    struct flow *flow = at.state;
    bool same = before->req_done == after->req_done;
    uint32_t from = same ? (after->req_done ? before->resp_len : before->req_len) : 0;
    uint32_t to = after->req_done ? after->resp_len : after->req_len;
    uint16_t bytes = (uint16_t)(to - from);

    if (!same || after->in_http < 0) {
        sm_free(replica, flows, at, flow->said);
        flow->said = NULL, flow->said_bytes = 0;
    }
    if (bytes == 0 || after->in_http < 0)
        return true;
    uint8_t *said = sm_realloc(replica, flows, at, flow->said, flow->said_bytes + sizeof bytes + bytes);
    if (!said)
        return false;
    memcpy(said + flow->said_bytes, &bytes, sizeof bytes);
    memcpy(said + flow->said_bytes + sizeof bytes, text + from, bytes);
    flow->said = said, flow->said_bytes += (uint32_t)sizeof bytes + bytes;
    return true;
}

static void keep(struct sm_replica *replica, struct sm_packet *packet, sm_flow at, const struct flow *before,
                 struct flow *after, const u8 *text)
{
    if (!at.state && sm_flow_create(replica, flows, packet, 0, &at, NULL) != 0)
        return; /* not followed: counted as flow_limit */
    struct flow *flow = at.state;
    after->said = flow->said, after->said_bytes = flow->said_bytes;
    *flow = *after;
    if (!keep_said(replica, at, before, after, text))
        sm_flow_close(replica, flows, at);
}

/* ---- packets ---- */

static void follow(struct sm_replica *replica, struct sm_packet *packet, sm_flow at)
{
    static const struct flow none;
    struct pcap_pkthdr header = {.caplen = sm_packet_caplen(packet), .len = sm_packet_len(packet)};
    struct flow before = at.state ? *(struct flow *)at.state : none, after = none;
    const u8 *text = NULL;
    struct sm_key key;

    sm_packet_key(packet, SM_BY_FLOW, &key);
    note.time = sm_packet_time(packet).ns;
    note.calls = 0;
    scratch.used = 0;
    link_type = sm_packet_linktype(packet);
    clock_set(note.time);
    header.ts = *cur_time;
    lines_begin(false);
    struct packet_flow *was = at.state ? flow_in(&before, &key) : NULL;
    parse_packet(NULL, &header, sm_packet_data(packet));
    const struct packet_flow *f = flow_by_age;
    if (f) {
        after = flow_out(f, &key);
        text = f->http_req_done ? f->response : f->request;
    }
    bool followed = f != NULL, anew = f != was;
    destroy_all_hosts();

    if (at.state && anew) {
        sm_flow_close(replica, flows, at);
        at.state = NULL;
    }
    if (followed)
        keep(replica, packet, at, anew ? &none : &before, &after, text);
    lines_send(replica, packet, &note);
    if (note.calls)
        note_send(replica, packet, &note);
}

void flows_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    const struct sm_headers *headers = sm_packet_headers(packet);

    (void)user;
    sm_packet_drop(packet, seen);
    if (headers->protocol != PROTO_TCP || headers->l4 == 0 || headers->l4 + MIN_TCP4 - 20u > sm_packet_caplen(packet))
        return;
    uint8_t type = sm_packet_data(packet)[headers->l4 + 13] & (TCP_SYN | TCP_ACK | TCP_FIN | TCP_RST);
    sm_flow flow = sm_flow_get(replica, flows, packet, 0);
    if (flow.state || type == TCP_SYN)
        follow(replica, packet, flow);
}

static int encode(struct sm_replica *replica, sm_class cls, sm_flow at, struct sm_writer *writer, void *user)
{
    const struct flow *flow = at.state;

    (void)replica, (void)cls, (void)user;
    sm_write_bytes(writer, "flow", flow, offsetof(struct flow, said_bytes));
    sm_write_bytes(writer, "said", flow->said, flow->said_bytes);
    return 0;
}

static int decode(struct sm_replica *replica, sm_class cls, sm_flow at, uint32_t version, sm_value value, void *user)
{
    struct flow *flow = at.state;
    size_t bytes, said_bytes;
    const void *fixed = sm_value_bytes(sm_value_get(value, "flow"), &bytes);
    const void *said = sm_value_bytes(sm_value_get(value, "said"), &said_bytes);

    (void)version, (void)user;
    if (!fixed || bytes != offsetof(struct flow, said_bytes))
        return SM_E_DAMAGED;
    memcpy(flow, fixed, bytes);
    if (said_bytes == 0)
        return flow->bucket < FLOW_BUCKETS ? 0 : SM_E_DAMAGED;
    flow->said = sm_alloc(replica, cls, at, said_bytes);
    if (!flow->said)
        return SM_E_NO_MEMORY;
    memcpy(flow->said, said, said_bytes);
    flow->said_bytes = (uint32_t)said_bytes;
    return 0;
}

int flows_setup(void *user, struct sm_replica *replica)
{
    const struct sm_class_options options = {.size = sizeof options,
                                             .name = "flows",
                                             .version = 1,
                                             .granularity = SM_BY_FLOW,
                                             .record_size = sizeof(struct flow),
                                             .fields = flow_fields,
                                             .field_count = sizeof flow_fields / sizeof *flow_fields,
                                             .hard_timeout_ns = (CONN_MAX_AGE + 1) * 1000000000ull,
                                             .alloc_limit = 3 * MAX_FLOW_DATA,
                                             .encode = encode,
                                             .decode = decode};
    int result = sm_class_register(replica, &options, &flows);

    (void)user;
    return result ? result : sm_drop_reason(replica, "seen", &seen);
}
