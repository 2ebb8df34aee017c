/* SPDX-License-Identifier: BSD-2-Clause */
#include "eve.h"

#include <arpa/inet.h>
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "community_id.h"
#include "fnv.h"

/* A flow's number: the same for both directions, and of numbers that all readers of JSON take. */
static uint64_t flow_id(const struct ends *ends)
{
    const size_t width = ends->family == 6 ? 16 : 4;
    const bool icmp = ends->protocol == 1 || ends->protocol == 58;
    const uint16_t from = icmp ? 0 : ends->source_port, to = icmp ? 0 : ends->destination_port;
    uint64_t one = fnv(FNV_BEGIN, ends->source, width), other = fnv(FNV_BEGIN, ends->destination, width);

    one = fnv(one, &from, sizeof from);
    other = fnv(other, &to, sizeof to);
    one = one < other ? fnv(one, &other, sizeof other) : fnv(other, &one, sizeof one);
    one = fnv(one, &ends->protocol, 1);
    return fnv(one, &ends->began, sizeof ends->began) >> 11;
}

static void put_text(FILE *out, const char *name, const char *text)
{
    fprintf(out, ",\"%s\":\"", name);
    for (; *text; text++) { /* printed ASCII, as rules are */
        if (*text == '"' || *text == '\\')
            fputc('\\', out);
        fputc(*text == '\t' ? ' ' : *text, out);
    }
    fputc('"', out);
}

static void put_time(FILE *out, sm_time now)
{
    const time_t seconds = (time_t)(now.ns / 1000000000);
    char text[32];
    struct tm parts;

    gmtime_r(&seconds, &parts);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
    fprintf(out, "{\"timestamp\":\"%s.%06" PRIu64 "+0000\"", text, now.ns % 1000000000 / 1000);
}

static void put_ends(FILE *out, const struct ends *ends)
{
    const int family = ends->family == 6 ? AF_INET6 : AF_INET;
    const bool ports = ends->protocol == 6 || ends->protocol == 17 || ends->protocol == 132;
    const char *name = ends->protocol == 6     ? "TCP"
                       : ends->protocol == 17  ? "UDP"
                       : ends->protocol == 1   ? "ICMP"
                       : ends->protocol == 58  ? "IPv6-ICMP"
                       : ends->protocol == 132 ? "SCTP"
                                               : NULL;
    char text[INET6_ADDRSTRLEN], number[4], id[COMMUNITY_ID_ROOM];

    put_text(out, "src_ip", inet_ntop(family, ends->source, text, sizeof text));
    if (ports)
        fprintf(out, ",\"src_port\":%u", ends->source_port);
    put_text(out, "dest_ip", inet_ntop(family, ends->destination, text, sizeof text));
    if (ports)
        fprintf(out, ",\"dest_port\":%u", ends->destination_port);
    snprintf(number, sizeof number, "%u", ends->protocol);
    put_text(out, "proto", name ? name : number);
    community_id(id, ends->protocol, family == AF_INET6 ? 16 : 4, ends->source, ends->source_port, ends->destination,
                 ends->destination_port);
    put_text(out, "community_id", id);
}

size_t eve_alert(char line[EVE_LINE], const struct rule *rule, const struct ends *ends, sm_time time)
{
    FILE *out = fmemopen(line, EVE_LINE, "w");

    if (!out)
        return 0;
    put_time(out, time);
    fprintf(out, ",\"flow_id\":%" PRIu64 ",\"event_type\":\"alert\"", flow_id(ends));
    put_ends(out, ends);
    fprintf(out, ",\"alert\":{\"action\":\"allowed\",\"gid\":%u,\"signature_id\":%u,\"rev\":%u", rule->gid, rule->sid,
            rule->rev);
    put_text(out, "signature", rule->msg);
    put_text(out, "category", rule->classtype);
    fputs("}}\n", out);
    long length = ftell(out);
    fclose(out);
    assert(length > 0 && length < EVE_LINE);
    return (size_t)length;
}
