/* SPDX-License-Identifier: BSD-2-Clause */

#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/units.h"
#include "daemon/log.h"
#include "program.h"

enum { EXIT_DONE, EXIT_FAILED, EXIT_USAGE };

#define DLT_ETHERNET 1 /* libpcap's DLT_EN10MB, what --check compiles filters for */

static _Thread_local const char *replica_name; /* as sm_threads() has it; NULL: the process has one, or is standalone */

struct arguments {
    const struct program *program;
    const char *config;
    const char *log;
    bool check;
    struct sm_options options;
};

static int fail(const struct program *program, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int fail(const struct program *program, int status, const char *format, ...)
{
    char reason[LOG_MESSAGE];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(reason, sizeof reason, format, arguments);
    va_end(arguments);
    if (getenv("SPLITMERGE_ATTACH"))
        log_write(LEVEL_ERROR, "failed",
                  LOG_WITH(log_text("replica", replica_name ? replica_name : getenv("SPLITMERGE_REPLICA"))), "%s",
                  reason);
    else
        fprintf(stderr, "%s: %s\n", program->name, reason);
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
    const struct program *program = arguments->program;
    struct sm_options *options = &arguments->options;

    switch (option) {
    case 'p':
        arguments->config = optarg;
        return -1;
    case 'l':
        arguments->log = optarg;
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
                   : fail(program, EXIT_USAGE, "--flows: expected a number such as 100000 or 4M, got '%s'", optarg);
    case 'm':
        return unit_size(optarg, &options->memory) && options->memory > 0
                   ? -1
                   : fail(program, EXIT_USAGE, "--memory: expected a size such as 512MiB, got '%s'", optarg);
    case 'h':
        fputs(program->usage, stdout);
        return EXIT_DONE;
    case 'v':
        printf("%s " SPLITMERGE_VERSION "\n", program->name);
        return EXIT_DONE;
    default:
        return EXIT_USAGE; /* getopt has said why */
    }
}

static int parse_arguments(struct arguments *arguments, int argc, char **argv)
{
    const struct program *program = arguments->program;
    const struct option names[] = {
        {program->config, required_argument, NULL, 'p'},
        {"in", required_argument, NULL, 'i'},
        {"out", required_argument, NULL, 'o'},
        {"report", required_argument, NULL, 'r'},
        {"flows", required_argument, NULL, 'f'},
        {"memory", required_argument, NULL, 'm'},
        {"check", no_argument, NULL, 'c'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'v'},
        {program->log, required_argument, NULL, 'l'}, /* NULL: the end */
        {0},
    };
    bool attached = getenv("SPLITMERGE_ATTACH") != NULL;
    int option, status;

    char name[32];
    snprintf(name, sizeof name, "%s", program->name);
    argv[0] = name; /* what getopt begins its messages with */
    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
        status = parse_option(arguments, option);
        if (status >= 0)
            return status;
    }
    if (optind < argc)
        return fail(program, EXIT_USAGE, "unexpected argument '%s' (see --help)", argv[optind]);
    if (!arguments->config)
        return fail(program, EXIT_USAGE, "--%s is needed (see --help)", program->config);
    if (!arguments->check && !arguments->options.input && !attached)
        return fail(program, EXIT_USAGE, "--in is needed, unless a service starts this program (see --help)");
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

/* A configuration that is wrong: whoever has started this program for a service is told, too. */
static int decline(const struct program *program, struct sm_replica *replica, const char *why)
{
    sm_decline(replica, why);
    return fail(program, EXIT_USAGE, "%s", why);
}

/* The same where there is no replica yet. */
static void decline_early(const struct arguments *arguments, const char *why)
{
    struct sm_options options = arguments->options;
    struct sm_replica *replica;

    options.replica = replica_name;
    if (!getenv("SPLITMERGE_ATTACH") || sm_open(&replica, &options, NULL) != 0)
        return;
    sm_decline(replica, why);
    sm_close(replica);
}

/* What runs: a configuration, the middlebox that goes by it, and its replica. */
struct running {
    void *config, *middlebox;
    struct sm_replica *replica;
};

/* From an open replica to one that packets come to. 0, or an error; *error says why. */
static int start(const struct program *program, const struct running *running, struct sm_errbuf *error)
{
    int status = program->setup(running->middlebox, running->replica);

    if (status < 0) {
        snprintf(error->text, sizeof error->text, "cannot register: %s", sm_strerror(status));
        return status;
    }
    status = sm_start(running->replica, error);
    if (status == 0 && program->started)
        status = program->started(running->middlebox, running->replica, error);
    if (status < 0 && error->text[0] == '\0')
        snprintf(error->text, sizeof error->text, "%s", sm_strerror(status));
    return status;
}

static void end(const struct program *program, const struct running *running)
{
    if (running->middlebox && program->ended)
        program->ended(running->middlebox);
    sm_close(running->replica);
    if (running->middlebox && program->destroy)
        program->destroy(running->middlebox);
}

/* Whom SIGHUP interrupts. */
static struct sm_replica *reloadable;

static void on_reload(int number)
{
    (void)number;
    sm_interrupt(reloadable);
}

static void reload_on_signal(const struct program *program, struct sm_replica *replica)
{
    struct sigaction action = {.sa_handler = on_reload, .sa_flags = SA_RESTART}; /* reading a file goes on */

    if (!program->reloads || !sm_standalone(replica))
        return;
    reloadable = replica;
    sigaction(SIGHUP, &action, NULL);
}

static void *create(const struct program *program, void *config)
{
    return program->create ? program->create(config) : config;
}

static void unload(const struct program *program, void *config)
{
    if (program->unload)
        program->unload(config);
}

/* The configuration, with its log open. NULL: *error says why. */
static void *load(const struct arguments *arguments, struct sm_errbuf *error)
{
    const struct program *program = arguments->program;
    void *config = program->load(arguments->config, error);

    if (config && program->log && !arguments->check && !program->open_log(config, arguments->log, error)) {
        unload(program, config);
        config = NULL;
    }
    return config;
}

/* The configuration as its file is now takes over, or else what runs stays, and a line says why. */
static void reload(const struct arguments *arguments, struct running *running)
{
    const struct program *program = arguments->program;
    struct sm_errbuf error = {{0}};
    struct running next = {.config = load(arguments, &error)};
    int status = SM_E_INVALID;

    if (next.config && (!program->check || program->check(next.config, sm_linktype(running->replica), &error)))
        status = (next.middlebox = create(program, next.config)) ? 0 : SM_E_NO_MEMORY;
    if (status == 0)
        status = sm_open_heir(running->replica, next.middlebox, &next.replica, &error);
    if (status == 0)
        status = start(program, &next, &error);
    if (status == 0)
        status = sm_inherit(next.replica, &error);
    if (status == 0) {
        struct running old = *running;
        *running = next;
        next = old;
        reloadable = running->replica;
        stoppable = stoppable ? running->replica : NULL;
    }
    end(program, &next);
    if (next.config)
        unload(program, next.config);
    if (status)
        fail(program, EXIT_FAILED, "%s; what ran goes on", error.text[0] ? error.text : sm_strerror(status));
    else
        fprintf(stderr, "%s: %s was reloaded\n", program->name, arguments->config);
}

/* Signals wait until it is clear whose they are. */
static void reload_undisturbed(const struct arguments *arguments, struct running *running)
{
    sigset_t signals, before;

    sigemptyset(&signals);
    sigaddset(&signals, SIGHUP);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, &before);
    reload(arguments, running);
    sigprocmask(SIG_SETMASK, &before, NULL);
}

