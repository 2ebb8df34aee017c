/* SPDX-License-Identifier: BSD-2-Clause */
#include <stdio.h>

#include "conf/units.h"
#include "smctl.h"

int cmd_scale(struct options *options)
{
    uint64_t count;
    char what[64];
    if (options->argc != 2 || !unit_count(options->argv[1], &count))
        return usage(options, "scale N [--copy | --strategy S]");
    struct wire_out *params = wire_new();
    wire_put_uint(params, "replicas", count);
    snprintf(what, sizeof(what), "scale %.32s", options->argv[1]);
    return operation(options, "scale", params, what);
}
