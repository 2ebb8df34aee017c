/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SPLITMERGE_SPLITMERGE_H
#define SPLITMERGE_SPLITMERGE_H

/*
 * A middlebox as a replica of a service: attach, register, run. The program sees all packets it is given, one by
 * one; it never learns how many replicas there are.
 *
 *     sm_open()  ->  sm_class_register() ...  ->  sm_start()  ->  sm_run()  ->  sm_close()
 *
 * Started by an orchestrator (SPLITMERGE_ATTACH is in the environment) the process attaches to that service's
 * switch. Started by hand it is its own host with one replica, from options.input to options.output.
 *
 * Threads.  Several replicas may live in one process, each in a thread of its own (sm_threads()). sm_open() is called
 * by the thread that is to run the replica, and so is every function that takes a replica, but for sm_stop() and
 * sm_interrupt(), which any thread may call while the replica is open; different threads call them at the same time.
 * Callbacks come on the replica's thread. What a middlebox keeps in static variables all replicas of the process share:
 * what is written there by more than one of them, or after another one has started, is the middlebox's own to guard
 * (the same registration gives every replica the same classes, objects and reasons). A process dies as a whole, with
 * all of its replicas.
 */

#include <splitmerge/bucket.h>
#include <splitmerge/flow.h>
#include <splitmerge/packet.h>
#include <splitmerge/shared.h>
#include <splitmerge/types.h>
#include <splitmerge/version.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One packet. What it does to per-flow state, its verdict and what it sends take effect together. */
typedef void sm_packet_fn(struct sm_replica *replica, struct sm_packet *packet, void *user);

#define SM_MAX_SENDS 4

struct sm_options {
    size_t size;             /* sizeof(struct sm_options) */
    const char *name;        /* the middlebox's name, at most 31 characters */
    sm_packet_fn *on_packet; /* never NULL */
    void *user;              /* handed to on_packet */
    unsigned max_sends;      /* most packets that on_packet sends because of one packet, at most SM_MAX_SENDS */
    bool delays;             /* on_packet may call sm_packet_delay() */
    const char *replica;     /* attached only: its name, as sm_threads() hands it out; NULL: the process has one */

    /* Standalone only; ignored when attached. */
    const char *input;     /* capture file, "-", or "interface:NAME"; NULL: not standalone, sm_open() needs a switch */
    const char *output;    /* likewise; NULL: packets are only watched */
    const char *report;    /* where the JSON report goes; NULL: nowhere */
    uint32_t max_flows;    /* 0: 4194304 */
    uint32_t max_bindings; /* 0: 65536 */
    uint64_t memory;       /* arena bytes for state; 0: 1 GiB (touched only as it is used) */
    uint64_t shape_memory; /* bytes of packets that are delayed (sm_packet_delay()); 0: 64 MiB, likewise */
};

/*
 * Attach to the service's switch, or open the files of a standalone run. On failure *replica is NULL and *error
 * (may be NULL) says why in one line.
 * SM_E_INVALID: an option, or the process is to have several replicas, and options.replica does not say which this is;
 * SM_E_IO: no switch, file or interface; SM_E_PERMISSION; SM_E_PROTOCOL: the switch speaks another version; SM_E_RANGE:
 * the arena's address range is taken: attach earlier, or without address randomisation.
 */
SM_EXPORT int sm_open(struct sm_replica **replica, const struct sm_options *options, struct sm_errbuf *error);

/* Whether this replica is its own host. */
SM_EXPORT bool sm_standalone(const struct sm_replica *replica);

/* The link type (DLT_*) of the service's ports, for sm_filter_create(). */
SM_EXPORT int sm_linktype(const struct sm_replica *replica);

/*
 * Register a reason for dropping packets; between sm_open() and sm_start(). The name (at most 47 characters)
 * appears in reports. The same name gives the same reason. SM_E_LIMIT: more than SM_MAX_REASONS.
 */
#define SM_MAX_REASONS 1024
SM_EXPORT int sm_drop_reason(struct sm_replica *replica, const char *name, uint16_t *reason);

/*
 * Register reasons that come from a configuration, which another version of the middlebox may have changed: those that
 * the service has had so far keep their numbers, also where they are not among `names` any more. reasons[i] is that of
 * names[i]; a name that has had a number in this service has it for good. Errors as above.
 */
