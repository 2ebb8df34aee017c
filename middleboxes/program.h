/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef MIDDLEBOXES_PROGRAM_H
#define MIDDLEBOXES_PROGRAM_H

/* The command line that our middleboxes have in common, and their way from it to the end of their packets. */

#include <splitmerge/splitmerge.h>

struct program {
    const char *name;   /* of the program, without a folder */
    const char *config; /* the option that names its configuration, without dashes */
    const char *log;    /* the option that names a file for its lines, likewise; NULL: there is none */
    const char *usage;  /* for --help */
    sm_packet_fn *on_packet;
    unsigned max_sends;
    bool delays;
    bool reloads; /* standalone, SIGHUP has it read its configuration anew */
    bool threads; /* several replicas may run in one process, each with a configuration of its own */
    /* Read the configuration; NULL: *error says why. */
    void *(*load)(const char *file, struct sm_errbuf *error);
    void (*unload)(void *config); /* may be NULL */
    /* Where `log` is: open its file ("-" where the option is not given). False: *error says why. */
    bool (*open_log)(void *config, const char *file, struct sm_errbuf *error);
    /* Whether it holds for a link type (DLT_*); may be NULL. */
    bool (*check)(void *config, int linktype, struct sm_errbuf *error);
    /* What is handed to on_packet; NULL: out of memory. Where there is no such function the configuration is. */
    void *(*create)(void *config);
    void (*destroy)(void *middlebox); /* may be NULL */
    /* Before sm_start(); after it (may be NULL). */
    int (*setup)(void *middlebox, struct sm_replica *replica);
    int (*started)(void *middlebox, struct sm_replica *replica, struct sm_errbuf *error);
    /* Before the replica is closed; may be NULL. */
    void (*ended)(void *middlebox);
};

/* All of main(): returns the exit status. 0: done; 1: failed, a line on stderr says why; 2: usage or configuration. */
int program_main(const struct program *program, int argc, char **argv);

#endif
