/* SPDX-License-Identifier: BSD-2-Clause */
#include <stdio.h>

#include "smctl.h"

int cmd_drain(struct options *options)
{
    char what[64];
    if (options->argc != 2)
        return usage(options, "drain R [--copy | --strategy S]");
    struct wire_out *params = wire_new();
    wire_put_str(params, "replica", options->argv[1]);
    snprintf(what, sizeof(what), "drain %.32s", options->argv[1]);
    return operation(options, "drain", params, what);
}
