/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Overview.  Notes come from the service of flows, each of one packet and about the host that sent it. Its record goes
 * through the same functions of the original as there, now with what is known of the host; what they say of the host
 * is the line that counts. Lines pass.
 *
 * Life-cycle.  A host is made by its first note and ends HOST_IDLE_LIMIT minutes after the last one. Whether a flow has
 * told the host's clock already is kept for as long as the flow can last.
 *
 * Concurrency.  As in flows.c.
 *
 * Limits.  Hosts: the service's flows. The host that finds no room is passed over, and counted.
 */

#include "note.h"

#include "fp_http.h"
#include "fp_tcp.h"
#include "hash.h"
#include "p0f.h"
#include "readfp.h"

struct message { /* HTTP, the last that told something */
    uint32_t line, date, received;
    bool there;
};

struct host {
    struct host_data data; /* its pointers are NULL */
    struct tcp_sig sigs[2];
    uint32_t lines[2]; /* of their matches; 0: none */
    bool there[2];
    struct message messages[2];
    char os[48]; /* its name and flavour */
};

static const struct sm_field host_fields[] = {
    {"known", SM_FIELD_OPAQUE, 0, offsetof(struct host, os), NULL, 0},
    {"os", SM_FIELD_TEXT, offsetof(struct host, os), sizeof(((struct host *)0)->os), NULL, 0},
};

static sm_class hosts, clocks;
static uint16_t noted;

/* ---- a host, in and out ---- */

static struct tcp_sig *sig_in(const struct host *host, u8 to_srv)
{
    if (!host->there[to_srv])
        return NULL;
    struct tcp_sig *sig = ck_memdup(&host->sigs[to_srv], sizeof *sig);
    sig->matched = tcp_signature(to_srv, sig->opt_hash, host->lines[to_srv]);
    return sig;
}

static void sig_out(struct host *host, u8 to_srv, const struct tcp_sig *sig)
{
    host->there[to_srv] = true;
    host->sigs[to_srv] = *sig;
    host->sigs[to_srv].matched = NULL;
    host->lines[to_srv] = sig->matched ? sig->matched->line_no : 0;
}

static struct http_sig *message_in(const struct host *host, u8 to_srv)
{
    const struct message *message = &host->messages[to_srv];

    if (!message->there)
        return NULL;
    struct http_sig *sig = ck_alloc(sizeof *sig);
    sig->matched = http_signature(to_srv, message->line);
    sig->date = message->date, sig->recv_date = message->received;
    return sig;
}

static void message_out(struct host *host, u8 to_srv, const struct http_sig *sig)
{
    if (sig)
        host->messages[to_srv] =
            (struct message){sig->matched ? sig->matched->line_no : 0, sig->date, sig->recv_date, true};
}

/* What the original has of the host beside its signatures. */
static void data_out(struct host *host, const struct host_data *data)
{
    host->data = *data;
    host->data.last_syn = host->data.last_synack = NULL;
    host->data.http_req_os = host->data.http_resp = NULL;
    host->data.last_flavor = host->data.link_type = host->data.http_flavor = host->data.language = NULL;
    host->data.last_seen = get_unix_time();
    if (data->last_name_id >= 0 && data->last_flavor)
        snprintf(host->os, sizeof host->os, "%s %s", fp_os_names[data->last_name_id], data->last_flavor);
}

static void host_begin(struct host *host, const struct note *note)
{
    host->data.ip_ver = note->ip_ver;
    memcpy(host->data.addr, note->to_srv ? note->client : note->server, sizeof host->data.addr);
    host->data.first_seen = (uint32_t)(note->time / 1000000000);
    host->data.last_up_min = host->data.last_class_id = host->data.last_name_id = host->data.http_name_id = -1;
    host->data.distance = (u8)-1;
}

/* ---- notes ---- */

/* The flow that a note is of: the host as it is known, its peer by its address. */
static struct packet_flow *flow_of(const struct note *note, const struct host *host)
{
    struct packet_flow *f = ck_alloc(sizeof *f);
    struct host_data *known = ck_memdup(&host->data, sizeof *known), *peer = ck_alloc(sizeof *peer);

