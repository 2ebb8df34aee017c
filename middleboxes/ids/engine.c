/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Overview.  A rule is one or several chains: a content or pcre, and those that are relative to the one before. A chain
 * is one regular expression, with gaps of bounded length between its parts. A rule of one chain is this expression. Of
 * one with several each is found at most once in a stream; which ones were is kept beside Hyperscan's own knowledge,
 * and the rule is found with the last of them. (Hyperscan 5.4 has logical combinations for this. It reports one that is
 * complete at the end of a piece with the next piece, and some not at all.)
 *
 * There are two databases, as a stream's and a block's are not of one kind: of the rules of tcp and ip, for streams; of
 * the others and ip, for packets. What a rule says of addresses and ports is looked at when its contents are there.
 *
 * Streams.  One is open in memory of Hyperscan's own; between packets it is packed (hs_compress_stream()). Raw streams
 * in the arena would save some 100 ns a packet, but hold an address of the process; packed ones are tens of bytes, of
 * which less is journalled, and go as they are into copies.
 */
#include "engine.h"

#include <assert.h>
#include <hs/hs.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fnv.h"

struct engine {
    const struct rules *rules;
    hs_database_t *streams, *packets; /* NULL: no rules */
    hs_scratch_t *scratch;
    hs_stream_t *stream; /* the one in hand */
    uint8_t *packed;
    uint64_t fingerprint;
    uint32_t *first_part; /* of each rule: of its chains, where it has several */
    uint32_t *rule_of;    /* of each part */
    unsigned part_count;  /* of all rules */
    bool *is_there;       /* parts, in the stream in hand */
    uint16_t *there;      /* which ones */
    unsigned there_count;
    unsigned found_count;
    uint32_t *found; /* rules, each at most once */
    const struct rule **taken;
    bool *is_found;
};

/* ---- expressions ---- */

/* What is compiled at once. Expressions are numbered: those of rules as these, parts of rules from rules->count on. */
struct set {
    char **texts;
    unsigned *flags, *ids, *rules; /* rules: whose it is */
    unsigned count, room;
    bool failed; /* out of memory */
};

static void put_content(FILE *out, const struct content *content)
{
    fputs(content->nocase ? "(?i:" : "(?:", out);
    for (uint32_t i = 0; i < content->length; i++)
        fprintf(out, "\\x%02x", (uint8_t)content->text[i]);
    fputc(')', out);
}

static void put_pcre(FILE *out, const struct content *content)
{
    fprintf(out, "(?%s%s%s:", content->ignore_case ? "i" : "", content->dot_all ? "s" : "",
            content->multi_line ? "m" : "");
    fwrite(content->text, 1, content->length, out);
    fputc(')', out);
}

/* So many bytes, whatever they are. */
static void put_gap(FILE *out, uint32_t least, bool bounded, uint32_t most)
{
    if (bounded && most == 0)
        return;
    if (bounded)
        fprintf(out, "(?s:.{%u,%u})", least, most);
    else
        fprintf(out, "(?s:.{%u,})", least);
}

static void put_part(FILE *out, const struct content *content)
{
    if (content->has & (CONTENT_OFFSET | CONTENT_DEPTH)) {
        fputc('^', out);
        put_gap(out, content->offset, content->has & CONTENT_DEPTH, content->offset + content->depth - content->length);
    } else if (content->relative) {
        put_gap(out, content->distance, content->has & CONTENT_WITHIN,
                content->distance + content->within - content->length);
    }
    if (content->pcre)
        put_pcre(out, content);
    else
        put_content(out, content);
}

/* The chain that begins at *index, which goes on to the next one. NULL: out of memory. */
static char *make_chain(const struct rule *rule, unsigned *index)
{
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);

    if (!out)
        return NULL;
    do {
        put_part(out, &rule->contents[*index]);
    } while (++*index < rule->content_count && rule->contents[*index].relative);
    fclose(out);
    return text;
}

/* Takes the text over. */
static void add(struct set *set, char *text, unsigned rule, unsigned id)
{
    if (!text || set->count == set->room) {
        set->failed = true;
        free(text);
        return;
    }
    set->texts[set->count] = text;
    set->rules[set->count] = rule;
    set->ids[set->count] = id;
    set->flags[set->count++] = HS_FLAG_SINGLEMATCH;
}

