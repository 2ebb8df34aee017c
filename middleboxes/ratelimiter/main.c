/* SPDX-License-Identifier: BSD-2-Clause */
/* sm-ratelimiter: a token-bucket rate limiter, as a replica of a service or alone. */

#include <splitmerge/splitmerge.h>

#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/units.h"
#include "limiter.h"
#include "policy.h"

enum { EXIT_DONE, EXIT_FAILED, EXIT_USAGE };

#define DLT_ETHERNET 1 /* libpcap's DLT_EN10MB, what --check compiles filters for */

static const char usage[] =
    "usage: sm-ratelimiter --policy FILE --in INPUT [--out OUTPUT] [options]\n"
    "       sm-ratelimiter --policy FILE --check\n"
    "\n"
    "Limits the rate of packets by token buckets. Alone it reads INPUT and writes what passes to OUTPUT: a capture\n"
    "file, \"-\", or interface:NAME. Started by a service (smctl run) it attaches to it.\n"
    "\n"
    "  --policy FILE   the limits (see sm-ratelimiter(1))\n"
    "  --in INPUT      where packets come from\n"
    "  --out OUTPUT    where they go; without it they are only watched\n"
    "  --report FILE   write a JSON report\n"
    "  --flows N       most buckets kept (default 4194304; k, M, G)\n"
    "  --memory SIZE   most memory for buckets (default 1GiB)\n"
    "  --check         check the policy, for Ethernet, and exit\n"
    "  --help, --version\n";

struct arguments {
    const char *policy;
    bool check;
    struct sm_options options;
};

static int fail(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

static int fail(int status, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    fputs("sm-ratelimiter: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    return status;
}

static bool parse_flows(const char *text, uint32_t *flows)
{
    uint64_t value;

    if (!unit_count(text, &value) || value < 1 || value > UINT32_MAX)
        return false;
    *flows = (uint32_t)value;
    return true;
}

/* Returns a negative value to go on, or an exit status. */
static int parse_option(struct arguments *arguments, int option)
{
    struct sm_options *options = &arguments->options;

    switch (option) {
    case 'p':
        arguments->policy = optarg;
        return -1;
    case 'i':
        options->input = optarg;
        return -1;
    case 'o':
        options->output = optarg;
        return -1;
    case 'r':
        options->report = optarg;
        return -1;
    case 'c':
        arguments->check = true;
        return -1;
    case 'f':
        return parse_flows(optarg, &options->max_flows)
                   ? -1
                   : fail(EXIT_USAGE, "--flows: expected a number such as 100000 or 4M, got '%s'", optarg);
    case 'm':
        return unit_size(optarg, &options->memory) && options->memory > 0
                   ? -1
                   : fail(EXIT_USAGE, "--memory: expected a size such as 512MiB, got '%s'", optarg);
    case 'h':
        fputs(usage, stdout);
        return EXIT_DONE;
    case 'v':
        puts("sm-ratelimiter " SPLITMERGE_VERSION);
        return EXIT_DONE;
    default:
        return EXIT_USAGE; /* getopt has said why */
    }
}

static int parse_arguments(struct arguments *arguments, int argc, char **argv)
{
    static const struct option names[] = {
        {"policy", required_argument, NULL, 'p'}, {"in", required_argument, NULL, 'i'},
        {"out", required_argument, NULL, 'o'},    {"report", required_argument, NULL, 'r'},
        {"flows", required_argument, NULL, 'f'},  {"memory", required_argument, NULL, 'm'},
        {"check", no_argument, NULL, 'c'},        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'v'},      {0},
    };
    static char name[] = "sm-ratelimiter";
    bool attached = getenv("SPLITMERGE_ATTACH") != NULL;
    int option, status;

    argv[0] = name; /* what getopt begins its messages with */
    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
        status = parse_option(arguments, option);
        if (status >= 0)
            return status;
    }
    if (optind < argc)
        return fail(EXIT_USAGE, "unexpected argument '%s' (see --help)", argv[optind]);
    if (!arguments->policy)
        return fail(EXIT_USAGE, "--policy is needed (see --help)");
    if (!arguments->check && !arguments->options.input && !attached)
        return fail(EXIT_USAGE, "--in is needed, unless a service starts this program (see --help)");
    return -1;
}

/* Whom SIGINT and SIGTERM end: only an interface is ended by them, what was read of a file would not be whole. */
static struct sm_replica *stoppable;

static void on_signal(int number)
{
    (void)number;
    sm_stop(stoppable);
}

static void stop_on_signals(struct sm_replica *replica, const char *input)
{
    struct sigaction action = {.sa_handler = on_signal};

    if (!sm_standalone(replica) || strncmp(input, "interface:", strlen("interface:")) != 0)
        return;
    stoppable = replica;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

/* From an open replica to the end of its packets. */
static int run(struct sm_replica *replica, struct policy *policy, struct limiter *limiter)
{
    struct sm_errbuf error = {{0}};
    int status;

    if (!policy_compile(policy, sm_linktype(replica), &error))
        return fail(EXIT_USAGE, "%s", error.text);
    status = limiter_register(limiter, replica);
    if (status < 0)
        return fail(EXIT_FAILED, "cannot register: %s", sm_strerror(status));
    status = sm_start(replica, &error);
    if (status == 0)
        status = limiter_started(limiter, replica, &error);
    if (status < 0)
        return fail(EXIT_FAILED, "%s", error.text[0] ? error.text : sm_strerror(status));
    status = sm_run(replica);
    if (status < 0)
        return fail(EXIT_FAILED, "%s", sm_last_error(replica));
    return EXIT_DONE;
}

static int open_and_run(const struct arguments *arguments, struct policy *policy)
{
    struct sm_options options = arguments->options;
    struct sm_errbuf error = {{0}};
    struct sm_replica *replica = NULL;
    struct limiter *limiter = limiter_create(policy);
    int status;

    if (!limiter)
        return fail(EXIT_FAILED, "%s", sm_strerror(SM_E_NO_MEMORY));
    options.user = limiter;
    status = sm_open(&replica, &options, &error);
    if (status < 0)
        status = fail(EXIT_FAILED, "%s", error.text[0] ? error.text : sm_strerror(status));
    else {
        stop_on_signals(replica, options.input);
        status = run(replica, policy, limiter);
    }
    if (stoppable) { /* there is nothing left to end well */
        signal(SIGINT, SIG_DFL);
        signal(SIGTERM, SIG_DFL);
    }
    sm_close(replica);
    limiter_destroy(limiter);
    return status;
}

int main(int argc, char **argv)
{
    struct arguments arguments = {
        .options = {.size = sizeof(struct sm_options), .name = "sm-ratelimiter", .on_packet = limiter_packet}};
    struct sm_errbuf error = {{0}};
    struct policy *policy;
    int status = parse_arguments(&arguments, argc, argv);

    if (status >= 0)
        return status;
    policy = policy_load(arguments.policy, &error);
    if (!policy)
        return fail(EXIT_USAGE, "%s", error.text);
    if (!arguments.check)
        status = open_and_run(&arguments, policy);
    else if (!policy_compile(policy, DLT_ETHERNET, &error))
        status = fail(EXIT_USAGE, "%s", error.text);
    else
        status = EXIT_DONE;
    policy_free(policy);
    return status;
}
