/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What goes wrong with a service's device, as a line each: which devices there are, opening, sending; and the end,
 * which the program's handler hears of before the loop returns. errors.py knows the lines.
 *
 * usage: pcap-errors DEVICE LINES
 */

#include <pcap/pcap.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static FILE *lines;
static pcap_t *handle;
static volatile sig_atomic_t handled;

#define SAY(...) (fprintf(lines, __VA_ARGS__), fputc('\n', lines), fflush(lines))

static void on_end(int number)
{
    (void)number;
    handled = 1;
}

static void devices(void)
{
    char error[PCAP_ERRBUF_SIZE];
    pcap_if_t *list, *device;

    SAY("findalldevs %d", pcap_findalldevs(&list, error));
    for (device = list; device; device = device->next)
        if (strncmp(device->name, "sm:", 3) == 0)
            SAY("  %s: %s", device->name, device->description);
    pcap_freealldevs(list);
}

static void inject(const char *what, const void *data, size_t length)
{
    int result = pcap_inject(handle, data, length);

    SAY("%s: %d %s", what, result, result < 0 ? pcap_geterr(handle) : "");
}

static void sendpacket(const char *what, const void *data, int length)
{
    int result = pcap_sendpacket(handle, data, length);

    SAY("%s: %d %s", what, result, result < 0 ? pcap_geterr(handle) : "");
}

static void on_packet(u_char *user, const struct pcap_pkthdr *header, const u_char *data)
{
    static const u_char much[1793];
    static int packets;

    (void)user, (void)header;
    if (packets++ > 0)
        return;
    inject("inject, too long", much, sizeof much);
    sendpacket("sendpacket, less than nothing", data, -1);
    inject("inject", data, 60);
    sendpacket("sendpacket", data, 60);
    inject("inject, a third", data, 60);
    sendpacket("sendpacket, a third", data, 60);
}

static void *loop(void *unused)
{
    int result = pcap_loop(handle, -1, on_packet, NULL);

    SAY("loop %d, handled %d", result, (int)handled);
    inject("inject, behind the end", "x", 1);
    return unused;
}

static void refused(const char *what, const char *device)
{
    char error[PCAP_ERRBUF_SIZE] = "";
    pcap_t *other = pcap_open_live(device, 100, 0, 10, error);

    SAY("%s: %s", what, other ? "opened" : error);
    if (other)
        pcap_close(other);
}

int main(int argc, char **argv)
{
    char error[PCAP_ERRBUF_SIZE] = "";
    pthread_t thread;

    if (argc != 3 || !(lines = fopen(argv[2], "w")))
        return 2;
    signal(SIGTERM, on_end);
    devices();
    refused("another service", "sm:another");
    handle = pcap_open_live(argv[1], 65535, 0, 10, error);
    if (!handle) {
        SAY("open: %s", error);
        return 0;
    }
    refused("once more", argv[1]);
    inject("inject, before a packet", "x", 1);
    /* As where a program reads in a thread, and handles signals in the first one. */
    if (pthread_create(&thread, NULL, loop, NULL) != 0)
        return 1;
    pthread_join(thread, NULL);
    pcap_close(handle);
    return fclose(lines) != 0;
}
