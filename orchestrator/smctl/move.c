/* SPDX-License-Identifier: BSD-2-Clause */
#include <stdio.h>

#include "smctl.h"

/* The selector may be one word or several, as for tcpdump. */
int cmd_move(struct options *options)
{
    bool wrong = false;
    char selector[4096], what[64];
    size_t at = 0;
    const char *to = take_option(options, "--to", &wrong);
    if (wrong || !to || options->argc < 2)
        return usage(options, "move SELECTOR --to R [--copy | --strategy S]");
    for (int i = 1; i < options->argc && at < sizeof(selector); i++)
        at += (size_t)snprintf(selector + at, sizeof(selector) - at, "%s%s", i > 1 ? " " : "", options->argv[i]);
    if (at >= sizeof(selector))
        return fail(options, RPC_USAGE, "move: the selector is too long");
    struct wire_out *params = wire_new();
    wire_put_str(params, "selector", selector);
    wire_put_str(params, "to", to);
    snprintf(what, sizeof(what), "move to %.32s", to);
    return operation(options, "move", params, what);
}
