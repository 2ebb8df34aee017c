/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * State in a Redis server on the same machine, as StatelessNF keeps it, and a limiter as people run it: a GCRA in a
 * script of the server. Four figures a measurement, each a second: a GET and a SET of a flow's 64 bytes, one after the
 * other and 32 flows at a time; decisions of the script likewise.
 *
 * The server listens on a Unix socket in a folder of its own, keeps nothing on disk, and runs on the second core; we on
 * the first.
 */

#include <hiredis/hiredis.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "references/reference.h"

#define VALUE_BYTES 64u
#define PIPELINE 32u
#define PATIENCE_NS 5000000000ull
#define RETRY_US 2000u

/* 100 a second, bursts of 10: the virtual scheduling of ATM Forum's generic cell rate algorithm, in microseconds. */
static const char gcra[] = "local t = redis.call('TIME')\n"
                           "local now = t[1] * 1000000 + t[2]\n"
                           "local tat = tonumber(redis.call('GET', KEYS[1]) or now)\n"
                           "if tat < now then tat = now end\n"
                           "local new = tat + ARGV[1]\n"
                           "if new - now > ARGV[1] * ARGV[2] then return 0 end\n"
                           "redis.call('SET', KEYS[1], string.format('%.0f', new), 'PX', 1000)\n"
                           "return 1\n";

struct server {
    char folder[32], socket[48];
    pid_t pid;
    redisContext *context;
    char script[48]; /* its SHA-1 */
};

static void run_server(const struct server *server, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || chdir(server->folder) != 0 || !freopen("/dev/null", "w", stdout) ||
        !freopen("/dev/null", "w", stderr))
        _exit(127);
    bench_pin(1);
    /* One program, which goes by its name. redis-tools has it without a service of the machine that would start. */
    execlp("redis-check-rdb", "redis-server", "--port", "0", "--unixsocket", server->socket, "--save", "",
           "--appendonly", "no", "--daemonize", "no", (char *)NULL);
    _exit(127);
}

/* NULL, or what is missing. */
static const char *server_start(struct server *server)
{
    pid_t parent = getpid();

    strcpy(server->folder, "/tmp/sm-bench.XXXXXX");
    if (!mkdtemp(server->folder))
        return "no folder for redis-server";
    snprintf(server->socket, sizeof server->socket, "%s/socket", server->folder);
    server->pid = fork();
    if (server->pid == 0)
        run_server(server, parent);
    for (uint64_t begin = bench_now(); server->pid > 0 && bench_now() - begin < PATIENCE_NS; usleep(RETRY_US)) {
        server->context = redisConnectUnix(server->socket);
        if (server->context && !server->context->err)
            return NULL;
        if (server->context)
            redisFree(server->context);
        server->context = NULL;
        if (waitpid(server->pid, NULL, WNOHANG) == server->pid)
            server->pid = -1;
    }
    return "redis-server (of redis-tools) is not installed, or does not start";
}

static void server_end(struct server *server)
{
    if (server->context)
        redisFree(server->context);
    if (server->pid > 0) {
        kill(server->pid, SIGTERM);
        waitpid(server->pid, NULL, 0);
    }
    unlink(server->socket);
    rmdir(server->folder);
}

static bool server_load(struct server *server)
{
    redisReply *reply = redisCommand(server->context, "SCRIPT LOAD %s", gcra);
    bool loaded = reply && reply->type == REDIS_REPLY_STRING;

    if (loaded)
        snprintf(server->script, sizeof server->script, "%s", reply->str);
    freeReplyObject(reply);
    return loaded;
}

/* The next flow's key: 16 bytes, as those of the tables. */
struct keys {
    uint32_t flows, at;
    const uint32_t *order;
};

static const void *next_key(struct keys *keys, uint32_t *key)
{
    key[0] = keys->order[keys->at];
    key[1] = 0x0a000001;
    key[2] = 1000 << 16 | 53;
    key[3] = 17;
    keys->at = keys->at + 1 == keys->flows ? 0 : keys->at + 1;
    return key;
}

/* Ask for `flows` flows at once; take the answers. */
static bool ask(struct server *server, struct keys *keys, bool script, unsigned flows)
{
    static const char value[VALUE_BYTES];
    unsigned answers = script ? flows : 2 * flows;
    bool done = true;

    for (unsigned i = 0; i < flows; i++) {
        uint32_t key[4];
        next_key(keys, key);
        if (script) {
            redisAppendCommand(server->context, "EVALSHA %s 1 g%b 10000 10", server->script, key, sizeof key);
            continue;
        }
        redisAppendCommand(server->context, "GET %b", key, sizeof key);
        redisAppendCommand(server->context, "SET %b %b", key, sizeof key, value, sizeof value);
    }
    for (unsigned i = 0; done && i < answers; i++) {
        redisReply *reply = NULL;
        done = redisGetReply(server->context, (void **)&reply) == REDIS_OK && reply->type != REDIS_REPLY_ERROR;
        freeReplyObject(reply);
    }
    return done;
}

/* Flows a second. 0: the server has failed. */
static double rate(struct server *server, struct keys *keys, bool script, unsigned pipeline, double seconds)
{
    uint64_t begin = bench_now(), done = 0;

    do {
        if (!ask(server, keys, script, pipeline))
            return 0;
        done += pipeline;
    } while ((double)(bench_now() - begin) < seconds * 1e9);
    return (double)done * 1e9 / (double)(bench_now() - begin);
}

int main(int argc, char **argv)
{
    struct reference_options options;
    struct server server = {.pid = -1};

    if (!reference_options(argc, argv, &options))
        return 2;
    uint32_t *order = bench_shuffled(options.flows, options.seed);
    struct keys keys = {.flows = options.flows, .order = order};
    bench_pin(0);
    const char *missing = order ? server_start(&server) : "not enough memory";
    if (!missing && !server_load(&server))
        missing = "redis-server runs no scripts";
    for (uint32_t i = 0; !missing && i < options.flows; i += PIPELINE)
        if (!ask(&server, &keys, false, PIPELINE))
            missing = "redis-server has failed";
    reference_ready(missing);
    while (!missing && reference_asked()) {
        double found[4];
        for (unsigned i = 0; i < 4; i++)
            found[i] = rate(&server, &keys, i >= 2, i % 2 ? PIPELINE : 1, options.seconds / 4);
        reference_answer(found, 4);
    }
    server_end(&server);
    free(order);
    return 0;
}
