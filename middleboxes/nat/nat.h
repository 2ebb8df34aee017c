/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef NAT_NAT_H
#define NAT_NAT_H

/* The address translator as a middlebox: its flow class and what it does with a packet. */

#include <splitmerge/splitmerge.h>

#include "config.h"

#define NAT_SENDS 1 /* a command whose length changes is sent anew */

struct nat;

/* `config` stays the caller's and must outlive it. NULL: out of memory. */
struct nat *nat_create(const struct nat_config *config);
void nat_destroy(struct nat *nat);

/* Register the class and the drop reasons; between sm_open() and sm_start(). 0 or an error of the runtime. */
int nat_register(struct nat *nat, struct sm_replica *replica);

/* The packet handler; `user` is the nat. */
sm_packet_fn nat_packet;

#endif
