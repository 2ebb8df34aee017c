/* SPDX-License-Identifier: BSD-2-Clause */
/* The original's fp_tcp.c, and a way to its signatures. */

#include "scratch.h"

#include "fp_tcp.c"

#include "note.h"

struct tcp_sig_record *tcp_signature(u8 to_srv, u32 opt_hash, u32 line)
{
    u32 bucket = opt_hash % SIG_BUCKETS;

    for (u32 i = 0; line && i < sig_cnt[to_srv][bucket]; i++)
        if (sigs[to_srv][bucket][i].line_no == line)
            return &sigs[to_srv][bucket][i];
    return NULL;
}
