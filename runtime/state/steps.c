/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of places; see steps.h. */

#include "state/steps.h"

#ifdef SM_STEPS

void (*step_taken)(const struct step_place *const *place);
bool (*step_allocation_fails)(void);

/* Where the linker puts what is in that section: of this program or library alone. */
extern const struct step_place *const __start_sm_steps[] __attribute__((visibility("hidden")));
extern const struct step_place *const __stop_sm_steps[] __attribute__((visibility("hidden")));

const struct step_place *const *step_first(void)
{
    return __start_sm_steps;
}

unsigned step_count(void)
{
    return (unsigned)(__stop_sm_steps - __start_sm_steps);
}

#endif
