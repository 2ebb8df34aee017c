/* SPDX-License-Identifier: BSD-2-Clause */
#include "pcap/handle.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static struct handle *_Atomic handles[HANDLES];

struct handle *handle_of(const pcap_t *p)
{
    for (unsigned i = 0; i < HANDLES; i++) {
        struct handle *handle = atomic_load_explicit(&handles[i], memory_order_acquire);
        if (handle && (const void *)handle == (const void *)p)
            return handle;
    }
    return NULL;
}

bool handle_enter(struct handle *handle)
{
    for (unsigned i = 0; i < HANDLES; i++) {
        struct handle *none = NULL;
        if (atomic_compare_exchange_strong(&handles[i], &none, handle))
            return true;
    }
    return false;
}

void handle_leave(struct handle *handle)
{
    for (unsigned i = 0; i < HANDLES; i++)
        if (atomic_load(&handles[i]) == handle)
            atomic_store(&handles[i], NULL);
}

bool handle_device(const char *device, const char **service)
{
    if (!device || strncmp(device, DEVICE_PREFIX, strlen(DEVICE_PREFIX)) != 0)
        return false;
    *service = device + strlen(DEVICE_PREFIX);
    return true;
}

int handle_fail(struct handle *handle, int code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(REAL(pcap_geterr)(handle->inner), PCAP_ERRBUF_SIZE, format, args);
    va_end(args);
    return code;
}

int handle_activated(struct handle *handle)
{
    return handle->source ? 0 : handle_fail(handle, PCAP_ERROR_NOT_ACTIVATED, "This handle hasn't been activated yet");
}
