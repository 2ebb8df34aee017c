/* SPDX-License-Identifier: BSD-2-Clause */
#include <stdio.h>

#include "smctl.h"

int cmd_merge(struct options *options)
{
    bool wrong = false;
    char what[64];
    const char *into = take_option(options, "--into", &wrong);
    if (wrong || !into || options->argc != 2)
        return usage(options, "merge R --into R2 [--copy | --strategy S]");
    struct wire_out *params = wire_new();
    wire_put_str(params, "replica", options->argv[1]);
    wire_put_str(params, "into", into);
    snprintf(what, sizeof(what), "merge %.16s into %.16s", options->argv[1], into);
    return operation(options, "merge", params, what);
}
