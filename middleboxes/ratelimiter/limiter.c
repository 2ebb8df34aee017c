/* SPDX-License-Identifier: BSD-2-Clause */
#include "limiter.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "distributed.h"
#include "purse.h"
#include "record.h"
#include "tags.h"

/*
 * Overview.  A limit keeps one bucket for each key: a flow of the class of its granularity, under the limit's number as
 * tag. The limits that apply to a packet are asked children first, else in file order; only when all that drop have
 * tokens is anything taken.
 *
 * Life-cycle of a bucket.  A partitioned one is made by the first packet that takes from it, and closed when it has
 * been full for KEPT_FULL_NS, as a full bucket says no more than none. Who stays far below a limit finds its bucket
 * full each time: so it is not made and closed for each packet. The timer is armed once, for the moment when the bucket
 * would have to be closed, and when it fires for the one that has come of it since: a bucket in use is seldom looked
 * at. A shared one is made when first asked, and kept.
 *
 * Concurrency.  A partitioned bucket is this replica's alone for the whole packet: ask first, take at the end. A shared
 * one is locked from get to put, and no two at once: asking takes at once, and gives back when the packet is dropped by
 * a later limit, or has to wait. From a bucket for all packets a replica takes ahead, to a purse (purse.h).
 *
 * Shaping.  The bucket of a limit that shapes says when the packet departs, and whether that is too late. It leaves at
 * the last of these times; each limit has counted it at its own.
 *
 * Counting.  What is decided is counted where it is at hand: in the bucket's record (of a distributed limit: in the
 * key's place, which nothing undoes), and for the limit in counters of this replica, by the number of its drop reason.
 * Record and counters are part of the burst. What a shared bucket has counted is undone with its debit; the one bucket
 * of `all` says no more than the limit's counters, and counts nothing.
 *
 * Limits.  Where no bucket can be made the packet is dropped as `flow_limit`.
 */

#define KEYED_SPANS 8 /* debits that a keyed shared bucket keeps apart; `all` has SM_BUCKET_MAX_SPANS */
#define TIMER_FULL 0
#define KEPT_FULL_NS 1000000000ull /* as long as a record's rate is known for */
#define LOW_PACKETS 16 /* an old bound is as right as a new one, if less tight; to ask costs a look at all replicas */

/* What was done to the record of a shared bucket; a note, as a replica may die before its packet is committed. */
struct debit {
    struct pair_debit taken;
    uint64_t of;
    uint32_t cost; /* passed as so much */
    uint32_t exceeded;
};
_Static_assert(sizeof(struct debit) <= SM_MAX_NOTE, "it is a note");

/* What a packet takes from one limit. */
struct taking {
    const struct limit *limit;
    const struct allowance *allowed;
    struct allowance borrowing; /* what `allowed` is for a borrower, who must leave a reserve */
    sm_class cls;
    uint16_t tag;
    uint64_t of; /* whose its bucket's record is */
    uint16_t reason;
    bool has; /* else it exceeds the limit, and was not dropped for it */
    bool shared;
    bool counts;      /* in the bucket's record */
    bool distributed; /* taken already, of this host's share: `share` */
    bool within;      /* within the limit's guarantee, else it borrows */
    uint32_t cost;
    uint64_t when;       /* packet time at which it is taken: the packet's, or its departure */
    struct purse *purse; /* shared; it comes out of this, or NULL: out of the bucket */
    struct sm_flow flow; /* partitioned; null: no bucket yet, or it has another's record */
    struct debit debit;  /* shared; taken already */
    struct distributed_taking share;
};

/* What a limit counts, for all that replicas have made of it. */
struct counters {
    sm_counter packets[SM_MAX_REASONS], bytes[SM_MAX_REASONS], exceeded[SM_MAX_REASONS];
};
_Static_assert(SM_MAX_REASONS <= SM_MAX_COUNTERS, "each reason may be a limit");

