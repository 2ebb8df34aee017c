/* SPDX-License-Identifier: BSD-2-Clause */
/* The original's fp_http.c, and a way to its signatures. */

#define _FROM_FP_HTTP /* as the file itself does before it includes what scratch.h does */
#include "scratch.h"

#include "fp_http.c"

#include "note.h"

struct http_sig_record *http_signature(u8 to_srv, u32 line)
{
    for (u32 i = 0; line && i < sig_cnt[to_srv]; i++)
        if (sigs[to_srv][i].line_no == line)
            return &sigs[to_srv][i];
    return NULL;
}

void http_apply(u8 to_srv, struct packet_flow *f)
{
    u32 count = sig_cnt[to_srv];

    sig_cnt[to_srv] = 0; /* it has been matched: there is nothing to match it by any more */
    fingerprint_http(to_srv, f);
    sig_cnt[to_srv] = count;
}
