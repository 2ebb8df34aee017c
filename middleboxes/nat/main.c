/* SPDX-License-Identifier: BSD-2-Clause */
/* sm-nat: source address translation, as a replica of a service or alone. */

#include <stdlib.h>

#include "nat.h"
#include "program.h"

static const char usage[] =
    "usage: sm-nat --config FILE --in INPUT [--out OUTPUT] [options]\n"
    "       sm-nat --config FILE --check\n"
    "\n"
    "Gives inside hosts outside addresses and ports. Alone it reads INPUT and writes to OUTPUT: a capture file, \"-\", "
    "or\n"
    "interface:NAME; between two interfaces both ways. Started by a service (smctl run) it attaches to it.\n"
    "\n"
    "  --config FILE   who is inside, and the outside addresses (see sm-nat(1))\n"
    "  --in INPUT      where packets come from\n"
    "  --out OUTPUT    where they go; without it they are only watched\n"
    "  --report FILE   write a JSON report\n"
    "  --flows N       most sessions kept (default 4194304; k, M, G)\n"
    "  --memory SIZE   most memory for sessions (default 1GiB)\n"
    "  --check         check the configuration and exit\n"
    "  --help, --version\n";

static void *load(const char *file, struct sm_errbuf *error)
{
    return nat_config_load(file, error);
}

static void *create(void *config)
{
    return nat_create(config);
}

static void destroy(void *nat)
{
    nat_destroy(nat);
}

static int setup(void *nat, struct sm_replica *replica)
{
    return nat_register(nat, replica);
}

int main(int argc, char **argv)
{
    static const struct program program = {.name = "sm-nat",
                                           .config = "config",
                                           .usage = usage,
                                           .on_packet = nat_packet,
                                           .max_sends = NAT_SENDS,
                                           .load = load,
                                           .unload = free,
                                           .create = create,
                                           .destroy = destroy,
                                           .setup = setup};

    return program_main(&program, argc, argv);
}
