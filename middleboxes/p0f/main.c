/* SPDX-License-Identifier: BSD-2-Clause */
/* sm-p0f and sm-p0f-hosts (P0F_HOSTS): the two services that p0f is, each as a replica of a service or alone. */

#include <errno.h>
#include <unistd.h>

#include "note.h"
#include "program.h"

#ifdef P0F_HOSTS
#define NAME "sm-p0f-hosts"
#define PACKET hosts_packet
#define SETUP hosts_setup
#define WHAT "Reads what sm-p0f writes, and adds to it what is to be said of hosts."
#else
#define NAME "sm-p0f"
#define PACKET flows_packet
#define SETUP flows_setup
#define WHAT "Fingerprints TCP and HTTP. What it writes is for sm-p0f-hosts, which says what is to be said of hosts."
#endif

static const char usage[] =
    "usage: " NAME " --fingerprints FILE --in INPUT --out OUTPUT [options]\n"
    "\n" WHAT "\n"
    "INPUT, OUTPUT: a capture file, \"-\", or interface:NAME. Started by a service (smctl run) it attaches to it.\n"
    "\n"
    "  --fingerprints FILE  p0f's database (p0f.fp), the same for all replicas\n"
    "  --in INPUT, --out OUTPUT\n"
    "  --report FILE        write a JSON report\n"
    "  --flows N            most connections or hosts kept (default 4194304; k, M, G)\n"
    "  --memory SIZE        most memory for them (default 1GiB)\n"
    "  --check              check the database and exit\n"
    "  --help, --version\n";

static void *load(const char *file, struct sm_errbuf *error)
{
    if (access(file, R_OK) != 0) {
        snprintf(error->text, sizeof error->text, "%s: %s", file, strerror(errno));
        return NULL;
    }
    fingerprints_load(file);
    return (void *)usage;
}

static void unload(void *config)
{
    (void)config;
}

static void *create(void *config)
{
    return config;
}

int main(int argc, char **argv)
{
    static const struct program program = {.name = NAME,
                                           .config = "fingerprints",
                                           .usage = usage,
                                           .on_packet = PACKET,
                                           .max_sends = NOTE_SENDS,
                                           .load = load,
                                           .unload = unload,
                                           .create = create,
                                           .destroy = unload,
                                           .setup = SETUP};

    return program_main(&program, argc, argv);
}
