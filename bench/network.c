/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The rate limiter, one limit a flow that nobody reaches, between two virtual links by AF_XDP, in frames of 64 bytes a
 * second; beside bare AF_XDP forwarding, beside the kernel's way to do the same job, a bridge with an nftables limit
 * for each flow, and beside Open vSwitch with AF_XDP ports, which limits nothing. The generator (wire.h) has one core,
 * and so has whoever forwards: switch and replica share it; the bridge works in a thread of the kernel's there.
 * Receiving from the link up to the socket is done on the generator's core, for all but the bridge, which would get no
 * time there.
 */

#include <dirent.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arena/huge.h"
#include "bench.h"
#include "limited.h"
#include "ports/xdp.h"
#include "wire.h"

#define MOST_FLOWS 65536u
#define LEAST_SECONDS 0.05
#define GENERATOR_MARGIN 1.3 /* the generator alone has to be so much faster than what it feeds */

static const char policy_text[] = "limits: [{name: flow, per: flow, rate: 100Mbit, burst: 64KiB}]\n";

/* `limit ... over` a byte rate; the same as the policy's. */
static const char bridge_text[] =
    "(ip link add br0 type bridge && ip link set in0 master br0 && ip link set out0 master br0 && ip link set br0 up "
    "&& "
    "{ for i in /proc/sys/net/bridge/bridge-nf-call-*; do echo 0 > $i; done; } && bridge fdb add 02:00:00:00:00:02 dev "
    "out0 master static && ethtool -K in0 gro on && "
    "nft 'add table bridge t; add set bridge t flows { type ipv4_addr . inet_service; size 131072; flags dynamic; }; "
    "add chain bridge t c { type filter hook forward priority 0; }; "
    "add rule bridge t c update @flows { ip saddr . udp sport limit rate over 12500 kbytes/second burst 64 kbytes } "
    "drop' && "
    "unshare -m sh -c 'mount -t sysfs none /sys && echo 1 > /sys/class/net/in0/threaded') >/dev/null 2>&1";
static const char no_bridge_text[] = "(nft delete table bridge t && unshare -m sh -c 'mount -t sysfs none /sys && echo "
                                     "0 > /sys/class/net/in0/threaded' && "
                                     "ethtool -K in0 gro off && ip link del br0) >/dev/null 2>&1";

/* Open vSwitch in user space, with AF_XDP ports, and its thread on the core that we are on. */
static const char ovs_text[] =
    "(D=/tmp/sm-bench-ovs.$PPID && mkdir $D && export OVS_RUNDIR=$D OVS_LOGDIR=$D OVS_DBDIR=$D && "
    "V=\"ovs-vsctl --timeout=10 --db=unix:$D/db.sock\" && "
    "ovsdb-tool create $D/conf.db /usr/share/openvswitch/vswitch.ovsschema && "
    "ovsdb-server $D/conf.db --remote=punix:$D/db.sock --pidfile=$D/db.pid --detach --log-file=/dev/null && "
    "$V --no-wait init && "
    "$V --no-wait set Open_vSwitch . other_config:pmd-cpu-mask=0x$(taskset -p $$ | sed 's/.* //') && "
    "ovs-vswitchd unix:$D/db.sock --pidfile=$D/sw.pid --detach --log-file=/dev/null && "
    "$V add-br br0 -- set bridge br0 datapath_type=netdev -- "
    "add-port br0 in0 -- set interface in0 type=afxdp -- add-port br0 out0 -- set interface out0 type=afxdp"
    ") >/dev/null 2>&1";
static const char no_ovs_text[] =
    "(D=/tmp/sm-bench-ovs.$PPID; ovs-vsctl --timeout=10 --db=unix:$D/db.sock del-br br0; "
    "for i in sw db; do P=$(cat $D/$i.pid) && kill $P && while kill -0 $P; do sleep 0.02; done; done; rm -r $D; "
    "ip link set in0 up && ip link set out0 up) >/dev/null 2>&1";

struct network {
    const struct bench_options *options;
    struct wire wire;
    uint32_t flows;
    double seconds;
    struct figure *alone, *bare, *bridge, *ovs;
};

/* Frames a second at the sink, while somebody else forwards them. 0: none came. */
static double count_for(const struct network *network)
{
    uint64_t begin = bench_now(), from = wire_sunk(&network->wire);

    while (wire_sunk(&network->wire) == from && bench_now() - begin < WIRE_PATIENCE_NS)
        usleep(1000);
    usleep((useconds_t)(network->seconds * 1e5));
    from = wire_sunk(&network->wire);
    begin = bench_now();
    do
        usleep((useconds_t)(network->seconds * 1e6));
    while (!wire_is_measured(&network->wire, from, begin, bench_now(), network->seconds));
    return (double)(wire_sunk(&network->wire) - from) * 1e9 / (double)(bench_now() - begin);
}

