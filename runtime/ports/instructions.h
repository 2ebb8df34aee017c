/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_PORTS_INSTRUCTIONS_H
#define SM_PORTS_INSTRUCTIONS_H

/* The kernel's instructions for small XDP programs, by names that read. Jumps skip so many of them. */

#include <linux/bpf.h>

enum { R0, R1, R2, R3, R4, R5, R6, FRAME = 10 };

#define INSN(operation, to, from, offset, value)                                                                       \
    {                                                                                                                  \
        .code = (operation), .dst_reg = (to), .src_reg = (from), .off = (offset), .imm = (value)                       \
    }
#define MOVE(to, from) INSN(BPF_ALU64 | BPF_MOV | BPF_X, to, from, 0, 0)
#define SET(to, value) INSN(BPF_ALU64 | BPF_MOV | BPF_K, to, 0, 0, value)
#define ADD(to, value) INSN(BPF_ALU64 | BPF_ADD | BPF_K, to, 0, 0, value)
#define LOAD(size, to, from, offset) INSN(BPF_LDX | BPF_MEM | (size), to, from, offset, 0)
#define STORE(size, to, offset, from) INSN(BPF_STX | BPF_MEM | (size), to, from, offset, 0)
#define BIG_ENDIAN_16(of) INSN(BPF_ALU | BPF_END | BPF_TO_BE, of, 0, 0, 16)
#define CALL(function) INSN(BPF_JMP | BPF_CALL, 0, 0, 0, function)
#define CALL_KERNEL(type) INSN(BPF_JMP | BPF_CALL, 0, BPF_PSEUDO_KFUNC_CALL, 0, type)
#define IF_NOT_0(of, skip) INSN(BPF_JMP | BPF_JNE | BPF_K, of, 0, skip, 0)
#define IF_GREATER(one, other, skip) INSN(BPF_JMP | BPF_JGT | BPF_X, one, other, skip, 0)
#define EXIT INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)
#define MAP(to, descriptor) INSN(BPF_LD | BPF_DW | BPF_IMM, to, BPF_PSEUDO_MAP_FD, 0, descriptor), INSN(0, 0, 0, 0, 0)
#define AND(to, value) INSN(BPF_ALU64 | BPF_AND | BPF_K, to, 0, 0, value)
#define BIG_ENDIAN_32(of) INSN(BPF_ALU | BPF_END | BPF_TO_BE, of, 0, 0, 32)
#define IF_0(of, skip) INSN(BPF_JMP | BPF_JEQ | BPF_K, of, 0, skip, 0)
#define STORE_VALUE(size, to, offset, value) INSN(BPF_ST | BPF_MEM | (size), to, 0, offset, value)

#endif
