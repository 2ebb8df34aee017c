/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Overview.  Every replica of a host has this thread, and one of them at a time has the exchange: the one that has
 * bound the UDP port. When it dies, by whatever it dies, the kernel frees the port and the next one binds it, within
 * TAKE_OVER_MS. It finds buckets and members in the arena. So there is nothing to supervise, and a program that is its
 * own host does as a service does.
 *
 * Concurrency.  The thread shares with its replica's thread, and all others, what drl/share.h says, and the flag that
 * ends it. It is never on the way of a packet: replicas take from buckets, and wait for nothing here.
 *
 * Limits.  DATAGRAMS_A_TICK are taken in between two ticks; more wait in the socket, and are dropped by the kernel
 * where they do not fit. One client at a time asks at the control socket, and has CONTROL_MS to do so.
 */

#include "peers/loop.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define TAKE_OVER_MS 20
#define TICK_MS ((int)(EXCHANGE_TICK_NS / 1000000))
#define DATAGRAMS_A_TICK 256u
#define CONTROL_MS 200
#define REPORT_MOST (512u * 1024)
_Static_assert(KEYS_PLACES * 400u < REPORT_MOST, "all keys are told, whatever their names and numbers");

struct peers_loop {
    const struct exchange_config *config;
    const struct exchange_state *state;
    char control[sizeof(((struct sockaddr_un *)0)->sun_path)];
    int stop; /* an eventfd: readable when the thread is to end */
    int udp, asked;
    pthread_t thread;
    struct exchange *exchange;
};

uint64_t peers_clock(void)
{
    struct timespec now;

    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

bool peers_parse_address(const char *text, struct datagram_member *member)
{
    const char *colon = strrchr(text, ':');
    char host[INET6_ADDRSTRLEN + 2], *end;
    struct in_addr in;

    if (!colon || colon == text || (size_t)(colon - text) >= sizeof host || colon[1] < '0' || colon[1] > '9')
        return false;
    unsigned long port = strtoul(colon + 1, &end, 10);
    if (*end != '\0' || port < 1 || port > 65535)
        return false;
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = '\0';
    *member = (struct datagram_member){.port = (uint16_t)port};
    if (inet_pton(AF_INET, host, &in) == 1) {
        member->address[10] = member->address[11] = 0xff;
        memcpy(member->address + 12, &in, 4);
        return true;
    }
    size_t length = strlen(host);
    if (host[0] != '[' || host[length - 1] != ']')
        return false;
    host[length - 1] = '\0';
    return inet_pton(AF_INET6, host + 1, member->address) == 1;
}

/* All addresses are IPv6 ones to the socket, which takes IPv4 mapped. Returns a size. */
static void to_socket(const struct datagram_member *member, struct sockaddr_in6 *address)
{
    *address = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(member->port)};
    memcpy(&address->sin6_addr, member->address, 16);
}

static void send_datagram(void *user, const struct datagram_member *to, const uint8_t *bytes, size_t length)
{
    const struct peers_loop *loop = user;
    struct sockaddr_in6 address;

    /* What cannot be sent is lost, as it may be later on the way. */
    to_socket(to, &address);
    sendto(loop->udp, bytes, length, MSG_DONTWAIT, (struct sockaddr *)&address, sizeof address);
}

static void receive_all(struct peers_loop *loop, uint64_t now)
{
    uint8_t bytes[DATAGRAM_MAX + 1];

    for (unsigned i = 0; i < DATAGRAMS_A_TICK; i++) {
        struct sockaddr_in6 address;
        socklen_t size = sizeof address;
        struct datagram_member from = {0};
        ssize_t length = recvfrom(loop->udp, bytes, sizeof bytes, MSG_DONTWAIT, (struct sockaddr *)&address, &size);
        if (length < 0)
            return;
        from.port = ntohs(address.sin6_port);
        memcpy(from.address, &address.sin6_addr, 16);
        exchange_receive(loop->exchange, now, &from, bytes, (size_t)length);
    }
}

/* ---- the control socket: a line is asked, a JSON object answered ---- */

static void answer(struct peers_loop *loop, const char *line, char *text)
{
    uint64_t now = peers_clock();
    struct datagram_member at;
    unsigned host;
    char where[64];
    bool done = false;

    if (strcmp(line, "status") == 0) {
        exchange_report(loop->exchange, now, text, REPORT_MOST);
        return;
    }
    if (strcmp(line, "keys") == 0) {
        exchange_report_keys(loop->exchange, text, REPORT_MOST);
        return;
    }
    if (sscanf(line, "add %u %63s", &host, where) == 2 && peers_parse_address(where, &at) && host < EXACT_MAX_HOSTS)
        done = exchange_add(loop->exchange, now, (uint16_t)host, &at);
    else if (sscanf(line, "remove %u", &host) == 1 && host < EXACT_MAX_HOSTS)
        done = exchange_remove(loop->exchange, now, (uint16_t)host);
    snprintf(text, REPORT_MOST, "{\"version\": 1, \"done\": %s}\n", done ? "true" : "false");
}

