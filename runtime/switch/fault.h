/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_SWITCH_FAULT_H
#define SM_SWITCH_FAULT_H

/*
 * Promises broken on purpose, for the test that sees them reported (tests/schedule/broken_test.c). Only that test's
 * build defines SM_FAULTS; everywhere else no fault can happen.
 */

enum switch_fault { FAULT_NONE, FAULT_LOSE, FAULT_REORDER, FAULT_ALTER, FAULT_TWO_OWNERS };

#ifdef SM_FAULTS
extern enum switch_fault switch_fault;
#define FAULT(name) (switch_fault == FAULT_##name)
#else
#define FAULT(name) 0
#endif

#endif