struct limiter {
    const struct policy *policy;
    struct {
        sm_class cls;
        bool shared;
        uint32_t spans;   /* 0: has no room to be shared */
        uint32_t holders; /* where in the record the holders of purses are; 0: there are none */
    } classes[POLICY_MAX_KEYS];
    bool any_shared;
    struct distributed *distributed; /* NULL: no limit is */
    bool alone;                      /* there are no other replicas: packets come in order, and the answers are exact */
    sm_time low;                     /* no packet before it comes any more; */
    unsigned low_counts;             /* for so many packets, until it is asked for again */
    uint16_t reasons[POLICY_MAX_LIMITS];
    uint16_t reason_flow_limit;
    struct tags tags;
    struct counters counters;
    struct taking takings[POLICY_MAX_LIMITS]; /* of the packet in hand */
    unsigned taking_count;
    unsigned slot;                          /* this replica's */
    struct purse purses[POLICY_MAX_LIMITS]; /* of limits for all packets */
};

struct limiter *limiter_create(const struct policy *policy)
{
    struct limiter *limiter = calloc(1, sizeof(*limiter));

    if (!limiter)
        return NULL;
    limiter->policy = policy;
    if (!policy->exchange || policy->exchange->limit_count == 0)
        return limiter;
    limiter->distributed = distributed_create(policy->exchange);
    if (limiter->distributed)
        return limiter;
    free(limiter);
    return NULL;
}

void limiter_detach(struct limiter *limiter)
{
    distributed_destroy(limiter->distributed);
    limiter->distributed = NULL;
}

void limiter_destroy(struct limiter *limiter)
{
    if (limiter) {
        limiter_detach(limiter);
        tags_free(&limiter->tags);
    }
    free(limiter);
}

/* What a bucket is allowed; NULL: its limit is no more. */
static const struct allowance *allowance_of(const struct limiter *limiter, const struct record *record)
{
    int64_t number = tags_number(&limiter->tags, record->of);

    return number < 0 ? NULL : &limiter->policy->allowed[number];
}

/* Keys of one kind are partitioned together: two-way ones by the host pair, addresses by the shortest prefix. */
static enum sm_granularity kind_of(enum sm_granularity by)
{
    return by == SM_BY_FLOW ? SM_BY_HOST_PAIR : by;
}

/*
 * Whether one steering key partitions all classes that any does. Otherwise some will be shared, and which is the
 * runtime's choice; all then get room for it.
 */
static bool all_join(const struct policy *policy)
{
    enum sm_granularity first = SM_BY_ALL;

    for (unsigned i = 0; i < policy->key_count; i++) {
        enum sm_granularity kind = kind_of(policy->keys[i].by);

        if (sm_granularity_is_shared(kind))
            continue;
        if (first != SM_BY_ALL && first != kind)
            return false;
        first = kind;
    }
    return true;
}

/* When a bucket is to be closed that is full at `full`, unless more is taken. */
static sm_time closing(uint64_t full)
{
    return (sm_time){full < UINT64_MAX - KEPT_FULL_NS ? full + KEPT_FULL_NS : full};
}

/* More may have been taken since the timer was armed, and what the limit allows may have changed. */
static void bucket_is_full(struct sm_replica *replica, sm_class cls, sm_flow flow, unsigned slot, sm_time now,
                           void *user)
{
    const struct limiter *limiter = user;
    const struct allowance *allowed = allowance_of(limiter, flow.state);
    sm_time due = allowed ? closing(pair_full_at(record_buckets(flow.state), allowed)) : now;

    if (due.ns <= now.ns)
        sm_flow_close(replica, cls, flow);
    else
        sm_flow_timer_set(replica, cls, flow, slot, due);
}

static uint64_t *holders_of(const struct limiter *limiter, unsigned key, struct record *record)
{
    uint32_t at = limiter->classes[key].holders;

    return at > 0 ? (uint64_t *)(void *)((uint8_t *)record + at) : NULL;
}

/* What a shared bucket is run with: less than it is allowed where there are purses. */
static struct allowance beside_purses(const struct allowance *allowed, const uint64_t *holders)
{
    struct allowance left = *allowed;

    if (holders)
        left.rate = purse_rate(&allowed->rate, *holders);
    return left;
}

