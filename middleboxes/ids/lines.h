/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef IDS_LINES_H
#define IDS_LINES_H

/*
 * A file of lines that all replicas of a service write, each line exactly once, whoever is killed: what a packet wrote
 * is part of its burst, as what it did to state is.
 *
 * Where the file ends is a strong object. A replica has it to itself from its first line in a burst until the burst is
 * committed; it writes at that place, and moves it. Where it dies before the commit the place is back where it was, and
 * its lines are written over: by the same packets, which are processed once more, so that as many bytes at least
 * follow. A replica that has nothing to say never waits.
 */

#include <splitmerge/splitmerge.h>

struct lines {
    int fd;
    bool places; /* a file that can be written anywhere; else lines are written at least once */
    bool begun;  /* this process has seen to it that the file begins with this service */
    sm_strong end;
};

/* "-": standard output, which is no file with places even where it is one. False: *error says why. */
bool lines_open(struct lines *log, const char *file, struct sm_errbuf *error);
void lines_close(struct lines *log);

int lines_register(struct lines *log, struct sm_replica *replica);

/* Before anything else, by each replica: a file that is there is begun anew by the service's first one. */
void lines_start(struct lines *log, struct sm_replica *replica);

/* In the handler of a packet, or of a flow's end. False: it could not be written, errno says why. */
bool lines_write(struct lines *log, struct sm_replica *replica, const char *lines, size_t bytes);

#endif
