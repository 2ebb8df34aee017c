/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Memory.  nDPI asks for memory by hooks that do not say what for. While a packet of a flow is in its hands they give
 * chunks of that flow, chained from its record; at any other time, the process's heap. Before nDPI is let at a flow
 * every chunk of it is declared as one to be written (sm_writable()), for nDPI writes where it likes.
 *
 * Code.  A record of nDPI's holds the address of a function, `extra_packets_func`. In the arena it is a distance within
 * the library, so that it holds in replicas that have loaded nDPI elsewhere; and the build-id of the library stands
 * beside it, since another build has its functions elsewhere and may have another record. There a detection begins
 * anew, with the packets that still come.
 *
 * Copies.  Chunks point to one another. Which words of them are such pointers nDPI does not tell; but an address within
 * a chunk of the same flow is one, there being no other reason for a number like that. They travel as a list of links.
 *
 * Caches.  nDPI remembers addresses, certificates and tickets of one flow to know others by. Which packets one replica
 * sees would then show in what it says; so the functions of that cache are replaced by these below, which remember
 * nothing. TINC, the one protocol with a cache of another kind, is left out.
 */
#include "detect.h"

#include <ndpi/ndpi_api.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct chunk {
    struct chunk *next;
    size_t size; /* bytes behind this */
};

struct detect {
    struct ndpi_detection_module_struct *module;
    uint64_t build;
};

/* ---- memory ---- */

static _Thread_local const struct detect_hand *in_hand;

static void *body_of(const struct chunk *chunk)
{
    return (void *)(uintptr_t)(chunk + 1);
}

static void *get_memory(size_t size)
{
    if (!in_hand)
        return malloc(size);
    struct chunk *chunk = sm_alloc(in_hand->replica, in_hand->cls, in_hand->flow, sizeof *chunk + size);
    if (!chunk)
        return NULL;
    /* The first one stays the last of the chain. */
    *chunk = (struct chunk){in_hand->detection->chunks, size};
    in_hand->detection->chunks = chunk;
    return body_of(chunk);
}

static void give_memory_back(void *memory)
{
    struct chunk **at = in_hand ? &in_hand->detection->chunks : NULL;

    while (at && *at && body_of(*at) != memory)
        at = &(*at)->next;
    if (!at || !*at) {
        free(memory);
        return;
    }
    struct chunk *chunk = *at;
    *at = chunk->next;
    sm_free(in_hand->replica, in_hand->cls, in_hand->flow, chunk);
}

static struct ndpi_flow_struct *flow_of(const struct detection *detection)
{
    struct chunk *chunk = detection->chunks;

    while (chunk && chunk->next)
        chunk = chunk->next;
    return chunk ? body_of(chunk) : NULL;
}

/* nDPI may write anywhere in the flow's memory from now on. False: this packet has changed too much already. */
static bool take_in_hand(const struct detect_hand *hand)
{
    for (struct chunk *chunk = hand->detection->chunks; chunk; chunk = chunk->next)
        if (!sm_writable(hand->replica, chunk, 0, sizeof *chunk + chunk->size))
            return false;
    in_hand = hand;
    return true;
}

void detect_end(const struct detect_hand *hand)
{
    while (hand->detection->chunks) {
        struct chunk *chunk = hand->detection->chunks;
        hand->detection->chunks = chunk->next;
        sm_free(hand->replica, hand->cls, hand->flow, chunk);
    }
    *hand->detection = (struct detection){0};
}

/* ---- code ---- */

typedef int extra_packets_fn(struct ndpi_detection_module_struct *, struct ndpi_flow_struct *);

/* Any place in the library. */
static uintptr_t origin(void)
{
    return (uintptr_t)&ndpi_detection_process_packet;
}

static void to_distance(struct ndpi_flow_struct *flow)
{
    if (flow->extra_packets_func)
        flow->extra_packets_func = (extra_packets_fn *)((uintptr_t)flow->extra_packets_func - origin());
}

static void to_address(struct ndpi_flow_struct *flow)
{
    if (flow->extra_packets_func)
        flow->extra_packets_func = (extra_packets_fn *)((uintptr_t)flow->extra_packets_func + origin());
}

/* ---- caches across flows: none ---- */

#define INSTEAD_OF_NDPIS __attribute__((visibility("default")))

INSTEAD_OF_NDPIS struct ndpi_lru_cache *ndpi_lru_cache_init(u_int32_t num_entries)
{
    static struct ndpi_lru_cache none;

    (void)num_entries;
    return &none;
}

INSTEAD_OF_NDPIS void ndpi_lru_free_cache(struct ndpi_lru_cache *c)
{
    (void)c;
}

