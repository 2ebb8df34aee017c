/* SPDX-License-Identifier: BSD-2-Clause */
/* Lines and notes as packets; and what the rest of the original takes from its p0f.c. */

#include "note.h"

#include <stdarg.h>
#include <stddef.h>
#include <time.h>
#include <unistd.h>

#include "checksum.h"
#include "p0f.h"
#include "readfp.h"

enum { UDP = 17, MAGIC_BYTES = 4, PART = 1700, SHORT_NOTE = offsetof(struct note, line) };

/* The original's options, as nothing that it does may hang on how much of the traffic a process sees. */
u8 daemon_mode, *read_file = (u8 *)"";
u32 hash_seed = 1, max_conn = 1000, max_hosts = 1000, conn_max_age = UINT32_MAX, host_idle_limit = UINT32_MAX / 60;
s32 link_type;

struct scratch scratch;

static struct {
    char text[NOTE_LINES];
    uint32_t used;
    uint8_t fields; /* that are still to come of the line */
    bool about_hosts, skip;
} lines;

void lines_begin(bool about_hosts)
{
    lines.used = lines.fields = 0;
    lines.about_hosts = about_hosts;
}

static void put(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void put(const char *format, ...)
{
    uint32_t room = lines.used < NOTE_LINES - 1 ? NOTE_LINES - 1 - lines.used : 0; /* the end of the line has room */
    va_list arguments;

    if (lines.skip)
        return;
    va_start(arguments, format);
    uint32_t length = (uint32_t)vsnprintf(lines.text + lines.used, room, format, arguments);
    va_end(arguments);
    lines.used += length < room ? length : room - (room > 0);
}

static bool is_about_hosts(const char *keyword)
{
    return !strcmp(keyword, "uptime") || !strcmp(keyword, "host change") || !strcmp(keyword, "ip sharing");
}

void start_observation(char *keyword, u8 field_cnt, u8 to_srv, struct packet_flow *f)
{
    time_t seconds = get_unix_time();
    char when[64];

    lines.fields = field_cnt;
    lines.skip = is_about_hosts(keyword) != lines.about_hosts;
    if (!lines.about_hosts && !strncmp(keyword, "http", 4))
        note_http(to_srv, f);
    if (lines.skip)
        return;
    strftime(when, sizeof when, "%Y/%m/%d %H:%M:%S", localtime(&seconds));
    put("[%s] mod=%s|cli=%s/%u|", when, keyword, addr_to_str(f->client->addr, f->client->ip_ver), f->cli_port);
    put("srv=%s/%u|subj=%s", addr_to_str(f->server->addr, f->server->ip_ver), f->srv_port, to_srv ? "cli" : "srv");
}

void add_observation_field(char *key, u8 *value)
{
    put("|%s=%s", key, value ? (char *)value : "???");
    if (--lines.fields == 0 && !lines.skip && lines.used < NOTE_LINES)
        lines.text[lines.used++] = '\n';
}

void fingerprints_load(const char *file)
{
    fflush(stdout);
    int output = dup(STDOUT_FILENO);
    dup2(STDERR_FILENO, STDOUT_FILENO);
    http_init();
    read_config((u8 *)file);
    fflush(stdout);
    dup2(output, STDOUT_FILENO);
    close(output);
}

/* Headers as `cause` has them, but from a host to itself. Returns their length. */
static uint32_t make_headers(uint8_t *to, const struct sm_packet *cause, const struct note *note, uint32_t payload)
{
    const uint8_t *host = note->to_srv ? note->client : note->server;
    uint32_t link = sm_packet_headers(cause)->l3, address = note->ip_ver == 4 ? 4 : 16;
    uint8_t *ip = to + link, *udp = ip + (address == 4 ? 20 : 40);

    memcpy(to, sm_packet_data(cause), link);
    memset(ip, 0, 40 + 8);
    ip[0] = (uint8_t)(note->ip_ver << 4 | (address == 4 ? 5 : 0));
    ip[address == 4 ? 9 : 6] = UDP;
    ip[address == 4 ? 8 : 7] = 64;
    store16(ip + (address == 4 ? 2 : 4), (uint16_t)(payload + 8 + (address == 4 ? 20 : 0)));
    memcpy(udp - 2 * address, host, address);
    memcpy(udp - address, host, address);
    if (address == 4)
        store16(ip + 10, checksum_finish(checksum_add(0, ip, 20)));
    store16(udp, note->cli_port);
    store16(udp + 2, note->srv_port);
    store16(udp + 4, (uint16_t)(payload + 8)); /* no checksum: nothing that is not seen from here (RFC 6935) */
    return (uint32_t)(udp + 8 - to);
}

static void emit(struct sm_replica *replica, struct sm_packet *cause, const struct note *note, const char *magic,
                 const void *data, uint32_t bytes)
{
    uint8_t packet[SM_MAX_SEND_BYTES];

    if (sm_packet_headers(cause)->l3 > SM_MAX_SEND_BYTES - PART - MAGIC_BYTES - 48)
        return; /* no link has such a header */
    uint32_t at = make_headers(packet, cause, note, MAGIC_BYTES + bytes);
    memcpy(packet + at, magic, MAGIC_BYTES);
    memcpy(packet + at + MAGIC_BYTES, data, bytes);
    sm_packet_send(replica, cause, packet, at + MAGIC_BYTES + bytes);
}

void lines_send(struct sm_replica *replica, struct sm_packet *cause, const struct note *note)
{
    for (uint32_t at = 0; at < lines.used; at += PART)
        emit(replica, cause, note, "p0fL", lines.text + at, lines.used - at < PART ? lines.used - at : PART);
}

void note_send(struct sm_replica *replica, struct sm_packet *cause, const struct note *note)
{
    emit(replica, cause, note, "p0fN", note, note->calls & NOTE_HTTP ? sizeof *note : SHORT_NOTE);
}

/* What is behind the magic; NULL: it has another. */
static const void *payload_of(const struct sm_packet *packet, const char *magic, uint32_t *bytes)
{
    const struct sm_headers *headers = sm_packet_headers(packet);
    uint32_t at = headers->l4 + 8u;

    if (headers->protocol != UDP || headers->l4 == 0 || at + MAGIC_BYTES > sm_packet_caplen(packet) ||
        memcmp(sm_packet_data(packet) + at, magic, MAGIC_BYTES) != 0)
        return NULL;
    *bytes = sm_packet_caplen(packet) - at - MAGIC_BYTES;
    return sm_packet_data(packet) + at + MAGIC_BYTES;
}

bool note_read(const struct sm_packet *packet, struct note *note)
{
    uint32_t bytes;
    const void *payload = payload_of(packet, "p0fN", &bytes);

    if (!payload || (bytes != SHORT_NOTE && bytes != sizeof *note))
        return false;
    memset(note, 0, sizeof *note);
    memcpy(note, payload, bytes);
    note->to_srv = note->to_srv != 0;
    note->software[sizeof note->software - 1] = note->language[sizeof note->language - 1] = '\0';
    return note->packet.opt_cnt <= MAX_TCP_OPT && (note->ip_ver == 4 || note->ip_ver == 6) &&
           !(note->calls & NOTE_HTTP && bytes == SHORT_NOTE);
}

const char *lines_read(const struct sm_packet *packet, uint32_t *bytes)
{
    return payload_of(packet, "p0fL", bytes);
}
