/* SPDX-License-Identifier: BSD-2-Clause */
#include "replay.h"

#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "ports/internal.h"

struct replay {
    struct sm_port port;
    uint8_t *packets;
    uint32_t flows, next;
    uint64_t left;
    uint64_t time; /* ns since REPLAY_START */
};

static int replay_receive(struct sm_port *port, struct sm_frame *frame)
{
    struct replay *replay = (struct replay *)port;

    if (replay->left == 0)
        return 0;
    replay->left--;
    *frame = (struct sm_frame){
        .data = replay->packets + (size_t)replay->next * REPLAY_BYTES,
        .caplen = REPLAY_BYTES,
        .len = REPLAY_BYTES,
        .seconds = REPLAY_START + (int64_t)(replay->time / 1000000000u),
        .fraction = (int64_t)(replay->time % 1000000000u),
    };
    replay->time += REPLAY_STEP_NS;
    if (++replay->next == replay->flows)
        replay->next = 0;
    return 1;
}

static int replay_close(struct sm_port *port, bool whole, struct sm_errbuf *error)
{
    free(((struct replay *)port)->packets);
    return sm_port_close_plain(port, whole, error);
}

static const struct sm_port_ops replay_ops = {
    .receive = replay_receive, .flush = sm_port_flush_nothing, .fd = sm_port_fd_none, .close = replay_close};

/* One packet of each flow, as the generator makes them. */
static int fill(struct replay *replay, uint64_t seed)
{
    uint32_t *order = bench_shuffled(replay->flows, seed);
    struct sm_port *generator = NULL;
    struct sm_errbuf error;
    int result = order ? sm_port_open_generator(&generator, replay->flows, REPLAY_BYTES, 0, 0) : SM_E_NO_MEMORY;

    replay->packets = aligned_alloc(REPLAY_BYTES, (size_t)replay->flows * REPLAY_BYTES);
    if (result == 0 && !replay->packets)
        result = SM_E_NO_MEMORY;
    for (uint32_t i = 0; result == 0 && i < replay->flows; i++) {
        struct sm_frame frame;
        generator->ops->receive(generator, &frame);
        memcpy(replay->packets + (size_t)order[i] * REPLAY_BYTES, frame.data, REPLAY_BYTES);
    }
    if (result == 0) {
        replay->port.linktype = generator->linktype;
        replay->port.snaplen = generator->snaplen;
    }
    if (generator)
        generator->ops->close(generator, false, &error);
    free(order);
    return result;
}

int replay_open(struct sm_port **port, uint32_t flows, uint64_t count, uint64_t seed)
{
    struct replay *replay = calloc(1, sizeof *replay);
    struct sm_errbuf error;

    *port = NULL;
    if (!replay)
        return SM_E_NO_MEMORY;
    replay->port = (struct sm_port){.ops = &replay_ops, .name = "replay", .nanoseconds = true};
    replay->flows = flows;
    replay->left = count;
    int result = fill(replay, seed);
    if (result) {
        replay_close(&replay->port, false, &error);
        return result;
    }
    *port = &replay->port;
    return 0;
}

void replay_more(struct sm_port *port, uint64_t count)
{
    ((struct replay *)port)->left += count;
}
