/* SPDX-License-Identifier: BSD-2-Clause */
/* sm-ids: signatures over streams and packets, as a replica of a service or alone. */
#include <stdio.h>
#include <stdlib.h>

#include "ids.h"
#include "program.h"

static const char usage[] =
    "usage: sm-ids --rules FILE [--log FILE] --in INPUT [--out OUTPUT] [options]\n"
    "       sm-ids --rules FILE --check\n"
    "\n"
    "Looks for the contents of rules in TCP streams, and in packets of UDP, ICMP and others, and writes a line of "
    "JSON\n"
    "for each alert. Alone it reads INPUT: a capture file, \"-\", or interface:NAME. Started by a service (smctl run) "
    "it\n"
    "attaches to it. Packets pass unchanged.\n"
    "\n"
    "  --rules FILE    rules in a subset of Suricata's language (see sm-ids(1))\n"
    "  --log FILE      where lines go, a file that is begun anew; \"-\": standard output (default)\n"
    "  --in INPUT      where packets come from\n"
    "  --out OUTPUT    where they go; without it they are only watched\n"
    "  --report FILE   write a JSON report\n"
    "  --flows N       most TCP connections kept (default 4194304; k, M, G)\n"
    "  --memory SIZE   most memory for them (default 1GiB)\n"
    "  --check         check the rules and exit\n"
    "  --help, --version\n";

struct config {
    struct rules *rules;
    struct engine *engine;
    struct lines log;
};

static void unload(void *config)
{
    struct config *loaded = config;

    lines_close(&loaded->log);
    engine_destroy(loaded->engine);
    rules_destroy(loaded->rules);
    free(loaded);
}

static void *load(const char *file, struct sm_errbuf *error)
{
    struct config *config = calloc(1, sizeof *config);

    if (!config) {
        snprintf(error->text, sizeof error->text, "%s", sm_strerror(SM_E_NO_MEMORY));
        return NULL;
    }
    config->log.fd = -1;
    config->rules = rules_load(file, error);
    config->engine = config->rules ? engine_create(config->rules, error) : NULL;
    if (config->engine)
        return config;
    unload(config);
    return NULL;
}

static bool open_log(void *config, const char *file, struct sm_errbuf *error)
{
    return lines_open(&((struct config *)config)->log, file, error);
}

static void *create(void *config)
{
    struct config *loaded = config;
    return ids_create(loaded->engine, &loaded->log);
}

static void destroy(void *ids)
{
    ids_destroy(ids);
}

static int setup(void *ids, struct sm_replica *replica)
{
    return ids_register(ids, replica);
}

int main(int argc, char **argv)
{
    static const struct program program = {.name = "sm-ids",
                                           .config = "rules",
                                           .log = "log",
                                           .usage = usage,
                                           .on_packet = ids_packet,
                                           .load = load,
                                           .unload = unload,
                                           .open_log = open_log,
                                           .create = create,
                                           .destroy = destroy,
                                           .setup = setup};

    return program_main(&program, argc, argv);
}
