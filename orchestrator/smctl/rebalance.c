/* SPDX-License-Identifier: BSD-2-Clause */
#include "smctl.h"

int cmd_rebalance(struct options *options)
{
    if (options->argc != 1)
        return usage(options, "rebalance [--copy | --strategy S]");
    return operation(options, "rebalance", NULL, "rebalance");
}
