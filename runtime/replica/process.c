/* SPDX-License-Identifier: BSD-2-Clause */
#include "replica/process.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A replica's descriptor of the arena. */
struct descriptor {
    struct descriptor *next;
    int fd;
};

struct mapping {
    struct mapping *next;
    dev_t device; /* of the arena's file */
    ino_t inode;
    pid_t pid; /* whose it is: a child that was forked from it has neither the memory nor the locks */
    struct arena *arena;
    struct descriptor *descriptors;
    unsigned replicas;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct mapping *mappings;

static int fail(struct sm_errbuf *error, int result, const char *what)
{
    snprintf(error->text, sizeof error->text, "attach: %s", what);
    return result;
}

static void forget(struct mapping **link)
{
    struct mapping *mapping = *link;

    for (struct descriptor *at = mapping->descriptors, *next; at; at = next) {
        next = at->next;
        close(at->fd);
        free(at);
    }
    *link = mapping->next;
    free(mapping);
}

/* Those of the parent, in a child. */
static void forget_inherited(void)
{
    const pid_t pid = getpid();

    for (struct mapping **link = &mappings; *link;)
        if ((*link)->pid != pid)
            forget(link);
        else
            link = &(*link)->next;
}

/* The process's mapping of a file; a new one, without an arena, where there is none. NULL: out of memory. */
static struct mapping *mapping_of(const struct stat *file)
{
    struct mapping *mapping = mappings;

    while (mapping && (mapping->device != file->st_dev || mapping->inode != file->st_ino))
        mapping = mapping->next;
    if (mapping || !(mapping = calloc(1, sizeof *mapping)))
        return mapping;
    *mapping = (struct mapping){.next = mappings, .device = file->st_dev, .inode = file->st_ino, .pid = getpid()};
    mappings = mapping;
    return mapping;
}

static int lock(int fd, unsigned slot, short type)
{
    struct flock here = {.l_type = type, .l_whence = SEEK_SET, .l_start = slot, .l_len = 1};

    return fcntl(fd, F_SETLK, &here);
}

/* The lock comes first: who takes the arena over is to see us before we see the arena. */
static int enter(struct mapping *mapping, int fd, uint64_t base, uint64_t bytes, unsigned slot, struct sm_errbuf *error)
{
    struct arena *arena = mapping->arena;

    if (lock(fd, slot, F_RDLCK) != 0) {
        snprintf(error->text, sizeof error->text, "attach: the arena cannot be locked: %s", strerror(errno));
        return SM_E_IO;
    }
    int result = arena ? 0 : arena_map(&arena, fd, base, bytes, error);
    if (result == 0 && ((uintptr_t)arena != base || arena->bytes != bytes))
        result = fail(error, SM_E_PROTOCOL, "the switch's arena has another place in this process");
    if (result) {
        lock(fd, slot, F_UNLCK);
        return result;
    }
    mapping->arena = arena;
    mapping->replicas++;
    return 0;
}

int process_enter(struct arena **arena, int fd, uint64_t base, uint64_t bytes, unsigned slot, struct sm_errbuf *error)
{
    struct descriptor *descriptor = calloc(1, sizeof *descriptor);
    struct mapping *mapping = NULL;
    struct stat file;

    pthread_mutex_lock(&mutex);
    forget_inherited();
    int result = descriptor && fstat(fd, &file) == 0 && (mapping = mapping_of(&file))
                     ? 0
                     : fail(error, SM_E_NO_MEMORY, sm_strerror(SM_E_NO_MEMORY));
    if (mapping) {
        *descriptor = (struct descriptor){mapping->descriptors, fd};
        mapping->descriptors = descriptor;
        result = enter(mapping, fd, base, bytes, slot, error);
        *arena = mapping->arena;
        if (mapping->replicas == 0)
            forget(&mappings); /* a new one is the first */
    } else {
        free(descriptor);
        close(fd);
    }
    pthread_mutex_unlock(&mutex);
    return result;
}

void process_leave(struct arena *arena, unsigned slot)
{
    struct mapping **link = &mappings;

    pthread_mutex_lock(&mutex);
    while ((*link)->arena != arena)
        link = &(*link)->next;
    if (--(*link)->replicas > 0) {
        lock((*link)->descriptors->fd, slot, F_UNLCK);
    } else {
        arena_unmap(arena);
        forget(link);
    }
    pthread_mutex_unlock(&mutex);
}
