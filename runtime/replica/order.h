/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_REPLICA_ORDER_H
#define SM_REPLICA_ORDER_H

/*
 * What one replica has committed comes before what the switch gives another one after that. Between threads of one
 * process too (process.h), but ThreadSanitizer does not see it where the switch is another process: here it is told.
 * Nothing is told in the test kit, where it sees all of it.
 */

#include "replica/replica.h"

#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#define ORDER_TELL(replica, how)                                                                                       \
    do {                                                                                                               \
        if ((replica)->attachment)                                                                                     \
            how((replica)->arena);                                                                                     \
    } while (0)
/* Before a commit; after a look at what has been given. */
#define ORDER_BEFORE(replica) ORDER_TELL(replica, __tsan_release)
#define ORDER_AFTER(replica) ORDER_TELL(replica, __tsan_acquire)
#else
#define ORDER_BEFORE(replica)
#define ORDER_AFTER(replica)
#endif

#endif
