/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_REFERENCES_SERVERS_H
#define SM_BENCH_REFERENCES_SERVERS_H

/* Programs that are somebody else's, started for a measurement, and their files in a folder that goes with them. */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Whether commands are installed; `names`: with blanks between. */
bool servers_installed(const char *names);

/* A folder under /tmp; its name to `folder`, which has room for 32 bytes. */
bool servers_folder(char *folder);
void servers_remove(const char *folder);

/* A file in it, as printf() would write it. */
__attribute__((format(printf, 3, 4))) bool servers_file(const char *folder, const char *name, const char *format, ...);

/*
 * A command for sh, quiet, on core 0 or 1, in a network namespace (its descriptor; -1: ours). It ends with us. Its
 * process, or -1.
 */
pid_t server_start(const char *command, unsigned core, int space);

/* False: it ended with another status than 0. */
bool server_wait(pid_t pid);

void server_end(pid_t pid);

#endif
