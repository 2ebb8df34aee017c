/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The middlebox in the test kit: what it finds in streams that come in pieces, out of order, twice, or not whole; that
 * a signature that is split over packets is found whatever happens between them: moves, copies, deaths at each place
 * of the runtime, upgrades; and that each alert is there once.
 *
 *   ids_test FILE        (a capture; SM_SEED: the first seed; SM_FULL=1: more of them)
 */
#include <splitmerge/testing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fnv.h"
#include "ids.h"
#include "streams.h"

enum { MOST_LINES = 65536, MODES = 3 };

static const char *rules_text; /* of replicas that start now */
static struct sm_errbuf error;
static unsigned failures;

static bool expect(bool condition, const char *what, const char *more)
{
    if (!condition)
        printf("FAIL %s: %s\n", what, more);
    failures += !condition;
    return condition;
}

/* ---- replicas: each with an engine and a log of its own, as processes have ---- */

#define LOG "split.json"

struct member {
    struct rules *rules;
    struct engine *engine;
    struct lines lines;
    struct ids *ids;
};

static const char *log_file;

static void member_destroy(struct member *member)
{
    if (!member)
        return;
    ids_destroy(member->ids);
    lines_close(&member->lines);
    engine_destroy(member->engine);
    rules_destroy(member->rules);
    free(member);
}

static int setup(struct sm_replica *replica, void **user)
{
    struct member *member = calloc(1, sizeof *member);

    member->lines.fd = -1;
    member->rules = rules_parse("test.rules", rules_text, strlen(rules_text), &error);
    member->engine = member->rules ? engine_create(member->rules, &error) : NULL;
    if (!member->engine || !lines_open(&member->lines, log_file, &error) ||
        !(member->ids = ids_create(member->engine, &member->lines))) {
        member_destroy(member);
        return SM_E_INVALID;
    }
    *user = member;
    return ids_register(member->ids, replica);
}

static void ended(struct sm_replica *replica, void *user)
{
    (void)replica;
    member_destroy(user);
}

static void on_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    ids_packet(replica, packet, ((struct member *)user)->ids);
}

/* Records hold addresses: what they lead to is compared. */
static uint64_t digest(const struct sm_test_flow *flow)
{
    const struct connection *connection = flow->record;
    uint64_t hash = fnv(FNV_BEGIN, &connection->began, sizeof *connection - offsetof(struct connection, began));

    for (unsigned i = 0; i < 2; i++) {
        const struct stream *stream = &connection->streams[i];
        hash = fnv(hash, &stream->held_bytes, sizeof *stream - offsetof(struct stream, held_bytes));
        hash = fnv(hash, stream->packed, stream->packed_bytes);
        for (const struct segment *segment = stream->held; segment; segment = segment->next)
            hash = fnv(hash, segment->data, segment->bytes);
    }
    return hash;
}

static struct sm_test_options options_for(const struct sm_trace *trace)
{
    return (struct sm_test_options){.size = sizeof(struct sm_test_options),
                                    .on_packet = on_packet,
                                    .setup = setup,
                                    .ended = ended,
                                    .input = trace,
                                    .order_arrival = true,
                                    .digest = digest};
}

/* ---- the log ---- */

/* The lines, in the order of their text. */
struct log_text {
    char *text;
    char *lines[MOST_LINES];
    unsigned count;
};

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void read_log(struct log_text *log, const char *file)
{
    FILE *in = fopen(file, "r");
    size_t size = 0;

    log->text = NULL;
    log->count = 0;
    if (in && getdelim(&log->text, &size, '\0', in) > 0)
        for (char *rest = log->text, *line; log->count < MOST_LINES && (line = strsep(&rest, "\n")) && *line;)
            log->lines[log->count++] = line;
    if (in)
        fclose(in);
    qsort(log->lines, log->count, sizeof *log->lines, by_text);
}