/* Undo what was done to a shared bucket. Where it has become another's meanwhile it is as good as undone. */
static void undo_debit(const struct limiter *limiter, unsigned key, struct record *record,
                       const struct allowance *allowed, uint64_t now, const struct debit *debit)
{
    const struct allowance left = beside_purses(allowed, holders_of(limiter, key, record));
    struct sm_shared_bucket *first = record_buckets(record);

    if (record->of != debit->of)
        return;
    record->exceeded -= debit->exceeded;
    if (debit->exceeded)
        return;
    if (debit->cost)
        record_unpass(record, now, debit->cost);
    shared_pair_undo(first, record_second(first), &left, &debit->taken);
}

/* A replica took this and died: its packet will ask again. */
static void give_back_debit(struct sm_replica *replica, sm_class cls, sm_flow flow, const void *note, size_t bytes,
                            void *user)
{
    const struct limiter *limiter = user;
    const struct allowance *allowed = allowance_of(limiter, flow.state);
    struct debit debit;
    unsigned key = 0;

    (void)replica, (void)bytes;
    while (limiter->classes[key].cls.id != cls.id)
        key++;
    memcpy(&debit, note, sizeof(debit));
    if (allowed)
        undo_debit(limiter, key, flow.state, allowed, debit.taken.of[0].time, &debit);
}

/* The unit of a class's tokens: limits in bytes and in packets may share it. */
static const char *token_unit(const struct policy *policy, unsigned key)
{
    bool bytes = false, packets = false;

    for (unsigned i = 0; i < policy->count; i++) {
        if (policy->limits[i].key != key)
            continue;
        bytes |= !policy->limits[i].packets;
        packets |= policy->limits[i].packets;
    }
    return bytes && packets ? "B|pkt" : packets ? "packets" : "B";
}

static bool has_apart(const struct policy *policy, unsigned key)
{
    for (unsigned i = 0; i < policy->count; i++)
        if (policy->limits[i].key == key && policy->limits[i].borrows)
            return true;
    return false;
}

static int register_class(struct limiter *limiter, struct sm_replica *replica, unsigned number, bool join)
{
    const struct limit_key *key = &limiter->policy->keys[number];
    bool never = sm_granularity_is_shared(key->by);
    uint32_t spans = key->by == SM_BY_ALL ? SM_BUCKET_MAX_SPANS : never || !join ? KEYED_SPANS : 0;
    bool apart = has_apart(limiter->policy, number);
    struct sm_field fields[RECORD_FIELDS + 1];
    uint32_t size = record_size(spans, apart);
    unsigned count = record_fields(fields, token_unit(limiter->policy, number), spans, apart);

    limiter->classes[number].spans = spans;
    if (key->by == SM_BY_ALL) {
        limiter->classes[number].holders = size;
        fields[count++] = (struct sm_field){
            .name = "purses", .type = SM_FIELD_OPAQUE, .offset = (uint16_t)size, .size = sizeof(uint64_t)};
        size += (uint32_t)sizeof(uint64_t);
    }
    const struct sm_class_options options = {
        .size = sizeof(options),
        .name = key->name,
        .version = RECORD_VERSION,
        .record_size = size,
        .granularity = key->by,
        .prefix4 = key->prefix4,
        .prefix6 = key->prefix6,
        .may_share = true,
        .timers = never ? 0 : 1,
        .fields = fields,
        .field_count = count,
        .on_timer = never ? NULL : bucket_is_full,
        .on_undo = give_back_debit,
        .user = limiter,
    };

    return sm_class_register(replica, &options, &limiter->classes[number].cls);
}

/* Those that the service has, in its order, then the others. */
static int register_classes(struct limiter *limiter, struct sm_replica *replica)
{
    const struct policy *policy = limiter->policy;
    bool registered[POLICY_MAX_KEYS] = {false};
    const char *name;
    int status = 0;

    for (unsigned i = 0; (name = sm_class_known(replica, i)) != NULL; i++)
        for (unsigned k = 0; status == 0 && k < policy->key_count; k++)
            if (strcmp(policy->keys[k].name, name) == 0) {
                registered[k] = true;
                status = register_class(limiter, replica, k, all_join(policy));
            }
    for (unsigned k = 0; status == 0 && k < policy->key_count; k++)
        if (!registered[k])
            status = register_class(limiter, replica, k, all_join(policy));
    return status;
}

