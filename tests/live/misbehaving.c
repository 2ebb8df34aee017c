/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A middlebox that counts the packets of each flow and passes all, and once does what no middlebox should:
 *
 *     misbehaving HOW MARK [INPUT OUTPUT]
 *
 * Whoever can create the file MARK misbehaves, at its 20th packet; so one replica does. `abort` needs no file: each
 * replica aborts on a packet to UDP port 666.
 */

#include <splitmerge/splitmerge.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "replica/replica.h"

struct box {
    const char *how, *mark;
    sm_class flows;
    unsigned packets;
};

/* An answer about a packet that it never had, between right ones. */
static void descriptor(struct sm_replica *replica)
{
    replica->out[replica->produced++ & replica->channel->ring_mask] =
        (struct out_entry){.kind = OUT_PACKET, .buffer = 0xfffffff};
}

/* A commit word that says what cannot be, and then nothing more. */
static void commit(const struct sm_replica *replica, uint32_t consumed, uint32_t produced)
{
    atomic_store_explicit(&replica->channel->commit,
                          commit_word(replica->consumed + consumed, replica->complete + produced),
                          memory_order_release);
    for (;;)
        pause();
}

static void misbehave(struct sm_replica *replica, const char *how)
{
    if (strcmp(how, "descriptor") == 0)
        descriptor(replica);
    else if (strcmp(how, "produced") == 0)
        commit(replica, 0, 1u << 30);
    else if (strcmp(how, "consumed") == 0)
        commit(replica, 1u << 30, 0);
    else if (strcmp(how, "journal") == 0) {
        struct journal_region *region = channel_journal(replica->channel);
        memset(region->entries, 0x5a, 4096);
        atomic_store(&region->used, 4096);
        abort();
    } else if (strcmp(how, "layout") == 0) {
        struct channel *channel = replica->channel;
        channel->query_offset = channel->snapshot_offset = channel->bind_offset = 1ull << 60;
        channel->ring_mask = channel->bind_mask = 3;
        abort();
    } else if (strcmp(how, "hang") == 0)
        for (;;)
            pause();
}

static void on_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    const struct sm_headers *headers = sm_packet_headers(packet);
    const uint8_t *data = sm_packet_data(packet);
    struct box *box = user;
    sm_flow flow;

    if (sm_flow_create(replica, box->flows, packet, 0, &flow, NULL) == 0)
        ++*(uint64_t *)flow.state;
    if (strcmp(box->how, "abort") == 0 && !sm_standalone(replica) && headers->protocol == 17 && headers->l4 &&
        data[headers->l4 + 2] << 8 == (666 & 0xff00) && data[headers->l4 + 3] == (666 & 0xff))
        abort();
    if (++box->packets != 20 || sm_standalone(replica))
        return;
    int mark = open(box->mark, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    if (mark >= 0) {
        close(mark);
        misbehave(replica, box->how);
    }
}

static struct arguments {
    int count;
    char **texts;
} arguments;

static int run(const char *name, void *user)
{
    const struct arguments *given = user;
    struct box box = {.how = given->count > 1 ? given->texts[1] : "", .mark = given->count > 2 ? given->texts[2] : ""};
    struct sm_options options = {.size = sizeof options, .name = "misbehaving", .on_packet = on_packet, .user = &box};
    const struct sm_class_options flows = {
        .size = sizeof flows, .name = "flows", .record_size = sizeof(uint64_t), .granularity = SM_BY_FLOW};
    struct sm_errbuf error = {""};
    struct sm_replica *replica;

    options.replica = name;
    if (given->count == 5) {
        options.input = given->texts[3];
        options.output = given->texts[4];
    }
    int result = sm_open(&replica, &options, &error);
    if (result == 0 && (result = sm_class_register(replica, &flows, &box.flows)) == 0 &&
        (result = sm_start(replica, &error)) == 0)
        result = sm_run(replica);
    if (result)
        fprintf(stderr, "misbehaving: %s\n", error.text[0] ? error.text : sm_strerror(result));
    sm_close(replica);
    return result != 0;
}

int main(int argc, char **argv)
{
    const struct rlimit no_core = {0, 0};

    setrlimit(RLIMIT_CORE, &no_core);
    arguments = (struct arguments){argc, argv};
    return sm_threads(run, &arguments);
}