/* From an open replica to the end of its packets. */
static int run(const struct arguments *arguments, struct running *running)
{
    const struct program *program = arguments->program;
    struct sm_errbuf error = {{0}};
    int status;

    if (program->check && !program->check(running->config, sm_linktype(running->replica), &error))
        return decline(program, running->replica, error.text);
    if (start(program, running, &error) < 0)
        return fail(program, EXIT_FAILED, "%s", error.text);
    reload_on_signal(program, running->replica);
    while ((status = sm_run(running->replica)) == SM_E_AGAIN)
        reload_undisturbed(arguments, running);
    if (reloadable)
        signal(SIGHUP, SIG_IGN);
    if (status < 0)
        return fail(program, EXIT_FAILED, "%s", sm_last_error(running->replica));
    return EXIT_DONE;
}

static int open_and_run(const struct arguments *arguments, void **config)
{
    const struct program *program = arguments->program;
    struct sm_options options = arguments->options;
    struct sm_errbuf error = {{0}};
    struct running running = {.config = *config, .middlebox = create(program, *config)};
    int status;

    if (!running.middlebox)
        return fail(program, EXIT_FAILED, "%s", sm_strerror(SM_E_NO_MEMORY));
    options.user = running.middlebox;
    options.replica = replica_name;
    status = sm_open(&running.replica, &options, &error);
    if (status < 0)
        status = fail(program, EXIT_FAILED, "%s", error.text[0] ? error.text : sm_strerror(status));
    else {
        stop_on_signals(running.replica, options.input);
        status = run(arguments, &running);
    }
    if (stoppable) { /* there is nothing left to end well */
        signal(SIGINT, SIG_DFL);
        signal(SIGTERM, SIG_DFL);
    }
    end(program, &running);
    *config = running.config;
    return status;
}

/* A replica, or the standalone program. */
static int run_replica(const char *replica, void *user)
{
    struct arguments *arguments = user;
    const struct program *program = arguments->program;
    struct sm_errbuf error = {{0}};
    int status = EXIT_DONE;

    replica_name = replica;
    void *config = load(arguments, &error);
    if (!config) {
        if (!arguments->check)
            decline_early(arguments, error.text);
        return fail(program, EXIT_USAGE, "%s", error.text);
    }
    if (!arguments->check)
        status = open_and_run(arguments, &config);
    else if (program->check && !program->check(config, DLT_ETHERNET, &error))
        status = fail(program, EXIT_USAGE, "%s", error.text);
    unload(program, config);
    return status;
}

int program_main(const struct program *program, int argc, char **argv)
{
    static struct arguments arguments; /* replicas have it until the process has ended */
    log_begin(program->name);
    arguments = (struct arguments){.program = program,
                                   .log = "-",
                                   .options = {.size = sizeof(struct sm_options),
                                               .name = program->name,
                                               .on_packet = program->on_packet,
                                               .max_sends = program->max_sends,
                                               .delays = program->delays}};
    int status = parse_arguments(&arguments, argc, argv);

    if (status >= 0)
        return status;
    return program->threads ? sm_threads(run_replica, &arguments) : run_replica(NULL, &arguments);
}
