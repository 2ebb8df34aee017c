/* SPDX-License-Identifier: BSD-2-Clause */
/* guard: two hosts may begin so many conversations a second; packets of further ones are dropped. */

#include <splitmerge/splitmerge.h>

#include <stdio.h>
#include <string.h>

#define CONVERSATIONS 4u
#define SECOND 1000000000u /* of packet time, in nanoseconds */
#define GREETING 32u

/* What is kept for two hosts. */
struct pair {
    uint32_t begun;   /* conversations, in the second that runs */
    uint32_t refused; /* packets, ever */
};

/* What is kept for a conversation. */
struct conversation {
    uint64_t packets;
    uint8_t *greeting; /* its first GREETING bytes; NULL: there was no room for them */
};

static const struct sm_field pair_fields[] = {
    {"begun", SM_FIELD_UINT, offsetof(struct pair, begun), sizeof(uint32_t), NULL, 0},
    {"refused", SM_FIELD_UINT, offsetof(struct pair, refused), sizeof(uint32_t), "packets", 0},
};

static sm_class pairs, conversations;
static sm_counter refused;
static uint16_t too_many;

static void second_over(struct sm_replica *replica, sm_class cls, sm_flow flow, unsigned slot, sm_time now, void *user)
{
    (void)replica, (void)cls, (void)slot, (void)now, (void)user;
    ((struct pair *)flow.state)->begun = 0;
}

static bool may_begin(struct sm_replica *replica, struct sm_packet *packet)
{
    sm_flow flow;

    if (sm_flow_create(replica, pairs, packet, 0, &flow, NULL) != 0)
        return true; /* no room to count: reported as flow_limit */
    struct pair *pair = flow.state;
    if (pair->begun == 0)
        sm_flow_timer_set(replica, pairs, flow, 0, (sm_time){sm_packet_time(packet).ns + SECOND});
    if (pair->begun == CONVERSATIONS)
        pair->refused++;
    return pair->begun < CONVERSATIONS && ++pair->begun;
}

static void begin(struct sm_replica *replica, struct sm_packet *packet)
{
    uint32_t bytes = sm_packet_caplen(packet) < GREETING ? sm_packet_caplen(packet) : GREETING;
    sm_flow flow;

    if (sm_flow_create(replica, conversations, packet, 0, &flow, NULL) != 0)
        return;
    struct conversation *conversation = flow.state;
    conversation->packets = 1;
    conversation->greeting = sm_alloc(replica, conversations, flow, GREETING);
    if (conversation->greeting)
        memcpy(conversation->greeting, sm_packet_data(packet), bytes);
}

static void on_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    sm_flow flow = sm_flow_get(replica, conversations, packet, 0);

    (void)user;
    if (flow.state) {
        ((struct conversation *)flow.state)->packets++;
    } else if (may_begin(replica, packet)) {
        begin(replica, packet);
    } else {
        sm_counter_add(replica, refused, 1);
        sm_packet_drop(packet, too_many);
    }
}

static int setup(struct sm_replica *replica)
{
    struct sm_class_options of_pairs = {.size = sizeof of_pairs, .name = "pairs", .granularity = SM_BY_HOST_PAIR};
    struct sm_class_options of_talks = {.size = sizeof of_talks, .name = "conversations", .granularity = SM_BY_FLOW};

    of_pairs.record_size = sizeof(struct pair);
    of_pairs.fields = pair_fields, of_pairs.field_count = 2;
    of_pairs.timers = 1, of_pairs.on_timer = second_over;
    of_talks.record_size = sizeof(struct conversation);
    of_talks.idle_timeout_ns = 5ull * SECOND;
    of_talks.alloc_limit = GREETING;
    int result = sm_class_register(replica, &of_pairs, &pairs);
    result = result ? result : sm_class_register(replica, &of_talks, &conversations);
    result = result ? result : sm_counter_register(replica, "refused", &refused);
    return result ? result : sm_drop_reason(replica, "too_many", &too_many);
}

int main(int argc, char **argv)
{
    struct sm_options options = {.size = sizeof options, .name = "guard", .on_packet = on_packet};
    struct sm_errbuf error = {""};
    struct sm_replica *replica;

    options.input = argc > 1 ? argv[1] : NULL;
    options.output = argc > 2 ? argv[2] : NULL;
    int result = sm_open(&replica, &options, &error);
    if (result == 0 && (result = setup(replica)) == 0 && (result = sm_start(replica, &error)) == 0)
        if ((result = sm_run(replica)) != 0)
            snprintf(error.text, sizeof error.text, "%s", sm_last_error(replica));
    if (result)
        fprintf(stderr, "guard: %s\n", error.text[0] ? error.text : sm_strerror(result));
    sm_close(replica);
    return result != 0;
}
