/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_RIVALS_MESSAGES_H
#define SM_BENCH_RIVALS_MESSAGES_H

/*
 * What OpenNF's controller, its network functions and the switch say to one another: one JSON object a line, as its
 * authors have it, over a stream socket. Names are the paper's. What is sent waits in the socket for whoever reads it;
 * bodies are bytes, written as hexadecimal.
 */

#include <stdbool.h>
#include <stdint.h>

#define MESSAGE_BODY 192u /* bytes */

enum message_kind {
    /* To a function. */
    MESSAGE_ENABLE_EVENTS, /* number: an enum events (instance.h) */
    MESSAGE_DISABLE_EVENTS,
    MESSAGE_GET_PERFLOW,
    MESSAGE_PUT_PERFLOW, /* body: a flow */
    MESSAGE_DEL_PERFLOW, /* the flows that were got last */
    /* From a function. */
    MESSAGE_PERFLOW,   /* one flow of those asked for */
    MESSAGE_GOT,       /* that was the last of them */
    MESSAGE_PUT,       /* that flow is there */
    MESSAGE_EVENT,     /* a packet that came and was not processed; body: it */
    MESSAGE_PROCESSED, /* number: the ticket of a packet that was */
    /* To the switch, and from it. */
    MESSAGE_INSTALL,    /* number: where packets go from now on */
    MESSAGE_PACKET_OUT, /* number: to which function; body: the packet */
    MESSAGE_PACKET_IN,  /* number: its ticket; body: the packet */
    MESSAGE_DONE,       /* of both; from the switch: how many packets went by the rule that is replaced */
    MESSAGE_KINDS
};

struct message {
    enum message_kind kind;
    uint64_t number;
    uint32_t bytes;
    uint8_t body[MESSAGE_BODY];
};

/* One end of a connection. One thread. */
struct mailbox {
    int fd;
    uint32_t begin, end; /* of what was read and not yet taken */
    char text[65536];
};

/* False: no sockets. */
bool mailbox_pair(struct mailbox *one, struct mailbox *other);
void mailbox_close(struct mailbox *mailbox);

/* Send. False: the other end has gone, or no memory. */
bool mailbox_say(struct mailbox *to, enum message_kind kind, uint64_t number, const void *body, uint32_t bytes);

/* 1: *message is the next one. 0: there is none yet. -1: the other end has gone, or talks nonsense. Never waits. */
int mailbox_hear(struct mailbox *from, struct message *message);

#endif
