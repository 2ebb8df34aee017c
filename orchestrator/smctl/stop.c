/* SPDX-License-Identifier: BSD-2-Clause */
#include "smctl.h"

int cmd_stop(struct options *options)
{
    json_t *result;
    if (options->argc != 1)
        return usage(options, "stop");
    int status = client_call(options, "stop", NULL, 5000, &result);
    if (status == 0 && options->json)
        return print_json(result);
    json_decref(result);
    return status;
}
