/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Packets, as the program asks for them.
 *
 * A packet is committed when the program comes back for more: with the burst that it is in when that is full, when
 * there is no other packet, and when pcap_dispatch() or pcap_loop() returns.
 *
 * The end.  A replica that is retired has no more packets, which live captures do not know: a program is told to end
 * by the signal that it handles for that, SIGTERM or SIGINT. It then calls pcap_breakloop(), or looks at a flag when it
 * gets control back, which it does as after a timeout. One that handles neither, or comes back nevertheless, is told
 * that its loop was broken; pcap_loop() returns 0, as at the end of a file.
 *
 * The descriptor.  Where the program waits for it itself, it is readable between calls unless the last one has found
 * nothing, also while a packet is in hand: so the program comes back and the packet is committed. Waking up for nothing
 * is what libpcap's descriptors may do, too.
 */

#include <errno.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include "pcap/handle.h"

#define DISPATCH_MOST 256 /* packets of a pcap_dispatch() that does not say: a buffer */
#define ENDED (-1000)     /* there will be no more packets */

EXPORT void pcap_breakloop(pcap_t *p)
{
    struct handle *handle = handle_of(p);
    uint64_t one = 1;
    int saved = errno;

    if (!handle) {
        REAL(pcap_breakloop)(p);
        return;
    }
    handle->broken = 1;
    if (write(handle->break_fd, &one, sizeof one) < 0)
        errno = saved; /* full only when it is readable anyway */
}

static bool was_broken(struct handle *handle)
{
    bool broken = handle->broken;

    if (broken)
        handle->broken = 0;
    return broken;
}

static void head(const struct handle *handle, const struct source_packet *packet, struct pcap_pkthdr *header)
{
    uint64_t rest = packet->time % 1000000000;

    header->ts.tv_sec = (time_t)(packet->time / 1000000000);
    header->ts.tv_usec = (suseconds_t)(handle->nanoseconds ? rest : rest / 1000);
    header->caplen = packet->caplen;
    header->len = packet->len;
}

/* The next packet that the filter lets through. 0; SM_E_AGAIN: there is none now; ENDED; or what the call returns. */
static int take(struct handle *handle, struct pcap_pkthdr *header, const u_char **data)
{
    struct source_packet packet;
    struct sm_errbuf error;

    for (;;) {
        if (was_broken(handle))
            return PCAP_ERROR_BREAK;
        int result = source_next(handle->source, &packet, &error);
        if (result == SM_E_AGAIN)
            return SM_E_AGAIN;
        if (result == SM_E_END)
            return ENDED;
        if (result)
            return handle_fail(handle, PCAP_ERROR, DEVICE_PREFIX "%s: %.170s", handle->service, error.text);
        head(handle, &packet, header);
        *data = packet.data;
        if (handle->filter.bf_insns && !REAL(pcap_offline_filter)(&handle->filter, header, *data))
            continue;
        handle->received++;
        if (header->caplen > (unsigned)handle->snaplen)
            header->caplen = (unsigned)handle->snaplen;
        return 0;
    }
}

static uint64_t milliseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* take(), and wait as the handle is set to, `forever` whatever it is set to. SM_E_AGAIN: not any longer. */
static int take_or_wait(struct handle *handle, bool forever, struct pcap_pkthdr *header, const u_char **data)
{
    uint64_t end = 0;
    bool in_hand = handle->in_hand;

    for (handle->in_hand = false;;) {
        int result = take(handle, header, data), left = -1;
        if (result != SM_E_AGAIN || (!forever && (handle->nonblocking || (handle->watched && in_hand))))
            return result;
        if (!forever && handle->timeout_ms > 0) {
            uint64_t now = milliseconds();
            end = end ? end : now + (unsigned)handle->timeout_ms;
            if (now >= end)
                return SM_E_AGAIN;
            left = (int)(end - now);
        }
        handle->readable = false;
        result = source_wait(handle->source, handle->immediate ? SOURCE_AT_ONCE : handle->timeout_ms, handle->break_fd,
                             left);
        if (result < 0 && result != SM_E_AGAIN)
            return handle_fail(handle, PCAP_ERROR, DEVICE_PREFIX "%s: the switch is gone", handle->service);
    }
}

