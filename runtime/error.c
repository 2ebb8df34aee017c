/* SPDX-License-Identifier: BSD-2-Clause */
#include <splitmerge/types.h>

const char *sm_strerror(int error)
{
    switch (error) {
    case 0:
        return "success";
#define SM_ERROR_CASE(value, name, text)                                                                               \
    case (value):                                                                                                      \
        return (text);
        SM_ERRORS(SM_ERROR_CASE)
#undef SM_ERROR_CASE
    default:
        return "unknown error";
    }
}

const char *sm_errname(int error)
{
    switch (error) {
    case 0:
        return "OK";
#define SM_ERROR_CASE(value, name, text)                                                                               \
    case (value):                                                                                                      \
        return #name;
        SM_ERRORS(SM_ERROR_CASE)
#undef SM_ERROR_CASE
    default:
        return "UNKNOWN";
    }
}

const char *sm_granularity_name(enum sm_granularity granularity)
{
    static const char *const names[] = {
#define SM_GRANULARITY_NAME(id, name) [id] = (name),
        SM_GRANULARITIES(SM_GRANULARITY_NAME)
#undef SM_GRANULARITY_NAME
    };
    return (unsigned)granularity < SM_GRANULARITY_COUNT ? names[granularity] : NULL;
}