/* The same lines, each as often. */
static bool same_logs(const char *one, const char *other)
{
    static struct log_text ours, theirs;

    read_log(&ours, one);
    read_log(&theirs, other);
    bool same = ours.count == theirs.count;
    for (unsigned i = 0; same && i < ours.count; i++)
        same = strcmp(ours.lines[i], theirs.lines[i]) == 0;
    if (!same)
        printf("%s has %u lines, %s %u\n", one, ours.count, other, theirs.count);
    free(ours.text);
    free(theirs.text);
    return same;
}

/* The sids of the log's lines in the order in which they were written: " 1 2". */
static void sids_of(const char *file, char *sids, size_t room)
{
    FILE *in = fopen(file, "r");
    char line[4096];
    size_t used = 0;

    sids[0] = '\0';
    while (in && fgets(line, sizeof line, in)) {
        const char *at = strstr(line, "\"signature_id\":");
        if (at && used < room)
            used += (size_t)snprintf(sids + used, room - used, " %d", atoi(at + strlen("\"signature_id\":")));
    }
    if (in)
        fclose(in);
}

/* ---- streams, packet by packet ---- */

#define CLIENT "10.0.0.1:1024"
#define SERVER "192.0.2.1:80"

enum { S = SM_TCP_SYN, A = SM_TCP_ACK, F = SM_TCP_FIN, R = SM_TCP_RST };

struct row {
    char from; /* c, s; 0: the end */
    unsigned flags;
    uint32_t sequence;
    const char *text;
    uint32_t acknowledged;
};

#define OPEN                                                                                                           \
    {'c', S, 99, "", 0}, {'s', S | A, 999, "", 100},                                                                   \
    {                                                                                                                  \
        'c', A, 100, "", 1000                                                                                          \
    }
#define MOST_ROWS 16

/* The kit's packets acknowledge nothing; these do. */
static void add_row(struct sm_trace *trace, const struct row *row, unsigned number)
{
    struct sm_trace *one = sm_trace_create();
    const bool client = row->from == 'c';
    const sm_time time = {1000000000000 + number * 1000000ull};

    if (sm_trace_tcp(one, time, client ? CLIENT : SERVER, client ? SERVER : CLIENT, row->flags, row->sequence,
                     row->text, (uint32_t)strlen(row->text)) != 0)
        abort();
    const struct sm_trace_packet packet = sm_trace_at(one, 0);
    uint8_t *bytes = malloc(packet.caplen);
    memcpy(bytes, packet.data, packet.caplen);
    for (unsigned i = 0; i < 4; i++)
        bytes[20 + 8 + i] = (uint8_t)(row->acknowledged >> (24 - 8 * i));
    if (sm_trace_add(trace, time, bytes, packet.caplen) != 0)
        abort();
    free(bytes);
    sm_trace_destroy(one);
}

static struct sm_trace *trace_of(const struct row *rows)
{
    struct sm_trace *trace = sm_trace_create();

    for (unsigned i = 0; i < MOST_ROWS && rows[i].from; i++)
        add_row(trace, &rows[i], i);
    return trace;
}

#define ANY "alert tcp any any -> any any "
#define ABCDEF ANY "(content:\"abcdef\"; sid:1;)\n"
#define AT_START ANY "(content:\"ab\"; depth:2; sid:2;)\n"

