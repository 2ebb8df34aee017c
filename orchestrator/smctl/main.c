/* SPDX-License-Identifier: BSD-2-Clause */

/* smctl: runs services, and asks running ones. */

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <splitmerge/version.h>

#include "conf/conf.h"
#include "conf/units.h"
#include "smctl.h"

static const struct command {
    const char *name;
    int (*run)(struct options *options);
    const char *arguments;
    const char *does;
    bool moves; /* it takes --copy and --strategy */
} commands[] = {
    {"run", cmd_run,
     "SERVICE.yaml [--events FILE] [--report FILE] [--restore FILE] [--seed N] [--collect FILE|FOLDER]\n"
     "      [--log-format text|json] [--log-level error|warning|notice|info]",
     "run a service in the foreground", false},
    {"status", cmd_status, "", "what a service does", false},
    {"replicas", cmd_replicas, "", "its replicas", false},
    {"shared", cmd_shared, "", "its shared objects, and who contributed what", false},
    {"peers", cmd_peers, "[add HOST ADDRESS | remove HOST]", "the hosts that it has limits together with", false},
    {"limits", cmd_limits, "[--by drops|rate] [--top N]", "what its limits do, and to whom most", false},
    {"flows", cmd_flows, "[SELECTOR] [--limit N]", "its flows", false},
    {"flow", cmd_flow, "show KEY", "one flow, with all its fields", false},
    {"top", cmd_top, "", "its replicas, once a second", false},
    {"scale", cmd_scale, "N [--copy | --strategy S]", "have N replicas, evenly loaded", true},
    {"split", cmd_split, "R [--into R2] [--copy | --strategy S]", "half of R's shards to a new replica, or to R2",
     true},
    {"merge", cmd_merge, "R --into R2 [--copy | --strategy S]", "all of R's shards to R2; R ends", true},
    {"move", cmd_move, "SELECTOR --to R [--copy | --strategy S]", "the shards of some flows to R", true},
    {"drain", cmd_drain, "R [--copy | --strategy S]", "all of R's shards to the others; R stays", true},
    {"rebalance", cmd_rebalance, "[--copy | --strategy S]", "as much to do for all, by few moves", true},
    {"upgrade", cmd_upgrade, "--exec PROGRAM [--trial TIME | --no-rollback] [--args ARG...]",
     "to another version of the middlebox", false},
    {"reload", cmd_reload, "", "to its configuration as it is now", false},
    {"checkpoint", cmd_checkpoint, "FILE", "write all its state to a file, while it runs", false},
    {"restore", cmd_restore, "FILE", "the state of such a file, where there are no flows", false},
    {"check", cmd_check, "", "look for damage in all of its state", false},
    {"stop", cmd_stop, "", "end a service", false},
};

static void help(FILE *stream)
{
    fputs("usage: smctl COMMAND ...\n\n", stream);
    for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
        fprintf(stream, "  %s %s%*s%s\n", commands[i].name, commands[i].arguments,
                (int)(strlen(commands[i].name) + strlen(commands[i].arguments) < 30
                          ? 30 - strlen(commands[i].name) - strlen(commands[i].arguments)
                          : 1),
                "", commands[i].does);
    fputs("\n  --json            machine-readable output; errors too\n"
          "  --service NAME    which service (default: the only one that runs)\n"
          "  --socket PATH     its orchestrator's socket\n"
          "  --timeout TIME    wait at most so long, such as 30s\n"
          "  --wait            wait for an operation that is under way\n"
          "  --help, --version\n\n"
          "SELECTOR: an expression as of tcpdump, or shards:0-99,200. With --copy flows are encoded and decoded, as\n"
          "between hosts, rather than handed over. S, where the program keeps its flows itself: drain or\n"
          "new-flows-only: flows stay until they end, and are waited for, or are not. Exit status: 0 done, 1 failed, 2 "
          "usage,\n"
          "3 no such service or replica, 4 another operation is under way, 5 timed out. See smctl(1).\n",
          stream);
}

