/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_ORCHESTRATOR_OPENMETRICS_H
#define SM_ORCHESTRATOR_OPENMETRICS_H

#include <jansson.h>

enum metrics_format {
    METRICS_TEXT, /* of Prometheus, 0.0.4: for whoever does not ask for the other, as promtool */
    METRICS_OPEN, /* OpenMetrics 1.0 */
};

/*
 * A status as the switch reports it (smctl(1), REPORT) as text with its metrics. What the report does not
 * have is left out. Labels are reasons, replicas, ports and the like, never a flow. The text is the caller's, for
 * free(); NULL: out of memory.
 */
char *openmetrics_text(const json_t *status, enum metrics_format format);

#endif