static int register_counters(struct counters *counters, struct sm_replica *replica)
{
    int status = sm_counters_register(replica, "limits.packets", SM_MAX_REASONS, counters->packets);

    if (status == 0)
        status = sm_counters_register(replica, "limits.bytes", SM_MAX_REASONS, counters->bytes);
    if (status == 0)
        status = sm_counters_register(replica, "limits.exceeded", SM_MAX_REASONS, counters->exceeded);
    return status;
}

int limiter_register(struct limiter *limiter, struct sm_replica *replica)
{
    const struct policy *policy = limiter->policy;
    char text[POLICY_MAX_LIMITS][sizeof("limit:") + POLICY_MAX_NAME];
    const char *names[POLICY_MAX_LIMITS];
    int status = sm_drop_reason(replica, "flow_limit", &limiter->reason_flow_limit);

    for (unsigned i = 0; i < policy->count; i++) {
        snprintf(text[i], sizeof(text[i]), "limit:%s", policy->limits[i].name);
        names[i] = text[i];
    }
    if (status == 0)
        status = sm_drop_reasons(replica, names, policy->count, limiter->reasons);
    if (status == 0)
        status = tags_make(&limiter->tags, policy, limiter->reasons);
    if (status == 0)
        status = register_classes(limiter, replica);
    if (status == 0)
        status = register_counters(&limiter->counters, replica);
    if (status == 0 && limiter->distributed)
        status = distributed_register(limiter->distributed, replica);
    return status;
}

int limiter_started(struct limiter *limiter, struct sm_replica *replica, struct sm_errbuf *error)
{
    limiter->alone = sm_standalone(replica);
    limiter->slot = sm_slot(replica);
    for (unsigned i = 0; i < POLICY_MAX_LIMITS; i++)
        limiter->purses[i].time = sm_shared_high(replica).ns; /* whoever had the slot before had its own until then */
    for (unsigned i = 0; i < limiter->policy->key_count; i++) {
        limiter->classes[i].shared = !sm_class_partitioned(replica, limiter->classes[i].cls);
        limiter->any_shared |= limiter->classes[i].shared;
        if (limiter->classes[i].shared && limiter->classes[i].spans == 0) {
            snprintf(error->text, sizeof(error->text), "the service does not partition by %s, as one key could",
                     limiter->policy->keys[i].name);
            return SM_E_CONFLICT;
        }
    }
    return limiter->distributed ? distributed_start(limiter->distributed, replica, error) : 0;
}

enum answer { HAS, LACKS, UNCERTAIN, NO_ROOM };

/*
 * Whose the bucket is: `since` on this limit's. One that was another's is empty: a replica that goes by a policy before
 * may still take it for that one's, and make it so again.
 */
static void begin_shared(struct record *record, const struct taking *taking, uint64_t since, uint32_t spans)
{
    const struct allowance *allowed = taking->allowed;
    struct sm_shared_bucket *first = record_buckets(record);
    bool fresh = first->capacity == 0; /* zeroed: nobody has been here before */

    if (record->of == taking->of)
        return;
    record_begin(record, taking->of, taking->reason, taking->limit->packets);
    sm_shared_bucket_init(first, &allowed->rate, since, spans);
    if (!fresh)
        first->bucket.level = 0;
    if (taking->limit->borrows)
        sm_shared_bucket_init(record_second(first), &allowed->own, since, spans);
    if (taking->limit->borrows && !fresh)
        record_second(first)->bucket.level = 0;
}

/* The purse that a packet's tokens come from, or NULL. Queues, guarantees and reserves go by the bucket's own level. */
static struct purse *purse_for(struct limiter *limiter, const struct taking *taking)
{
    const struct limit *limit = taking->limit;
    struct purse *purse = &limiter->purses[limit - limiter->policy->limits];

