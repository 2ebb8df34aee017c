/* SPDX-License-Identifier: BSD-2-Clause */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "smctl.h"

#define UPGRADE_MS 120000

int cmd_upgrade(struct options *options)
{
    static const char expected[] = "upgrade --exec PROGRAM [--no-rollback] [--args ARG...]";
    char path[PATH_MAX];
    bool wrong = false, no_rollback = false;
    int args = 1;
    /* What follows --args is the program's. */
    while (args < options->argc && strcmp(options->argv[args], "--args") != 0)
        args++;
    char **own = options->argv + args;
    int own_count = options->argc - args;
    options->argc = args;
    const char *exec = take_option(options, "--exec", &wrong);
    for (int i = 1; i < options->argc; i++) {
        no_rollback |= strcmp(options->argv[i], "--no-rollback") == 0;
        wrong |= strcmp(options->argv[i], "--no-rollback") != 0;
    }
    if (wrong || !exec)
        return usage(options, expected);
    /* The orchestrator may be elsewhere. */
    if (strchr(exec, '/') && realpath(exec, path))
        exec = path;
    struct wire_out *params = wire_new();
    wire_put_str(params, "exec", exec);
    wire_put_bool(params, "no_rollback", no_rollback);
    if (own_count > 0) {
        wire_array_begin(params, "args");
        for (int i = 1; i < own_count; i++)
            wire_put_str(params, NULL, own[i]);
        wire_array_end(params);
    }
    if (!options->timeout_ms)
        options->timeout_ms = UPGRADE_MS;
    return operation(options, "upgrade", params, "upgrade");
}
