/* SPDX-License-Identifier: BSD-2-Clause */
#include "wire.h"

#include "ports/instructions.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef BPF_F_TEST_XDP_LIVE_FRAMES
#define BPF_F_TEST_XDP_LIVE_FRAMES (1u << 1)
#endif

#define SOURCE 26 /* offset of the IPv4 source address */
#define KEY (-4)  /* on the stack */

static const uint8_t frame[WIRE_FRAME] = {
    2,  0, 0, 0,  0, 2,  2, 0, 0,  0,  0, 1, 8,  0,                      /* Ethernet */
    69, 0, 0, 50, 0, 0,  0, 0, 64, 17, 0, 0, 10, 0, 0, 0, 10, 255, 0, 1, /* IPv4: 10.0.0.0 and the flow's number */
    4,  0, 0, 9,  0, 30, 0, 0,                                           /* UDP, without a checksum */
};

static int load(const struct bpf_insn *instructions, size_t count)
{
    LIBBPF_OPTS(bpf_prog_load_opts, options, .expected_attach_type = BPF_XDP);
    return bpf_prog_load(BPF_PROG_TYPE_XDP, "sm_bench", "Dual BSD/GPL", instructions, count, &options);
}

/* Each frame is the next flow's. */
static int load_generator(const struct wire *wire, uint32_t flows)
{
    const struct bpf_insn generator[] = {
        MOVE(R6, R1),
        STORE_VALUE(BPF_W, FRAME, KEY, 0),
        MOVE(R2, FRAME),
        ADD(R2, KEY),
        MAP(R1, wire->numbers),
        CALL(BPF_FUNC_map_lookup_elem),
        IF_0(R0, 17),
        LOAD(BPF_DW, R3, R0, 0),
        MOVE(R4, R3),
        ADD(R4, 1),
        STORE(BPF_DW, R0, 0, R4),
        AND(R3, (int)(flows - 1)),
        ADD(R3, 0x0a000000),
        BIG_ENDIAN_32(R3),
        LOAD(BPF_W, R1, R6, offsetof(struct xdp_md, data)),
        LOAD(BPF_W, R2, R6, offsetof(struct xdp_md, data_end)),
        MOVE(R4, R1),
        ADD(R4, SOURCE + 4),
        IF_GREATER(R4, R2, 5),
        STORE(BPF_W, R1, SOURCE, R3),
        SET(R1, (int)wire->gen0),
        SET(R2, 0),
        CALL(BPF_FUNC_redirect),
        EXIT,
        SET(R0, XDP_ABORTED),
        EXIT,
    };

    return load(generator, sizeof generator / sizeof generator[0]);
}

static int load_sink(const struct wire *wire)
{
    const struct bpf_insn sink[] = {
        STORE_VALUE(BPF_W, FRAME, KEY, 0),
        MOVE(R2, FRAME),
        ADD(R2, KEY),
        MAP(R1, wire->counts),
        CALL(BPF_FUNC_map_lookup_elem),
        IF_0(R0, 3),
        LOAD(BPF_DW, R3, R0, 0),
        ADD(R3, 1),
        STORE(BPF_DW, R0, 0, R3),
        SET(R0, XDP_DROP),
        EXIT,
    };
    return load(sink, sizeof sink / sizeof sink[0]);
}

static int attach(int program, unsigned interface)
{
    LIBBPF_OPTS(bpf_link_create_opts, options, .flags = XDP_FLAGS_DRV_MODE);
    return bpf_link_create(program, (int)interface, BPF_XDP, &options);
}

int wire_command(const char *command, struct sm_errbuf *error)
{
    if (system(command) == 0)
        return 0;
    snprintf(error->text, sizeof error->text, "failed: %.200s", command);
    return SM_E_STATE;
}

static int furnish(struct wire *wire, struct sm_errbuf *error)
{
    int result =
        wire_command("(ip link add name gen0 type veth peer name in0 && ip link add name out0 type veth peer name "
                     "sink0 && echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6 && for i in gen0 in0 out0 sink0; "
                     "do ip link set $i up; done) 2>/dev/null",
                     error);
    wire->gen0 = if_nametoindex("gen0");
    wire->in0 = if_nametoindex("in0");
    wire->sink0 = if_nametoindex("sink0");
    return result;
}