INSTEAD_OF_NDPIS u_int8_t ndpi_lru_find_cache(struct ndpi_lru_cache *c, u_int32_t key, u_int16_t *value,
                                              u_int8_t clean_key_when_found)
{
    (void)c, (void)key, (void)value, (void)clean_key_when_found;
    return 0;
}

INSTEAD_OF_NDPIS void ndpi_lru_add_to_cache(struct ndpi_lru_cache *c, u_int32_t key, u_int16_t value)
{
    (void)c, (void)key, (void)value;
}

/* ---- the module ---- */

struct detect *detect_create(struct sm_errbuf *error)
{
    struct detect *detect = calloc(1, sizeof *detect);
    NDPI_PROTOCOL_BITMASK all;

    if (ndpi_get_api_version() != NDPI_API_VERSION ||
        ndpi_detection_get_sizeof_ndpi_flow_struct() != sizeof(struct ndpi_flow_struct)) {
        snprintf(error->text, sizeof error->text, "nDPI %s has interface %u, expected that of its headers, %u",
                 ndpi_revision(), ndpi_get_api_version(), NDPI_API_VERSION);
        free(detect);
        return NULL;
    }
    set_ndpi_malloc(get_memory);
    set_ndpi_free(give_memory_back);
    set_ndpi_flow_malloc(get_memory);
    set_ndpi_flow_free(give_memory_back);
    if (detect)
        detect->module = ndpi_init_detection_module(ndpi_no_prefs);
    if (!detect || !detect->module) {
        snprintf(error->text, sizeof error->text, "%s", sm_strerror(SM_E_NO_MEMORY));
        free(detect);
        return NULL;
    }
    NDPI_BITMASK_SET_ALL(all);
    NDPI_DEL_PROTOCOL_FROM_BITMASK(all, NDPI_PROTOCOL_TINC);
    ndpi_set_protocol_detection_bitmask2(detect->module, &all);
    ndpi_finalize_initialization(detect->module);
    detect->build = sm_code_build((const void *)origin());
    return detect;
}

void detect_destroy(struct detect *detect)
{
    if (detect)
        ndpi_exit_detection_module(detect->module);
    free(detect);
}

/* ---- packets ---- */

static void tell(const struct ndpi_flow_struct *flow, ndpi_protocol found, struct verdict *verdict)
{
    *verdict = (struct verdict){.master = found.master_protocol,
                                .application = found.app_protocol,
                                .category = (uint16_t)found.category,
                                .confidence = (uint16_t)flow->confidence};
    memcpy(verdict->host, flow->host_server_name, sizeof verdict->host);
    verdict->host[sizeof verdict->host - 1] = '\0';
}

static bool begin(const struct detect *detect, const struct detect_hand *hand)
{
    detect_end(hand);
    in_hand = hand;
    bool got = get_memory(sizeof(struct ndpi_flow_struct)) != NULL;
    in_hand = NULL;
    hand->detection->build = detect->build;
    return got;
}

enum detect_state detect_packet(struct detect *detect, const struct detect_hand *hand, const uint8_t *ip,
                                uint32_t bytes, uint64_t time_ms, struct verdict *verdict)
{
    const uint16_t length = bytes > UINT16_MAX ? UINT16_MAX : (uint16_t)bytes;

    if ((!hand->detection->chunks || hand->detection->build != detect->build) && !begin(detect, hand))
        return DETECT_FAILED;
    if (!take_in_hand(hand))
        return DETECT_FAILED;
    struct ndpi_flow_struct *flow = flow_of(hand->detection);
    to_address(flow);
    ndpi_protocol found = ndpi_detection_process_packet(detect->module, flow, ip, length, time_ms);
    bool more = found.app_protocol == NDPI_PROTOCOL_UNKNOWN || ndpi_extra_dissection_possible(detect->module, flow);
    tell(flow, found, verdict);
    to_distance(flow);
    in_hand = NULL;
    return more ? DETECT_GOES_ON : DETECT_KNOWN;
}

void detect_give_up(struct detect *detect, const struct detect_hand *hand, struct verdict *verdict)
{
    u_int8_t guessed;

    if (hand->detection->chunks && hand->detection->build == detect->build && take_in_hand(hand)) {
        struct ndpi_flow_struct *flow = flow_of(hand->detection);
        to_address(flow);
        ndpi_protocol found = ndpi_detection_giveup(detect->module, flow, 1, &guessed);
        tell(flow, found, verdict);
        to_distance(flow);
        in_hand = NULL;
    }
    detect_end(hand);
}

/* ---- copies ---- */

/* Where a pointer of one chunk leads: chunks are counted from the first of the chain. */
struct link {
    uint32_t from, at, to, offset;
};

