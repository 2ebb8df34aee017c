/* SPDX-License-Identifier: BSD-2-Clause */

/* smctl peers, and keys for smctl limits: the exchange of a rate limiter's host has a socket of its own. A line there,
 * JSON back. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "smctl.h"

#define ANSWER_MOST (512 * 1024)

static int connect_to(const struct options *options, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    uint64_t patience = options->timeout_ms ? options->timeout_ms : 5000;
    const struct timeval wait = {.tv_sec = (time_t)(patience / 1000), .tv_usec = (suseconds_t)(patience % 1000 * 1000)};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        if (fd >= 0)
            close(fd);
        return -1;
    }
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
    return fd;
}

/* NULL: no answer, or none that can be read. */
static json_t *ask(int fd, const char *line)
{
    char *text = malloc(ANSWER_MOST);
    size_t length = 0;
    ssize_t got = 0;
    json_t *answer = NULL;

    if (text && send(fd, line, strlen(line), MSG_NOSIGNAL) == (ssize_t)strlen(line)) {
        while (length < ANSWER_MOST && (got = recv(fd, text + length, ANSWER_MOST - length, 0)) > 0)
            length += (size_t)got;
        if (got == 0)
            answer = json_loadb(text, length, 0, NULL);
    }
    free(text);
    return answer;
}

static long long number(const json_t *object, const char *key)
{
    return (long long)json_integer_value(json_object_get(object, key));
}

int peers_keys(const struct options *options, json_t *keys)
{
    char path[108];
    int status = client_socket(options, "peers.sock", path);
    int fd = status == 0 ? connect_to(options, path) : -1;

    if (fd < 0)
        return status;
    json_t *answer = ask(fd, "keys\n");
    close(fd);
    if (!answer)
        return fail(options, RPC_FAILED, "the exchange did not answer");
    json_array_extend(keys, json_object_get(answer, "keys"));
    json_decref(answer);
    return 0;
}

static const char *string(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "-";
}

static void print(const json_t *status)
{
    const json_t *counters = json_object_get(status, "counters"), *item, *value;
    const char *key;
    size_t i;

    printf("host %lld of %lld; the home is %lld\n", number(status, "host"), number(status, "hosts"),
           number(status, "home"));
    printf("%-5s %-24s %-8s %9s %8s %8s %8s %8s\n", "HOST", "ADDRESS", "STATE", "HEARD/MS", "TAKEN", "LOST", "REPLAYED",
           "STRANGE");
    json_array_foreach(json_object_get(status, "peers"), i, item)
        printf("%-5lld %-24s %-8s %9lld %8lld %8lld %8lld %8lld\n", number(item, "host"), string(item, "address"),
               string(item, "state"), json_object_get(item, "heard_ms") ? number(item, "heard_ms") : -1,
               number(item, "taken"), number(item, "lost"), number(item, "replayed"), number(item, "strange"));
    printf("%-24s %-6s %14s %14s %14s %12s %8s %10s\n", "LIMIT", "MODE", "RATE/BIT", "ALLOWED/BIT", "DEMAND/BIT",
           "BOUND", "TIMES", "SETTLED/MS");
    json_array_foreach(json_object_get(status, "limits"), i, item)
    {
        const json_t *bounds = json_object_get(item, "bounds");
        printf("%-24s %-6s %14lld %14lld %14lld %12lld %7lldx %10lld\n", string(item, "name"),
               string(item, "distribute"), number(item, "rate_bit"), number(item, "allowed_bit"),
               number(item, "demand_bit"), number(bounds, "bytes"), number(bounds, "rate"),
               number(bounds, "settled_ms"));
    }
    json_object_foreach((json_t *)(uintptr_t)counters, key, value)
        printf("%s%s %lld", key == json_object_iter_key(json_object_iter((json_t *)(uintptr_t)counters)) ? "" : ", ",
               key, (long long)json_integer_value(value));
    putchar('\n');
}

/* What is sent for the verb's words; false: they are wrong. */
static bool line_of(const struct options *options, char line[static 128])
{
    char *end = NULL;
    unsigned long host = options->argc > 2 ? strtoul(options->argv[2], &end, 10) : 0;
    bool numbered = end && *end == '\0' && host >= 1 && host <= 127;

    if (options->argc == 1)
        return snprintf(line, 128, "status\n") > 0;
    if (options->argc == 4 && strcmp(options->argv[1], "add") == 0 && numbered)
        return snprintf(line, 128, "add %lu %s\n", host, options->argv[3]) < 128;
    if (options->argc == 3 && strcmp(options->argv[1], "remove") == 0 && numbered)
        return snprintf(line, 128, "remove %lu\n", host) > 0;
    return false;
}

int cmd_peers(struct options *options)
{
    char path[108], line[128];

    if (!line_of(options, line))
        return usage(options, "peers [add HOST ADDRESS:PORT | remove HOST]");
    int status = client_socket(options, "peers.sock", path);
    if (status != 0)
        return status;
    int fd = connect_to(options, path);
    if (fd < 0)
        return fail(options, RPC_NOT_FOUND,
                    "the service exchanges nothing with other hosts, or nobody does it just now");
    json_t *answer = ask(fd, line);
    close(fd);
    if (!answer)
        return fail(options, RPC_FAILED, "the exchange did not answer");
    if (options->argc > 1 && !json_is_true(json_object_get(answer, "done"))) {
        json_decref(answer);
        return fail(options, RPC_FAILED, "it was refused: expected the number of another host%s",
                    strcmp(options->argv[1], "add") == 0 ? ", and an address such as 10.0.0.2:7946"
                                                         : " that is there, and not the home's");
    }
    json_object_del(answer, "version"); /* of the socket; print_json() gives the schema's */
    if (options->json)
        return print_json(answer);
    if (options->argc == 1)
        print(answer);
    json_decref(answer);
    return 0;
}
