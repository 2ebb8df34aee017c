/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_TESTS_SAVER_H
#define SM_TESTS_SAVER_H

/* Checkpoints of a service under test, one after the other, in the turns that it is given. One service at a time. */

#include <splitmerge/testing.h>

/* As sm_test_until(), with a step of saving before each step of the test. The switch may die in either. */
int saver_until(struct sm_test *test, bool (*condition)(const struct sm_test *test, void *arg), void *arg);

/* Before the test's end: what is under way is given up. What was wrong, or NULL. */
const char *saver_end(const struct sm_test *test);

extern unsigned saver_saved; /* checkpoints that became whole */

#endif
