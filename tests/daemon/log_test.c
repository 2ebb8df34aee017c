/* SPDX-License-Identifier: BSD-2-Clause */
/* Each event is one line, whatever is in its names: as JSON by a parser that is not ours. SM_SEED fixes the names. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "daemon/log.h"

#define RUNS 2000

static char said[8192];

/* What one call writes, in `said`; its length. */
static size_t caught(enum log_level level, const char *event, const char *name, const char *message)
{
    int ends[2], before = dup(STDERR_FILENO);

    cr_assert_eq(pipe(ends), 0);
    dup2(ends[1], STDERR_FILENO);
    log_write(level, event, LOG_WITH(log_text("replica", name), log_text("none", NULL), log_number("shards", 16384)),
              "%s", message);
    dup2(before, STDERR_FILENO);
    close(before);
    close(ends[1]);
    ssize_t length = read(ends[0], said, sizeof said - 1);
    close(ends[0]);
    said[length > 0 ? length : 0] = '\0';
    return length > 0 ? (size_t)length : 0;
}

static json_t *caught_json(const char *name, const char *message)
{
    json_error_t error;
    size_t length = caught(LEVEL_WARNING, "happened", name, message);

    cr_assert(length > 0 && length < 4096, "%zu bytes", length);
    cr_assert_eq(strchr(said, '\n'), said + length - 1, "one line: %s", said);
    json_t *line = json_loads(said, JSON_REJECT_DUPLICATES, &error);
    cr_assert(line, "%s: %s", error.text, said);
    return line;
}

static const char *text_of(const json_t *line, const char *key)
{
    const char *text = json_string_value(json_object_get(line, key));

    cr_assert(text, "%s: %s", key, said);
    return text;
}

Test(log, json_has_what_was_said)
{
    log_begin("sm-test");
    log_of_service("edge");
    cr_assert(log_set_format("json"));
    json_t *line = caught_json("r\"1\\\n\t\x01\xc3\xa4\xf0\x9f\x90\x9f", "it's \"gone\"");

    cr_assert_str_eq(text_of(line, "replica"), "r\"1\\\n\t\x01\xc3\xa4\xf0\x9f\x90\x9f");
    cr_assert_str_eq(text_of(line, "message"), "it's \"gone\"");
    cr_assert_str_eq(text_of(line, "level"), "warning");
    cr_assert_str_eq(text_of(line, "component"), "sm-test");
    cr_assert_str_eq(text_of(line, "event"), "happened");
    cr_assert_str_eq(text_of(line, "service"), "edge");
    cr_assert_eq(json_integer_value(json_object_get(line, "shards")), 16384);
    cr_assert_not(json_object_get(line, "none"));
    int year, month, day, hour, minute, second, micros, end = 0;
    cr_assert_eq(sscanf(text_of(line, "time"), "%4d-%2d-%2dT%2d:%2d:%2d.%6dZ%n", &year, &month, &day, &hour, &minute,
                        &second, &micros, &end),
                 7);
    cr_assert(end == 27 && year > 2000, "%s", said);
    json_decref(line);
}

Test(log, what_is_no_utf8_is_replaced)
{
    static const char *const broken[] = {
        "\xff", "\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80",
        "\xc3", "\xe2\x82", "\xf0\x9f\x90", "a\x80z"};

    log_set_format("json");
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        json_t *line = caught_json(broken[i], "x");
        cr_assert(strstr(text_of(line, "replica"), "\xef\xbf\xbd"), "%zu: %s", i, said);
        json_decref(line);
    }
}

Test(log, any_name)
{
    const char *given = getenv("SM_SEED");
    unsigned seed = given ? (unsigned)strtoul(given, NULL, 0) : (unsigned)time(NULL) ^ (unsigned)getpid();
    char name[2000], message[3000];

    log_set_format("json");
    for (unsigned run = 0; run < RUNS; run++) {
        char *const texts[] = {name, message};
        const size_t sizes[] = {sizeof name, sizeof message};
        for (unsigned t = 0; t < 2; t++) {
            size_t length = (size_t)rand_r(&seed) % sizes[t];
            bool bytes = rand_r(&seed) % 2; /* else characters that are written as they are */
            for (size_t i = 0; i < length; i++)
                texts[t][i] = (char)(bytes ? rand_r(&seed) % 255 + 1 : "abc\"\\\n\xc3\xa4"[rand_r(&seed) % 8]);
            texts[t][length] = '\0';
        }
        json_decref(caught_json(name, message));
    }
}

Test(log, text_is_one_line)
{
    log_begin("sm-test");
    size_t length = caught(LEVEL_ERROR, "happened", "a b\"\n", "what\nwhere");

    cr_assert_eq(strchr(said, '\n'), said + length - 1, "%s", said);
    cr_assert(strstr(said, " error sm-test: what\\u000awhere event=happened replica=\"a b\\\"\\u000a\" shards=16384"),
              "%s", said);
}

/* systemd gives a stream socket and says which. */
Test(log, the_journal_gets_priorities)
{
    char stream[64];
    int before = dup(STDERR_FILENO);
    FILE *file = tmpfile();

    cr_assert(file);
    dup2(fileno(file), STDERR_FILENO);
    struct stat status;
    fstat(STDERR_FILENO, &status);
    snprintf(stream, sizeof stream, "%llu:%llu", (unsigned long long)status.st_dev, (unsigned long long)status.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
    log_begin("sm-test");
    log_write(LEVEL_WARNING, "happened", LOG_PLAIN, "it has");
    log_set_format("json");
    log_write(LEVEL_WARNING, "happened", LOG_PLAIN, "it has");
    dup2(before, STDERR_FILENO);
    rewind(file);
    cr_assert(fgets(said, sizeof said, file));
    cr_assert_str_eq(said, "<4>it has event=happened\n");
    cr_assert(fgets(said, sizeof said, file) && said[0] == '{', "%s", said);
    fclose(file);
    log_begin("sm-test"); /* elsewhere it is no journal */
    cr_assert(caught(LEVEL_WARNING, "happened", "r1", "it has") > 0 && said[0] != '<', "%s", said);
}

Test(log, levels)
{
    log_begin("sm-test");
    cr_assert(log_set_level("notice"));
    cr_assert_eq(caught(LEVEL_INFO, "happened", "r1", "x"), 0);
    cr_assert(caught(LEVEL_NOTICE, "happened", "r1", "x") > 0);
    cr_assert(caught(LEVEL_ERROR, "happened", "r1", "x") > 0);
    cr_assert_not(log_set_level("loud"));
    cr_assert_not(log_set_format("xml"));
}
