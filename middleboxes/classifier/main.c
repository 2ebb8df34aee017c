/* SPDX-License-Identifier: BSD-2-Clause */
/* sm-classifier: what is spoken on each flow, as a replica of a service or alone. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "classifier.h"
#include "program.h"

static const char usage[] =
    "usage: sm-classifier --log FILE --in INPUT [--out OUTPUT] [options]\n"
    "\n"
    "Says of each flow which protocol and application it is, by nDPI: one line of JSON when that is known. Alone it\n"
    "reads INPUT: a capture file, \"-\", or interface:NAME. Started by a service (smctl run) it attaches to it.\n"
    "\n"
    "  --log FILE      where lines are appended; \"-\": standard output\n"
    "  --in INPUT      where packets come from\n"
    "  --out OUTPUT    where they go; without it they are only watched\n"
    "  --report FILE   write a JSON report\n"
    "  --flows N       most flows kept (default 4194304; k, M, G)\n"
    "  --memory SIZE   most memory for flows (default 1GiB)\n"
    "  --check         check that the log can be written and exit\n"
    "  --help, --version\n";

static void *load(const char *file, struct sm_errbuf *error)
{
    int *log = malloc(sizeof *log);

    if (!log) {
        snprintf(error->text, sizeof error->text, "%s", sm_strerror(SM_E_NO_MEMORY));
        return NULL;
    }
    *log = strcmp(file, "-") == 0 ? dup(STDOUT_FILENO) : open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (*log < 0) {
        snprintf(error->text, sizeof error->text, "--log %s: %s", file, strerror(errno));
        free(log);
        return NULL;
    }
    return log;
}

static void unload(void *log)
{
    close(*(int *)log);
    free(log);
}

static void *create(void *log)
{
    struct sm_errbuf error = {""};
    struct classifier *classifier = classifier_create(*(int *)log, &error);

    if (!classifier)
        fprintf(stderr, "sm-classifier: %s\n", error.text);
    return classifier;
}

static void destroy(void *classifier)
{
    classifier_destroy(classifier);
}

static int setup(void *classifier, struct sm_replica *replica)
{
    return classifier_register(classifier, replica);
}

int main(int argc, char **argv)
{
    static const struct program program = {.name = "sm-classifier",
                                           .config = "log",
                                           .usage = usage,
                                           .on_packet = classifier_packet,
                                           .load = load,
                                           .unload = unload,
                                           .create = create,
                                           .destroy = destroy,
                                           .setup = setup};

    return program_main(&program, argc, argv);
}
