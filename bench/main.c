/* SPDX-License-Identifier: BSD-2-Clause */
/* sm-bench: what splitmerge can do on this machine, each figure beside its reference. */

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <splitmerge/version.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "html.h"

enum { EXIT_DONE, EXIT_FAILED, EXIT_USAGE };

static const char usage[] =
    "usage: sm-bench forward | move | failover | scale-out | scale-in | library | limits | state | coherent |\n"
    "                checkpoint | network | all | drl [options]\n"
    "\n"
    "  forward   packets a second through the switch and one replica, against a bare ring\n"
    "  move      moving all flows between two replicas while packets flow, against copying, OpenNF and FreeFlow\n"
    "  failover  a replica is killed while packets flow: until a survivor serves its flows\n"
    "  scale-out a replica becomes a hot spot: packet latency, moving flows against new flows only\n"
    "  scale-in  until a replica is empty, moving its flows against draining it\n"
    "  library   CPU time of a packet in the rate limiter, against the same limiter over a plain table\n"
    "  limits    packets a second with 10,000 limits against 10, and with one that replicas share\n"
    "  state     packets a second with the undo journal, against without; our table beside others\n"
    "  coherent  updates of eventual and strong counters, against plain and atomic increments\n"
    "  checkpoint  writing all flows to a file, against msgpack-c, and what packets notice of it\n"
    "  network   the rate limiter between two virtual links by AF_XDP, against bare AF_XDP, a bridge, Open vSwitch; "
    "root only\n"
    "  all       all of these\n"
    "  drl       the experiments of Distributed Rate Limiting (SIGCOMM 2007), simulated\n"
    "\n"
    "  --repeat N    measure so often and give medians (default 7)\n"
    "  --seconds S   one measurement's length (default 1)\n"
    "  --flows N     live flows (default 100000)\n"
    "  --seed N      of all that is random (default 1)\n"
    "  --quick       as little as possible: shows that it works, not what it can do\n"
    "  --report DIR  also write a page with plots to DIR, by gnuplot\n"
    "  --json        one JSON object\n"
    "  --help, --version\n"
    "\n"
    "Exit status: 0 measured (figures that miss their target are said), 1 could not measure, 2 usage.\n";

static const struct {
    const char *name;
    experiment_fn *run;
    bool apart; /* not one of `all`, and writes a page of its own */
} experiments[] = {
    {"forward", bench_forward, false},
    {"move", bench_move, false},
    {"failover", bench_failover, false},
    {"library", bench_library, false},
    {"scale-out", bench_scale_out, false},
    {"scale-in", bench_scale_in, false},
    {"limits", bench_limits, false},
    {"state", bench_state, false},
    {"coherent", bench_coherent, false},
    {"checkpoint", bench_checkpoint, false},
#ifdef SM_XDP
    {"network", bench_network, false},
#endif
    {"drl", bench_drl, true},
};

#define EXPERIMENTS (sizeof experiments / sizeof experiments[0])

static int usage_error(const char *what, const char *value)
{
    fprintf(stderr, "sm-bench: %s%s%s (see --help)\n", what, value ? ": " : "", value ? value : "");
    return EXIT_USAGE;
}

/* A number between two; false: it is not. */
static bool number(const char *text, double least, double most, double *value)
{
    char *end;

    *value = strtod(text, &end);
    return end != text && *end == '\0' && *value >= least && *value <= most;
}

/* One option. -1: go on; else an exit status. */
static int take_option(struct bench_options *options, int option)
{
    double value;

    switch (option) {
    case 'r':
        if (!number(optarg, 1, BENCH_MAX_REPEAT, &value))
            return usage_error("--repeat: expected 1 to 99", optarg);
        options->repeat = (unsigned)value;
        return -1;
    case 's':
        if (!number(optarg, 0.001, 3600, &options->seconds))
            return usage_error("--seconds: expected 0.001 to 3600", optarg);
        return -1;
    case 'f':
        if (!number(optarg, 1, 10000000, &value))
            return usage_error("--flows: expected 1 to 10000000", optarg);
        options->flows = (uint32_t)value;
        return -1;
    case 'S':
        if (!number(optarg, 1, 1e15, &value))
            return usage_error("--seed: expected 1 or more", optarg);
        options->seed = (uint64_t)value;
        return -1;
    case 'q':
        options->quick = true;
        options->repeat = 1;
        options->seconds = 0.01;
        options->flows = 1000;
        return -1;
    case 'p':
        options->report = optarg;
        return -1;
    case 'j':
        options->json = true;
        return -1;
    case 'h':
        fputs(usage, stdout);
        return EXIT_DONE;
    case 'v':
        printf("sm-bench %s\n", SPLITMERGE_VERSION);
        return EXIT_DONE;
    default:
        return EXIT_USAGE;
    }
}

