/* SPDX-License-Identifier: BSD-2-Clause */
#include "ends.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

uint64_t random_next(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

const char *end_open(struct end *end, int (*setup)(struct sm_replica *replica))
{
    const struct arena_options options = {
        .service = "codec", .linktype = 1, .seed = 7, .memory = 64u << 20, .flows = 1u << 20};
    static struct sm_errbuf error;

    if (arena_create(&end->arena, &end->fd, &options, &error) != 0)
        return error.text;
    channel_reset(arena_channel(end->arena, 0, 0), 1024, end->arena->bindings);
    end->replica = calloc(1, sizeof *end->replica);
    end->replica->registration = calloc(1, sizeof *end->replica->registration);
    strcpy(end->replica->registration->middlebox, "codec");
    int result = replica_bind(end->replica, end->arena, 0);
    if (result == 0)
        result = setup(end->replica);
    if (result == 0)
        result = arena_register(end->arena, 0, end->replica->registration, &error);
    free(end->replica->registration);
    end->replica->registration = NULL;
    if (result == 0)
        replica_learn_classes(end->replica);
    return result == 0 ? NULL : error.text[0] ? error.text : sm_strerror(result);
}

void end_close(struct end *end)
{
    replica_unbind(end->replica);
    free(end->replica);
    arena_unmap(end->arena);
    close(end->fd);
}

void end_commit(struct end *end)
{
    end->replica->complete = end->replica->produced;
    end->replica->consumed++;
    replica_commit(end->replica, true);
    journal_packet(&end->replica->journal);
}

struct codec_buffer end_encode(struct end *end, size_t *flows)
{
    struct codec_buffer out = {.size = 128u << 10};
    struct flow *flow;

    out.bytes = malloc(out.size);
    if (codec_header(&end->replica->codec, &out) != 0)
        abort();
    *flows = out.used;
    for (uint32_t shard = 0; shard < SM_SHARDS + STATE_STRIPES; shard++)
        for (uint32_t cursor = 0; (flow = state_next(end->replica->state, shard, &cursor)) != NULL;) {
            int result = codec_encode(&end->replica->codec, shard, flow, &out);
            while (result == SM_E_LIMIT) {
                out.bytes = realloc(out.bytes, out.size *= 2);
                result = codec_encode(&end->replica->codec, shard, flow, &out);
            }
            if (result != 0)
                abort();
        }
    return out;
}

uint32_t end_shard(const struct end *end, unsigned cls, const struct sm_key *key)
{
    uint64_t hash = state_hash(end->arena->state, key);

    return state_class(end->arena->state, cls)->partitioned ? (uint32_t)(hash >> 40) % SM_SHARDS
                                                            : state_stripe_of(hash);
}

int end_decode(struct end *end, const struct codec_source *source, const uint8_t *bytes, size_t length,
               struct sm_errbuf *error)
{
    const struct codec *codec = &end->replica->codec;
    struct sm_key key;
    unsigned cls;

    for (size_t at = 0, used = 0; at < length; at += used) {
        int result = codec_peek(codec, source, bytes + at, length - at, &key, &cls, &used);
        if (result == 0)
            result =
                codec_decode(codec, source, end_shard(end, cls, &key), 5000, bytes + at, length - at, &used, error);
        end_commit(end);
        if (result)
            return result;
    }
    return 0;
}
