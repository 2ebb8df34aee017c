/* SPDX-License-Identifier: BSD-2-Clause */
#include <splitmerge/packet.h>

#include "ports/internal.h"

#include <pcap.h>
#include <stdlib.h>

struct sm_filter {
    struct bpf_program program;
};

int sm_filter_create(struct sm_filter **filter, int linktype, const char *expression, struct sm_errbuf *error)
{
    enum { LARGEST_PACKET = 262144 }; /* the snap length that tcpdump compiles for */
    *filter = NULL;
    struct sm_filter *made = calloc(1, sizeof *made);
    pcap_t *dead = pcap_open_dead(linktype, LARGEST_PACKET);
    int failed = 0;

    if (made == NULL || dead == NULL)
        failed = sm_port_fail(error, SM_E_NO_MEMORY, "out of memory");
    else if (pcap_compile(dead, &made->program, expression, 1, PCAP_NETMASK_UNKNOWN) != 0)
        failed = sm_port_fail(error, SM_E_SYNTAX, "filter \"%.80s\": %s", expression, pcap_geterr(dead));
    if (dead != NULL)
        pcap_close(dead);
    if (failed) {
        free(made);
        return failed;
    }
    *filter = made;
    return 0;
}

bool sm_filter_match(const struct sm_filter *filter, const uint8_t *data, uint32_t caplen, uint32_t len)
{
    struct pcap_pkthdr header = {.caplen = caplen, .len = len};
    return pcap_offline_filter(&filter->program, &header, data) != 0;
}

void sm_filter_destroy(struct sm_filter *filter)
{
    if (filter == NULL)
        return;
    pcap_freecode(&filter->program);
    free(filter);
}
