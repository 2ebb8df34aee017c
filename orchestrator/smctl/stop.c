/* SPDX-License-Identifier: BSD-2-Clause */
#include "smctl.h"

int cmd_stop(struct options *options)
{
    struct client *client;
    json_t *result;
    if (options->argc != 1)
        return usage(options, "stop");
    int status = client_open(&client, options);
    if (status != 0)
        return status;
    status = client_ask(client, "stop", NULL, options->timeout_ms ? options->timeout_ms : 5000, NULL, NULL, &result);
    client_close(client);
    if (status == 0 && options->json)
        return print_json(result);
    json_decref(result);
    return status;
}