    if (limiter->alone || taking->counts || limit->queue > 0 || limit->borrows || limit->reserve > 0)
        return NULL;
    return purse_serves(purse, &taking->allowed->rate, taking->when, taking->cost) ? purse : NULL;
}

static enum sm_bucket_verdict take_shared(struct limiter *limiter, struct taking *taking, struct record *record,
                                          uint64_t low, bool patient)
{
    struct sm_shared_bucket *shared = record_buckets(record);
    uint64_t *holders = holders_of(limiter, taking->limit->key, record);
    const struct allowance left = beside_purses(taking->allowed, holders);
    struct pair_debit *taken = &taking->debit.taken;

    if (taking->purse)
        return purse_fill(taking->purse, limiter->slot, shared, holders, &taking->allowed->rate, low, taking->when,
                          taking->cost, patient, &taken->of[0]);
    if (taking->limit->queue > 0)
        return sm_shared_bucket_depart(shared, &left.rate, low, taking->when, taking->cost, taking->limit->queue,
                                       patient, &taken->of[0], &taking->when);
    return shared_pair_take(shared, record_second(shared), &left, low, taking->when, taking->cost, patient, taken,
                            &taking->within);
}

static enum answer answer_of(enum sm_bucket_verdict verdict)
{
    return verdict == SM_BUCKET_HAS ? HAS : verdict == SM_BUCKET_LACKS ? LACKS : UNCERTAIN;
}

/* Ask a shared bucket, and take at once what it has. */
static enum answer ask_shared(struct limiter *limiter, struct sm_replica *replica, const struct sm_packet *packet,
                              sm_time low, bool patient, struct taking *taking)
{
    sm_class cls = taking->cls;
    uint64_t now = taking->when, since = low.ns < now ? low.ns : now;
    enum sm_bucket_verdict verdict = SM_BUCKET_UNCERTAIN;
    struct record *record;
    sm_flow flow;

    taking->debit = (struct debit){.of = taking->of};
    taking->purse = NULL;
    if (!pair_full_has(taking->allowed, taking->cost, &taking->within))
        return LACKS;
    taking->purse = purse_for(limiter, taking);
    if (taking->purse)
        verdict = purse_take(taking->purse, now, taking->cost);
    if (verdict != SM_BUCKET_UNCERTAIN)
        return answer_of(verdict);
    flow = sm_flow_get(replica, cls, packet, taking->tag);
    if (!flow.state && sm_flow_create(replica, cls, packet, taking->tag, &flow, NULL) < 0)
        return NO_ROOM;
    record = flow.state;
    begin_shared(record, taking, since, limiter->classes[taking->limit->key].spans);
    verdict = take_shared(limiter, taking, record, low.ns, patient);
    if (taking->counts && verdict == SM_BUCKET_HAS)
        record_pass(record, now, taking->debit.cost = taking->cost);
    if (taking->counts && verdict == SM_BUCKET_LACKS)
        record->exceeded += taking->debit.exceeded = 1;
    /* Undone if this replica dies before the packet is committed. */
    if (verdict == SM_BUCKET_HAS || taking->debit.exceeded)
        sm_flow_escrow(replica, cls, flow, &taking->debit, sizeof(taking->debit));
    sm_flow_put(replica, cls, flow);
    return answer_of(verdict);
}

/* Ask a partitioned bucket. None is as good as a full one. */
static enum answer ask_own(struct sm_replica *replica, const struct sm_packet *packet, struct taking *taking)
{
    const struct allowance *allowed = taking->allowed;
    uint64_t now = taking->when;
    bool has;

    taking->flow = sm_flow_get(replica, taking->cls, packet, taking->tag);
    if (taking->flow.state && ((struct record *)taking->flow.state)->of != taking->of)
        taking->flow.state = NULL;
    if (!taking->flow.state) {
        has = pair_full_has(allowed, taking->cost, &taking->within);
    } else if (taking->limit->queue == 0) {
        has = pair_has(record_buckets(taking->flow.state), allowed, now, taking->cost, &taking->within);
    } else {
        taking->when = sm_bucket_departure(record_buckets(taking->flow.state), &allowed->rate, now, taking->cost);
        has = taking->when - now <= taking->limit->queue;
    }
    return has ? HAS : LACKS;
}