static unsigned chains_of(const struct rule *rule)
{
    unsigned chains = 0;

    for (unsigned i = 0; i < rule->content_count; i++)
        chains += !rule->contents[i].relative;
    return chains;
}

static void add_rule(struct set *set, const struct engine *engine, unsigned number)
{
    const struct rule *rule = &engine->rules->rules[number];
    const bool whole = chains_of(rule) == 1;
    unsigned index = 0, part = engine->first_part[number];

    while (index < rule->content_count)
        add(set, make_chain(rule, &index), number, whole ? number : engine->rules->count + part++);
}

static void set_free(struct set *set)
{
    for (unsigned i = 0; i < set->count; i++)
        free(set->texts[i]);
    free(set->texts);
    free(set->flags);
    free(set->ids);
    free(set->rules);
}

static bool set_make(struct set *set, const struct engine *engine, bool streams)
{
    const struct rules *rules = engine->rules;

    set->room = rules->count + engine->part_count;
    set->texts = calloc(set->room, sizeof *set->texts);
    set->flags = calloc(set->room, sizeof *set->flags);
    set->ids = calloc(set->room, sizeof *set->ids);
    set->rules = calloc(set->room, sizeof *set->rules);
    set->failed = !set->texts || !set->flags || !set->ids || !set->rules;
    for (unsigned i = 0; i < rules->count && !set->failed; i++) {
        const enum rule_protocol protocol = rules->rules[i].protocol;
        if (protocol == RULE_IP || (protocol == RULE_TCP) == streams)
            add_rule(set, engine, i);
    }
    return !set->failed;
}

/* Number the chains of rules that have several. */
static bool number_parts(struct engine *engine)
{
    const struct rules *rules = engine->rules;

    engine->first_part = calloc(rules->count + 1, sizeof *engine->first_part);
    if (!engine->first_part)
        return false;
    for (unsigned i = 0; i < rules->count; i++) {
        unsigned chains = chains_of(&rules->rules[i]);
        engine->first_part[i + 1] = engine->first_part[i] + (chains > 1 ? chains : 0);
    }
    engine->part_count = engine->first_part[rules->count];
    engine->rule_of = calloc(engine->part_count + 1, sizeof *engine->rule_of);
    engine->is_there = calloc(engine->part_count + 1, sizeof *engine->is_there);
    engine->there = calloc(engine->part_count + 1, sizeof *engine->there);
    for (unsigned i = 0; engine->rule_of && i < rules->count; i++)
        for (unsigned k = engine->first_part[i]; k < engine->first_part[i + 1]; k++)
            engine->rule_of[k] = i;
    return engine->rule_of && engine->is_there && engine->there;
}

/* ---- compiling ---- */

static void fail(struct sm_errbuf *error, const struct rules *rules, const struct rule *rule, const char *why)
{
    if (rule)
        snprintf(error->text, sizeof error->text, "%.90s:%u: expected what Hyperscan can look for: %.110s", rules->file,
                 rule->line, why);
    else
        snprintf(error->text, sizeof error->text, "%.90s: Hyperscan: %.140s", rules->file, why);
}

/* An expression of a file is one by itself: a bracket of it does not close one of ours. */
static bool check_pcre(const struct rules *rules, struct sm_errbuf *error)
{
    for (unsigned i = 0; i < rules->count; i++) {
        const struct rule *rule = &rules->rules[i];
        for (unsigned k = 0; k < rule->content_count; k++) {
            hs_compile_error_t *why = NULL;
            hs_expr_info_t *info = NULL;
            if (!rule->contents[k].pcre)
                continue;
            hs_expression_info(rule->contents[k].text, 0, &info, &why);
            free(info);
            if (!why)
                continue;
            fail(error, rules, rule, why->message);
            hs_free_compile_error(why);
            return false;
        }
    }
    return true;
}

