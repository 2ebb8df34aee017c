/* SPDX-License-Identifier: BSD-2-Clause */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "smctl.h"

#define ROWS 64

struct sample {
    uint64_t time;
    long long packets[ROWS]; /* by place in the list; names are compared, since replicas come and go */
    char names[ROWS][16];
};

static long long number(const json_t *object, const char *key)
{
    return (long long)json_integer_value(json_object_get(object, key));
}

/* Packets since the sample before, a second; 0 for a replica that was not there. */
static double rate(const struct sample *before, const char *name, long long packets, uint64_t now)
{
    for (unsigned i = 0; before->time && i < ROWS; i++)
        if (strcmp(before->names[i], name) == 0)
            return (double)(packets - before->packets[i]) * 1e9 / (double)(now - before->time);
    return 0;
}

static void print(const json_t *status, struct sample *sample)
{
    const json_t *list = json_object_get(status, "replicas"), *packets = json_object_get(status, "packets");
    struct sample before = *sample;
    size_t i;
    json_t *r;
    uint64_t now = uv_hrtime();
    const char *operation = json_string_value(json_object_get(status, "operation"));
    *sample = (struct sample){.time = now};
    printf("%s, %s; %lld packets in, %lld out, %lld in flight; %lld flows; operation: %s\n",
           json_string_value(json_object_get(status, "service")), json_string_value(json_object_get(status, "state")),
           number(packets, "in"), number(packets, "out"), number(status, "in_flight"),
           number(json_object_get(status, "flows"), "live"), operation ? operation : "none");
    printf("%-8s %12s %12s %7s %9s %7s\n", "REPLICA", "PACKETS/S", "PACKETS", "SHARDS", "FLOWS", "QUEUE");
    json_array_foreach(list, i, r)
    {
        const char *name = json_string_value(json_object_get(r, "name"));
        long long count = number(r, "packets");
        printf("%-8s %12.0f %12lld %7lld %9lld %7lld\n", name, rate(&before, name, count, now), count,
               number(r, "shards"), number(r, "flows"), number(r, "queue"));
        if (i < ROWS) {
            sample->packets[i] = count;
            snprintf(sample->names[i], sizeof(sample->names[i]), "%s", name);
        }
    }
}

/* A second, or a key: true when it is q, or nobody is at the keyboard any more. */
static bool wait_for_q(void)
{
    struct pollfd keyboard = {.fd = STDIN_FILENO, .events = POLLIN};
    char key;
    if (poll(&keyboard, 1, 1000) <= 0)
        return false;
    return read(STDIN_FILENO, &key, 1) <= 0 || key == 'q' || key == 'Q';
}

static int loop(struct options *options, struct client *client, bool terminal)
{
    struct sample sample = {0};
    for (;;) {
        json_t *status;
        int code =
            client_ask(client, "status", NULL, options->timeout_ms ? options->timeout_ms : 5000, NULL, NULL, &status);
        if (code != 0)
            return code;
        if (options->json)
            return print_json(status);
        if (terminal)
            fputs("\033[H\033[J", stdout);
        print(status, &sample);
        fflush(stdout);
        json_decref(status);
        if (!terminal || wait_for_q())
            return 0;
    }
}

int cmd_top(struct options *options)
{
    struct client *client;
    struct termios old;
    if (options->argc != 1)
        return usage(options, "top");
    bool terminal = isatty(STDOUT_FILENO) && tcgetattr(STDIN_FILENO, &old) == 0;
    int status = client_open(&client, options);
    if (status != 0)
        return status;
    if (terminal) {
        struct termios raw = old;
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO); /* signals as usual */
        tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    }
    status = loop(options, client, terminal);
    if (terminal)
        tcsetattr(STDIN_FILENO, TCSANOW, &old);
    client_close(client);
    return status;
}
