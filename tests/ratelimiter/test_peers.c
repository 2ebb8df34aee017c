/* SPDX-License-Identifier: BSD-2-Clause */

/* The datagrams of limiters on different hosts: what is encoded comes back, what was forged or is old is not taken. */

#include <criterion/criterion.h>
#include <string.h>

#include "peers/session.h"

static const uint8_t key[DATAGRAM_KEY] = {1, 2, 3};

static struct datagram data(void)
{
    struct datagram datagram = {.type = DATAGRAM_DATA, .from = 1, .to = 2, .session = 77, .sequence = 5};

    datagram.item_count = 5;
    datagram.items[0] = (struct datagram_item){
        .limit = 9, .kind = DATAGRAM_UPDATE, .update = {.kind = DRL_PRESSED, .value = {1.5, 0, 3e300}}};
    datagram.items[1] = (struct datagram_item){
        .limit = 1u << 31,
        .kind = DATAGRAM_ASK,
        .ask = {.token = ~0ull, .number = 4, .applied = 3, .held = {1, 2}, .demand = 3, .weight = 4, .pressed = true}};
    datagram.items[2] = (struct datagram_item){
        .limit = 0, .kind = DATAGRAM_GRANT, .grant = {.token = 1, .number = 2, .asked = 3, .part = {4, 5}}};
    datagram.items[3] = (struct datagram_item){
        .limit = 6, .kind = DATAGRAM_KEY_ASK, .key = ~1ull, .whole = {7, 8}, .ask = {.token = 9, .number = 10}};
    datagram.items[4] = (struct datagram_item){
        .limit = 6, .kind = DATAGRAM_KEY_GRANT, .key = 11ull << 40, .grant = {.number = 12, .part = {13, 14}}};
    return datagram;
}

Test(peers, what_is_encoded_comes_back)
{
    struct datagram sent = data(), got;
    uint8_t bytes[DATAGRAM_MAX];
    unsigned done;
    size_t length = datagram_seal(bytes, datagram_encode(&sent, bytes, &done), key);

    cr_assert_eq(done, 5);
    cr_assert_eq(datagram_decode(bytes, length, key, &got), DATAGRAM_SOUND);
    cr_assert(got.from == 1 && got.to == 2 && got.session == 77 && got.sequence == 5 && got.item_count == 5);
    cr_assert(got.items[0].update.kind == DRL_PRESSED && got.items[0].update.value[2] == 3e300);
    cr_assert_eq(memcmp(&got.items[1].ask.held, &sent.items[1].ask.held, sizeof sent.items[1].ask.held), 0);
    cr_assert(got.items[1].ask.pressed && got.items[1].ask.token == ~0ull && got.items[1].ask.weight == 4);
    cr_assert(got.items[2].grant.part.depth == 5 && got.items[2].grant.asked == 3);
    cr_assert(got.items[3].key == ~1ull && got.items[3].whole.rate == 7 && got.items[3].whole.depth == 8);
    cr_assert(got.items[3].ask.token == 9 && got.items[3].ask.number == 10);
    cr_assert(got.items[4].key == 11ull << 40 && got.items[4].grant.number == 12 && got.items[4].grant.part.rate == 13);

    struct datagram hello = {.type = DATAGRAM_HELLO, .challenge = 1, .answer = 2, .member_count = 1};
    hello.members[0] = (struct datagram_member){.host = 3, .port = 4, .version = 5, .removed = true, .address = {6}};
    length = datagram_seal(bytes, datagram_encode(&hello, bytes, &done), key);
    cr_assert_eq(datagram_decode(bytes, length, key, &got), DATAGRAM_SOUND);
    cr_assert(got.answer == 2 && got.member_count == 1 && got.members[0].removed && got.members[0].address[0] == 6);
}

