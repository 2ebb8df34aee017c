/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_CONF_SERVICE_H
#define SM_CONF_SERVICE_H

/* A service file: sm-service(5). */

#include <sched.h>

#include "conf/conf.h"

#define SERVICE_MAX_REPLICAS 64
#define SERVICE_MAX_THREADS 16
#define SERVICE_MAX_MEMORY (64ull << 30) /* addresses that an arena has, nearly */

enum service_mode { SERVICE_INLINE, SERVICE_TAP };

enum service_port_kind {
    SERVICE_PORT_NONE, /* the way out in tap mode */
    SERVICE_PORT_CAPTURE,
    SERVICE_PORT_INTERFACE,
    SERVICE_PORT_GENERATOR, /* in only */
    SERVICE_PORT_DISCARD,   /* out only */
};

/* What moves an interface's packets. */
enum service_driver {
    SERVICE_DRIVER_AUTO, /* the best that works */
    SERVICE_DRIVER_PCAP,
    SERVICE_DRIVER_XDP, /* AF_XDP, native or else generic */
    SERVICE_DRIVER_XDP_NATIVE,
    SERVICE_DRIVER_XDP_GENERIC,
};

enum service_pace { SERVICE_PACE_MAX, SERVICE_PACE_RECORDED, SERVICE_PACE_RATE };
enum service_order { SERVICE_ORDER_FLOW, SERVICE_ORDER_ARRIVAL };

struct service_in {
    enum service_port_kind kind;
    const char *name; /* file ("-": standard input) or interface; NULL for a generator */
    enum service_driver driver;
    uint32_t threads; /* that move its packets; 0: the switch's own does */
    enum service_pace pace;
    uint64_t pace_pps; /* SERVICE_PACE_RATE: packets a second */
    struct {
        uint32_t flows, size;
        uint64_t count; /* 0: no end */
        uint64_t rate;  /* packets a second; 0: as fast as it is asked */
    } generator;
};

struct service_out {
    enum service_port_kind kind;
    const char *name; /* as struct service_in */
    enum service_driver driver;
    uint32_t threads;
    enum service_order order;
};

/* What becomes of flows when their shard gets another owner; sm-service(5). */
enum service_strategy {
    SERVICE_STRATEGY_NONE, /* of an operation: as the service's */
    SERVICE_MOVE,          /* they go along, with their state */
    SERVICE_DRAIN,         /* they stay until they end, and whoever gave the last shard away has them waited for */
    SERVICE_NEW_FLOWS,     /* they stay, and nothing waits for that */
    SERVICE_RESTART,       /* they go along, and begin anew: the program keeps their state itself */
};

/* The names, from SERVICE_MOVE on, ended by NULL. */
extern const char *const service_strategies[];

/* By its name; SERVICE_STRATEGY_NONE: there is no such. */
enum service_strategy service_strategy(const char *name);

/* Whether flows stay: the switch has to know them, from the first packet on. */
static inline bool service_stays(enum service_strategy strategy)
{
    return strategy == SERVICE_DRAIN || strategy == SERVICE_NEW_FLOWS;
}

/* Where metrics are served: a loopback address of IPv4. */
struct service_metrics {
    const char *text;
    uint32_t address; /* in network byte order */
    uint16_t port;    /* 0: nowhere */
};

struct service {
    const char *file;
    const char *name;
    const char *exec;
    const char **args;  /* after the program's name, ended by NULL */
    uint32_t threads;   /* most replicas that a process is started with */
    const char *output; /* where a replica's standard output goes, with {replica} in it; NULL: where ours goes */
    bool pcap;          /* a program of libpcap's, which is a replica by libsplitmerge-pcap */
    bool steered;       /* packets are steered by `steer`, and not by what the program's flow classes say */
    enum sm_granularity steer;
    enum service_strategy strategy;
    uint64_t idle_ns; /* a flow that stays has ended when no packet came for so long */
    struct {
        uint32_t start, min, max;
    } replicas;
    enum service_mode mode;
    struct service_in in;
    struct service_out out;
    struct {
        uint32_t flows;
        uint32_t bindings;   /* bound keys */
        uint64_t memory;     /* bytes of the arena */
        uint64_t hold_bytes; /* of packets that wait for moves */
        uint64_t hold_ns;
        uint64_t shape_bytes;     /* of packets that the middlebox delays */
        uint64_t unresponsive_ns; /* a replica that leaves its input unanswered for longer is killed */
    } limits;
    struct service_metrics metrics;
    struct {
        cpu_set_t worker, replicas; /* what they are bound to; empty: they are not */
    } cpus;
    struct conf *conf; /* owns the strings */
};

/*
 * Read a service file. 0: *service is filled, defaults too; free it with service_free(). SM_E_SYNTAX: *error says
 * what is wrong, in one line with file, line and key; *service is untouched.
 */
int service_load(struct service *service, const char *file, struct sm_errbuf *error);

/* The same for a file already parsed: takes `conf` over, in every case. */
int service_read(struct service *service, struct conf *conf, const char *file, struct sm_errbuf *error);

/* Free what service_load() filled. A zeroed service is allowed. */
void service_free(struct service *service);

/* A text in which {service} and {replica} are replaced; the caller's. NULL: out of memory. */
char *service_expand(const char *text, const char *service, const char *replica);

/* Whether the input ends by itself. */
static inline bool service_ends(const struct service *service)
{
    return service->in.kind == SERVICE_PORT_CAPTURE ||
           (service->in.kind == SERVICE_PORT_GENERATOR && service->in.generator.count > 0);
}

#endif
