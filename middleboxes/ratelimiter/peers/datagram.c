/* SPDX-License-Identifier: BSD-2-Clause */
#include "peers/datagram.h"

#include <string.h>

#define MAGIC 0x534du

/* A place in bytes: `left` of them are there, and `bad` once more was wanted. */
struct cursor {
    uint8_t *at;
    size_t left;
    bool bad;
};

static void put(struct cursor *cursor, uint64_t value, unsigned bytes)
{
    if (cursor->left < bytes) {
        cursor->bad = true;
        return;
    }
    for (unsigned i = 0; i < bytes; i++)
        cursor->at[i] = (uint8_t)(value >> 8 * (bytes - 1 - i));
    cursor->at += bytes;
    cursor->left -= bytes;
}

static uint64_t get(struct cursor *cursor, unsigned bytes)
{
    uint64_t value = 0;

    if (cursor->left < bytes) {
        cursor->bad = true;
        return 0;
    }
    for (unsigned i = 0; i < bytes; i++)
        value = value << 8 | cursor->at[i];
    cursor->at += bytes;
    cursor->left -= bytes;
    return value;
}

static void put_double(struct cursor *cursor, double value)
{
    uint64_t bits;

    memcpy(&bits, &value, sizeof bits);
    put(cursor, bits, 8);
}