static const struct {
    const char *what, *rules;
    struct row rows[MOST_ROWS];
    const char *sids;
} streams[] = {
    {"one packet", ABCDEF AT_START, {OPEN, {'c', A, 100, "abcdef", 0}}, " 1 2"},
    {"split", ABCDEF, {OPEN, {'c', A, 100, "xab", 0}, {'c', A, 103, "cd", 0}, {'c', A, 105, "ef", 0}}, " 1"},
    {"once in a stream", ABCDEF, {OPEN, {'c', A, 100, "abcdef", 0}, {'c', A, 106, "abcdef", 0}}, " 1"},
    {"both directions", ABCDEF, {OPEN, {'c', A, 100, "abcdef", 0}, {'s', A, 1000, "abcdef", 0}}, " 1 1"},
    {"half in each direction", ABCDEF, {OPEN, {'c', A, 100, "abc", 0}, {'s', A, 1000, "def", 0}}, ""},
    {"out of order",
     ABCDEF AT_START,
     {OPEN, {'c', A, 104, "ef", 0}, {'c', A, 102, "cd", 0}, {'c', A, 100, "ab", 0}},
     " 1 2"},
    {"before its SYN's answer", ABCDEF, {{'c', S, 99, "", 0}, {'c', A, 103, "def", 0}, {'c', A, 100, "abc", 0}}, " 1"},
    {"sent again", ABCDEF, {OPEN, {'c', A, 100, "abc", 0}, {'c', A, 100, "abc", 0}, {'c', A, 103, "def", 0}}, " 1"},
    {"sent again, with more", ABCDEF, {OPEN, {'c', A, 100, "abc", 0}, {'c', A, 100, "abcdef", 0}}, " 1"},
    {"overlap: what was seen first holds, in order",
     ABCDEF,
     {OPEN, {'c', A, 100, "abcd", 0}, {'c', A, 102, "XXef", 0}},
     " 1"},
    {"overlap: what was held first holds",
     ABCDEF,
     {OPEN, {'c', A, 102, "cd", 0}, {'c', A, 101, "bXXef", 0}, {'c', A, 100, "aYYYYY", 0}},
     " 1"},
    {"overlap: held piece by piece",
     ABCDEF,
     {OPEN,
      {'c', A, 105, "f", 0},
      {'c', A, 103, "d", 0},
      {'c', A, 101, "bXcXe", 0},
      {'c', A, 102, "YYYY", 0},
      {'c', A, 100, "a", 0}},
     ""},
    {"overlap: around what is held",
     ABCDEF,
     {OPEN, {'c', A, 103, "d", 0}, {'c', A, 101, "bcXef", 0}, {'c', A, 100, "a", 0}},
     " 1"},
    {"sequence numbers that wrap",
     ABCDEF AT_START,
     {{'c', S, UINT32_MAX - 2, "", 0}, {'c', A, 2, "ef", 0}, {'c', A, UINT32_MAX - 1, "abc", 0}, {'c', A, 1, "d", 0}},
     " 2 1"},
    {"what is missing is not made up", ABCDEF, {OPEN, {'c', A, 100, "abc", 0}, {'c', A, 104, "def", 0}}, ""},
    {"behind a gap that was acknowledged",
     ABCDEF AT_START,
     {OPEN, {'c', A, 100, "x", 0}, {'c', A, 103, "abcdef", 0}, {'s', A, 1000, "", 109}},
     " 1"},
    {"across a gap that was acknowledged",
     ABCDEF,
     {OPEN, {'c', A, 100, "abc", 0}, {'c', A, 104, "def", 0}, {'s', A, 1000, "", 107}, {'c', A, 103, "d", 0}},
     ""},
    {"held where nothing was acknowledged",
     ABCDEF,
     {OPEN, {'c', A, 100, "x", 0}, {'c', A, 103, "abcdef", 0}, {'s', A, 1000, "", 101}},
     ""},
    {"from the middle", ABCDEF AT_START, {{'c', A, 500, "ab", 0}, {'c', A, 502, "cdef", 0}}, " 1"},
    {"from the answer on",
     AT_START,
     {{'s', S | A, 999, "", 100}, {'c', A, 100, "ab", 0}, {'s', A, 1000, "ab", 0}},
     " 2 2"},
    {"behind the end", ABCDEF, {OPEN, {'c', A | F, 100, "abc", 0}, {'c', A, 103, "def", 0}}, ""},
    {"the end comes early",
     ABCDEF,
     {OPEN, {'c', A | F, 103, "def", 0}, {'c', A, 100, "abc", 0}, {'c', A, 106, "abcdef", 0}},
     " 1"},
    {"what ends with the stream",
     ANY "(pcre:\"/abc$/\"; sid:3;)",
     {OPEN, {'c', A, 100, "abc", 0}, {'s', A, 1000, "abcd", 0}, {'s', A | F, 1004, "", 0}, {'c', A | F, 103, "", 0}},
     " 3"},
    {"a reset that is in order",
     ABCDEF,
     {OPEN, {'c', A, 100, "abc", 0}, {'s', R, 1000, "", 0}, {'c', A, 103, "def", 0}},
     ""},
    {"a reset that is not",
     ABCDEF,
     {OPEN, {'c', A, 100, "abc", 0}, {'s', R, 1007, "", 0}, {'c', A, 103, "def", 0}},
     " 1"},
    {"another connection of the same ends",
     ABCDEF AT_START,
     {OPEN, {'c', A, 100, "abc", 0}, {'c', S, 5000, "", 0}, {'c', A, 5001, "def", 0}, {'c', A, 5004, "abcdef", 0}},
     " 2 1"},
    {"another connection whose first SYN was not seen",
     ABCDEF AT_START,
     {OPEN, {'c', A, 100, "x", 0}, {'s', R, 1000, "", 0}, {'s', S | A, 4999, "", 300}, {'c', A, 300, "abcdef", 0}},
     " 1 2"},
    {"its first SYN again",
     ABCDEF,
     {OPEN, {'c', A, 100, "abc", 0}, {'c', S, 99, "", 0}, {'c', A, 103, "def", 0}},
     " 1"},
    {"data of a SYN", ABCDEF, {{'c', S, 99, "abc", 0}, {'s', S | A, 999, "", 103}, {'c', A, 103, "def", 0}}, " 1"},
    {"several contents, in any order",
     ANY "(content:\"one\"; content:\"two\"; content:\"six\"; sid:4;)",
     {OPEN, {'c', A, 100, "si", 0}, {'c', A, 102, "x two o", 0}, {'c', A, 109, "ne", 0}},
     " 4"},
    {"several contents, not all in one direction",
     ANY "(content:\"one\"; content:\"two\"; sid:4;)",
     {OPEN, {'c', A, 100, "one", 0}, {'s', A, 1000, "two", 0}},
     ""},
    {"distance and within",
     ANY "(content:\"a\"; content:\"bc\"; distance:1; within:3; sid:5;)\n" ANY
         "(content:\"a\"; content:\"bc\"; distance:2; sid:6;)\n" ANY
         "(content:\"a\"; content:\"bc\"; within:3; sid:7;)",
     {OPEN,
      {'c', A, 100, "a", 0},
      {'c', A, 101, "xx", 0},
      {'c', A, 103, "bc", 0},
      {'s', A, 1000, "a.", 0},
      {'s', A, 1002, "bc", 0}},
     " 5 6 5 7"},
    {"offset and depth",
     ANY "(content:\"ab\"; offset:2; depth:4; sid:8;)\n" ANY "(content:\"ab\"; offset:5; sid:9;)\n" ANY
         "(content:\"ab\"; depth:5; sid:10;)",
     {OPEN, {'c', A, 100, "xxxx", 0}, {'c', A, 104, "ab", 0}, {'s', A, 1000, "xxxxxab", 0}},
     " 8 9"},
    {"case",
     ANY "(content:\"ab\"; nocase; sid:11;)\n" ANY "(content:\"ab\"; sid:12;)\n" ANY "(pcre:\"/a.b/i\"; sid:13;)\n" ANY
         "(pcre:\"/a.b/s\"; sid:14;)",
     {OPEN, {'c', A, 100, "AB A.B a\nb", 0}},
     " 11 13 14"},
    {"to the server, established",
     ANY "(flow:established,to_server; content:\"abc\"; sid:15;)\n" ANY "(flow:to_client; content:\"abc\"; sid:16;)",
     {OPEN, {'s', A, 1000, "abc", 0}, {'c', A, 100, "abc", 0}},
     " 16 15"},
    {"not established",
     ANY "(flow:established; content:\"abc\"; sid:15;)\n",
     {{'c', S, 99, "abc", 0}, {'s', S | A, 999, "", 103}},
     ""},
    {"addresses and ports",
     "alert tcp 10.0.0.0/8 any -> any 80 (content:\"abc\"; sid:17;)\n"
     "alert tcp any 80 -> any any (content:\"abc\"; sid:18;)\nalert tcp any 80 <> any any (content:\"abc\"; sid:19;)\n"
     "alert udp any any -> any any (content:\"abc\"; sid:20;)\nalert ip any any -> 192.0.2.1 any (content:\"abc\"; "
     "sid:21;)",
     {OPEN, {'c', A, 100, "abc", 0}, {'s', A, 1000, "abc", 0}},
     " 17 19 21 18 19"},
};

