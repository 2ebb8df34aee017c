/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef RATELIMITER_EXACT_H
#define RATELIMITER_EXACT_H

/*
 * One limit over several hosts that is never exceeded: its home leases parts of it (the mode `exact`).
 *
 * A part is a rate and a depth, those of a token bucket. At every moment all parts that any host may be using come to
 * at most the limit's rate and burst; so over every interval t what all hosts let through comes to at most rate x t +
 * burst, whatever the network does. The argument is in exact_home.c.
 *
 * Pure: messages and time come in, messages go out; no socket, no clock, no allocation. One thread. The home is a host
 * as well, and asks itself. Rates are units a nanosecond, depths units (bucket.h); times are ns of a clock that is the
 * host's own. Clocks need not agree; two may run apart by EXACT_DRIFT of the time, and a clock may jump by more than
 * METER_GAP_NS, either way.
 */

#include <stdbool.h>
#include <stdint.h>

#include "drl/meter.h"

#define EXACT_MAX_HOSTS 128u /* numbers of hosts are below */
#define EXACT_DRIFT 1024u    /* one part in so many */
#define EXACT_IN_FLIGHT 16u  /* a grant that answers an ask older than so many is not taken */

struct exact_part {
    uint64_t rate, depth;
};

/* A host asks the home. */
struct exact_ask {
    uint64_t token;         /* that the home gave last; 0: none */
    uint32_t number;        /* of this ask; the first one's is random */
    uint32_t applied;       /* number of the grant in use, of this token's; 0: none */
    struct exact_part held; /* what may be in use now */
    uint64_t demand;        /* rate of what arrives */
    uint32_t weight;        /* thousandths of a flow's worth of it (pool.c) */
    bool pressed;           /* some of it had to be dropped */
};

/* The home answers. */
struct exact_grant {
    uint64_t token;
    uint32_t number; /* of this part; 0: the host is only made known, and told its token */
    uint32_t asked;  /* number of the ask that this answers */
    struct exact_part part;
};

/* ---- the home ---- */

struct exact_limit {
    struct exact_part whole;
    uint64_t lease_ns; /* the same on all hosts */
};

struct exact_tenant {
    uint64_t token, candidate; /* 0: none */
    uint32_t candidate_for;    /* ask */
    uint32_t asked;            /* newest ask taken in, of this token's */
    uint32_t number;
    bool acknowledged;              /* `part` is in use; else `part` or `before` */
    struct exact_part part, before; /* 0 when the lease has ended */
    uint64_t ends;                  /* by the home's lease clock */
    uint64_t demand;
    uint32_t weight;
    bool pressed;
};

struct exact_home {
    struct exact_limit limit;
    uint64_t time;    /* seen last */
    uint64_t clock;   /* the lease clock: time, but for the jumps */
    uint64_t learned; /* until then leases are prolonged only: those of an earlier home are still out */
    uint64_t random;
    struct exact_tenant tenants[EXACT_MAX_HOSTS];
};

/* Another home may have been before, and have ended just now. `random`: not 0, another one at each start. */
void exact_home_start(struct exact_home *home, const struct exact_limit *limit, uint64_t random, uint64_t now);

/* To be called often enough: times of more than METER_GAP_NS between calls make leases that much longer. */
void exact_home_time(struct exact_home *home, uint64_t now);

/* False: the ask is old or makes no sense, and there is no answer. */
bool exact_home_asked(struct exact_home *home, unsigned host, const struct exact_ask *ask, struct exact_grant *grant);

/* For people, and for tests: all that may be in use. At most the whole. */
struct exact_part exact_home_out(const struct exact_home *home);

/* ---- a host ---- */

struct exact_host {
    struct meter *meter; /* shared with who takes from it */
    uint64_t lease_ns, interval_ns;
    uint64_t time; /* seen last */
    uint64_t token;
    uint64_t settle_ns;       /* packets wait for so long at most: a part that is given up is in use until then */
    uint64_t silent_until;    /* likewise, where nobody knows what was in use: nothing is asked */
    uint64_t used_at;         /* when the grant in use came */
    uint32_t number, applied; /* of the last ask; of the last grant of which nothing before it is in use any more */
    uint32_t used;            /* of the grant in use */
    uint32_t adopted;         /* the last ask when the token came */
    bool hurry;               /* not to wait for the interval's end: set also by a caller who must drop */
    uint64_t asked_at[EXACT_IN_FLIGHT];
};

struct exact_host_options {
    uint64_t interval_ns;
    uint64_t queue_ns; /* packets wait for so long at most (meter_queue()); less than the lease; 0: they do not */
    uint32_t random;   /* another one at each start */
};

/* A lease that another process of this host had goes on: it is in the meter, zeroed on the first start. */
void exact_host_start(struct exact_host *host, struct meter *meter, const struct exact_limit *limit,
                      const struct exact_host_options *options, uint64_t now);

/* Fill the meter. True: an ask is due. */
bool exact_host_time(struct exact_host *host, uint64_t now);

/* The ask; demand, weight and pressed are left to the caller. */
void exact_host_ask(struct exact_host *host, uint64_t now, struct exact_ask *ask);

/* False: the grant is old or another's, and has been ignored. */
bool exact_host_granted(struct exact_host *host, uint64_t now, const struct exact_grant *grant);

#endif
