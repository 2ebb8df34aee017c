/* SPDX-License-Identifier: BSD-2-Clause */
#include "conf/command_line.h"

#include <getopt.h>

#include <splitmerge/version.h>

enum { HELP = 'h', VERSION = 'V', FIRST = 256 };

int command_line_read(struct command_line *line, int argc, char **argv, FILE *out, FILE *err)
{
    struct option names[COMMAND_LINE_OPTIONS + 3] = {{"help", no_argument, NULL, HELP},
                                                     {"version", no_argument, NULL, VERSION}};

    for (int i = 0; i < (int)COMMAND_LINE_OPTIONS && line->options[i].name; i++)
        names[2 + i] = (struct option){line->options[i].name, required_argument, NULL, FIRST + i};
    for (int option; (option = getopt_long(argc, argv, "h", names, NULL)) != -1;) {
        if (option == HELP) {
            fputs(line->usage, out);
            return 0;
        }
        if (option == VERSION) {
            fprintf(out, "%s " SPLITMERGE_VERSION "\n", line->program);
            return 0;
        }
        if (option < FIRST) {
            fputs(line->usage, err);
            return 2;
        }
        *line->options[option - FIRST].value = optarg;
    }
    if (argc - optind != 1) {
        fputs(line->usage, err);
        return 2;
    }
    line->operand = argv[optind];
    return -1;
}