static int set_up_programs(struct wire *wire, uint32_t flows, struct sm_errbuf *error)
{
    wire->numbers = bpf_map_create(BPF_MAP_TYPE_ARRAY, "numbers", 4, 8, 1, NULL);
    wire->counts = bpf_map_create(BPF_MAP_TYPE_PERCPU_ARRAY, "counts", 4, 8, 1, NULL);
    wire->generate = load_generator(wire, flows);
    wire->sink = load_sink(wire);
    wire->sink_at = wire->sink >= 0 ? attach(wire->sink, wire->sink0) : -1;
    if (wire->generate >= 0 && wire->sink_at >= 0)
        return 0;
    snprintf(error->text, sizeof error->text, "the kernel takes no XDP program: %s", strerror(errno));
    return SM_E_STATE;
}

int wire_open(struct wire *wire, uint32_t flows, struct sm_errbuf *error)
{
    *wire = (struct wire){.home = -1, .numbers = -1, .generate = -1, .counts = -1, .sink = -1, .sink_at = -1};
    if (geteuid() != 0) {
        snprintf(error->text, sizeof error->text, "needs root, for a network namespace and XDP programs");
        return SM_E_PERMISSION;
    }
    wire->home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    if (wire->home < 0 || unshare(CLONE_NEWNET) != 0) {
        snprintf(error->text, sizeof error->text, "no network namespace: %s", strerror(errno));
        return SM_E_PERMISSION;
    }
    int result = furnish(wire, error);
    return result ? result : set_up_programs(wire, flows, error);
}

void wire_close(struct wire *wire)
{
    const int descriptors[] = {wire->numbers, wire->generate, wire->counts, wire->sink, wire->sink_at};

    wire_quiet(wire);
    for (unsigned i = 0; i < sizeof descriptors / sizeof descriptors[0]; i++)
        if (descriptors[i] >= 0)
            close(descriptors[i]);
    if (wire->home >= 0) {
        setns(wire->home, CLONE_NEWNET);
        close(wire->home);
    }
}

/* One call that does not come back: each of them takes the kernel long to begin. */
static void generate(const struct wire *wire)
{
    uint8_t data[WIRE_FRAME];
    struct xdp_md context = {.data_end = WIRE_FRAME, .ingress_ifindex = wire->gen0};
    LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = data, .data_size_in = sizeof data, .ctx_in = &context,
                .ctx_size_in = sizeof context, .repeat = INT32_MAX, .flags = BPF_F_TEST_XDP_LIVE_FRAMES,
                .batch_size = 64);

    memcpy(data, frame, sizeof data);
    bench_pin(1);
    while (bpf_prog_test_run_opts(wire->generate, &options) == 0)
        continue;
}

int wire_flood(struct wire *wire)
{
    pid_t parent = getpid();

    wire->generator = fork();
    if (wire->generator == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == parent)
            generate(wire);
        _exit(1);
    }
    return wire->generator > 0 ? 0 : SM_E_NO_MEMORY;
}

void wire_quiet(struct wire *wire)
{
    if (wire->generator <= 0)
        return;
    kill(wire->generator, SIGKILL);
    waitpid(wire->generator, NULL, 0);
    wire->generator = 0;
}

uint64_t wire_sunk(const struct wire *wire)
{
    uint64_t counts[256] = {0}, sum = 0;
    const uint32_t key = 0;
    const long cpus = sysconf(_SC_NPROCESSORS_CONF);

    if (cpus > 256 || bpf_map_lookup_elem(wire->counts, &key, counts) != 0)
        return 0;
    for (long i = 0; i < cpus; i++)
        sum += counts[i];
    return sum;
}

bool wire_is_measured(const struct wire *wire, uint64_t from, uint64_t begin, uint64_t now, double seconds)
{
    const double passed = (double)(now - begin);

    return passed >= seconds * 1e9 && (passed >= WIRE_PATIENCE_NS || wire_sunk(wire) > from);
}

int wire_shortcut(const struct wire *wire)
{
    return attach(wire->sink, wire->in0);
}
