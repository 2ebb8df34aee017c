/* SPDX-License-Identifier: BSD-2-Clause */
#include "rivals/messages.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char *const names[] = {
    [MESSAGE_ENABLE_EVENTS] = "enableEvents",
    [MESSAGE_DISABLE_EVENTS] = "disableEvents",
    [MESSAGE_GET_PERFLOW] = "getPerflow",
    [MESSAGE_PUT_PERFLOW] = "putPerflow",
    [MESSAGE_DEL_PERFLOW] = "delPerflow",
    [MESSAGE_PERFLOW] = "perflow",
    [MESSAGE_GOT] = "got",
    [MESSAGE_PUT] = "put",
    [MESSAGE_EVENT] = "event",
    [MESSAGE_PROCESSED] = "processed",
    [MESSAGE_INSTALL] = "install",
    [MESSAGE_PACKET_OUT] = "packetOut",
    [MESSAGE_PACKET_IN] = "packetIn",
    [MESSAGE_DONE] = "done",
};

_Static_assert(sizeof names / sizeof *names == MESSAGE_KINDS, "every kind has a name");

static const char digits[] = "0123456789abcdef";

bool mailbox_pair(struct mailbox *one, struct mailbox *other)
{
    int ends[2] = {-1, -1};
    bool made = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0;

    one->fd = ends[0];
    other->fd = ends[1];
    one->begin = one->end = other->begin = other->end = 0;
    return made;
}

void mailbox_close(struct mailbox *mailbox)
{
    if (mailbox->fd >= 0)
        close(mailbox->fd);
    mailbox->fd = -1;
}

static bool send_whole(int fd, const char *text, size_t bytes)
{
    while (bytes > 0) {
        ssize_t sent = send(fd, text, bytes, MSG_NOSIGNAL);
        if (sent < 0 && errno != EINTR)
            return false;
        text += sent > 0 ? sent : 0;
        bytes -= sent > 0 ? (size_t)sent : 0;
    }
    return true;
}

bool mailbox_say(struct mailbox *to, enum message_kind kind, uint64_t number, const void *body, uint32_t bytes)
{
    char hexadecimal[2 * MESSAGE_BODY], line[2 * MESSAGE_BODY + 128];
    const uint8_t *from = body;

    for (uint32_t i = 0; i < bytes; i++) {
        hexadecimal[2 * i] = digits[from[i] >> 4];
        hexadecimal[2 * i + 1] = digits[from[i] & 15];
    }
    json_t *json = json_pack("{s:s, s:I, s:s%}", "call", names[kind], "number", (json_int_t)number, "body", hexadecimal,
                             (size_t)2 * bytes);
    size_t length = json ? json_dumpb(json, line, sizeof line - 1, JSON_COMPACT) : 0;
    json_decref(json);
    if (length == 0 || length >= sizeof line)
        return false;
    line[length] = '\n';
    return send_whole(to->fd, line, length + 1);
}

static int value_of(char digit)
{
    const char *at = memchr(digits, digit, 16);

    return at ? (int)(at - digits) : -1;
}

static bool read_body(struct message *message, const char *text, size_t length)
{
    if (length > 2 * (size_t)MESSAGE_BODY)
        return false;
    message->bytes = (uint32_t)length / 2;
    for (uint32_t i = 0; i < message->bytes; i++) {
        int high = value_of(text[2 * i]), low = value_of(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        message->body[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static bool read_message(const char *line, size_t length, struct message *message)
{
    json_t *json = json_loadb(line, length, 0, NULL);
    const char *call, *body;
    size_t bytes;
    json_int_t number;
    bool known = false;

    if (json && json_unpack(json, "{s:s, s:I, s:s%}", "call", &call, "number", &number, "body", &body, &bytes) == 0) {
        for (message->kind = 0; message->kind < MESSAGE_KINDS; message->kind++)
            if ((known = strcmp(call, names[message->kind]) == 0))
                break;
        message->number = (uint64_t)number;
        known &= read_body(message, body, bytes);
    }
    json_decref(json);
    return known;
}

/* Read what has come. False: the other end has gone. */
static bool fill(struct mailbox *from)
{
    if (from->begin > 0) {
        memmove(from->text, from->text + from->begin, from->end - from->begin);
        from->end -= from->begin;
        from->begin = 0;
    }
    ssize_t got = recv(from->fd, from->text + from->end, sizeof from->text - from->end, MSG_DONTWAIT);
    if (got <= 0)
        return got < 0 && (errno == EAGAIN || errno == EINTR);
    from->end += (uint32_t)got;
    return true;
}

static const char *end_of_line(const struct mailbox *from)
{
    return memchr(from->text + from->begin, '\n', from->end - from->begin);
}

int mailbox_hear(struct mailbox *from, struct message *message)
{
    const char *end = end_of_line(from);

    if (!end && !fill(from))
        return -1;
    end = end ? end : end_of_line(from);
    if (!end)
        return 0;
    const char *line = from->text + from->begin;
    size_t length = (size_t)(end - line);
    from->begin += (uint32_t)length + 1;
    return read_message(line, length, message) ? 1 : -1;
}
