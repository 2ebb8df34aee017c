/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SPLITMERGE_TESTING_H
#define SPLITMERGE_TESTING_H

/*
 * The test kit for middleboxes: a whole service in one process, in memory and in virtual time. A switch, up to
 * SM_TEST_REPLICAS replicas of your middlebox and packets of your making; splits, merges and moves when you say so, or
 * at random from a seed; replicas that die between any two steps of the runtime; allocations that fail. What the
 * service promises is checked as it runs, and what it sends is compared with what one unsplit instance sends.
 *
 *     struct sm_test_options options = {.size = sizeof options, .on_packet = ..., .setup = ..., .input = trace};
 *     sm_test_compare(&options, &error)      a random schedule against the unsplit run: the test to begin with
 *
 *     sm_test_create() -> sm_test_step(), sm_test_move(), sm_test_kill() ... -> sm_test_finish() -> sm_test_destroy()
 *
 * Link with splitmerge::testing (libsplitmerge-testing) instead of splitmerge::splitmerge: it is the same runtime, with
 * places where a replica can be killed. docs/write-a-middlebox.md builds a middlebox with its test.
 *
 * Everything happens on the calling thread (but see sm_test_options.threads), and a run is a function of its options.
 * Replicas share the process: static variables of the middlebox are one for all of them. A replica that is killed
 * leaves what its middlebox allocated in the process to `ended`. Several tests may exist at a time.
 */

#include <splitmerge/splitmerge.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SM_TEST_REPLICAS 6
#define SM_TEST_COPY_BYTES 262144u

/* ---- Packets in memory ---- */

/* A sequence of packets of one link type. Grows without limit but memory. */
struct sm_trace;

struct sm_trace_packet {
    sm_time time; /* as captured */
    const uint8_t *data;
    uint32_t caplen; /* bytes at data */
    uint32_t len;    /* bytes on the wire */
};

/* An empty trace of link type DLT_RAW (packets begin with their IP header). NULL: out of memory. */
SM_EXPORT struct sm_trace *sm_trace_create(void);

/* The packets of a capture file, as far as it is whole. SM_E_NOT_FOUND, SM_E_PERMISSION, SM_E_IO, SM_E_DAMAGED (not a
 * capture), SM_E_NO_MEMORY: *trace is NULL and *error (may be NULL) says why. */
SM_EXPORT int sm_trace_read(struct sm_trace **trace, const char *file, struct sm_errbuf *error);

/* Write the packets to a capture file with nanosecond timestamps. Errors as for sm_trace_read(). */
SM_EXPORT int sm_trace_write(const struct sm_trace *trace, const char *file, struct sm_errbuf *error);

/* Append a packet whose bytes are given; they are copied. SM_E_NO_MEMORY. */
SM_EXPORT int sm_trace_add(struct sm_trace *trace, sm_time time, const void *data, uint32_t length);

/*
 * Append a packet made of its parts: from and to are "10.0.0.1:1024" or "[2001:db8::1]:53", both of one family;
 * `payload` (may be NULL when `bytes` is 0; at most 1400 bytes) is copied. Header checksums are right; transport
 * checksums are zero. `flags`: as in the TCP header, SM_TCP_*. SM_E_INVALID: an address, or too long; SM_E_NO_MEMORY.
 */
enum { SM_TCP_FIN = 1, SM_TCP_SYN = 2, SM_TCP_RST = 4, SM_TCP_PSH = 8, SM_TCP_ACK = 16 };
SM_EXPORT int sm_trace_udp(struct sm_trace *trace, sm_time time, const char *from, const char *to, const void *payload,
                           uint32_t bytes);
SM_EXPORT int sm_trace_tcp(struct sm_trace *trace, sm_time time, const char *from, const char *to, unsigned flags,
                           uint32_t sequence, const void *payload, uint32_t bytes);

/* How many packets; the packet at `index`, valid until the trace changes. */
SM_EXPORT size_t sm_trace_count(const struct sm_trace *trace);
SM_EXPORT struct sm_trace_packet sm_trace_at(const struct sm_trace *trace, size_t index);

/*
 * Whether two traces have the same packets (bytes, lengths, times): all in the same order, or, where `key` is not
 * SM_BY_ALL, in the same order within each flow of that key. When not, *error (may be NULL) names the first difference.
 */
SM_EXPORT bool sm_trace_same(const struct sm_trace *a, const struct sm_trace *b, enum sm_granularity key,
                             struct sm_errbuf *error);

/* NULL is allowed. */
SM_EXPORT void sm_trace_destroy(struct sm_trace *trace);

/* ---- A service ---- */

struct sm_test;

/* A flow, between two steps. */
struct sm_test_flow {
    sm_class cls;
    const struct sm_key *key;
    const void *record;
    uint32_t record_size;
    unsigned replica; /* that owns it; 0: it is on its way, or of a shared class */
    uint32_t shard;
};

