/* SPDX-License-Identifier: BSD-2-Clause */
/* sm-ratelimiter: a token-bucket rate limiter, as a replica of a service or alone. */

#include "limiter.h"
#include "policy.h"
#include "program.h"

static const char usage[] =
    "usage: sm-ratelimiter --policy FILE --in INPUT [--out OUTPUT] [options]\n"
    "       sm-ratelimiter --policy FILE --check\n"
    "\n"
    "Limits the rate of packets by token buckets. Alone it reads INPUT and writes what passes to OUTPUT: a capture\n"
    "file, \"-\", or interface:NAME. Started by a service (smctl run) it attaches to it. SIGHUP has it read the\n"
    "policy anew; a wrong one is refused, and the old one stays.\n"
    "\n"
    "  --policy FILE   the limits (see sm-ratelimiter(1))\n"
    "  --in INPUT      where packets come from\n"
    "  --out OUTPUT    where they go; without it they are only watched\n"
    "  --report FILE   write a JSON report\n"
    "  --flows N       most buckets kept (default 4194304; k, M, G)\n"
    "  --memory SIZE   most memory for buckets (default 1GiB)\n"
    "  --check         check the policy, for Ethernet, and exit\n"
    "  --help, --version\n";

static void *load(const char *file, struct sm_errbuf *error)
{
    return policy_load(file, error);
}

static void unload(void *policy)
{
    policy_free(policy);
}

static bool check(void *policy, int linktype, struct sm_errbuf *error)
{
    return policy_compile(policy, linktype, error);
}

static void *create(void *policy)
{
    return limiter_create(policy);
}

static void destroy(void *limiter)
{
    limiter_destroy(limiter);
}

static int setup(void *limiter, struct sm_replica *replica)
{
    return limiter_register(limiter, replica);
}

static int started(void *limiter, struct sm_replica *replica, struct sm_errbuf *error)
{
    return limiter_started(limiter, replica, error);
}

static void ended(void *limiter)
{
    limiter_detach(limiter);
}

int main(int argc, char **argv)
{
    static const struct program program = {.name = "sm-ratelimiter",
                                           .config = "policy",
                                           .usage = usage,
                                           .on_packet = limiter_packet,
                                           .delays = true,
                                           .reloads = true,
                                           .threads = true,
                                           .load = load,
                                           .unload = unload,
                                           .check = check,
                                           .create = create,
                                           .destroy = destroy,
                                           .setup = setup,
                                           .started = started,
                                           .ended = ended};

    return program_main(&program, argc, argv);
}
