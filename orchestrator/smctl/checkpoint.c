/* SPDX-License-Identifier: BSD-2-Clause */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "smctl.h"

#define CHECKPOINT_MS 600000

/* The switch has another working directory. */
static bool absolute(const char *file, char path[static PATH_MAX])
{
    char here[PATH_MAX];
    int length = file[0] == '/'                       ? snprintf(path, PATH_MAX, "%s", file)
                 : getcwd(here, sizeof(here)) == NULL ? PATH_MAX
                                                      : snprintf(path, PATH_MAX, "%s/%s", here, file);
    return length < PATH_MAX;
}

static int transfer(struct options *options, const char *method, const char *done)
{
    char path[PATH_MAX];
    json_t *result;
    if (options->argc != 2)
        return usage(options, method[0] == 'c' ? "checkpoint FILE" : "restore FILE");
    if (!absolute(options->argv[1], path))
        return fail(options, RPC_USAGE, "%s: the file's name is too long", method);
    struct wire_out *params = wire_new();
    wire_put_str(params, "file", path);
    int status = client_call(options, method, params, CHECKPOINT_MS, &result);
    if (status != 0)
        return status;
    if (options->json)
        return print_json(result);
    printf("%s: %" JSON_INTEGER_FORMAT " flows %s in %.1f ms\n", options->argv[1],
           json_integer_value(json_object_get(result, "flows")), done,
           json_number_value(json_object_get(result, "seconds")) * 1e3);
    json_decref(result);
    return 0;
}

int cmd_checkpoint(struct options *options)
{
    return transfer(options, "checkpoint", "written");
}

int cmd_restore(struct options *options)
{
    return transfer(options, "restore", "restored");
}