struct sm_test_options {
    size_t size; /* sizeof(struct sm_test_options) */

    /* The middlebox, as for sm_open(). */
    sm_packet_fn *on_packet; /* never NULL */
    unsigned max_sends;      /* at most SM_MAX_SENDS */
    /* Registers classes, shared objects and drop reasons of one replica; 0 or an SM_E_ value, which ends the test.
     * *user is sm_test_options.user, and may be replaced: what it is then is handed to on_packet and the next two. */
    int (*setup)(struct sm_replica *replica, void **user);
    int (*started)(struct sm_replica *replica, void *user); /* as after sm_start(); may be NULL */
    /* The replica has retired, died or will never start; may be NULL. No call on it but sm_counter_read(). */
    void (*ended)(struct sm_replica *replica, void *user);
    void *user;

    /* The packets: in memory, not to be changed meanwhile, or a capture file. */
    const struct sm_trace *input;
    const char *capture;
    const char *output; /* a capture file for what leaves; NULL: sm_test_output() has it */
    bool cannot_wait;   /* as from an interface: what finds no room is dropped; else the input waits */

    /* The service. */
    unsigned replicas;     /* at the start, at most SM_TEST_REPLICAS; 0: 1 */
    bool order_arrival;    /* packets leave in the order in which they entered; else in that order within each shard */
    uint32_t max_flows;    /* 0: 65536 */
    uint32_t max_bindings; /* 0: 65536 */
    uint64_t memory;       /* of per-flow state, bytes; 0: 32 MiB */
    unsigned buffers;      /* packets in flight; 0: 512 */
    /* Without threads: whoever had no turn while more packets than this came in has the next. Replicas that take turns
     * cannot wait for each other's packets (sm_shared_wait()), so none may fall far behind. 0: turns are at random. */
    unsigned in_step;
    uint64_t hold_ns;    /* of the virtual clock, limits.hold.time; 0: no bound */
    uint64_t hold_bytes; /* with cannot_wait: a hold over this abandons its move; 0: no bound */

    /* A record as a number, to compare flows of two runs by; NULL: its bytes. Needed where records hold addresses. */
    uint64_t (*digest)(const struct sm_test_flow *flow);

    /* Chance. */
    uint64_t seed;  /* all of it: who takes the next step, the schedule, the hash's secret */
    bool schedule;  /* sm_test_step() also splits, merges and moves at random, some moves abandoned */
    unsigned kills; /* and in one of so many steps kills a replica, at any place of its burst, now and then several
                     * at the same instant; 0: none */
    bool threads;   /* a thread for each replica, for middleboxes that wait for one another (sm_shared_wait(), strong
                     * objects): then the kernel decides who is next, nothing can be killed or made to fail, and
                     * promises are checked at the end only */
    unsigned
        check_every; /* steps from one check of all memory to the next; 0: 4096. Counters are looked at each step */

    /* Copying: half of the schedule's operations move by it, which takes classes with fields or encode and decode. */
    bool copies;
    uint32_t copy_bytes; /* of encoded flows that go at a time, at most SM_TEST_COPY_BYTES; 0: so many */

    /* The strategy drain: flows stay in their replica until no packet came for so long, in packet time, or TCP has
     * closed, and operations wait for those of a replica that gave its last shard away. 0: they go with their shards.
     * For middleboxes without flow classes. */
    uint64_t drain_idle_ns;

    bool delays;           /* on_packet may call sm_packet_delay() */
    uint64_t shape_memory; /* bytes of packets that are delayed; 0: 1 MiB */
    /* In one of so many steps the switch dies, at any place of its turns from then on; 0: never. Not with threads, nor
     * with `output`, nor for sm_test_compare(): packets are lost with it. */
    unsigned switch_kills;
};

/* What a run came to. More may be added at the end. */
struct sm_test_result {
    uint64_t in, generated, out, dropped; /* packets: in + generated = out + dropped */
    uint64_t moves, abandoned, held;      /* shards moved, moves given up, packets that waited for one */
    uint64_t deaths, taken_over;          /* replicas killed, packets that others took over from them */
    uint64_t flows_live, flows_created, flows_refused, flows_evicted;
    uint64_t memory_used;                                       /* bytes of per-flow state */
    uint32_t replicas_in_flight;                                /* most at once that had packets */
    uint32_t busy_shards;                                       /* that packets came to */
    uint64_t steps;                                             /* taken by sm_test_step() */
    bool damaged;                                               /* the input capture was, from some packet on */
    uint64_t bindings_live, bindings_refused, bindings_steered; /* the last: packets that a bound key led */
    char abandoned_for[96];                                     /* why moves were abandoned last */
    char broken[512];             /* the promise that broke first, in words; empty: all held */
    uint64_t copied;              /* of the moves, by copying */
    uint64_t switch_deaths, lost; /* switches killed; packets counted as lost with them (`switch_died`) */
};

