/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A flow:   created by its first packet -> examined, a packet at a time -> over: classified, or given up
 *           -> ended by the runtime, IDLE_NS after its last packet.
 *
 * A line is written from within the handler that makes the verdict final, so at least once: where the replica dies
 * before its burst is committed, whoever takes over comes to the same verdict and writes the same line again.
 */
#include "classifier.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define IDLE_NS 120000000000u
#define MOST_TCP 80u   /* packets that are examined: what telnet takes, nDPI's authors say */
#define MOST_OTHER 24u /* and what any other needs */

struct classifier {
    struct detect *detect;
    sm_class flows;
    int log;
};

#define FIELD(member, type, unit)                                                                                      \
    {                                                                                                                  \
#member, type, offsetof(struct classified, member), sizeof(((struct classified *)0)->member), unit, 0          \
    }
#define VERDICT(member, type)                                                                                          \
    {                                                                                                                  \
#member, type, offsetof(struct classified, verdict.member), sizeof(((struct classified *)0)->verdict.member),  \
            NULL, 0                                                                                                    \
    }
static const struct sm_field fields[] = {
    FIELD(packets, SM_FIELD_UINT, NULL),  FIELD(bytes, SM_FIELD_UINT, "B"),   FIELD(first, SM_FIELD_TIME, NULL),
    FIELD(last, SM_FIELD_TIME, NULL),     VERDICT(master, SM_FIELD_UINT),     VERDICT(application, SM_FIELD_UINT),
    VERDICT(category, SM_FIELD_UINT),     VERDICT(confidence, SM_FIELD_UINT), VERDICT(host, SM_FIELD_TEXT),
    FIELD(examined, SM_FIELD_UINT, NULL), FIELD(over, SM_FIELD_UINT, NULL),
};

/* ---- the log ---- */

/* What a name may hold that JSON may not: everything else than printed ASCII becomes '?'. */
static void put_text(FILE *out, const char *name, const char *text)
{
    fprintf(out, ",\"%s\":\"", name);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            fputc('\\', out);
        fputc(*text >= ' ' && *text <= '~' ? *text : '?', out);
    }
    fputc('"', out);
}

static void put_ends(FILE *out, const struct sm_key *key)
{
    const int family = key->family == 6 ? AF_INET6 : AF_INET;
    char a[INET6_ADDRSTRLEN], b[INET6_ADDRSTRLEN];

    inet_ntop(family, key->a, a, sizeof a);
    inet_ntop(family, key->b, b, sizeof b);
    fprintf(out, ",\"ip_protocol\":%u,\"a\":\"%s\",\"a_port\":%u,\"b\":\"%s\",\"b_port\":%u", key->protocol, a,
            key->a_port, b, key->b_port);
}

/* One write, so that lines of several replicas do not mix. */
static void write_line(const struct classifier *classifier, const struct sm_key *key, const struct classified *flow)
{
    char line[1024], protocol[64];
    FILE *out = classifier->log >= 0 ? fmemopen(line, sizeof line, "w") : NULL;

    if (!out)
        return;
    fprintf(out, "{\"first\":%" PRIu64 ".%09" PRIu64, flow->first / 1000000000, flow->first % 1000000000);
    put_ends(out, key);
    detect_protocol_name(classifier->detect, &flow->verdict, protocol, sizeof protocol);
    put_text(out, "protocol", protocol);
    put_text(out, "category", detect_category_name(classifier->detect, &flow->verdict));
    if (flow->verdict.host[0])
        put_text(out, "host", flow->verdict.host);
    fprintf(out, ",\"packets\":%" PRIu64 ",\"bytes\":%" PRIu64 "}\n", flow->packets, flow->bytes);
    long length = ftell(out);
    fclose(out);
    if (length > 0 && write(classifier->log, line, (size_t)length) != length)
        fprintf(stderr, "sm-classifier: the log cannot be written\n");
}

/* ---- flows ---- */

static void finish(const struct classifier *classifier, const struct detect_hand *hand, struct classified *flow,
                   bool known)
{
    if (known)
        detect_end(hand);
    else
        detect_give_up(classifier->detect, hand, &flow->verdict);
    flow->over = 1;
    write_line(classifier, sm_flow_key(hand->flow), flow);
}