static int measure_generator(struct network *network, double *rate, struct sm_errbuf *error)
{
    int sink = wire_shortcut(&network->wire), result = sink < 0 ? SM_E_STATE : wire_flood(&network->wire);

    if (result == 0)
        *rate = count_for(network);
    else
        snprintf(error->text, sizeof error->text, "a sink is refused");
    wire_quiet(&network->wire);
    if (sink >= 0)
        close(sink);
    return result;
}

static int measure_bare(struct network *network, double *rate, struct sm_errbuf *error)
{
    int result = wire_flood(&network->wire);

    if (result == 0)
        result = bare_xdp_forward(network->seconds, &network->wire, rate, error);
    wire_quiet(&network->wire);
    return result;
}

/* The kernel's thread that forwards goes to the first core, as ours do. */
static void pin_bridge(void)
{
    DIR *all = opendir("/proc");
    cpu_set_t core;

    sched_getaffinity(0, sizeof core, &core);
    for (struct dirent *entry; all && (entry = readdir(all));) {
        char path[300], name[32] = "";
        snprintf(path, sizeof path, "/proc/%s/comm", entry->d_name);
        FILE *file = fopen(path, "re");
        if (file && fgets(name, sizeof name, file) && strncmp(name, "napi/in0-", 9) == 0)
            sched_setaffinity(atoi(entry->d_name), sizeof core, &core);
        if (file)
            fclose(file);
    }
    if (all)
        closedir(all);
}

static int measure_bridge(struct network *network, double *rate, struct sm_errbuf *error)
{
    int result = wire_command(bridge_text, error);

    if (result == 0) {
        pin_bridge();
        result = wire_flood(&network->wire);
    }
    if (result == 0)
        *rate = count_for(network);
    wire_quiet(&network->wire);
    return result ? result : wire_command(no_bridge_text, error);
}

/* Both ports by AF_XDP, over the service's pool. */
static int use_xdp(struct service *service, struct sm_errbuf *error)
{
    const struct sm_port_pool pool = {
        .memory = service->arena->pool.small, .count = service->arena->pool.small_count, .stride = POOL_SMALL_BYTES};
    struct sm_port *old[2] = {service->sw->ports[0], service->sw->ports[1]}, *in, *out;
    struct sm_errbuf ignored;
    int result = sm_port_open_xdp(&in, 1, "in0", SM_XDP_NATIVE, &pool, error);

    if (result)
        return result;
    result = sm_port_open_xdp(&out, 1, "out0", SM_XDP_NATIVE, &pool, error);
    if (result) {
        in->ops->close(in, false, &ignored);
        return result;
    }
    switch_set_ports(service->sw, in, out);
    for (unsigned i = 0; i < 2; i++)
        old[i]->ops->close(old[i], false, &ignored);
    return 0;
}

static int open_limited(struct limited *limited, const struct network *network, struct sm_errbuf *error)
{
    const struct service_options wanted = {
        .replicas = 1,
        .threads = true,
        .spread = true, /* the first one is on our core */
        .buffers = POOL_SMALL_COUNT + 2 * SM_PORT_POOL_STOCK,
        .flows = network->flows,
        .seed = network->options->seed,
    };
    int result = limited_open(limited, policy_text, &wanted, error);

    return result ? result : use_xdp(&limited->service, error);
}

static double forward(struct network *network, struct service *service)
{
    uint64_t begin = bench_now(), now = begin, from = 0, measured = 0;

    while (measured == 0 || !wire_is_measured(&network->wire, from, measured, now, network->seconds)) {
        arena_huge_ahead(service->arena, &service->huge_done); /* as the control thread of sm-switch does */
        service_turn(service);
        now = bench_now();
        if (measured == 0 && (double)(now - begin) > network->seconds * 1e8 && service->sw->out > network->flows) {
            measured = now;
            from = wire_sunk(&network->wire);
        } else if (measured == 0 && now - begin > WIRE_PATIENCE_NS) {
            return 0;
        }
    }
    return (double)(wire_sunk(&network->wire) - from) * 1e9 / (double)(now - measured);
}

static int measure_ours(struct network *network, double *rate, struct sm_errbuf *error)
{
    struct limited limited;
    int result = open_limited(&limited, network, error);

    if (result == 0)
        result = wire_flood(&network->wire);
    if (result == 0)
        *rate = forward(network, &limited.service);
    wire_quiet(&network->wire);
    result = limited_close(&limited, result, error);
    return result;
}