/* Give back to shared buckets what this packet has taken from them. */
static void give_back(struct limiter *limiter, struct sm_replica *replica, const struct sm_packet *packet)
{
    for (unsigned i = 0; i < limiter->taking_count; i++) {
        const struct taking *taking = &limiter->takings[i];
        sm_class cls = taking->cls;
        sm_flow flow;

        if (taking->distributed && taking->has)
            distributed_give_back(limiter->distributed, &taking->share);
        if (!taking->shared || !(taking->has || taking->debit.exceeded))
            continue;
        if (taking->purse) { /* what it was filled with is its to keep */
            purse_give_back(taking->purse, taking->cost);
            continue;
        }
        flow = sm_flow_get(replica, cls, packet, taking->tag);
        assert(flow.state);
        undo_debit(limiter, taking->limit->key, flow.state, taking->allowed, sm_packet_time(packet).ns, &taking->debit);
        sm_flow_unescrow(replica, cls, flow);
        sm_flow_put(replica, cls, flow);
    }
    limiter->taking_count = 0;
}

/* The bytes of the packet's IP header that a mark needs, or NULL where they were not captured. */
static const uint8_t *ip_header(const struct sm_packet *packet, uint32_t length)
{
    uint32_t offset = sm_packet_headers(packet)->l3, caplen = sm_packet_caplen(packet);

    return offset + length <= caplen ? sm_packet_data(packet) + offset : NULL;
}

/* CE can only be told to those who listen. (What was not captured is not known not to; it is left as it is.) */
static bool drops(const struct limit *limit, const struct sm_packet *packet)
{
    if (limit->drops)
        return true;
    const uint8_t *ip = limit->mark.ce ? ip_header(packet, 2) : NULL;
    return ip && !mark_ecn_capable(mark_traffic_class(ip, sm_packet_headers(packet)->family));
}

static void mark(struct sm_packet *packet, const struct mark *mark)
{
    const struct sm_headers *headers = sm_packet_headers(packet);
    uint32_t length = mark_length(headers->family);
    const uint8_t *ip = ip_header(packet, length);
    uint8_t before, after, *writable;

    if (!ip)
        return;
    before = mark_traffic_class(ip, headers->family);
    after = mark_apply(before, mark);
    if (after == before)
        return;
    writable = sm_packet_writable(packet, headers->l3, length);
    if (writable)
        mark_write(writable, headers->family, after);
}

/* Ask the host's share of a distributed limit, and take at once what it has. */
static enum answer ask_distributed(struct limiter *limiter, const struct sm_packet *packet, struct taking *taking)
{
    const struct sm_bucket_rate *rate = &taking->allowed->rate;
    const struct limit_key *key = &limiter->policy->keys[taking->limit->key];

    taking->share = (struct distributed_taking){.limit = (unsigned)taking->limit->distributed,
                                                .cost = taking->cost,
                                                .reserve = (rate->reserve << 32) / rate->burst,
                                                .by = key->by,
                                                .prefix4 = key->prefix4,
                                                .prefix6 = key->prefix6,
                                                .of = taking->of,
                                                .tag = taking->tag,
                                                .rate = *rate};
    if (!distributed_take(limiter->distributed, packet, &taking->share))
        return LACKS;
    taking->when = taking->share.departs;
    return HAS;
}

static bool takes_own(const struct taking *taking)
{
    return taking->has && !taking->shared && !taking->distributed && taking->cost > 0;
}

