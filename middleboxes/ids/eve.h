/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef IDS_EVE_H
#define IDS_EVE_H

/* Alerts as lines of JSON, as in Suricata's EVE log. */

#include "rules.h"

#define EVE_LINE 2048u /* most bytes of a line */

/* Who sent what matched, and to whom. */
struct ends {
    uint8_t family, protocol;
    uint8_t source[16], destination[16];
    uint16_t source_port, destination_port; /* of ICMP: type and code */
    uint64_t began;                         /* ns; 0 where nothing is kept of the flow */
};

/* The line, with its newline, into `line`; returns its length. */
size_t eve_alert(char line[EVE_LINE], const struct rule *rule, const struct ends *ends, sm_time time);

#endif
