/* SPDX-License-Identifier: BSD-2-Clause */

/* Services among the devices. */

#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "conf/rundir.h"
#include "pcap/handle.h"

/* One more device at the end of the list, made as pcap_freealldevs() frees it. */
static bool append(pcap_if_t **list, const char *service)
{
    char name[80], description[96];
    pcap_if_t *device = calloc(1, sizeof *device);

    snprintf(name, sizeof name, DEVICE_PREFIX "%s", service);
    snprintf(description, sizeof description, "splitmerge service %s", service);
    if (device) {
        device->name = strdup(name);
        device->description = strdup(description);
        device->flags = PCAP_IF_UP | PCAP_IF_RUNNING | PCAP_IF_CONNECTION_STATUS_NOT_APPLICABLE;
    }
    if (!device || !device->name || !device->description) {
        if (device)
            pcap_freealldevs(device);
        return false;
    }
    while (*list)
        list = &(*list)->next;
    *list = device;
    return true;
}

struct found {
    pcap_if_t **list;
    bool whole;
};

static void on_found(void *user, const char *service)
{
    struct found *found = user;

    found->whole = found->whole && append(found->list, service);
}

EXPORT int pcap_findalldevs(pcap_if_t **list, char *errbuf)
{
    struct found found = {list, true};
    int result = REAL(pcap_findalldevs)(list, errbuf);

    if (result != 0)
        return result;
    rundir_list(on_found, &found);
    if (found.whole)
        return 0;
    pcap_freealldevs(*list);
    *list = NULL;
    snprintf(errbuf, PCAP_ERRBUF_SIZE, "malloc: out of memory");
    return PCAP_ERROR;
}

/* A service has no network of its own. */
EXPORT int pcap_lookupnet(const char *device, bpf_u_int32 *net, bpf_u_int32 *mask, char *errbuf)
{
    const char *service;

    if (!handle_device(device, &service))
        return REAL(pcap_lookupnet)(device, net, mask, errbuf);
    *net = *mask = 0;
    return 0;
}

/* Some programs look by themselves whether an interface is up, before they read from it and while they do. */
EXPORT int ioctl(int fd, unsigned long request, ...)
{
    const char *service;
    va_list args;

    va_start(args, request);
    void *argument = va_arg(args, void *);
    va_end(args);
    struct ifreq *interface = argument;
    if (request != SIOCGIFFLAGS || !handle_device(interface->ifr_name, &service))
        return REAL(ioctl)(fd, request, argument);
    interface->ifr_flags = IFF_UP | IFF_RUNNING;
    return 0;
}