    memcpy(peer->addr, note->to_srv ? note->server : note->client, sizeof peer->addr);
    peer->ip_ver = note->ip_ver;
    known->last_syn = sig_in(host, 1), known->last_synack = sig_in(host, 0);
    f->client = note->to_srv ? known : peer, f->server = note->to_srv ? peer : known;
    f->cli_port = note->cli_port, f->srv_port = note->srv_port;
    f->syn_mss = note->syn_mss, f->sendsyn = note->sendsyn;
    return f;
}

static void apply_http(const struct note *note, struct packet_flow *f, struct host *host)
{
    struct host_data *known = note->to_srv ? f->client : f->server;
    struct http_sig *sig = &f->http_tmp;

    known->http_req_os = message_in(host, 1), known->http_resp = message_in(host, 0);
    sig->matched = http_signature(note->to_srv, note->line);
    sig->date = note->date, sig->recv_date = get_unix_time();
    sig->dishonest = note->dishonest;
    sig->sw = note->software[0] ? (u8 *)note->software : NULL;
    sig->via = note->via ? (u8 *)"" : NULL;
    sig->lang = note->language[0] ? (u8 *)note->language : NULL;
    http_apply(note->to_srv, f);
    message_out(host, 1, known->http_req_os);
    message_out(host, 0, known->http_resp);
}

/* What the original does with a packet, from where the host comes into it. Returns the flow's measure of the clock. */
static s16 apply(struct note *note, struct host *host, s16 measure)
{
    struct packet_flow *f = flow_of(note, host);
    struct tcp_sig *sig = NULL;
    u8 to_srv = note->to_srv;

    f->cli_tps = f->srv_tps = measure;
    if (note->calls & NOTE_TCP)
        sig = fingerprint_tcp(to_srv, &note->packet, f);
    if (note->calls & NOTE_CLOCK)
        check_ts_tcp(to_srv, &note->packet, f);
    if (note->calls & NOTE_HTTP)
        apply_http(note, f, host);
    if (sig)
        sig_out(host, to_srv, sig);
    data_out(host, to_srv ? f->client : f->server);
    return to_srv ? f->cli_tps : f->srv_tps;
}

void hosts_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    struct note note;
    sm_flow at, clock;
    bool created;

    (void)user;
    if (!note_read(packet, &note))
        return;
    sm_packet_drop(packet, noted);
    /* Flows of a host that have the same ports are told apart by their other end. */
    uint16_t tag = (uint16_t)hash32(note.to_srv ? note.server : note.client, sizeof note.server, note.to_srv);
    clock = sm_flow_get(replica, clocks, packet, tag);
    if (sm_flow_create(replica, hosts, packet, 0, &at, &created) != 0)
        return;
    if (created)
        host_begin(at.state, &note);
    scratch.used = 0;
    clock_set(note.time);
    lines_begin(true);
    bool fresh = note.calls & NOTE_TCP; /* the flow is new */
    s16 measure = apply(&note, at.state, clock.state && !fresh ? *(s16 *)clock.state : 0);

    if (measure && !clock.state && sm_flow_create(replica, clocks, packet, tag, &clock, NULL) != 0)
        clock.state = NULL;
    if (clock.state)
        *(s16 *)clock.state = measure;
    lines_send(replica, packet, &note);
}

int hosts_setup(void *user, struct sm_replica *replica)
{
    static const struct sm_field measure = {"frequency", SM_FIELD_INT, 0, sizeof(s16), "Hz", 0};
    const struct sm_class_options of_hosts = {.size = sizeof of_hosts,
                                              .name = "hosts",
                                              .version = 1,
                                              .granularity = SM_BY_HOST_PAIR,
                                              .record_size = sizeof(struct host),
                                              .fields = host_fields,
                                              .field_count = sizeof host_fields / sizeof *host_fields,
                                              .idle_timeout_ns = HOST_IDLE_LIMIT * 60000000000ull};
    const struct sm_class_options of_clocks = {.size = sizeof of_clocks,
                                               .name = "clocks",
                                               .version = 1,
                                               .granularity = SM_BY_FLOW,
                                               .record_size = sizeof(s16),
                                               .fields = &measure,
                                               .field_count = 1,
                                               .hard_timeout_ns = (CONN_MAX_AGE + 1) * 1000000000ull};
    int result = sm_class_register(replica, &of_hosts, &hosts);

    (void)user;
    result = result ? result : sm_class_register(replica, &of_clocks, &clocks);
    return result ? result : sm_drop_reason(replica, "noted", &noted);
}