static bool compile(struct engine *engine, bool streams, hs_database_t **database, struct sm_errbuf *error)
{
    struct set set = {0};
    hs_compile_error_t *why = NULL;
    hs_error_t result = HS_SUCCESS;

    if (!set_make(&set, engine, streams))
        result = HS_NOMEM;
    else if (set.count > 0)
        result = hs_compile_multi((const char *const *)set.texts, set.flags, set.ids, set.count,
                                  streams ? HS_MODE_STREAM : HS_MODE_BLOCK, NULL, database, &why);
    if (result == HS_SUCCESS && *database)
        result = hs_alloc_scratch(*database, &engine->scratch);
    if (result != HS_SUCCESS)
        fail(error, engine->rules,
             why && why->expression >= 0 ? &engine->rules->rules[set.rules[why->expression]] : NULL,
             why ? why->message : sm_strerror(SM_E_NO_MEMORY));
    hs_free_compile_error(why);
    set_free(&set);
    return result == HS_SUCCESS;
}

static bool take_fingerprint(struct engine *engine, const hs_database_t *database)
{
    char *bytes;
    size_t length;

    if (!database)
        return true;
    if (hs_serialize_database(database, &bytes, &length) != HS_SUCCESS)
        return false;
    engine->fingerprint = fnv(engine->fingerprint, bytes, length);
    free(bytes);
    return true;
}

static bool make_room(struct engine *engine)
{
    if (engine->streams && hs_open_stream(engine->streams, 0, &engine->stream) != HS_SUCCESS)
        return false;
    engine->packed = malloc(ENGINE_PACKED_MOST);
    engine->found = calloc(engine->rules->count, sizeof *engine->found);
    engine->taken = calloc(engine->rules->count, sizeof *engine->taken);
    engine->is_found = calloc(engine->rules->count, sizeof *engine->is_found);
    return engine->packed && engine->found && engine->taken && engine->is_found &&
           take_fingerprint(engine, engine->streams) && take_fingerprint(engine, engine->packets);
}

/* Whether a stream fits, packed. Then it is what there is of parts, and at most some bytes more than it was. */
static bool fits(const struct engine *engine, struct sm_errbuf *error)
{
    const size_t most = ENGINE_PACKED_MOST - 1024;
    size_t bytes = 0;

    if (engine->streams && hs_stream_size(engine->streams, &bytes) != HS_SUCCESS)
        return false;
    bytes += engine->part_count * sizeof *engine->there;
    if (bytes <= most)
        return true;
    snprintf(error->text, sizeof error->text, "%.90s: expected rules that take at most %zu bytes a stream, got %zu",
             engine->rules->file, most, bytes);
    return false;
}

struct engine *engine_create(const struct rules *rules, struct sm_errbuf *error)
{
    struct engine *engine = calloc(1, sizeof *engine);

    if (!engine) {
        fail(error, rules, NULL, sm_strerror(SM_E_NO_MEMORY));
        return NULL;
    }
    engine->rules = rules;
    engine->fingerprint = FNV_BEGIN;
    if (!number_parts(engine))
        fail(error, rules, NULL, sm_strerror(SM_E_NO_MEMORY));
    else if (check_pcre(rules, error) && compile(engine, true, &engine->streams, error) &&
             compile(engine, false, &engine->packets, error) && fits(engine, error)) {
        if (make_room(engine))
            return engine;
        fail(error, rules, NULL, sm_strerror(SM_E_NO_MEMORY));
    }
    engine_destroy(engine);
    return NULL;
}

void engine_destroy(struct engine *engine)
{
    if (!engine)
        return;
    if (engine->stream)
        hs_close_stream(engine->stream, NULL, NULL, NULL);
    hs_free_scratch(engine->scratch);
    hs_free_database(engine->streams);
    hs_free_database(engine->packets);
    free(engine->first_part);
    free(engine->rule_of);
    free(engine->is_there);
    free(engine->there);
    free(engine->packed);
    free(engine->found);
    free(engine->taken);
    free(engine->is_found);
    free(engine);
}

uint64_t engine_fingerprint(const struct engine *engine)
{
    return engine->fingerprint;
}

bool engine_has_streams(const struct engine *engine)
{
    return engine->streams != NULL;
}