/*
 * A service that has started and seen no packet. SM_E_INVALID: options contradict one another; SM_E_NO_MEMORY; what
 * setup or started returned; errors of the files. *test is NULL then, and *error (may be NULL) says why.
 */
SM_EXPORT int sm_test_create(struct sm_test **test, const struct sm_test_options *options, struct sm_errbuf *error);

/* End it wherever it is. NULL is allowed. 0, or SM_E_IO: the output file could not be written, *error says why. */
SM_EXPORT int sm_test_destroy(struct sm_test *test, struct sm_errbuf *error);

/*
 * Somebody takes a step: a replica processes a burst of random length, or the switch takes its turn. 0; SM_E_END: all
 * packets have left and every timer up to the last one has fired; SM_E_STATE: a promise broke, see sm_test_result().
 */
SM_EXPORT int sm_test_step(struct sm_test *test);

/* Step until `condition` (may be NULL: never) holds or the end. Returns as sm_test_step(). */
SM_EXPORT int sm_test_until(struct sm_test *test, bool (*condition)(const struct sm_test *test, void *arg), void *arg);

/* Step until so many packets have entered; until no move is under way. Return as sm_test_step(). */
SM_EXPORT int sm_test_until_packet(struct sm_test *test, uint64_t packets);
SM_EXPORT int sm_test_settle(struct sm_test *test);

/* Step to the end, let the replicas retire, and check everything. 0: all promises held; SM_E_STATE: one broke;
 * SM_E_LIMIT: it does not come to an end, a replica waits for another (see sm_test_options.threads). */
SM_EXPORT int sm_test_finish(struct sm_test *test);

/* ---- Splits, merges, moves ---- */

/*
 * Replicas are named by numbers, 1, 2, ... in the order in which they started, never used again. These begin an
 * operation, which goes on with the next steps and is over when sm_test_settle() returns. SM_E_STATE: one is under way;
 * SM_E_NOT_FOUND: no such replica is alive; SM_E_LIMIT: more than SM_TEST_REPLICAS.
 */
SM_EXPORT int sm_test_start_replica(struct sm_test *test); /* returns its number; it owns nothing yet */
SM_EXPORT int sm_test_scale(struct sm_test *test,
                            unsigned replicas); /* evenly; replicas that have nothing left retire */
SM_EXPORT int sm_test_split(struct sm_test *test, unsigned from, unsigned to); /* every other shard of `from` */
SM_EXPORT int sm_test_merge(struct sm_test *test, unsigned from, unsigned to); /* all shards of `from` */
/* The shard of the flow to which the packet at `index` of a trace belongs, or of any other key. */
SM_EXPORT int sm_test_move(struct sm_test *test, const struct sm_trace *trace, size_t index, unsigned to);

/*
 * Operations that begin from now on move by copying (encode, decode into other memory, as between hosts), or no longer
 * do. SM_E_CONFLICT: a class has neither fields that cover its records nor encode and decode; *error (may be NULL)
 * names it.
 */
SM_EXPORT int sm_test_copying(struct sm_test *test, bool copying, struct sm_errbuf *error);

/* Whether an operation is under way. How many replicas are alive; the number of the index-th of them, 0: no such. */
SM_EXPORT bool sm_test_moving(const struct sm_test *test);
SM_EXPORT unsigned sm_test_replicas(const struct sm_test *test);
SM_EXPORT unsigned sm_test_replica(const struct sm_test *test, unsigned index);

/* ---- Deaths and failures ---- */

/*
 * Kill a replica between two bursts. The others take over; for the last one a replacement is started at once.
 *
 * SM_TEST_SWITCH instead of a replica's number: the switch. Its replicas run on for a while and are killed, anywhere;
 * another one takes over what it has left, and as many replicas are started, of which the first one gets all shards. An
 * operation that was under way is over. Packets that were in its hands are lost, and counted as `switch_died`.
 * SM_E_INVALID: with threads, or with sm_test_options.output.
 */
#define SM_TEST_SWITCH UINT32_MAX
SM_EXPORT int sm_test_kill(struct sm_test *test, unsigned replica);

/*
 * The places at which a replica can die inside of a burst, as a SIGKILL would find it there: between any two stores
 * that matter. A replica passes a place many times. sm_test_kill_at(): `replica` dies when it passes `place`
 * (SM_TEST_ANYWHERE: any) for the nth time from now on, n from 1. One such order at a time, a new one replaces it;
 * replica 0 takes it back. SM_E_INVALID: no such place, or as for sm_test_kill(). SM_TEST_SWITCH: the switch; it has
 * places of its own, and passes some of the replicas', too: when it puts right what a dead one has left, and when it
 * takes over from another one.
 */
