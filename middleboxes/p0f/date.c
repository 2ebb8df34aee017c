/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * mktime() for fp_http.c, in the port and in the original: of a date that it has read it leaves open whether it is in
 * summer time, and what is on the stack decides by an hour. Here dates are never in it.
 */

#include <time.h>

time_t date_seconds(struct tm *date);

time_t date_seconds(struct tm *date)
{
    date->tm_isdst = 0;
    return mktime(date);
}