Test(peers, every_changed_bit_is_seen)
{
    struct datagram sent = data(), got;
    uint8_t bytes[DATAGRAM_MAX];
    unsigned done;
    size_t length = datagram_seal(bytes, datagram_encode(&sent, bytes, &done), key);

    for (size_t bit = 0; bit < 8 * length; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        cr_assert_eq(datagram_decode(bytes, length, key, &got), DATAGRAM_FORGED, "bit %zu", bit);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (size_t cut = 0; cut < length; cut++)
        cr_assert_neq(datagram_decode(bytes, cut, key, &got), DATAGRAM_SOUND, "cut to %zu", cut);
    cr_assert_eq(datagram_decode(bytes, length, (uint8_t[DATAGRAM_KEY]){1, 2, 4}, &got), DATAGRAM_FORGED);
}

/* Whole ones that make no sense, by a key that is right: another version, half an item, more than there may be. */
Test(peers, what_is_malformed_is_refused)
{
    struct datagram sent = data(), got;
    uint8_t bytes[2 * DATAGRAM_MAX] = {0};
    unsigned done;
    size_t length = datagram_encode(&sent, bytes, &done);

    bytes[2]++;
    cr_assert_eq(datagram_decode(bytes, datagram_seal(bytes, length, key), key, &got), DATAGRAM_MALFORMED);
    bytes[2]--;
    for (size_t cut = 1; cut < 33; cut++)
        cr_assert_eq(datagram_decode(bytes, datagram_seal(bytes, length - cut, key), key, &got), DATAGRAM_MALFORMED);
    length = datagram_encode(&sent, bytes, &done);
    bytes[24 + 4] = 9;
    cr_assert_eq(datagram_decode(bytes, datagram_seal(bytes, length, key), key, &got), DATAGRAM_MALFORMED, "a kind");
    sent.item_count = DATAGRAM_MAX_ITEMS;
    for (unsigned i = 0; i < DATAGRAM_MAX_ITEMS; i++)
        sent.items[i] = sent.items[1];
    length = datagram_encode(&sent, bytes, &done);
    cr_assert(done < DATAGRAM_MAX_ITEMS && length + DATAGRAM_MAC <= DATAGRAM_MAX, "what does not fit is left out");
    cr_assert_eq(datagram_decode(bytes, datagram_seal(bytes, DATAGRAM_MAX, key), key, &got), DATAGRAM_MALFORMED);
}

struct end {
    struct session session;
    uint64_t own;
};

static struct datagram hello(struct end *end)
{
    struct datagram datagram = {.session = end->own};

    session_hello(&end->session, 1ull << 40, &datagram);
    return datagram;
}

/* a greets b until both know each other. */
static void meet(struct end *a, struct end *b)
{
    for (unsigned i = 0; i < 2; i++) {
        struct datagram first = hello(a), second;
        session_greeted(&b->session, 0, &first);
        second = hello(b);
        session_greeted(&a->session, 0, &second);
    }
    cr_assert(a->session.theirs == b->own && b->session.theirs == a->own);
}

static struct datagram next(struct end *end)
{
    return (struct datagram){.type = DATAGRAM_DATA, .session = end->own, .sequence = ++end->session.sent};
}

Test(peers, a_copy_is_not_taken)
{
    struct end a = {.own = 11}, b = {.own = 22};
    struct datagram old_hello = hello(&a), early = next(&a), sent[100];

    cr_assert(!session_takes(&b.session, 0, &early), "nobody has answered");
    meet(&a, &b);
    cr_assert(!session_takes(&b.session, 0, &early), "it was sent before");
    for (unsigned i = 0; i < 100; i++)
        sent[i] = next(&a);
    cr_assert(session_takes(&b.session, 0, &sent[3]) && session_takes(&b.session, 0, &sent[1]), "out of order");
    cr_assert(!session_takes(&b.session, 0, &sent[3]) && !session_takes(&b.session, 0, &sent[1]), "again");
    cr_assert(session_takes(&b.session, 0, &sent[99]) && !session_takes(&b.session, 0, &sent[5]), "far too old");
    cr_assert(b.session.replayed >= 3 && b.session.lost > 90 && b.session.taken == 3);

    /* b begins anew, and forgets what it has had: what was recorded is nothing to it, before and after they meet. */
    b = (struct end){.own = 33};
    for (unsigned i = 0; i < 100; i++)
        cr_assert(!session_takes(&b.session, 0, &sent[i]));
    meet(&a, &b);
    for (unsigned i = 0; i < 100; i++)
        cr_assert(!session_takes(&b.session, 0, &sent[i]));

    /* a begins anew: its earlier session is no more, whatever is repeated of it. */
    struct datagram last = next(&a);
    a = (struct end){.own = 44};
    session_greeted(&b.session, 0, &old_hello);
    cr_assert_neq(b.session.theirs, 44);
    meet(&a, &b);
    cr_assert(!session_takes(&b.session, 0, &last) && b.session.strange > 0);
    session_greeted(&b.session, 0, &old_hello);
    cr_assert_eq(b.session.theirs, 44, "an old hello answers nothing");
    last = next(&a);
    cr_assert(session_takes(&b.session, 0, &last));
}