static void serve(struct peers_loop *loop)
{
    const struct timeval patience = {.tv_usec = CONTROL_MS * 1000};
    char line[128] = "";
    int client = accept4(loop->asked, NULL, NULL, SOCK_CLOEXEC);

    if (client < 0)
        return;
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    ssize_t length = recv(client, line, sizeof line - 1, 0);
    char *text = malloc(REPORT_MOST);
    if (text && length > 0) {
        line[strcspn(line, "\r\n")] = '\0';
        answer(loop, line, text);
        (void)!send(client, text, strlen(text), MSG_NOSIGNAL);
    }
    free(text);
    close(client);
}

static int open_control(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd;

    if (path[0] == '\0')
        return -1;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    unlink(path); /* of an exchange before: this one has the port */
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || chmod(path, 0600) != 0 || listen(fd, 8) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* ---- the thread ---- */

/* The exchange's socket, or -1 and errno. */
static int open_port(const struct datagram_member *at)
{
    struct sockaddr_in6 address;
    const int none = 0;
    int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    to_socket(at, &address);
    if (fd < 0)
        return -1;
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &none, sizeof none);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    int why = errno;
    close(fd);
    errno = why;
    return -1;
}

/* Wait for the port to be free. False: the thread is to end. */
static bool bind_port(struct peers_loop *loop)
{
    struct pollfd stop = {.fd = loop->stop, .events = POLLIN};

    while ((loop->udp = open_port(&loop->config->listen)) < 0)
        if (poll(&stop, 1, TAKE_OVER_MS) > 0)
            return false;
    return true;
}

static void exchange_until_stopped(struct peers_loop *loop)
{
    struct pollfd fds[] = {{.fd = loop->stop, .events = POLLIN},
                           {.fd = loop->udp, .events = POLLIN},
                           {.fd = loop->asked, .events = POLLIN}};
    uint64_t next = 0;

    for (;;) {
        uint64_t now = peers_clock();
        if (now >= next) {
            exchange_tick(loop->exchange, now);
            next = now + EXCHANGE_TICK_NS;
        }
        if (poll(fds, 3, TICK_MS) < 0 && errno != EINTR)
            return;
        if (fds[0].revents)
            return;
        if (fds[1].revents)
            receive_all(loop, peers_clock());
        if (fds[2].revents & POLLIN)
            serve(loop);
    }
}

static void *run(void *user)
{
    struct peers_loop *loop = user;

    if (!bind_port(loop))
        return NULL;
    loop->exchange = exchange_create(loop->config, loop->state, send_datagram, loop, peers_clock());
    loop->asked = open_control(loop->control);
    if (loop->exchange)
        exchange_until_stopped(loop);
    return NULL;
}

struct peers_loop *peers_loop_begin(const struct exchange_config *config, const struct exchange_state *state,
                                    const char *control, struct sm_errbuf *error)
{
    struct peers_loop *loop;
    sigset_t all, before;
    int port = open_port(&config->listen);

    /* Another replica may have it; but what will never be had is said now. */
    if (port < 0 && errno != EADDRINUSE) {
        snprintf(error->text, sizeof error->text, "peers.listen: the address cannot be had (%s)", strerror(errno));
        return NULL;
    }
    if (port >= 0)
        close(port);
    snprintf(error->text, sizeof error->text, "no thread for the exchange with peers");
    loop = calloc(1, sizeof *loop);
    if (!loop)
        return NULL;
    *loop = (struct peers_loop){.config = config, .state = state, .udp = -1, .asked = -1};
    snprintf(loop->control, sizeof loop->control, "%s", control ? control : "");
    loop->stop = eventfd(0, EFD_CLOEXEC);
    /* Signals are for the replica's thread. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool made = loop->stop >= 0 && pthread_create(&loop->thread, NULL, run, loop) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (made) {
        error->text[0] = '\0';
        return loop;
    }
    if (loop->stop >= 0)
        close(loop->stop);
    free(loop);
    return NULL;
}

void peers_loop_end(struct peers_loop *loop)
{
    const uint64_t one = 1;

    if (!loop)
        return;
    (void)!write(loop->stop, &one, sizeof one);
    pthread_join(loop->thread, NULL);
    exchange_destroy(loop->exchange);
    /* The port last: whoever binds it has the buckets. */
    if (loop->asked >= 0) {
        unlink(loop->control);
        close(loop->asked);
    }
    if (loop->udp >= 0)
        close(loop->udp);
    close(loop->stop);
    free(loop);
}