/* Make the partitioned buckets that the packet takes from and that are not there. All, or none: false. */
static bool make_buckets(struct limiter *limiter, struct sm_replica *replica, const struct sm_packet *packet)
{
    for (unsigned i = 0; i < limiter->taking_count; i++) {
        struct taking *taking = &limiter->takings[i];
        sm_class cls = taking->cls;

        if (!takes_own(taking) || taking->flow.state)
            continue;
        if (sm_flow_create(replica, cls, packet, taking->tag, &taking->flow, NULL) == 0) {
            record_begin(taking->flow.state, taking->of, taking->reason, taking->limit->packets);
            pair_init(record_buckets(taking->flow.state), taking->allowed, sm_packet_time(packet).ns);
            continue;
        }
        while (i-- > 0) { /* those just made are full, and none is as good */
            taking = &limiter->takings[i];
            if (takes_own(taking) &&
                pair_full_at(record_buckets(taking->flow.state), taking->allowed) <= sm_packet_time(packet).ns)
                sm_flow_close(replica, taking->cls, taking->flow);
        }
        return false;
    }
    return true;
}

static void take_own(struct limiter *limiter, struct sm_replica *replica, uint64_t now)
{
    for (unsigned i = 0; i < limiter->taking_count; i++) {
        const struct taking *taking = &limiter->takings[i];
        struct sm_bucket *bucket;

        if (!takes_own(taking))
            continue;
        bucket = record_buckets(taking->flow.state);
        pair_take(bucket, taking->allowed, taking->when, taking->cost, taking->within);
        record_pass(taking->flow.state, now, taking->cost);
        if (sm_flow_timer_get(replica, taking->cls, taking->flow, TIMER_FULL).ns == 0)
            sm_flow_timer_set(replica, taking->cls, taking->flow, TIMER_FULL,
                              closing(pair_full_at(bucket, taking->allowed)));
    }
}

/* A packet exceeded a limit, and was dropped or went on for it. A shared bucket's record has it already. */
static void count_exceeded(struct limiter *limiter, struct sm_replica *replica, const struct taking *taking)
{
    if (!taking->shared && !taking->distributed && taking->flow.state)
        ((struct record *)taking->flow.state)->exceeded++;
    if (taking->distributed)
        distributed_count(limiter->distributed, &taking->share, false);
    sm_counter_add(replica, limiter->counters.exceeded[taking->reason], 1);
}

/* What a packet that goes on has come to, limit by limit. */
static void count_all(struct limiter *limiter, struct sm_replica *replica, const struct sm_packet *packet)
{
    for (unsigned i = 0; i < limiter->taking_count; i++) {
        const struct taking *taking = &limiter->takings[i];

        if (!taking->has) {
            count_exceeded(limiter, replica, taking);
            continue;
        }
        if (taking->distributed)
            distributed_count(limiter->distributed, &taking->share, true);
        sm_counter_add(replica, limiter->counters.packets[taking->reason], 1);
        sm_counter_add(replica, limiter->counters.bytes[taking->reason], sm_packet_len(packet));
    }
}

static void drop(struct limiter *limiter, struct sm_replica *replica, struct sm_packet *packet, uint16_t reason)
{
    give_back(limiter, replica, packet);
    sm_packet_drop(packet, reason);
}

/* What a packet asks of one limit; a borrower's parents must be left their reserves. */
static void make_taking(const struct limiter *limiter, const struct sm_packet *packet, unsigned number, uint16_t tag,
                        bool borrower, struct taking *taking)
{
    const struct limit *limit = &limiter->policy->limits[number];

    taking->limit = limit;
    taking->allowed = &limiter->policy->allowed[tag];
    taking->cls = limiter->classes[limit->key].cls;
    taking->tag = limiter->tags.tag[tag];
    taking->of = limiter->tags.of[tag];
    taking->reason = limiter->reasons[number];
    taking->distributed = limit->distributed >= 0;
    taking->shared = !taking->distributed && limiter->classes[limit->key].shared;
    taking->counts = limit->prefixes || limiter->policy->keys[limit->key].by != SM_BY_ALL;
    taking->cost = limit->packets ? 1 : sm_packet_len(packet);
    taking->when = sm_packet_time(packet).ns;
    taking->within = true;
    taking->flow.state = NULL;
    if (!borrower || limit->reserve == 0 || limit->queue > 0)
        return;
    taking->borrowing = *taking->allowed;
    taking->borrowing.rate.reserve = taking->borrowing.own.reserve = limit->reserve;
    taking->allowed = &taking->borrowing;
}