static void find_in_streams(void)
{
    log_file = "stream.json";
    for (unsigned i = 0; i < sizeof streams / sizeof *streams; i++) {
        struct sm_trace *trace = trace_of(streams[i].rows);
        const struct sm_test_options options = options_for(trace);
        struct sm_test_result result;
        char sids[256], more[1100];
        rules_text = streams[i].rules;
        int status = sm_test_run(&options, &result, &error);
        sids_of(log_file, sids, sizeof sids);
        snprintf(more, sizeof more, "expected sids%s, got%s %s %s", streams[i].sids, sids, error.text, result.broken);
        expect(status == 0 && !result.broken[0] && strcmp(sids, streams[i].sids) == 0, streams[i].what, more);
        sm_trace_destroy(trace);
    }
}

/* ---- what is bounded ---- */

static void expect_sids(const struct sm_trace *trace, const char *what, const char *wanted)
{
    const struct sm_test_options options = options_for(trace);
    struct sm_test_result result;
    char sids[256], more[1100];

    log_file = "bounds.json";
    rules_text = ABCDEF ANY "(pcre:\"/xyz$/\"; sid:2;)";
    int status = sm_test_run(&options, &result, &error);
    sids_of(log_file, sids, sizeof sids);
    snprintf(more, sizeof more, "expected sids%s, got%s %s %s", wanted, sids, error.text, result.broken);
    expect(status == 0 && !result.broken[0] && strcmp(sids, wanted) == 0, what, more);
}