#define SM_TEST_ANYWHERE UINT32_MAX
SM_EXPORT unsigned sm_test_places(void);
SM_EXPORT const char *sm_test_place_name(unsigned place); /* "function file:line"; NULL: no such place */
SM_EXPORT int sm_test_kill_at(struct sm_test *test, unsigned replica, uint32_t place, uint64_t nth);

/* Whether such an order waits to be carried out. */
SM_EXPORT bool sm_test_kill_pending(const struct sm_test *test);

/* The nth allocation of per-flow memory from now on fails, as when the arena is full; 0: none. */
SM_EXPORT void sm_test_fail_allocation(struct sm_test *test, uint64_t nth);

/* ---- Upgrades ---- */

/* Another version of the middlebox: as in sm_test_options. It may differ from the first as sm_start() allows. */
struct sm_test_upgrade {
    size_t size; /* sizeof(struct sm_test_upgrade) */
    sm_packet_fn *on_packet;
    int (*setup)(struct sm_replica *replica, void **user);
    bool forward_only; /* also where the old version cannot read what the new one writes */
};

/*
 * Start as many replicas of another version as there are, and move all shards to them; goes on with the next steps.
 * Replicas that are started meanwhile, in place of dead ones too, are of the new version. SM_E_STATE: an operation or
 * an upgrade is under way; SM_E_LIMIT: there are more than half of SM_TEST_REPLICAS; SM_E_INVALID: the size, no
 * handler, with threads. What the registration or setup came to: the upgrade has not begun, *error (may be NULL) says
 * why.
 */
SM_EXPORT int sm_test_upgrade(struct sm_test *test, const struct sm_test_upgrade *upgrade, struct sm_errbuf *error);

/*
 * When no move is under way: end it. Forward: the old replicas retire. SM_E_AGAIN: they had shards (moves were
 * abandoned), which are moved now. SM_E_NOT_FOUND: no replica of the new version is alive. Back, at any time: the new
 * ones are killed, and the old ones take over again. Where that takes a downgrade callback the new ones give their
 * shards back first: SM_E_AGAIN: that is under way, ask again; SM_E_NOT_FOUND: none of them, or of the old ones, is
 * alive. SM_E_STATE: there is no upgrade, or a move is under way.
 */
SM_EXPORT int sm_test_upgrade_forward(struct sm_test *test);
SM_EXPORT int sm_test_upgrade_back(struct sm_test *test);

/* ---- Looking at it ---- */

/* The state so far. Valid until the next call with this test. */
SM_EXPORT const struct sm_test_result *sm_test_result(struct sm_test *test);

/* How many packets were dropped for a reason so far, the runtime's own or one that the middlebox registered. */
SM_EXPORT uint64_t sm_test_dropped(const struct sm_test *test, const char *reason);

/* What has left so far; valid until sm_test_destroy(). NULL: it goes to a file. */
SM_EXPORT const struct sm_trace *sm_test_output(const struct sm_test *test);

/* Call `fn` for each flow, in no order, until it returns false. Not with threads before the end. */
SM_EXPORT void sm_test_flows(const struct sm_test *test, bool (*fn)(const struct sm_test_flow *flow, void *arg),
                             void *arg);

/* The record of a flow by its class and key; NULL: there is none. */
SM_EXPORT const void *sm_test_flow(const struct sm_test *test, sm_class cls, const struct sm_key *key);

/* Check all promises now, as steps do: 0 or SM_E_STATE. */
SM_EXPORT int sm_test_check(struct sm_test *test);

/* ---- Comparing ---- */

/*
 * Whether two finished tests ended alike: what they sent (sm_trace_same() by `key`), the counts of packets and flows
 * (of flows that began only where none are shared), and every flow's record, by the first one's sm_test_options.digest.
 * When not, *error says what differs.
 */
SM_EXPORT bool sm_test_same(struct sm_test *a, struct sm_test *b, enum sm_granularity key, struct sm_errbuf *error);

/*
 * Transparency: run the options' service with one replica that nothing happens to, then as they say, each to its end,
 * and compare (in order of arrival where they say so, else by flow). 0: alike. SM_E_STATE: they differ, or a promise
 * broke; *error (may be NULL) says what, with the seed. Errors of sm_test_create(). options->output is not used.
 */
SM_EXPORT int sm_test_compare(const struct sm_test_options *options, struct sm_errbuf *error);

/* Run to the end: create, finish, destroy. 0 also where a promise broke: result->broken says so. */
SM_EXPORT int sm_test_run(const struct sm_test_options *options, struct sm_test_result *result,
                          struct sm_errbuf *error);

/* The next random number of a sequence; *state is not 0. For tests' own choices. */
SM_EXPORT uint64_t sm_test_random(uint64_t *state);

#ifdef __cplusplus
}
#endif

#endif
