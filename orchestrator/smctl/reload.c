/* SPDX-License-Identifier: BSD-2-Clause */
#include "smctl.h"

#define RELOAD_MS 120000

/*
 * The replicas' configuration is read when they start: so others are started, of the same program with the same
 * arguments, and take over, as in an upgrade. What they cannot start with is refused.
 */
int cmd_reload(struct options *options)
{
    if (options->argc != 1)
        return usage(options, "reload");
    struct wire_out *params = wire_new();
    wire_put_uint(params, "trial_ms", 0);
    if (!options->timeout_ms)
        options->timeout_ms = RELOAD_MS;
    return operation(options, "upgrade", params, "reload");
}
