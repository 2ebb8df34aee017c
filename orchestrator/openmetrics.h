/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_ORCHESTRATOR_OPENMETRICS_H
#define SM_ORCHESTRATOR_OPENMETRICS_H

#include <jansson.h>

#define OPENMETRICS_TYPE "application/openmetrics-text; version=1.0.0; charset=utf-8"

/*
 * A status as the switch reports it (smctl(1), REPORT) in the OpenMetrics text format 1.0. What the report does not
 * have is left out. Labels are reasons, replicas, ports and the like, never a flow. The text is the caller's, for
 * free(); NULL: out of memory.
 */
char *openmetrics_text(const json_t *status);

#endif
