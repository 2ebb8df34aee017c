/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_STATE_STEPS_H
#define SM_STATE_STEPS_H

/*
 * Places where a test's replica may be killed: after each journal entry, around each commit, and between any two
 * changes to the arena that belong together. Only the test kit's build of the runtime (SM_STEPS) has them. Each has an
 * entry in a table that the linker puts together, so that a test can enumerate them and miss none.
 */

#include <stdbool.h>

struct step_place {
    const char *file, *function;
    unsigned line;
};

#ifdef SM_STEPS

/* Called at each place with its entry in the table [step_first(), step_first() + step_count()); NULL: go on. */
extern void (*step_taken)(const struct step_place *const *place);
/* Whether this allocation of a slab's object or a run is to fail; NULL: none. */
extern bool (*step_allocation_fails)(void);

const struct step_place *const *step_first(void);
unsigned step_count(void);

#define STEP()                                                                                                         \
    do {                                                                                                               \
        static const struct step_place step_here = {__FILE__, __func__, __LINE__};                                     \
        static const struct step_place *step_entry __attribute__((section("sm_steps"), used)) = &step_here;            \
        if (step_taken)                                                                                                \
            step_taken(&step_entry);                                                                                   \
    } while (0)
#define ALLOCATION_FAILS() (step_allocation_fails && step_allocation_fails())

#else

#define STEP() ((void)0)
#define ALLOCATION_FAILS() false

#endif

#endif