SM_EXPORT int sm_drop_reasons(struct sm_replica *replica, const char *const *names, unsigned count, uint16_t *reasons);

/*
 * The name of a flow class that the service has so far, in the order of registration; NULL beyond the last. Before
 * sm_start(): another version registers these first.
 */
SM_EXPORT const char *sm_class_known(const struct sm_replica *replica, unsigned number);

/*
 * Registration is complete: hand it to the switch and be ready for packets. SM_E_CONFLICT: it differs from what
 * other replicas registered, or a class that does not accept to be shared would be; *error names the class.
 */
SM_EXPORT int sm_start(struct sm_replica *replica, struct sm_errbuf *error);

/*
 * Instead of sm_start(): this replica cannot start, its configuration being wrong for example. `reason`, one line (the
 * first 200 bytes of it), goes to whoever has asked for the replica. Nothing is done when standalone.
 */
SM_EXPORT void sm_decline(struct sm_replica *replica, const char *reason);

/*
 * Process packets until the switch retires this replica or the input ends: returns 0. SM_E_DAMAGED (standalone):
 * the input was damaged, the whole packets before the damage were processed. SM_E_IO: the switch is gone, or the
 * output could not be written; sm_last_error() says what.
 */
SM_EXPORT int sm_run(struct sm_replica *replica);

/* One line on why sm_run() or sm_poll() failed last. Valid until the next call. */
SM_EXPORT const char *sm_last_error(const struct sm_replica *replica);

/*
 * For programs with a loop of their own: process at most `budget` packets without blocking, commit, return how
 * many; SM_E_END when retired or at the end of input; errors as sm_run(). When it returned 0, call sm_sleep_fd()
 * for a descriptor and wait until it is readable; sm_sleep_fd() returns SM_E_AGAIN when work has come meanwhile.
 */
SM_EXPORT int sm_poll(struct sm_replica *replica, unsigned budget);
SM_EXPORT int sm_sleep_fd(struct sm_replica *replica);

/* End a standalone run on interfaces as if its input had ended: sm_run() drains and returns. Async-signal-safe. */
SM_EXPORT void sm_stop(struct sm_replica *replica);

/* Let sm_run() return SM_E_AGAIN soon; it is called again to go on. Async-signal-safe. */
SM_EXPORT void sm_interrupt(struct sm_replica *replica);

/*
 * Standalone: another configuration of the program takes over, as one does in a service that is reloaded. Between two
 * calls of sm_run() or sm_poll(): sm_open_heir() makes *heir, of the same files; `user` is handed to on_packet. The
 * classes and the rest are registered with it, within what an upgrade allows, and it is started. sm_inherit() then has
 * all flows and packets go over to it: it is the one to run, and `replica` to be closed. Where anything fails `heir` is
 * to be closed, and `replica` goes on as if nothing had been.
 * sm_open_heir(): SM_E_STATE: not standalone, or at its end; SM_E_LIMIT: it was done too often; SM_E_NO_MEMORY.
 * sm_start(heir): SM_E_CONFLICT: what it registered cannot follow. sm_inherit(): SM_E_AGAIN: there are flows that the
 * middlebox holds. *error (may be NULL) says more.
 */
SM_EXPORT int sm_open_heir(struct sm_replica *replica, void *user, struct sm_replica **heir, struct sm_errbuf *error);
SM_EXPORT int sm_inherit(struct sm_replica *heir, struct sm_errbuf *error);

/*
 * Detach and free. NULL is allowed. A replica that was not retired keeps what it owns until its process has ended:
 * others take over then.
 */
SM_EXPORT void sm_close(struct sm_replica *replica);

/*
 * Run as many replicas as this process is to have (middlebox.threads of the service file; one where it was started by
 * hand): body(replica, arg) opens, starts, runs and closes one, `replica` being what goes to sm_options.replica; NULL
 * when standalone. One replica runs on the calling thread, several on a thread each; arg is handed to all of them.
 * Returns 0 when each has returned 0, as it does when its replica is retired; else, as soon as one has not, what that
 * returned. The others go on meanwhile, so the process is to end at once and what `arg` points to has to stay until
 * then: they die with it. SM_E_NO_MEMORY: a thread cannot be made; likewise.
 */
typedef int sm_replica_fn(const char *replica, void *arg);
SM_EXPORT int sm_threads(sm_replica_fn *body, void *arg);

#ifdef __cplusplus
}
#endif

#endif