bool engine_has_packets(const struct engine *engine)
{
    return engine->packets != NULL;
}

/* ---- scanning ---- */

/* A part is there. Whether all of its rule are. */
static bool add_part(struct engine *engine, unsigned part)
{
    const unsigned rule = engine->rule_of[part];

    if (!engine->is_there[part])
        engine->there[engine->there_count++] = (uint16_t)part;
    engine->is_there[part] = true;
    for (unsigned i = engine->first_part[rule]; i < engine->first_part[rule + 1]; i++)
        if (!engine->is_there[i])
            return false;
    return true;
}

static void no_parts(struct engine *engine)
{
    while (engine->there_count > 0)
        engine->is_there[engine->there[--engine->there_count]] = false;
}

static int on_match(unsigned id, unsigned long long from, unsigned long long to, unsigned flags, void *context)
{
    struct engine *engine = context;
    const unsigned rules = engine->rules->count;

    (void)from, (void)to, (void)flags;
    assert(id < rules + engine->part_count);
    if (id >= rules) {
        if (!add_part(engine, id - rules))
            return 0;
        id = engine->rule_of[id - rules];
    }
    if (!engine->is_found[id])
        engine->found[engine->found_count++] = id;
    engine->is_found[id] = true;
    return 0;
}

/* Nothing that is given to Hyperscan is wrong, so nothing else can be. */
static void must(hs_error_t result)
{
    assert(result == HS_SUCCESS);
    (void)result;
}

/* Packed: how many parts are there, which ones, and Hyperscan's. */
bool engine_open(struct engine *engine, const void *packed, size_t bytes)
{
    const uint8_t *at = packed;
    uint16_t count, part;

    no_parts(engine);
    if (!packed) {
        must(hs_reset_stream(engine->stream, 0, NULL, NULL, NULL));
        return true;
    }
    if (bytes < sizeof count)
        return false;
    memcpy(&count, at, sizeof count);
    if (bytes < sizeof count + count * sizeof part)
        return false;
    for (unsigned i = 0; i < count; i++) {
        memcpy(&part, at += sizeof part, sizeof part);
        if (part >= engine->part_count)
            return false;
        add_part(engine, part);
    }
    at += sizeof part;
    bytes -= sizeof count + count * sizeof part;
    return hs_reset_and_expand_stream(engine->stream, (const char *)at, bytes, NULL, NULL, NULL) == HS_SUCCESS;
}

void engine_scan(struct engine *engine, const uint8_t *data, uint32_t bytes)
{
    must(hs_scan_stream(engine->stream, (const char *)data, bytes, 0, engine->scratch, on_match, engine));
}

void engine_end(struct engine *engine)
{
    must(hs_reset_stream(engine->stream, 0, engine->scratch, on_match, engine));
}

const void *engine_pack(struct engine *engine, size_t *bytes)
{
    const uint16_t count = (uint16_t)engine->there_count;
    const size_t parts = sizeof count + count * sizeof *engine->there;

    memcpy(engine->packed, &count, sizeof count);
    memcpy(engine->packed + sizeof count, engine->there, count * sizeof *engine->there);
    must(hs_compress_stream(engine->stream, (char *)engine->packed + parts, ENGINE_PACKED_MOST - parts, bytes));
    *bytes += parts;
    return engine->packed;
}

void engine_scan_packet(struct engine *engine, const uint8_t *data, uint32_t bytes)
{
    no_parts(engine);
    must(hs_scan(engine->packets, (const char *)data, bytes, 0, engine->scratch, on_match, engine));
}

static int by_number(const void *a, const void *b)
{
    const uint32_t one = *(const uint32_t *)a, other = *(const uint32_t *)b;
    return (one > other) - (one < other);
}

const struct rule *const *engine_found(struct engine *engine, unsigned *count)
{
    qsort(engine->found, engine->found_count, sizeof *engine->found, by_number);
    for (unsigned i = 0; i < engine->found_count; i++) {
        engine->taken[i] = &engine->rules->rules[engine->found[i]];
        engine->is_found[engine->found[i]] = false;
    }
    *count = engine->found_count;
    engine->found_count = 0;
    return engine->taken;
}
