/* SPDX-License-Identifier: BSD-2-Clause */
#include "saver.h"

#include <stdio.h>
#include <unistd.h>

#include "switch/checkpoint.h"
#include "switch/restore.h"
#include "testing/test.h"

unsigned saver_saved;

static struct checkpoint *checkpoint;
static char file[64];
static bool failed;
static struct sm_errbuf error;

static void begin(const struct sm_test *test)
{
    snprintf(file, sizeof file, "/dev/shm/splitmerge-places.%d", getpid());
    failed =
        switch_snapshot_start(test->sw, &error) != 0 || checkpoint_open(&checkpoint, test->arena, file, &error) != 0;
}

static void finish(const struct sm_test *test)
{
    struct checkpoint_size size;
    struct restore *restore;

    switch_snapshot_end(test->sw);
    failed = checkpoint_finish(checkpoint, &size, &error) != 0;
    checkpoint = NULL;
    if (failed)
        return;
    failed = restore_open(&restore, test->arena, file, &error) != 0;
    if (failed)
        return;
    restore_close(restore);
    saver_saved++;
}

static void step(struct sm_test *test, void *arg)
{
    const uint8_t *part;
    bool last;

    (void)arg;
    if (failed)
        return;
    if (checkpoint && !test->sw->snapshot.active) { /* the switch that made it has died */
        checkpoint_abandon(checkpoint);
        checkpoint = NULL;
    }
    if (!checkpoint && !test->sw->input_ended)
        begin(test);
    if (failed || !checkpoint)
        return;
    switch (switch_snapshot_next(test->sw, &part)) {
    case SNAPSHOT_DONE:
        finish(test);
        break;
    case SNAPSHOT_PART:
        failed = checkpoint_part(checkpoint, part, &last, &error) != 0;
        switch_snapshot_taken(test->sw, last, checkpoint_covered(checkpoint));
        break;
    case SNAPSHOT_WAIT:
        break;
    }
}

int saver_until(struct sm_test *test, bool (*condition)(const struct sm_test *test, void *arg), void *arg)
{
    int result = 0;

    /* The threads that save are the switch's, and end with it. */
    while (result == 0 && (test_as_switch(test, step, NULL), !condition(test, arg)))
        result = sm_test_step(test);
    return result;
}

const char *saver_end(const struct sm_test *test)
{
    const char *wrong = failed ? error.text : NULL;

    if (test->sw->snapshot.active)
        switch_snapshot_end(test->sw);
    checkpoint_abandon(checkpoint);
    checkpoint = NULL;
    failed = false;
    unlink(file);
    return wrong;
}
