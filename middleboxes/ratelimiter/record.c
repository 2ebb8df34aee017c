/* SPDX-License-Identifier: BSD-2-Clause */
#include "record.h"

_Static_assert(sizeof(struct record) % 16 == 0, "buckets follow it");

static uint32_t bucket_size(uint32_t spans)
{
    return (uint32_t)(spans ? SM_SHARED_BUCKET_SIZE(spans) : sizeof(struct sm_bucket));
}

uint32_t record_size(uint32_t spans, bool apart)
{
    return (uint32_t)sizeof(struct record) + bucket_size(spans) * (apart ? 2 : 1);
}

unsigned record_fields(struct sm_field *fields, const char *unit, uint32_t spans, bool apart)
{
    static const char *const first[] = {"tokens", "as_of", "debits_ahead", "capacity", "debits"};
    static const char *const second[] = {"own_tokens", "own_as_of", "own_debits_ahead", "own_capacity", "own_debits"};
    const uint16_t at = sizeof(struct record);
    unsigned count = sm_bucket_fields(fields, at, first, unit, spans);

    if (apart)
        count += sm_bucket_fields(fields + count, (uint16_t)(at + bucket_size(spans)), second, unit, spans);
#define FIELD(member, kind)                                                                                            \
    fields[count++] = (struct sm_field){.name = #member,                                                               \
                                        .type = (kind),                                                                \
                                        .offset = offsetof(struct record, member),                                     \
                                        .size = sizeof(((struct record *)0)->member)}
    FIELD(of, SM_FIELD_OPAQUE);
    FIELD(passed, SM_FIELD_UINT);
    fields[count - 1].unit = unit;
    FIELD(exceeded, SM_FIELD_UINT);
    fields[count - 1].unit = "packets";
    FIELD(current, SM_FIELD_UINT);
    FIELD(last, SM_FIELD_UINT);
    FIELD(second, SM_FIELD_UINT);
    FIELD(limit, SM_FIELD_UINT);
    FIELD(packets, SM_FIELD_UINT);
#undef FIELD
    return count;
}