/* Where it is not there, or does not run, that is said once, and it is not tried again. */
static int measure_ovs(struct network *network, double ours, struct sm_errbuf *error)
{
    struct figure *figure = network->ovs;
    struct sm_errbuf ignored;
    double rate = 0;
    int result = 0;

    samples_add(&figure->ours, ours / 1e6);
    if (figure->missing[0])
        return 0;
    if (system("command -v ovs-vswitchd ovsdb-server ovs-vsctl taskset >/dev/null 2>&1") != 0) {
        strcpy(figure->missing, "missing: Open vSwitch (openvswitch-switch) is not installed");
        return 0;
    }
    if (wire_command(ovs_text, &ignored) == 0) {
        result = wire_flood(&network->wire);
        if (result == 0)
            rate = count_for(network);
        wire_quiet(&network->wire);
    }
    if (wire_command(no_ovs_text, error) != 0)
        return SM_E_STATE;
    if (rate > 0)
        samples_add(&figure->reference, rate / 1e6);
    else
        strcpy(figure->missing, "missing: Open vSwitch does not run here with AF_XDP ports");
    if (figure->missing[0])
        figure->reference.count = 0;
    return result;
}

/* One repetition; all in turns, since the machine is slower at times. */
static int repeat(struct network *network, struct sm_errbuf *error)
{
    double rates[4] = {0};
    int (*const measures[])(struct network *, double *, struct sm_errbuf *) = {measure_generator, measure_bare,
                                                                               measure_ours, measure_bridge};

    for (unsigned i = 0; i < 4; i++) {
        int result = measures[i](network, &rates[i], error);
        if (result)
            return result;
        if (rates[i] == 0) {
            snprintf(error->text, sizeof error->text, "no frame came to the sink in measurement %u", i);
            return SM_E_STATE;
        }
    }
    samples_add(&network->alone->ours, rates[0] / 1e6);
    samples_add(&network->bare->reference, rates[1] / 1e6);
    samples_add(&network->bare->ours, rates[2] / 1e6);
    samples_add(&network->bridge->ours, rates[2] / 1e6);
    samples_add(&network->bridge->reference, rates[3] / 1e6);
    return measure_ovs(network, rates[2], error);
}

static int judge_generator(const struct network *network, struct sm_errbuf *error)
{
    const double alone = samples_median(&network->alone->ours), bare = samples_median(&network->bare->reference),
                 ours = samples_median(&network->bare->ours), fastest = bare > ours ? bare : ours;

    if (network->options->quick || alone >= GENERATOR_MARGIN * fastest)
        return 0;
    snprintf(error->text, sizeof error->text, "generator was the bottleneck: alone %.2f Mpps, forwarded %.2f", alone,
             fastest);
    return SM_E_STATE;
}

int bench_network(const struct bench_options *options, struct report *report, struct sm_errbuf *error)
{
    struct network network = {.options = options, .flows = 1, .seconds = options->seconds};

    while (network.flows * 2 <= options->flows && network.flows < MOST_FLOWS)
        network.flows *= 2;
    if (network.seconds < LEAST_SECONDS)
        network.seconds = LEAST_SECONDS;
    bench_pin(0);
    int result = wire_open(&network.wire, network.flows, error);
    if (result == 0) {
        network.bare = report_figure(report, "network: limiter by AF_XDP, beside bare AF_XDP", "Mpps");
        network.bridge = report_figure(report, "network: limiter by AF_XDP, beside bridge and nft", "Mpps");
        network.ovs = report_figure(report, "network: limiter by AF_XDP, beside Open vSwitch by AF_XDP", "Mpps");
        network.ovs->ratio = (struct target){TARGET_AT_LEAST, 1};
        network.alone = report_figure(report, "network: generator alone", "Mpps");
        network.bare->ratio = (struct target){TARGET_AT_LEAST, 0.9};
        network.bridge->ratio = (struct target){TARGET_AT_LEAST, 1.2};
    }
    while (result == 0 && network.bare->ours.count < options->repeat)
        result = repeat(&network, error);
    if (result == 0)
        result = judge_generator(&network, error);
    wire_close(&network.wire);
    json_object_set_new(report->parameters, "network",
                        json_pack("{s:i, s:i, s:s}", "packet_bytes", (int)WIRE_FRAME, "flows", (int)network.flows,
                                  "links", "veth, native, copy"));
    return result;
}
