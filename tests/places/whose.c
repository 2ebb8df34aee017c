/* SPDX-License-Identifier: BSD-2-Clause */
#include "whose.h"

#include <string.h>

#include "state/steps.h"

static bool among(const char *const *functions, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(functions[i], name) == 0)
            return true;
    return false;
}

bool place_is_switchs(uint32_t place)
{
    static const char *const functions[] = {
        "builds_close",    "builds_open", "channel_reset", "finish_section", "hand_notes_out",
        "journal_recover", "settle_cell", "take_next",     "undo_entries",   "wipe",
    };
    const struct step_place *at = step_first()[place];

    return strstr(at->file, "/switch/") || among(functions, sizeof functions / sizeof *functions, at->function);
}

bool place_is_of(uint32_t place, const char *function)
{
    return strcmp(step_first()[place]->function, function) == 0;
}

bool place_is_same(uint32_t a, uint32_t b)
{
    const struct step_place *x = step_first()[a], *y = step_first()[b];

    return x->line == y->line && strcmp(x->function, y->function) == 0;
}

bool place_is_shared(uint32_t place)
{
    static const char *const functions[] = {
        "carry_out_frees",   "chunks_release",   "clear_group",    "journal_committed",
        "journal_free",      "journal_prepare",  "journal_record", "run_dissolve",
        "snapshot_fill_row", "state_copy_clear", "uncount",
    };

    return among(functions, sizeof functions / sizeof *functions, step_first()[place]->function);
}