/* `count` pieces behind a hole at 100, `apart` bytes from one to the next; the signature is the second one. */
static struct sm_trace *pieces(unsigned count, const char *text, uint32_t apart)
{
    struct sm_trace *trace = trace_of((const struct row[MOST_ROWS]){OPEN});

    for (unsigned i = 0; i < count; i++) {
        const struct row row = {'c', A, 101 + i * apart, i == 1 ? "abcdef" : text, 0};
        add_row(trace, &row, 3 + i);
    }
    return trace;
}

/* More than may be held: the hole is given up. A connection that has been silent ends, with all that was held. */
static void bounds(void)
{
    static char long_text[1401];
    struct sm_trace *trace = pieces(HELD_COUNT, "x", 8);

    expect_sids(trace, "as many pieces as are held", "");
    sm_trace_destroy(trace);
    trace = pieces(HELD_COUNT + 2, "x", 8); /* two holes, one before the signature */
    expect_sids(trace, "more pieces than are held", " 1");
    sm_trace_destroy(trace);
    memset(long_text, 'x', sizeof long_text - 1);
    trace = pieces(47, long_text, 1400);
    expect_sids(trace, "as many bytes as are held", "");
    sm_trace_destroy(trace);
    trace = pieces(50, long_text, 1402);
    expect_sids(trace, "more bytes than are held", " 1");
    sm_trace_destroy(trace);
    trace = trace_of((const struct row[MOST_ROWS]){OPEN, {'c', A, 101, "abcdef", 0}, {'s', A, 1000, "xyz", 0}});
    sm_trace_udp(trace, (sm_time){1000000000000 + 700 * 1000000000ull}, "10.0.0.2:1", "192.0.2.2:2", NULL, 0);
    expect_sids(trace, "at the end of a silent connection", " 1 2");
    sm_trace_destroy(trace);
}

/* ---- a signature on both sides of something ---- */

/* Packets of others that lie between two rows; behind row PAUSE so many that all shards move meanwhile. */
enum { BETWEEN = 3000, PAUSE = 4, PAUSE_PACKETS = 150000, SPLIT_ROWS = 7 };

static const struct row split[MOST_ROWS] = {
    OPEN, {'c', A, 100, "abc", 0}, {'c', A, 104, "e", 0}, {'c', A, 103, "d", 0}, {'c', A, 105, "f", 0}};

static struct sm_trace *split_trace(void)
{
    struct sm_trace *trace = sm_trace_create();