int fail(const struct options *options, enum rpc_code code, const char *format, ...)
{
    char message[512];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    if (!options->json) {
        fprintf(stderr, "smctl: %s\n", message);
        return code;
    }
    json_t *object =
        json_pack("{s:i, s:{s:i, s:s}}", "schema", SMCTL_SCHEMA, "error", "code", (int)code, "message", message);
    json_dumpf(object, stderr, JSON_COMPACT);
    fputc('\n', stderr);
    json_decref(object);
    return code;
}

int usage(const struct options *options, const char *expected)
{
    return fail(options, RPC_USAGE, "%s: expected: smctl %s", options->argv[0], expected);
}

int print_json(json_t *object)
{
    json_t *with_schema = json_pack("{s:i}", "schema", SMCTL_SCHEMA);
    json_object_update(with_schema, object);
    json_dumpf(with_schema, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(with_schema);
    json_decref(object);
    return 0;
}

static void remove_words(struct options *options, int at, int count)
{
    for (int i = at; i + count <= options->argc; i++)
        options->argv[i] = options->argv[i + count]; /* the NULL at the end too */
    options->argc -= count;
}

const char *take_option(struct options *options, const char *name, bool *wrong)
{
    size_t length = strlen(name);
    for (int i = 1; i < options->argc; i++) {
        const char *word = options->argv[i];
        if (strncmp(word, name, length) != 0 || (word[length] != '\0' && word[length] != '='))
            continue;
        if (word[length] == '=') {
            remove_words(options, i, 1);
            return word + length + 1;
        }
        const char *value = i + 1 < options->argc ? options->argv[i + 1] : NULL;
        *wrong |= !value;
        remove_words(options, i, value ? 2 : 1);
        return value;
    }
    return NULL;
}

static bool take_flag(struct options *options, const char *name)
{
    for (int i = 1; i < options->argc; i++) {
        if (strcmp(options->argv[i], name) == 0) {
            remove_words(options, i, 1);
            return true;
        }
    }
    return false;
}

/* What every verb takes. 0, or an exit status. */
static int take_common(struct options *options)
{
    bool wrong = false;
    uint64_t ns = 0;
    options->json = take_flag(options, "--json");
    options->wait = take_flag(options, "--wait");
    options->socket = take_option(options, "--socket", &wrong);
    options->service = take_option(options, "--service", &wrong);
    const char *timeout = take_option(options, "--timeout", &wrong);
    if (wrong)
        return fail(options, RPC_USAGE, "an option's value is missing; see smctl --help");
    if (timeout && (!unit_duration(timeout, &ns) || ns < 1000000))
        return fail(options, RPC_USAGE, "--timeout: expected a time such as 30s, got '%s'", timeout);
    options->timeout_ms = ns / 1000000;
    return 0;
}

static int unknown(struct options *options, const char *name)
{
    const char *names[sizeof(commands) / sizeof(*commands) + 1] = {0};
    for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
        names[i] = commands[i].name;
    const char *nearest = conf_nearest(name, names);
    return fail(options, RPC_USAGE, nearest ? "unknown command '%s', did you mean '%s'?" : "unknown command '%s'", name,
                nearest);
}

int main(int argc, char **argv)
{
    /* The words before the verb are options too: argv[0] stands for the verb until it is found. */
    struct options options = {.argc = argc, .argv = argv};
    if (take_flag(&options, "--version")) {
        puts("smctl " SPLITMERGE_VERSION);
        return 0;
    }
    if (take_flag(&options, "--help") || take_flag(&options, "-h")) {
        help(stdout);
        return 0;
    }
    int status = take_common(&options);
    if (status != 0)
        return status;
    if (options.argc < 2) {
        help(stderr);
        return RPC_USAGE;
    }
    options.argc--;
    options.argv++;
    for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
        if (strcmp(commands[i].name, options.argv[0]) == 0) {
            bool wrong = false;
            options.copy = commands[i].moves && take_flag(&options, "--copy");
            options.strategy = commands[i].moves ? take_option(&options, "--strategy", &wrong) : NULL;
            if (wrong)
                return fail(&options, RPC_USAGE, "--strategy: expected move, drain, new-flows-only or restart");
            return commands[i].run(&options);
        }
    return unknown(&options, options.argv[0]);
}