static int say_failure(const char *what, int result, const struct sm_errbuf *error)
{
    fprintf(stderr, "sm-bench: %s: %s\n", what, error->text[0] ? error->text : sm_strerror(result));
    return EXIT_FAILED;
}

static void print(const struct bench_options *options, const struct report *report)
{
    if (!options->json) {
        report_print(report, options);
        return;
    }
    json_t *json = report_json(report, options);
    json_dumpf(json, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(json);
}

static int run(const struct bench_options *options, const char *name)
{
    static struct report report;
    struct sm_errbuf error = {{0}};
    bool page = options->report != NULL;
    int result = page ? html_prepare(options->report, &error) : 0, status = EXIT_DONE;

    if (result != 0)
        return say_failure(name, result, &error);
    report.parameters = json_object();
    for (unsigned i = 0; status == EXIT_DONE && i < EXPERIMENTS; i++) {
        if (strcmp(name, experiments[i].name) != 0 && (strcmp(name, "all") != 0 || experiments[i].apart))
            continue;
        if (isatty(STDERR_FILENO))
            fprintf(stderr, "sm-bench: measuring %s ...\n", experiments[i].name);
        page &= !experiments[i].apart;
        result = experiments[i].run(options, &report, &error);
        if (result == SM_E_PERMISSION && strcmp(name, "all") == 0) {
            fprintf(stderr, "sm-bench: %s is left out: %s\n", experiments[i].name, error.text);
            result = 0;
        }
        if (result != 0)
            status = say_failure(experiments[i].name, result, &error);
    }
    if (status == EXIT_DONE)
        print(options, &report);
    if (status == EXIT_DONE && page && (result = report_page(&report, options, &error)) != 0)
        status = say_failure(name, result, &error);
    for (unsigned i = 0; i < report.plot_count; i++)
        plot_free(&report.plots[i]);
    json_decref(report.parameters);
    return fflush(stdout) == 0 ? status : EXIT_FAILED;
}

/*
 * Linux shares the cores out among sessions first, so a benchmark in a session that also compiles measures the
 * compiler. Measure in a session of our own, and let it go first where we may.
 */
static int run_apart(const struct bench_options *options, const char *name)
{
    int status;
    pid_t parent = getpid(), child = fork();

    if (child < 0)
        return run(options, name);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(EXIT_FAILED);
        setsid();
        int group = open("/proc/self/autogroup", O_WRONLY | O_CLOEXEC);
        if (group >= 0 && write(group, "-20", 3) != 3)
            errno = 0; /* not ours to raise: the figures are noisier, that is all */
        if (group >= 0)
            close(group);
        exit(run(options, name));
    }
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return EXIT_FAILED;
    if (WIFSIGNALED(status))
        fprintf(stderr, "sm-bench: ended by signal %d\n", WTERMSIG(status));
    return WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILED;
}

int main(int argc, char **argv)
{
    static const struct option long_options[] = {
        {"repeat", required_argument, NULL, 'r'}, {"seconds", required_argument, NULL, 's'},
        {"flows", required_argument, NULL, 'f'},  {"seed", required_argument, NULL, 'S'},
        {"quick", no_argument, NULL, 'q'},        {"report", required_argument, NULL, 'p'},
        {"json", no_argument, NULL, 'j'},         {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'v'},      {NULL, 0, NULL, 0},
    };
    struct bench_options options = {.seconds = 1, .repeat = 7, .flows = 100000, .seed = 1};
    bool known = false;

    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, "", long_options, NULL)) != -1;) {
        int status = option == '?' ? usage_error("unknown option, or one without its value", argv[optind - 1])
                                   : take_option(&options, option);
        if (status >= 0)
            return status;
    }
    if (argc - optind != 1)
        return usage_error("expected forward, move, failover, scale-out, scale-in, library, limits, state, coherent, "
                           "checkpoint, all or drl",
                           argc > optind ? argv[optind + 1] : NULL);
    for (unsigned i = 0; i < EXPERIMENTS; i++)
        known |= strcmp(argv[optind], experiments[i].name) == 0;
    if (!known && strcmp(argv[optind], "all") != 0)
        return usage_error("expected forward, move, failover, scale-out, scale-in, library, limits, state, coherent, "
                           "checkpoint, all or drl, got",
                           argv[optind]);
    return run_apart(&options, argv[optind]);
}