/* Decide and carry out. False: undone, because an earlier packet of another replica may have a say; only if patient. */
static bool decide(struct limiter *limiter, struct sm_replica *replica, struct sm_packet *packet,
                   const struct match *match, sm_time low, bool patient)
{
    const struct limit *marker = NULL;
    struct limit_set borrowed = {{0}}; /* from these, children first */
    uint64_t departure = 0;

    limiter->taking_count = 0;
    for (int i = limit_set_next(&match->set, 0); i >= 0; i = limit_set_next(&match->set, (unsigned)i + 1)) {
        const struct limit *limit = &limiter->policy->limits[i];
        struct taking *taking = &limiter->takings[limiter->taking_count];
        enum answer answer;

        make_taking(limiter, packet, (unsigned)i, match->tag[i], limit_set_has(&borrowed, (unsigned)i), taking);
        answer = taking->distributed ? ask_distributed(limiter, packet, taking)
                 : taking->shared    ? ask_shared(limiter, replica, packet, low, patient, taking)
                                     : ask_own(replica, packet, taking);
        if (limit->parent >= 0 && (answer != HAS || !taking->within))
            limit_set_put(&borrowed, (unsigned)limit->parent);
        taking->has = answer == HAS;
        if (answer == UNCERTAIN) {
            give_back(limiter, replica, packet);
            return false;
        }
        if (answer == NO_ROOM) {
            drop(limiter, replica, packet, limiter->reason_flow_limit);
            return true;
        }
        if (answer == LACKS && drops(limit, packet)) {
            count_exceeded(limiter, replica, taking);
            drop(limiter, replica, packet, taking->reason);
            return true;
        }
        limiter->taking_count++;
        if (answer == LACKS)
            marker = marker ? marker : limit;
        else
            departure = taking->when > departure ? taking->when : departure;
    }
    if (!make_buckets(limiter, replica, packet)) {
        drop(limiter, replica, packet, limiter->reason_flow_limit);
        return true;
    }
    take_own(limiter, replica, sm_packet_time(packet).ns);
    count_all(limiter, replica, packet);
    if (marker)
        mark(packet, &marker->mark);
    sm_packet_delay(packet, (sm_time){departure}); /* policies ask for nothing later than can be */
    sm_packet_pass(packet);
    return true;
}

struct limiter_counts limiter_counts(const struct limiter *limiter, const struct sm_replica *replica, unsigned limit)
{
    const struct counters *counters = &limiter->counters;
    uint16_t reason = limiter->reasons[limit];

    return (struct limiter_counts){
        .packets = (uint64_t)sm_counter_read(replica, counters->packets[reason], NULL),
        .bytes = (uint64_t)sm_counter_read(replica, counters->bytes[reason], NULL),
        .exceeded = (uint64_t)sm_counter_read(replica, counters->exceeded[reason], NULL),
    };
}

static void learn_low(struct limiter *limiter, struct sm_replica *replica)
{
    limiter->low = sm_shared_low(replica);
    limiter->low_counts = limiter->alone ? 0 : LOW_PACKETS - 1;
}

void limiter_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    struct limiter *limiter = user;
    struct match match;

    if (sm_packet_headers(packet)->family == 0 || !policy_match(limiter->policy, packet, &match))
        return;
    bool fresh = limiter->any_shared && limiter->low_counts-- == 0;
    if (fresh)
        learn_low(limiter, replica);
    bool decided = decide(limiter, replica, packet, &match, limiter->low, true);
    if (!decided && !fresh) {
        learn_low(limiter, replica);
        decided = decide(limiter, replica, packet, &match, limiter->low, true);
    }
    if (!decided) {
        /* The second answer is final, as of this packet's time. An earlier one that a move had held may come after it,
         * and finds that time settled: it is refused rather than the many that would have to wait for it. */
        sm_shared_wait(replica, packet);
        decide(limiter, replica, packet, &match, sm_packet_time(packet), false);
    }
}
