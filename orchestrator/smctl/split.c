/* SPDX-License-Identifier: BSD-2-Clause */
#include <stdio.h>

#include "smctl.h"

int cmd_split(struct options *options)
{
    bool wrong = false;
    char what[64];
    const char *into = take_option(options, "--into", &wrong);
    if (wrong || options->argc != 2)
        return usage(options, "split R [--into R2] [--copy | --strategy S]");
    struct wire_out *params = wire_new();
    wire_put_str(params, "replica", options->argv[1]);
    if (into)
        wire_put_str(params, "into", into);
    snprintf(what, sizeof(what), "split %.32s", options->argv[1]);
    return operation(options, "split", params, what);
}
