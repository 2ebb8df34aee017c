/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_CONF_COMMAND_LINE_H
#define SM_CONF_COMMAND_LINE_H

/* The command line of a program that takes options with a value each, --help, --version and one operand. */

#include <stdio.h>

#define COMMAND_LINE_OPTIONS 8u

struct command_option {
    const char *name;   /* without dashes */
    const char **value; /* set to what was given; stays as it is when nothing was */
};

struct command_line {
    const char *program, *usage; /* usage: whole lines */
    struct command_option options[COMMAND_LINE_OPTIONS];
    const char *operand; /* what was given */
};

/*
 * Read it. -1: go on, the operand and the values point into `argv`. Else an exit status: 0, what was asked for (usage,
 * version) went to `out`; 2, wrong use, `err` has the usage.
 */
int command_line_read(struct command_line *line, int argc, char **argv, FILE *out, FILE *err);

#endif
