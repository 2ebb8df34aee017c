/* SPDX-License-Identifier: BSD-2-Clause */
#include "ports/internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>

int sm_port_fail(struct sm_errbuf *error, int code, const char *format, ...)
{
    if (error != NULL) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(error->text, sizeof error->text, format, arguments);
        va_end(arguments);
        for (char *c = error->text; *c != '\0'; c++)
            if (*c == '\n' || *c == '\r')
                *c = ' ';
    }
    return code;
}

int sm_port_errno_code(int errnum)
{
    switch (errnum) {
    case ENOENT:
    case ENOTDIR:
    case ENODEV:
    case ENXIO:
        return SM_E_NOT_FOUND;
    case EACCES:
    case EPERM:
    case EROFS:
        return SM_E_PERMISSION;
    case ENOMEM:
        return SM_E_NO_MEMORY;
    default:
        return SM_E_IO;
    }
}

int sm_port_flush_nothing(struct sm_port *port)
{
    (void)port;
    return 0;
}

int sm_port_fd_none(struct sm_port *port)
{
    (void)port;
    return -1;
}

int sm_port_close_plain(struct sm_port *port, bool whole, struct sm_errbuf *error)
{
    (void)whole;
    (void)error;
    free(port);
    return 0;
}

sm_time sm_frame_time_any(const struct sm_port *port, const struct sm_frame *frame)
{
    const uint64_t most = INT64_MAX;
    __int128 ns = (__int128)frame->seconds * 1000000000 + (__int128)frame->fraction * (port->nanoseconds ? 1 : 1000);

    if (ns < 0)
        return (sm_time){0};
    return (sm_time){ns > (__int128)most ? most : (uint64_t)ns};
}