static double get_double(struct cursor *cursor)
{
    uint64_t bits = get(cursor, 8);
    double value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

#define VALUES (sizeof((struct drl_update *)0)->value / sizeof(double))

static void put_update(struct cursor *cursor, const struct drl_update *update)
{
    unsigned count = VALUES;

    while (count > 0 && update->value[count - 1] == 0) /* zeroes at the end go without saying */
        count--;
    put(cursor, update->kind << 4 | count, 1);
    for (unsigned i = 0; i < count; i++)
        put_double(cursor, update->value[i]);
}

static void get_update(struct cursor *cursor, struct drl_update *update)
{
    unsigned first = (unsigned)get(cursor, 1), count = first & 15;

    *update = (struct drl_update){.kind = first >> 4};
    if (count > VALUES)
        cursor->bad = true;
    for (unsigned i = 0; i < count && !cursor->bad; i++)
        update->value[i] = get_double(cursor);
}

static void put_ask(struct cursor *cursor, const struct exact_ask *ask)
{
    put(cursor, ask->token, 8);
    put(cursor, ask->number, 4);
    put(cursor, ask->applied, 4);
    put(cursor, ask->held.rate, 8);
    put(cursor, ask->held.depth, 8);
    put(cursor, ask->demand, 8);
    put(cursor, ask->weight, 4);
    put(cursor, ask->pressed, 1);
}

static void get_ask(struct cursor *cursor, struct exact_ask *ask)
{
    ask->token = get(cursor, 8);
    ask->number = (uint32_t)get(cursor, 4);
    ask->applied = (uint32_t)get(cursor, 4);
    ask->held.rate = get(cursor, 8);
    ask->held.depth = get(cursor, 8);
    ask->demand = get(cursor, 8);
    ask->weight = (uint32_t)get(cursor, 4);
    ask->pressed = get(cursor, 1) != 0;
}

static void put_grant(struct cursor *cursor, const struct exact_grant *grant)
{
    put(cursor, grant->token, 8);
    put(cursor, grant->number, 4);
    put(cursor, grant->asked, 4);
    put(cursor, grant->part.rate, 8);
    put(cursor, grant->part.depth, 8);
}

static void get_grant(struct cursor *cursor, struct exact_grant *grant)
{
    grant->token = get(cursor, 8);
    grant->number = (uint32_t)get(cursor, 4);
    grant->asked = (uint32_t)get(cursor, 4);
    grant->part.rate = get(cursor, 8);
    grant->part.depth = get(cursor, 8);
}

static void put_item(struct cursor *cursor, const struct datagram_item *item)
{
    put(cursor, item->limit, 4);
    put(cursor, item->kind, 1);
    if (item->kind >= DATAGRAM_KEY_ASK)
        put(cursor, item->key, 8);
    if (item->kind == DATAGRAM_KEY_ASK) {
        put(cursor, item->whole.rate, 8);
        put(cursor, item->whole.depth, 8);
    }
    if (item->kind == DATAGRAM_UPDATE)
        put_update(cursor, &item->update);
    else if (item->kind == DATAGRAM_ASK || item->kind == DATAGRAM_KEY_ASK)
        put_ask(cursor, &item->ask);
    else
        put_grant(cursor, &item->grant);
}

static void get_item(struct cursor *cursor, struct datagram_item *item)
{
    item->limit = (uint32_t)get(cursor, 4);
    item->kind = (enum datagram_kind)get(cursor, 1);
    if (item->kind == DATAGRAM_KEY_ASK || item->kind == DATAGRAM_KEY_GRANT)
        item->key = get(cursor, 8);
    if (item->kind == DATAGRAM_KEY_ASK) {
        item->whole.rate = get(cursor, 8);
        item->whole.depth = get(cursor, 8);
    }
    if (item->kind == DATAGRAM_UPDATE)
        get_update(cursor, &item->update);
    else if (item->kind == DATAGRAM_ASK || item->kind == DATAGRAM_KEY_ASK)
        get_ask(cursor, &item->ask);
    else if (item->kind == DATAGRAM_GRANT || item->kind == DATAGRAM_KEY_GRANT)
        get_grant(cursor, &item->grant);
    else
        cursor->bad = true;
}

static void put_member(struct cursor *cursor, const struct datagram_member *member)
{
    put(cursor, member->host, 2);
    put(cursor, member->port, 2);
    put(cursor, member->version, 2);
    put(cursor, member->removed, 1);
    for (unsigned i = 0; i < sizeof member->address; i++)
        put(cursor, member->address[i], 1);
}

static void get_member(struct cursor *cursor, struct datagram_member *member)
{
    member->host = (uint16_t)get(cursor, 2);
    member->port = (uint16_t)get(cursor, 2);
    member->version = (uint16_t)get(cursor, 2);
    member->removed = get(cursor, 1) != 0;
    for (unsigned i = 0; i < sizeof member->address; i++)
        member->address[i] = (uint8_t)get(cursor, 1);
}

static void put_hello(struct cursor *cursor, const struct datagram *datagram)
{
    put(cursor, datagram->challenge, 8);
    put(cursor, datagram->answer, 8);
    for (unsigned i = 0; i < datagram->member_count; i++)
        put_member(cursor, &datagram->members[i]);
}

size_t datagram_encode(const struct datagram *datagram, uint8_t *bytes, unsigned *done)
{
    struct cursor cursor = {.at = bytes, .left = DATAGRAM_MAX - DATAGRAM_MAC};

    *done = 0;
    put(&cursor, MAGIC, 2);
    put(&cursor, DATAGRAM_VERSION, 1);
    put(&cursor, datagram->type, 1);
    put(&cursor, datagram->from, 2);
    put(&cursor, datagram->to, 2);
    put(&cursor, datagram->session, 8);
    put(&cursor, datagram->sequence, 8);
    if (datagram->type == DATAGRAM_HELLO)
        put_hello(&cursor, datagram);
    for (unsigned i = 0; datagram->type == DATAGRAM_DATA && i < datagram->item_count; i++) {
        struct cursor before = cursor;
        put_item(&cursor, &datagram->items[i]);
        if (cursor.bad) {
            cursor = before;
            break;
        }
        *done = i + 1;
    }
    return (size_t)(cursor.at - bytes);
}

/* Everything up to the last byte is items, or members. */
static void get_body(struct cursor *cursor, struct datagram *datagram)
{
    if (datagram->type == DATAGRAM_HELLO) {
        datagram->challenge = get(cursor, 8);
        datagram->answer = get(cursor, 8);
    }
    while (cursor->left > 0 && !cursor->bad) {
        if (datagram->type == DATAGRAM_HELLO && datagram->member_count < DATAGRAM_MAX_MEMBERS)
            get_member(cursor, &datagram->members[datagram->member_count++]);
        else if (datagram->type == DATAGRAM_DATA && datagram->item_count < DATAGRAM_MAX_ITEMS)
            get_item(cursor, &datagram->items[datagram->item_count++]);
        else
            cursor->bad = true;
    }
}

enum datagram_fault datagram_decode(const uint8_t *bytes, size_t length, const uint8_t key[DATAGRAM_KEY],
                                    struct datagram *datagram)
{
    if (length > DATAGRAM_MAX || length < DATAGRAM_MAC)
        return DATAGRAM_MALFORMED;
    if (!datagram_sealed(bytes, length, key))
        return DATAGRAM_FORGED;
    /* get() writes nothing. */
    struct cursor cursor = {.at = (uint8_t *)(uintptr_t)bytes, .left = length - DATAGRAM_MAC};
    bool ours = get(&cursor, 2) == MAGIC && get(&cursor, 1) == DATAGRAM_VERSION;
    memset(datagram, 0, sizeof *datagram);
    datagram->type = (enum datagram_type)get(&cursor, 1);
    datagram->from = (uint16_t)get(&cursor, 2);
    datagram->to = (uint16_t)get(&cursor, 2);
    datagram->session = get(&cursor, 8);
    datagram->sequence = get(&cursor, 8);
    if (ours && (datagram->type == DATAGRAM_HELLO || datagram->type == DATAGRAM_DATA))
        get_body(&cursor, datagram);
    else
        cursor.bad = true;
    return cursor.bad ? DATAGRAM_MALFORMED : DATAGRAM_SOUND;
}
