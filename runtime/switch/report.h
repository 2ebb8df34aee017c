/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_SWITCH_REPORT_H
#define SM_SWITCH_REPORT_H

/* What the switch knows, as JSON: the one place that names the keys of reports and of the control protocol's status. */

#include <jansson.h>

#include "switch/switch.h"

/* A new reference; NULL: out of memory. On the switch's thread. */
json_t *switch_report(struct sm_switch *sw);

/* The fields of one record as an object {name: {"value", "unit"}}; a class without fields gives its bytes in hex. */
json_t *report_record(const struct state_class *cls, const uint8_t *record);

/* The same of what a class's callback wrote: each of its values, lists and maps as they are, bytes in hex. */
json_t *report_encoded(const uint8_t *bytes, uint32_t length);

/* Bytes in hexadecimal. The shared objects, an array (shared_report.c). */
json_t *report_hex(const uint8_t *bytes, unsigned count);
json_t *report_shared(const struct sm_switch *sw);

#endif