    for (unsigned i = 0; i < SPLIT_ROWS; i++) {
        add_row(trace, &split[i], i);
        for (unsigned k = 0; k < (i == PAUSE ? PAUSE_PACKETS : BETWEEN); k++)
            sm_trace_udp(trace, (sm_time){1000000000000 + i * 1000000ull}, "10.0.0.2:1", "192.0.2.2:2", &k, sizeof k);
    }
    return trace;
}

/* How many packets there are before a row. */
static uint64_t before_row(unsigned row)
{
    return row * (BETWEEN + 1ull) + (row > PAUSE ? PAUSE_PACKETS - BETWEEN : 0);
}

static struct sm_test *start_split(const struct sm_test_options *options)
{
    struct sm_test *test;

    log_file = LOG;
    rules_text = ABCDEF;
    return expect(sm_test_create(&test, options, &error) == 0, "create", error.text) ? test : NULL;
}

/* What was begun is over before the row comes. */
static void settle_before(struct sm_test *test, unsigned row)
{
    sm_test_settle(test);
    expect(sm_test_result(test)->in < before_row(row), "split", "the next packet came before all was over");
}

static void end_split(struct sm_test *test, const char *what, const char *wanted)
{
    char sids[256], more[1100];
    int status = sm_test_finish(test);

    sids_of(log_file, sids, sizeof sids);
    snprintf(more, sizeof more, "expected sids%s, got%s %s", wanted, sids, sm_test_result(test)->broken);
    expect(status == 0 && strcmp(sids, wanted) == 0, what, more);
    sm_test_destroy(test, NULL);
}

/* After each of its packets the flow goes to the other replica; also by copying. */
static void moves(void)
{
    struct sm_trace *trace = split_trace();
    struct sm_test_options options = options_for(trace);

    options.replicas = 2;
    for (unsigned copying = 0; copying < 2; copying++) {
        struct sm_test *test = start_split(&options);
        if (!test)
            break;
        expect(sm_test_copying(test, copying != 0, &error) == 0, "copying", error.text);
        for (unsigned row = 0; row < SPLIT_ROWS; row++) {
            sm_test_until_packet(test, before_row(row) + 1);
            sm_test_move(test, trace, 0, 1 + row % 2);
            settle_before(test, row + 1);
        }
        const struct sm_test_result *result = sm_test_result(test);
        expect(result->moves >= SPLIT_ROWS - 1 && result->copied == (copying ? result->moves : 0), "moves", "too few");
        end_split(test, copying ? "split by copying" : "split by moves", " 1");
    }
    sm_trace_destroy(trace);
}

/* In the middle of a signature other replicas take over: of the same rules; of others, which begin anew. */
static void upgrades(void)
{
    const struct sm_test_upgrade upgrade = {.size = sizeof upgrade, .on_packet = on_packet, .setup = setup};
    struct sm_trace *trace = split_trace();
    const struct sm_test_options options = options_for(trace);

    for (unsigned other = 0; other < 2; other++) {
        struct sm_test *test = start_split(&options);
        if (!test)
            break;
        sm_test_until_packet(test, before_row(PAUSE) + 1);
        if (other)
            rules_text = ABCDEF ANY "(content:\"def\"; sid:5;)\n" ANY "(content:\"abc\"; sid:3;)\n" AT_START;
        expect(sm_test_upgrade(test, &upgrade, &error) == 0, "upgrade", error.text);
        settle_before(test, PAUSE + 1);
        expect(sm_test_upgrade_forward(test) == 0, "upgrade", "it did not go forward");
        end_split(test, other ? "split by other rules" : "split by an upgrade", other ? " 5" : " 1");
    }
    sm_trace_destroy(trace);
}

/* ---- many connections ---- */

