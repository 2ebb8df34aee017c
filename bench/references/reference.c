/* SPDX-License-Identifier: BSD-2-Clause */
#include "references/reference.h"

#include <stdio.h>
#include <stdlib.h>

bool reference_options(int argc, char **argv, struct reference_options *options)
{
    if (argc != 4) {
        fprintf(stderr, "usage: %s FLOWS SECONDS SEED (sm-bench starts it)\n", argv[0]);
        return false;
    }
    options->flows = (uint32_t)strtoul(argv[1], NULL, 10);
    options->seconds = strtod(argv[2], NULL);
    options->seed = strtoull(argv[3], NULL, 10);
    return true;
}

void reference_ready(const char *missing)
{
    puts(missing ? missing : "ready");
    fflush(stdout);
}

bool reference_asked(void)
{
    int byte;

    while ((byte = getchar()) != EOF)
        if (byte == '\n')
            return true;
    return false;
}

void reference_answer(const double *values, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        printf("%.9g ", values[i]);
    putchar('\n');
    fflush(stdout);
}
