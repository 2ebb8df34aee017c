/* SPDX-License-Identifier: BSD-2-Clause */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/units.h"
#include "ops.h"
#include "smctl.h"

#define UPGRADE_MS 120000 /* and the trial */

int cmd_upgrade(struct options *options)
{
    static const char expected[] = "upgrade --exec PROGRAM [--trial TIME | --no-rollback] [--args ARG...]";
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
    const char *trial = take_option(options, "--trial", &wrong);
    uint64_t trial_ns = OPS_TRIAL_MS * 1000000ull;
    for (int i = 1; i < options->argc; i++) {
        no_rollback |= strcmp(options->argv[i], "--no-rollback") == 0;
        wrong |= strcmp(options->argv[i], "--no-rollback") != 0;
    }
    if (wrong || !exec || (trial && no_rollback))
        return usage(options, expected);
    if (trial && (!unit_duration(trial, &trial_ns) || trial_ns > OPS_TRIAL_MOST_MS * 1000000ull))
        return fail(options, RPC_USAGE, "--trial: expected a time of at most 1 h such as 30s, or 0s, got '%s'", trial);
    /* The orchestrator may be elsewhere. */
    if (strchr(exec, '/') && realpath(exec, path))
        exec = path;
    struct wire_out *params = wire_new();
    wire_put_str(params, "exec", exec);
    wire_put_bool(params, "no_rollback", no_rollback);
    wire_put_uint(params, "trial_ms", trial_ns / 1000000);
    if (own_count > 0) {
        wire_array_begin(params, "args");
        for (int i = 1; i < own_count; i++)
            wire_put_str(params, NULL, own[i]);
        wire_array_end(params);
    }
    if (!options->timeout_ms)
        options->timeout_ms = UPGRADE_MS + trial_ns / 1000000;
    return operation(options, "upgrade", params, "upgrade");
}
