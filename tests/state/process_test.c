/* SPDX-License-Identifier: BSD-2-Clause */

/* Replicas of one process map an arena once, and each one's lock is there for as long as it is. */

#include <criterion/criterion.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "replica/process.h"

static struct arena *arena;
static int fd;

static void setup(void)
{
    const struct arena_options options = {
        .service = "process", .linktype = 1, .seed = 7, .memory = 32u << 20, .flows = 1000};
    struct sm_errbuf error;

    cr_assert_eq(arena_create(&arena, &fd, &options, &error), 0, "%s", error.text);
}

static void teardown(void)
{
    arena_unmap(arena);
    close(fd);
}

TestSuite(process, .init = setup, .fini = teardown);

/* The slots that a process other than ours has locked. */
static unsigned locked(void)
{
    unsigned slots = 0;

    for (unsigned slot = 0; slot < 4; slot++) {
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = slot, .l_len = 1};
        cr_assert_eq(fcntl(fd, F_GETLK, &lock), 0);
        slots |= (unsigned)(lock.l_type != F_UNLCK) << slot;
    }
    return slots;
}

/* As if the switch had sent it. */
static bool enter(unsigned slot, uint64_t bytes)
{
    struct arena *got = NULL;
    struct sm_errbuf error;

    return process_enter(&got, dup(fd), (uintptr_t)arena, bytes, slot, &error) == 0 && got == arena &&
           got->magic == ARENA_MAGIC;
}

/* A child of a process with replicas has neither their memory nor their locks, and may have a replica of its own. */
static bool fork_and_enter(unsigned slot, uint64_t bytes)
{
    int status = 1;
    pid_t child = fork();

    if (child == 0)
        _exit(enter(slot, bytes) ? 0 : 1);
    return waitpid(child, &status, 0) == child && status == 0;
}

/* Of a process that does not inherit the arena from us. */
static bool step(unsigned number, uint64_t bytes)
{
    switch (number) {
    case 0:
    case 1:
    case 2:
        return enter(number, bytes);
    case 3:
        process_leave(arena, 1);
        return true;
    case 4:
        return fork_and_enter(3, bytes);
    case 5: /* the last one unmaps it */
        process_leave(arena, 0);
        process_leave(arena, 2);
        return true;
    default:
        return enter(3, bytes);
    }
}

static const unsigned expected[] = {1, 3, 7, 5, 5, 0, 8}; /* locked after each step */

#define STEPS (sizeof expected / sizeof *expected)

static void run_steps(int go, int done, uint64_t bytes)
{
    char right;

    for (unsigned i = 0; read(go, &right, 1) == 1 && i < STEPS; i++) {
        right = step(i, bytes) ? 1 : 0;
        if (write(done, &right, 1) != 1)
            break;
    }
}

Test(process, a_replica_leaves_with_its_own_lock_only)
{
    int go[2], done[2];
    char right = 0;
    const uint64_t bytes = arena->bytes;

    cr_assert(pipe(go) == 0 && pipe(done) == 0);
    pid_t child = fork();
    if (child == 0) {
        run_steps(go[0], done[1], bytes);
        _exit(0);
    }
    close(done[1]);
    for (unsigned i = 0; i < STEPS; i++) {
        cr_assert_eq(write(go[1], "", 1), 1);
        cr_assert_eq(read(done[0], &right, 1), 1, "step %u: its process lives", i);
        cr_expect_eq(right, 1, "step %u", i);
        cr_expect_eq(locked(), expected[i], "step %u: locked is %x", i, locked());
    }
    cr_assert_eq(write(go[1], "", 1), 1);
    waitpid(child, NULL, 0);
    cr_expect_eq(locked(), 0, "the process has ended");
}
