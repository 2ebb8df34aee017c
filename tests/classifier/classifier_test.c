/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The classifier over a real capture, split, merged and moved at random, also by copying, its replicas killed anywhere:
 * each flow gets the verdict that it gets unsplit, and every line of the log is one that the unsplit one writes.
 *
 *   classifier_test FILE        (SM_SEED: the first seed; SM_FULL=1: more of them)
 */
#include <fcntl.h>
#include <splitmerge/testing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "classifier.h"
#include "detect.c" /* for what is under way: its chunks, and the pointers among them */

enum { MODES = 3, MOST_LINES = 65536 };

static struct classifier *classifier;
static struct sm_errbuf error;

static int setup(struct sm_replica *replica, void **user)
{
    *user = classifier;
    return classifier_register(classifier, replica);
}

static unsigned pointers_of(const struct detection *detection)
{
    struct link link;
    uint64_t word;
    unsigned count = 0;

    for (const struct chunk *chunk = detection->chunks; chunk; chunk = chunk->next)
        for (size_t at = 0; at + sizeof word <= chunk->size; at += sizeof word) {
            memcpy(&word, (const uint8_t *)body_of(chunk) + at, sizeof word);
            count += leads_into(detection, word, &link);
        }
    return count;
}

/* Records hold addresses: what has been found is compared, and the shape of what is known on the way there. */
static uint64_t digest(const struct sm_test_flow *flow)
{
    const struct classified *record = flow->record;
    const uint8_t *bytes = flow->record;
    uint64_t hash = count_of(&record->detection) * 1000ull + pointers_of(&record->detection);

    for (size_t i = 0; i < offsetof(struct classified, detection); i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3;
    return hash;
}

/* For the leak checker. A replica that is killed while nDPI opens a QUIC packet leaves a cipher of libgcrypt's open: in
 * a process of its own it would go with it. */
__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libgcrypt";
}

/* ---- the log ---- */

static char *read_log(const char *file)
{
    FILE *in = fopen(file, "r");
    char *text = NULL;
    size_t size = 0;

    if (in && getdelim(&text, &size, '\0', in) < 0)
        text = strdup("");
    if (in)
        fclose(in);
    return text;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The different lines of a log, in order. */
static unsigned lines_of(char *text, char **lines)
{
    unsigned count = 0, different = 0;
    char *rest = text;

    for (char *line; count < MOST_LINES && (line = strsep(&rest, "\n")) && *line;)
        lines[count++] = line;
    qsort(lines, count, sizeof *lines, by_text);
    for (unsigned i = 0; i < count; i++)
        if (different == 0 || strcmp(lines[i], lines[different - 1]) != 0)
            lines[different++] = lines[i];
    return different;
}

/* Lines are written at least once: repetitions do not count. */
static bool same_lines(const char *log, const char *expected)
{
    static char *ours[MOST_LINES], *theirs[MOST_LINES];
    char *text = read_log(log), *whole = read_log(expected);
    unsigned count = text ? lines_of(text, ours) : 0, wanted = whole ? lines_of(whole, theirs) : 0;
    bool same = count == wanted && wanted > 0;

    for (unsigned i = 0; same && i < count; i++)
        same = strcmp(ours[i], theirs[i]) == 0;
    if (!same)
        printf("lines: expected %u, got %u\n", wanted, count);
    free(text);
    free(whole);
    return same;
}

/* ---- runs ---- */

/* A run to its end, whose lines are in `log`; NULL: error says what went wrong. */
static struct sm_test *run(const struct sm_test_options *options, const char *log)
{
    int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
    struct sm_test *test = NULL;

    error.text[0] = '\0';
    classifier = fd >= 0 ? classifier_create(fd, &error) : NULL;
    int result = classifier ? sm_test_create(&test, options, &error) : SM_E_IO;
    if (result == 0 && (result = sm_test_finish(test)) != 0)
        snprintf(error.text, sizeof error.text, "%.200s", sm_test_result(test)->broken);
    if (classifier)
        classifier_destroy(classifier);
    close(fd);
    if (result != 0)
        sm_test_destroy(test, NULL);
    return result == 0 ? test : NULL;
}

static bool one_seed(struct sm_test_options options, uint64_t seed, struct sm_test *whole)
{
    static const char *const modes[MODES] = {"kills", "copies", "kills and copies"};
    const unsigned mode = seed % MODES;

    options.seed = seed;
    options.replicas = 3;
    options.schedule = true;
    options.kills = mode == 1 ? 0 : 300;
    options.copies = mode != 0;
    struct sm_test *test = run(&options, "split.log");
    bool ok = test && sm_test_same(test, whole, SM_BY_ALL, &error) && same_lines("split.log", "alone.log");
    struct sm_test_result result = test ? *sm_test_result(test) : (struct sm_test_result){0};
    printf("%s seed %llu, %s: %llu moves (%llu copied), %llu deaths %s\n", ok ? "ok  " : "FAIL",
           (unsigned long long)seed, modes[mode], (unsigned long long)result.moves, (unsigned long long)result.copied,
           (unsigned long long)result.deaths, error.text);
    sm_test_destroy(test, NULL);
    return ok;
}

int main(int argc, char **argv)
{
    const char *given = getenv("SM_SEED"), *full = getenv("SM_FULL");
    const uint64_t first = given ? strtoull(given, NULL, 0) : (uint64_t)getpid();
    struct sm_test_options options = {.size = sizeof options,
                                      .on_packet = classifier_packet,
                                      .setup = setup,
                                      .digest = digest,
                                      .order_arrival = true};
    unsigned failures = 0;

    if (argc != 2) {
        fprintf(stderr, "usage: classifier_test FILE\n");
        return 2;
    }
    options.capture = argv[1];
    printf("seed %llu: SM_SEED=%llu to repeat\n", (unsigned long long)first, (unsigned long long)first);
    struct sm_test *whole = run(&options, "alone.log");
    if (!whole) {
        printf("FAIL alone: %s\n", error.text);
        return 1;
    }
    for (unsigned i = 0; i < (full && *full == '1' ? 60 : MODES); i++)
        failures += !one_seed(options, first + i, whole);
    sm_test_destroy(whole, NULL);
    return failures != 0;
}
