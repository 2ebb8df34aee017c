/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_TESTS_SAVER_H
#define SM_TESTS_SAVER_H

/* Checkpoints of a service under test, one after the other, in the turns that it is given. One service at a time. */

#include <splitmerge/testing.h>

/* Between two steps of the test. */
void saver_step(const struct sm_test *test);

/* Before the test's end: what is under way is given up. What was wrong, or NULL. */
const char *saver_end(const struct sm_test *test);

extern unsigned saver_saved; /* checkpoints that became whole */

#endif
