/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Overview. The program that the kernel runs on each packet that comes in: redirect it to the socket of its queue. It
 * is small enough to be written as instructions, so that no compiler for them is needed.
 *
 * Life-cycle. load (map of sockets, program) -> the caller enters its sockets in the map -> attach -> unload. A link
 * holds the program on the interface; it is a descriptor, which the kernel closes with the process.
 *
 * Limits. VLAN tags travel beside the packet where a driver or a sender's virtual link takes them off. In native mode a
 * kernel from 6.8 on gives them to a program that is bound to its interface.
 */
#include "ports/instructions.h"
#include "ports/xdp.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/if_link.h>
#include <unistd.h>

#ifndef BPF_F_XDP_DEV_BOUND_ONLY
#define BPF_F_XDP_DEV_BOUND_ONLY (1u << 6)
#endif

enum { PROTOCOL = -2, TAG = -4 }; /* on the stack: where the kernel puts a tag's two halves */

static int load(const struct bpf_insn *instructions, size_t count, unsigned ifindex, unsigned flags)
{
    LIBBPF_OPTS(bpf_prog_load_opts, options, .prog_flags = flags, .prog_ifindex = ifindex,
                .expected_attach_type = BPF_XDP);
    return bpf_prog_load(BPF_PROG_TYPE_XDP, "sm_port", "Dual BSD/GPL", instructions, count, &options);
}

/* With whole frames in several parts when the kernel knows them (from 5.18 on). */
static int load_plain(int map)
{
    const struct bpf_insn redirect[] = {
        LOAD(BPF_W, R2, R1, offsetof(struct xdp_md, rx_queue_index)),
        MAP(R1, map),
        SET(R3, XDP_PASS),
        CALL(BPF_FUNC_redirect_map),
        EXIT,
    };
    const size_t count = sizeof redirect / sizeof redirect[0];
    int program = load(redirect, count, 0, BPF_F_XDP_HAS_FRAGS);
    return program >= 0 ? program : load(redirect, count, 0, 0);
}

/* The same, and before it: a tag that was taken off goes back between the addresses and the type. */
static int load_tagging(int map, unsigned ifindex, int kernel_function)
{
    const struct bpf_insn redirect[] = {
        MOVE(R6, R1),
        STORE_VALUE(BPF_W, FRAME, TAG, 0),
        MOVE(R2, FRAME),
        ADD(R2, PROTOCOL),
        MOVE(R3, FRAME),
        ADD(R3, TAG),
        CALL_KERNEL(kernel_function),
        IF_NOT_0(R0, 20), /* there is none */
        MOVE(R1, R6),
        SET(R2, -4),
        CALL(BPF_FUNC_xdp_adjust_head),
        IF_NOT_0(R0, 22), /* no room: lost, and counted by the kernel */
        LOAD(BPF_W, R2, R6, offsetof(struct xdp_md, data)),
        LOAD(BPF_W, R3, R6, offsetof(struct xdp_md, data_end)),
        MOVE(R4, R2),
        ADD(R4, 18),
        IF_GREATER(R4, R3, 17),
        LOAD(BPF_W, R5, R2, 4), /* the addresses, 12 bytes, move forward by 4 */
        STORE(BPF_W, R2, 0, R5),
        LOAD(BPF_W, R5, R2, 8),
        STORE(BPF_W, R2, 4, R5),
        LOAD(BPF_W, R5, R2, 12),
        STORE(BPF_W, R2, 8, R5),
        LOAD(BPF_H, R5, FRAME, PROTOCOL),
        STORE(BPF_H, R2, 12, R5),
        LOAD(BPF_H, R5, FRAME, TAG),
        BIG_ENDIAN_16(R5),
        STORE(BPF_H, R2, 14, R5),
        LOAD(BPF_W, R2, R6, offsetof(struct xdp_md, rx_queue_index)),
        MAP(R1, map),
        SET(R3, XDP_PASS),
        CALL(BPF_FUNC_redirect_map),
        EXIT,
        SET(R0, XDP_ABORTED),
        EXIT,
    };
    return load(redirect, sizeof redirect / sizeof redirect[0], ifindex,
                BPF_F_XDP_DEV_BOUND_ONLY | BPF_F_XDP_HAS_FRAGS);
}

/* The kernel's type of its function that gives tags to programs; negative: it has none. */
static int tag_function(void)
{
    struct btf *kernel = btf__load_vmlinux_btf();
    int found = kernel != NULL ? btf__find_by_name_kind(kernel, "bpf_xdp_metadata_rx_vlan_tag", BTF_KIND_FUNC) : -1;
    btf__free(kernel);
    return found;
}

int sm_xdp_program_load(struct sm_xdp_program *program, unsigned ifindex, unsigned queues, bool native)
{
    *program = (struct sm_xdp_program){.map = -1, .program = -1, .link = -1};
    program->map = bpf_map_create(BPF_MAP_TYPE_XSKMAP, "sm_port", sizeof(int), sizeof(int), queues, NULL);
    if (program->map < 0)
        return -errno;
    int function = native ? tag_function() : -1;
    if (function > 0)
        program->program = load_tagging(program->map, ifindex, function);
    program->tags = program->program >= 0;
    if (!program->tags)
        program->program = load_plain(program->map);
    return program->program >= 0 ? 0 : -errno;
}

int sm_xdp_program_attach(struct sm_xdp_program *program, unsigned ifindex, bool native)
{
    LIBBPF_OPTS(bpf_link_create_opts, options, .flags = native ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE);
    program->link = bpf_link_create(program->program, (int)ifindex, BPF_XDP, &options);
    return program->link >= 0 ? 0 : -errno;
}

void sm_xdp_program_unload(struct sm_xdp_program *program)
{
    const int descriptors[] = {program->link, program->program, program->map};
    for (unsigned i = 0; i < 3; i++)
        if (descriptors[i] >= 0)
            close(descriptors[i]);
    *program = (struct sm_xdp_program){.map = -1, .program = -1, .link = -1};
}