static unsigned count_of(const struct detection *detection)
{
    unsigned count = 0;

    for (const struct chunk *chunk = detection->chunks; chunk; chunk = chunk->next)
        count++;
    return count;
}

/* Whether a word is an address in one of the chunks, its end included. */
static bool leads_into(const struct detection *detection, uint64_t word, struct link *link)
{
    link->to = 0;
    for (const struct chunk *chunk = detection->chunks; chunk; chunk = chunk->next, link->to++) {
        uint64_t offset = word - (uintptr_t)body_of(chunk);
        if (offset <= chunk->size) {
            link->offset = (uint32_t)offset;
            return true;
        }
    }
    return false;
}

static void write_links(const struct detection *detection, struct sm_writer *writer)
{
    struct link link = {0};
    uint64_t word;

    for (const struct chunk *chunk = detection->chunks; chunk; chunk = chunk->next, link.from++)
        for (size_t at = 0; at + sizeof word <= chunk->size; at += sizeof word) {
            memcpy(&word, (const uint8_t *)body_of(chunk) + at, sizeof word);
            if (!leads_into(detection, word, &link))
                continue;
            link.at = (uint32_t)at;
            sm_write_bytes(writer, NULL, &link, sizeof link);
        }
}

void detect_write(const struct detection *detection, struct sm_writer *writer, const char *name)
{
    if (!detection->chunks)
        return;
    sm_write_map(writer, name);
    sm_write_uint(writer, "build", detection->build);
    sm_write_list(writer, "chunks");
    for (const struct chunk *chunk = detection->chunks; chunk; chunk = chunk->next)
        sm_write_bytes(writer, NULL, body_of(chunk), chunk->size);
    sm_write_end(writer);
    sm_write_list(writer, "links");
    write_links(detection, writer);
    sm_write_end(writer);
    sm_write_end(writer);
}

static struct chunk *chunk_at(const struct detection *detection, uint32_t number)
{
    struct chunk *chunk = detection->chunks;

    while (chunk && number-- > 0)
        chunk = chunk->next;
    return chunk;
}

static int read_links(const struct detection *detection, sm_value list)
{
    sm_value item = {0};
    struct link link;
    size_t bytes;

    while (sm_value_next(list, &item)) {
        const void *text = sm_value_bytes(item, &bytes);
        if (bytes != sizeof link)
            return SM_E_INVALID;
        memcpy(&link, text, sizeof link);
        struct chunk *from = chunk_at(detection, link.from), *to = chunk_at(detection, link.to);
        if (!from || !to || link.at + sizeof(uint64_t) > from->size || link.offset > to->size)
            return SM_E_INVALID;
        uint64_t word = (uintptr_t)body_of(to) + link.offset;
        memcpy((uint8_t *)body_of(from) + link.at, &word, sizeof word);
    }
    return 0;
}

int detect_read(const struct detect_hand *hand, sm_value value)
{
    struct chunk **end = &hand->detection->chunks;
    sm_value list = sm_value_get(value, "chunks"), item = {0};
    size_t bytes;

    hand->detection->build = sm_value_uint(sm_value_get(value, "build"), 0);
    while (sm_value_next(list, &item)) {
        const void *text = sm_value_bytes(item, &bytes);
        if (!text || bytes > DETECT_ALLOC_LIMIT)
            return SM_E_INVALID;
        struct chunk *chunk = sm_alloc(hand->replica, hand->cls, hand->flow, sizeof *chunk + bytes);
        if (!chunk)
            return SM_E_NO_MEMORY;
        *chunk = (struct chunk){NULL, bytes};
        memcpy(body_of(chunk), text, bytes);
        *end = chunk;
        end = &chunk->next;
    }
    if (hand->detection->chunks &&
        chunk_at(hand->detection, count_of(hand->detection) - 1)->size != sizeof(struct ndpi_flow_struct))
        return SM_E_INVALID;
    return read_links(hand->detection, sm_value_get(value, "links"));
}

/* ---- names ---- */

static ndpi_protocol protocol_of(const struct verdict *verdict)
{
    return (ndpi_protocol){.master_protocol = verdict->master,
                           .app_protocol = verdict->application,
                           .category = (ndpi_protocol_category_t)verdict->category};
}

void detect_protocol_name(struct detect *detect, const struct verdict *verdict, char *text, size_t size)
{
    ndpi_protocol2name(detect->module, protocol_of(verdict), text, (u_int)size);
}

const char *detect_category_name(struct detect *detect, const struct verdict *verdict)
{
    return ndpi_category_get_name(detect->module, (ndpi_protocol_category_t)verdict->category);
}