/* Errors and later fragments have the flow's key, and are not of its protocol. */
static bool of_the_flow(const struct sm_packet *packet)
{
    const struct sm_headers *headers = sm_packet_headers(packet);
    return headers->family != 0 && !(headers->flags & (SM_HDR_ICMP_ERROR | SM_HDR_LATER_FRAGMENT));
}

static void examine(const struct classifier *classifier, struct sm_packet *packet, const struct detect_hand *hand,
                    struct classified *flow)
{
    const struct sm_headers *headers = sm_packet_headers(packet);
    const unsigned most = headers->protocol == 6 ? MOST_TCP : MOST_OTHER;
    enum detect_state state =
        detect_packet(classifier->detect, hand, sm_packet_data(packet) + headers->l3,
                      sm_packet_caplen(packet) - headers->l3, sm_packet_time(packet).ns / 1000000, &flow->verdict);

    if (++flow->examined > most || state != DETECT_GOES_ON)
        finish(classifier, hand, flow, state == DETECT_KNOWN);
}

void classifier_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    const struct classifier *classifier = user;
    struct detect_hand hand = {.replica = replica, .cls = classifier->flows};
    bool created;

    if (sm_flow_create(replica, classifier->flows, packet, 0, &hand.flow, &created) != 0)
        return; /* no room for another flow: reported as flow_limit, and the packet passes */
    struct classified *flow = hand.flow.state;
    hand.detection = &flow->detection;
    flow->packets++;
    flow->bytes += sm_packet_len(packet);
    flow->last = sm_packet_time(packet).ns;
    if (created)
        flow->first = flow->last;
    if (!flow->over && of_the_flow(packet))
        examine(classifier, packet, &hand, flow);
}

static void on_expire(struct sm_replica *replica, sm_class cls, sm_flow ended, enum sm_ending why, sm_time now,
                      void *user)
{
    struct classified *flow = ended.state;
    struct detect_hand hand = {.replica = replica, .cls = cls, .flow = ended, .detection = &flow->detection};

    (void)why, (void)now;
    if (!flow->over)
        finish(user, &hand, flow, false);
}

/* ---- copies ---- */

static int encode(struct sm_replica *replica, sm_class cls, sm_flow from, struct sm_writer *writer, void *user)
{
    const struct classified *flow = from.state;

    (void)replica, (void)cls, (void)user;
    sm_write_bytes(writer, "record", flow, offsetof(struct classified, detection));
    detect_write(&flow->detection, writer, "detection");
    return 0;
}

static int decode(struct sm_replica *replica, sm_class cls, sm_flow to, uint32_t version, sm_value value, void *user)
{
    struct classified *flow = to.state;
    struct detect_hand hand = {.replica = replica, .cls = cls, .flow = to, .detection = &flow->detection};
    size_t bytes;
    const void *record = sm_value_bytes(sm_value_get(value, "record"), &bytes);

    (void)version, (void)user;
    if (!record || bytes != offsetof(struct classified, detection))
        return SM_E_INVALID;
    memcpy(flow, record, bytes);
    flow->verdict.host[sizeof flow->verdict.host - 1] = '\0';
    return detect_read(&hand, sm_value_get(value, "detection"));
}

/* ---- the middlebox ---- */

struct classifier *classifier_create(int log, struct sm_errbuf *error)
{
    struct classifier *classifier = calloc(1, sizeof *classifier);

    if (!classifier) {
        snprintf(error->text, sizeof error->text, "%s", sm_strerror(SM_E_NO_MEMORY));
        return NULL;
    }
    classifier->log = log;
    classifier->detect = detect_create(error);
    if (!classifier->detect) {
        free(classifier);
        return NULL;
    }
    return classifier;
}

void classifier_destroy(struct classifier *classifier)
{
    detect_destroy(classifier->detect);
    free(classifier);
}

int classifier_register(struct classifier *classifier, struct sm_replica *replica)
{
    const struct sm_class_options options = {.size = sizeof options,
                                             .name = "flows",
                                             .record_size = sizeof(struct classified),
                                             .granularity = SM_BY_FLOW,
                                             .fields = fields,
                                             .field_count = sizeof fields / sizeof *fields,
                                             .user = classifier,
                                             .idle_timeout_ns = IDLE_NS,
                                             .on_expire = on_expire,
                                             .alloc_limit = DETECT_ALLOC_LIMIT,
                                             .encode = encode,
                                             .decode = decode};

    return sm_class_register(replica, &options, &classifier->flows);
}
