/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SPLITMERGE_PACKET_H
#define SPLITMERGE_PACKET_H

/*
 * Packets as a middlebox sees them. A struct sm_packet is valid from the call of the packet handler until that
 * handler returns; all calls are made on the thread that runs the replica, none blocks.
 */

#include <splitmerge/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct sm_replica;
struct sm_packet;

/* What parsing found; offsets count from the first captured byte and are 0 where the header was not found. */
struct sm_headers {
    uint16_t l3;      /* outermost IP header */
    uint16_t l4;      /* transport header; 0 in later fragments */
    uint8_t family;   /* 4 or 6 */
    uint8_t protocol; /* the transport protocol of the outermost IP packet */
    uint8_t flags;    /* SM_HDR_* */
    uint8_t reserved;
};

enum {
    SM_HDR_REVERSE = 1 << 0,        /* the packet's source is endpoint b of its two-way key */
    SM_HDR_ICMP_ERROR = 1 << 1,     /* the two-way key is that of the packet it quotes */
    SM_HDR_FRAGMENT = 1 << 2,       /* any fragment, the first too */
    SM_HDR_LATER_FRAGMENT = 1 << 3, /* not the first: it has no transport header */
    SM_HDR_TRUNCATED = 1 << 4,      /* the capture ends inside the headers that would have been read */
    SM_HDR_MALFORMED = 1 << 5,      /* a header contradicts itself or the packet's length */
};

/* The captured bytes, sm_packet_caplen() of them. Never NULL. Read only: see sm_packet_writable(). */
SM_EXPORT const uint8_t *sm_packet_data(const struct sm_packet *packet);

/* Captured length in bytes. */
SM_EXPORT uint32_t sm_packet_caplen(const struct sm_packet *packet);

/* Length on the wire in bytes, as captured (pcap's `len`); may be more than what was captured. */
SM_EXPORT uint32_t sm_packet_len(const struct sm_packet *packet);

/* Packet time. */
SM_EXPORT sm_time sm_packet_time(const struct sm_packet *packet);

/* libpcap's DLT_ number of the port the packet came in by. */
SM_EXPORT int sm_packet_linktype(const struct sm_packet *packet);

/* Where the headers are. Valid as long as the packet. */
SM_EXPORT const struct sm_headers *sm_packet_headers(const struct sm_packet *packet);

/* The key of this packet at a granularity. *key is the caller's, with tag 0. */
SM_EXPORT void sm_packet_key(const struct sm_packet *packet, enum sm_granularity granularity, struct sm_key *key);

/*
 * The SM_BY_FLOW key of a packet from one end to another, in either direction. `family` 4 or 6: addresses of 4 or 16
 * bytes. Ports in host byte order; ICMP echo: the identifier for both. Any thread.
 */
SM_EXPORT void sm_key_make(struct sm_key *key, uint8_t family, uint8_t protocol, const uint8_t *source,
                           uint16_t source_port, const uint8_t *destination, uint16_t destination_port);

/*
 * The shard that the packet's state is in, below SM_PACKET_SHARDS. It stays with a flow for the flow's life, and at any
 * time one replica has a shard to itself: what is shared out by shard (ports of an address, say) needs no agreement.
 */
#define SM_PACKET_SHARDS 16384
SM_EXPORT uint32_t sm_packet_shard(const struct sm_packet *packet);

/*
 * Ask to write bytes [offset, offset + length) of the packet: returns where they are. NULL when the range is not
 * within the captured bytes. Checksums are the caller's business (RFC 1624).
 */
SM_EXPORT uint8_t *sm_packet_writable(struct sm_packet *packet, uint32_t offset, uint32_t length);

/*
 * Verdicts. A packet that gets none passes. A drop names its reason (sm_drop_reason() in splitmerge.h), counted
 * in the report under that name. In tap mode verdicts change nothing.
 */
SM_EXPORT void sm_packet_pass(struct sm_packet *packet);
SM_EXPORT void sm_packet_drop(struct sm_packet *packet, uint16_t reason);

/*
 * Let a packet that passes leave at `until`, in packet time, instead of at once: its departure is fixed with the
 * verdict, wherever the replica is afterwards. Packets leave in the order of departure, then of arrival; what is sent
 * because of the packet leaves with it. In a capture its timestamp is the departure; on interfaces it is sent when the
 * wall clock gets there; from captures, order: arrival is kept whatever the service says. The switch keeps it in memory
 * of its own (`limits.shape` of the service, sm_options.shape_memory); where that is full the packet is dropped as
 * `shape`. A later call replaces an earlier one, and a time that is not after the packet's own takes it back. In tap
 * mode nothing is delayed. SM_E_LIMIT: more than SM_MAX_DELAY_NS after the packet's time; SM_E_STATE: sm_options.delays
 * was not set. Nothing has changed then.
 */
#define SM_MAX_DELAY_NS 3600000000000ull
SM_EXPORT int sm_packet_delay(struct sm_packet *packet, sm_time until);

/*
 * Send a new packet of `length` bytes, behind `cause` in the output; it leaves by the port by which `cause` would.
 * The bytes are copied. SM_E_LIMIT: more than sm_options.max_sends for this packet, or longer than SM_MAX_SEND_BYTES.
 * Every packet is admitted with the buffers for what may be sent because of it, so that nothing else can fail.
 */
#define SM_MAX_SEND_BYTES 1792
SM_EXPORT int sm_packet_send(struct sm_replica *replica, struct sm_packet *cause, const void *data, uint32_t length);

/*
 * Filters in libpcap's language, meaning exactly what they mean to tcpdump on a capture of `linktype`.
 * sm_filter_create: SM_E_SYNTAX (text in *error) when libpcap refuses the expression. The filter is the caller's
 * until sm_filter_destroy(), which takes NULL too. Matching is thread-safe.
 */
struct sm_filter;
SM_EXPORT int sm_filter_create(struct sm_filter **filter, int linktype, const char *expression,
                               struct sm_errbuf *error);
SM_EXPORT bool sm_filter_match(const struct sm_filter *filter, const uint8_t *data, uint32_t caplen, uint32_t len);
SM_EXPORT void sm_filter_destroy(struct sm_filter *filter);

#ifdef __cplusplus
}
#endif

#endif
