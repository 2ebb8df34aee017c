/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef NAT_FTP_H
#define NAT_FTP_H

/*
 * What an FTP client says of its data connections (RFC 959, RFC 2428): "PORT 10,0,0,5,4,1" and "EPRT |1|10.0.0.5|1025|"
 * ask the server to connect to an address that it cannot reach, and are written anew. (The answers to PASV and EPSV
 * name the server's own address: such a connection is one from inside like any other.) Where the text gets another
 * length, all later sequence numbers of the connection are shifted. Pure.
 */

#include <stdbool.h>
#include <stdint.h>

#include "translate.h"

#define FTP_CONTROL 21
#define FTP_DATA 20     /* where servers connect from */
#define FTP_MAX_TEXT 64 /* of a command */

struct ftp_command {
    bool extended; /* EPRT */
    struct end end;
    uint32_t length; /* of the line, its end counted in */
};

/* Whether a segment begins with a whole command of these two. */
bool ftp_read(const uint8_t *text, uint32_t length, struct ftp_command *command);

/* The command for another end; returns its length. */
uint32_t ftp_write(char text[FTP_MAX_TEXT], const struct ftp_command *command, const struct end *end);

/* The shift of a connection's sequence numbers: `before` up to the last command that changed it, `after` behind it. */
struct ftp_shift {
    uint32_t at; /* the command's own number, as the client has it */
    int32_t before, after;
};

/* The client's number as the server is to see it, and the server's acknowledgement as the client expects it. */
uint32_t ftp_shift_sequence(const struct ftp_shift *shift, uint32_t sequence);
uint32_t ftp_shift_back(const struct ftp_shift *shift, uint32_t acknowledged);

/* The command at `sequence` has become longer by `more` (or shorter). One that is sent again changes nothing. */
void ftp_shift_add(struct ftp_shift *shift, uint32_t sequence, int32_t more);

#endif