/* Bytes of a stream in up to six pieces, each of which may come before those that were before it. */
static void add_pieces(struct sm_trace *trace, sm_time time, const char *from, uint32_t sequence, const char *bytes,
                       unsigned length, uint64_t *seed)
{
    unsigned cuts[7] = {0}, order[6], count = 0;

    while (cuts[count] < length && count < 6) {
        unsigned piece = 1 + (unsigned)(sm_test_random(seed) % 6),
                 place = (unsigned)(sm_test_random(seed) % (count + 1));
        cuts[count + 1] = count == 5 || cuts[count] + piece > length ? length : cuts[count] + piece;
        memmove(order + place + 1, order + place, (count - place) * sizeof *order);
        order[place] = count++;
    }
    for (unsigned i = 0; i < count; i++)
        sm_trace_tcp(trace, time, from, SERVER, A, sequence + cuts[order[i]], bytes + cuts[order[i]],
                     cuts[order[i] + 1] - cuts[order[i]]);
}

/* 40 connections at a time whose data says abcdef now and then, 1 to 12 bytes at a time, many out of order. */
static struct sm_trace *make_trace(uint64_t seed, unsigned packets)
{
    enum { CONNECTIONS = 40 };
    uint32_t next[CONNECTIONS] = {0};
    struct sm_trace *trace = sm_trace_create();
    static const char text[] = "..abcdef.abcdxefg..abcdef....";
    char from[32], bytes[16];

    for (unsigned i = 0; i < packets; i++) {
        const unsigned number = (unsigned)(sm_test_random(&seed) % CONNECTIONS);
        const unsigned length = 1 + (unsigned)(sm_test_random(&seed) % 12);
        const sm_time time = {1000000000000 + i * 1000000ull};
        snprintf(from, sizeof from, "10.0.0.%u:%u", number, 1024 + number);
        if (next[number] == 0) {
            sm_trace_tcp(trace, time, from, SERVER, S, 0, NULL, 0);
            next[number] = 1;
            continue;
        }
        for (unsigned k = 0; k < length; k++)
            bytes[k] = text[(next[number] - 1 + k) % (sizeof text - 1)];
        add_pieces(trace, time, from, next[number], bytes, length, &seed);
        next[number] += length;
        if (sm_test_random(&seed) % 24 == 0) {
            sm_trace_tcp(trace, time, from, SERVER, A | F, next[number], NULL, 0);
            next[number] += 100000; /* the next SYN has another number */
            sm_trace_tcp(trace, time, from, SERVER, S, next[number] - 1, NULL, 0);
        }
    }
    return trace;
}

#define MANY ABCDEF ANY "(content:\"abcd\"; content:\"xefg\"; sid:2;)\n" ANY "(pcre:\"/^\\.\\.abcdef/\"; sid:3;)\n"

static struct sm_test *run(const struct sm_test_options *options, const char *log)
{
    struct sm_test *test = NULL;

    error.text[0] = '\0';
    log_file = log;
    int result = sm_test_create(&test, options, &error);
    if (result == 0 && (result = sm_test_finish(test)) != 0)
        snprintf(error.text, sizeof error.text, "%.200s", sm_test_result(test)->broken);
    if (result != 0)
        sm_test_destroy(test, NULL);
    return result == 0 ? test : NULL;
}

/* At each place of the runtime the owner of all dies, when it passes it for the `nth` time; the moves copy, or not. */
static void deaths(void)
{
    struct sm_trace *trace = make_trace(7, 400);
    struct sm_test_options options = options_for(trace);

    rules_text = MANY;
    struct sm_test *whole = run(&options, "whole.json"), *test;
    if (!expect(whole != NULL, "whole", error.text))
        return;
    log_file = LOG;
    for (unsigned place = 0; place < sm_test_places(); place++) {
        options.seed = 1 + place;
        if (!expect(sm_test_create(&test, &options, &error) == 0, "create", error.text))
            break;
        sm_test_until_packet(test, 60 + place);
        expect(sm_test_copying(test, place % 2 != 0, &error) == 0, "copying", error.text);
        sm_test_kill_at(test, 1, place, 1 + place % 3);
        sm_test_merge(test, 1, (unsigned)sm_test_start_replica(test));
        int status = sm_test_finish(test);
        if (expect(status == 0, sm_test_place_name(place), sm_test_result(test)->broken) &&
            expect(sm_test_same(test, whole, SM_BY_ALL, &error), sm_test_place_name(place), error.text))
            expect(same_logs(LOG, "whole.json"), sm_test_place_name(place), "other alerts");
        sm_test_destroy(test, NULL);
    }
    sm_test_destroy(whole, NULL);
    sm_trace_destroy(trace);
}