/* Before a call returns: the descriptor is as it is to be. */
static void leave_readable(struct handle *handle, bool empty)
{
    if (!handle->watched)
        return;
    if (empty)
        source_arm(handle->source);
    else if (!handle->readable)
        source_wake(handle->source);
    handle->readable = !empty;
}

/*
 * Have the program end as whoever starts it by hand has it end. False: there is no such way. The handler has run before
 * this thread goes on, and closes what the handler may break; but where it leaves the signal to other threads.
 */
static bool tell(void)
{
    static const int numbers[] = {SIGTERM, SIGINT};
    sigset_t blocked;

    pthread_sigmask(SIG_BLOCK, NULL, &blocked);
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        struct sigaction handler;
        if (sigaction(numbers[i], NULL, &handler) == 0 && handler.sa_handler != SIG_DFL &&
            handler.sa_handler != SIG_IGN)
            return (sigismember(&blocked, numbers[i]) ? kill(getpid(), numbers[i]) : raise(numbers[i])) == 0;
    }
    return false;
}

/* The end has been met. Whether the program may have heard of it just now. */
static bool told_now(struct handle *handle)
{
    leave_readable(handle, false);
    if (handle->told)
        return false;
    handle->told = true;
    return tell();
}

/* What a call that has met it returns. */
static int ended(struct handle *handle)
{
    return told_now(handle) && !was_broken(handle) ? 0 : PCAP_ERROR_BREAK;
}

/* pcap_dispatch(), but for the end: ENDED where it comes before any packet. */
static int dispatch(struct handle *handle, int count, bool forever, pcap_handler callback, u_char *user)
{
    struct pcap_pkthdr header;
    const u_char *data;
    int done = 0, most = count > 0 ? count : DISPATCH_MOST, result = 0;

    while (done < most) {
        result = done > 0 ? take(handle, &header, &data) : take_or_wait(handle, forever, &header, &data);
        if (result)
            break;
        callback(user, &header, data);
        done++;
    }
    if (result == PCAP_ERROR || result == ENDED)
        return result == ENDED && done > 0 ? done : result;
    source_commit(handle->source);
    leave_readable(handle, result == SM_E_AGAIN);
    return result == PCAP_ERROR_BREAK ? result : done;
}

EXPORT int pcap_dispatch(pcap_t *p, int count, pcap_handler callback, u_char *user)
{
    struct handle *handle = handle_of(p);

    if (!handle)
        return REAL(pcap_dispatch)(p, count, callback, user);
    int result = handle_activated(handle);
    if (result == 0)
        result = dispatch(handle, count, false, callback, user);
    return result == ENDED ? ended(handle) : result;
}

EXPORT int pcap_loop(pcap_t *p, int count, pcap_handler callback, u_char *user)
{
    struct handle *handle = handle_of(p);

    if (!handle)
        return REAL(pcap_loop)(p, count, callback, user);
    int result = handle_activated(handle);
    if (result)
        return result;
    for (int left = count;;) {
        int done = dispatch(handle, count > 0 ? left : 0, true, callback, user);
        if (done == ENDED) {
            told_now(handle);
            return was_broken(handle) ? PCAP_ERROR_BREAK : 0;
        }
        if (done < 0 || (count > 0 && (left -= done) == 0))
            return done < 0 ? done : 0;
    }
}

EXPORT int pcap_next_ex(pcap_t *p, struct pcap_pkthdr **header, const u_char **data)
{
    struct handle *handle = handle_of(p);

    if (!handle)
        return REAL(pcap_next_ex)(p, header, data);
    int result = handle_activated(handle);
    if (result)
        return result;
    result = take_or_wait(handle, false, &handle->header, data);
    if (result == ENDED)
        return ended(handle);
    if (result == PCAP_ERROR)
        return result;
    leave_readable(handle, result == SM_E_AGAIN);
    if (result)
        return result == SM_E_AGAIN ? 0 : result;
    handle->in_hand = true;
    *header = &handle->header;
    return 1;
}

EXPORT const u_char *pcap_next(pcap_t *p, struct pcap_pkthdr *header)
{
    struct pcap_pkthdr *ours;
    const u_char *data;

    if (!handle_of(p))
        return REAL(pcap_next)(p, header);
    if (pcap_next_ex(p, &ours, &data) != 1)
        return NULL;
    *header = *ours;
    return data;
}