/* Memory that is not there costs what would have been found with it, and nothing else. */
static void no_memory(void)
{
    struct sm_trace *trace = make_trace(9, 300);
    const struct sm_test_options options = options_for(trace);

    rules_text = MANY;
    log_file = LOG;
    for (uint64_t nth = 1; nth < 40; nth++) {
        struct sm_test *test;
        if (!expect(sm_test_create(&test, &options, &error) == 0, "create", error.text))
            break;
        sm_test_fail_allocation(test, nth);
        expect(sm_test_finish(test) == 0, "no memory", sm_test_result(test)->broken);
        sm_test_destroy(test, NULL);
    }
    sm_trace_destroy(trace);
}

static void one_seed(struct sm_test_options options, uint64_t seed, struct sm_test *whole)
{
    static const char *const modes[MODES] = {"kills", "copies", "kills and copies"};
    const unsigned mode = seed % MODES;

    options.seed = seed;
    options.replicas = 1 + (unsigned)seed % 4;
    options.schedule = true;
    options.kills = mode == 1 ? 0 : 100;
    options.copies = mode != 0;
    struct sm_test *test = run(&options, LOG);
    bool ok = test && sm_test_same(test, whole, SM_BY_ALL, &error) && same_logs(LOG, "whole.json");
    struct sm_test_result result = test ? *sm_test_result(test) : (struct sm_test_result){0};
    printf("%s seed %llu, %s: %llu moves (%llu copied), %llu deaths %s\n", ok ? "ok  " : "FAIL",
           (unsigned long long)seed, modes[mode], (unsigned long long)result.moves, (unsigned long long)result.copied,
           (unsigned long long)result.deaths, error.text);
    failures += !ok;
    sm_test_destroy(test, NULL);
}

static void random_schedules(struct sm_test_options options, const char *rules, uint64_t first, unsigned runs)
{
    static struct log_text log;

    rules_text = rules;
    struct sm_test *whole = run(&options, "whole.json");
    if (!expect(whole != NULL, "whole", error.text))
        return;
    read_log(&log, "whole.json");
    expect(log.count >= 10, "whole", "too few alerts to tell");
    printf("%u alerts\n", log.count);
    free(log.text);
    for (unsigned i = 0; i < runs; i++)
        one_seed(options, first + i, whole);
    sm_test_destroy(whole, NULL);
}

/* For what is spoken in captures. */
#define SPOKEN                                                                                                         \
    ANY "(content:\"GET \"; depth:4; content:\"Host|3a|\"; nocase; distance:0; sid:1;)\n" ANY                          \
        "(content:\"HTTP/1.\"; content:\"Content-Type\"; nocase; sid:2;)\n" ANY                                        \
        "(content:\"|16 03|\"; depth:2; sid:3;)\n"                                                                     \
        "alert ip any any -> any any (content:\"e\"; sid:4;)\nalert udp any any -> any any (content:\"|00 01|\"; "     \
        "sid:5;)\n"

int main(int argc, char **argv)
{
    const char *given = getenv("SM_SEED"), *full = getenv("SM_FULL");
    const uint64_t first = given ? strtoull(given, NULL, 0) : (uint64_t)getpid();
    const unsigned runs = full && *full == '1' ? 60 : 2 * MODES;

    if (argc != 2) {
        fprintf(stderr, "usage: ids_test FILE\n");
        return 2;
    }
    printf("seed %llu: SM_SEED=%llu to repeat\n", (unsigned long long)first, (unsigned long long)first);
    find_in_streams();
    bounds();
    moves();
    upgrades();
    deaths();
    no_memory();
    struct sm_trace *trace = make_trace(first, 4000);
    random_schedules(options_for(trace), MANY, first, runs);
    sm_trace_destroy(trace);
    struct sm_test_options options = options_for(NULL);
    options.capture = argv[1];
    random_schedules(options, SPOKEN, first, runs / 2);
    printf("%u failures\n", failures);
    return failures != 0;
}
