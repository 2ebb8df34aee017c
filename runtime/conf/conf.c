/* SPDX-License-Identifier: BSD-2-Clause */
#include "conf/conf.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "conf/units.h"

/*
 * Nodes are indices into libyaml's document. `up` remembers from where a node was last reached, which is all an error
 * needs for its path: an alias has several parents, and the one walked last is the one the reader is at.
 */
struct up {
    int parent;      /* 0: the file's top */
    const char *key; /* NULL: an item of a sequence */
    unsigned index;
};

struct conf {
    char *name;
    yaml_document_t document;
    struct up *up; /* by node */
    bool failed;
    struct sm_errbuf error;
};

/* ---- loading ---- */

static size_t line_of(const char *text, size_t length, size_t offset)
{
    size_t line = 1;
    for (size_t i = 0; i < offset && i < length; i++)
        line += text[i] == '\n';
    return line;
}

static void parser_error(const yaml_parser_t *parser, const char *name, struct sm_errbuf *error)
{
    const char *problem = parser->problem ? parser->problem : "out of memory";
    const unsigned char *text = parser->input.string.start;
    size_t line = parser->error == YAML_READER_ERROR
                      ? line_of((const char *)text, (size_t)(parser->input.string.end - text), parser->problem_offset)
                      : parser->problem_mark.line + 1;
    snprintf(error->text, sizeof(error->text), "%s:%zu: expected YAML: %s", name, line, problem);
}

/* A second document would be silently ignored by a reader that stops after the first. */
static bool load_document(struct conf *conf, yaml_parser_t *parser, struct sm_errbuf *error)
{
    if (!yaml_parser_load(parser, &conf->document)) {
        parser_error(parser, conf->name, error);
        return false;
    }
    yaml_document_t next;
    if (!yaml_document_get_root_node(&conf->document)) {
        snprintf(error->text, sizeof(error->text), "%s:1: expected a mapping, got an empty file", conf->name);
    } else if (!yaml_parser_load(parser, &next)) {
        parser_error(parser, conf->name, error);
    } else {
        yaml_node_t *extra = yaml_document_get_root_node(&next);
        if (extra)
            snprintf(error->text, sizeof(error->text), "%s:%zu: expected one document, got another", conf->name,
                     extra->start_mark.line + 1);
        yaml_document_delete(&next);
        if (!extra)
            return true;
    }
    yaml_document_delete(&conf->document);
    return false;
}

/* The deeper libyaml is in a file the longer each next step takes it, so it is not given what is too deep. False: the
 * file is. What else is wrong with it is for the loader to say. */
static bool is_shallow(const char *name, const char *text, size_t length, struct sm_errbuf *error)
{
    yaml_parser_t parser;
    yaml_event_t event;
    unsigned depth = 0;
    bool more = yaml_parser_initialize(&parser);
    if (more)
        yaml_parser_set_input_string(&parser, (const unsigned char *)text, length);
    while (more && depth <= CONF_MAX_DEPTH && yaml_parser_parse(&parser, &event)) {
        depth += event.type == YAML_MAPPING_START_EVENT || event.type == YAML_SEQUENCE_START_EVENT;
        depth -= event.type == YAML_MAPPING_END_EVENT || event.type == YAML_SEQUENCE_END_EVENT;
        if (depth > CONF_MAX_DEPTH)
            snprintf(error->text, sizeof(error->text), "%s:%zu: expected at most %d mappings and lists in one another",
                     name, event.start_mark.line + 1, CONF_MAX_DEPTH);
        more = event.type != YAML_STREAM_END_EVENT;
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    return depth <= CONF_MAX_DEPTH;
}

struct conf *conf_parse(const char *name, const char *text, size_t length, struct sm_errbuf *error)
{
    yaml_parser_t parser;
    if (!is_shallow(name, text, length, error))
        return NULL;
    struct conf *conf = calloc(1, sizeof(*conf));
    if (!conf || !(conf->name = strdup(name)) || !yaml_parser_initialize(&parser))
        goto no_memory;
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, length);
    bool loaded = load_document(conf, &parser, error);
    yaml_parser_delete(&parser);
    if (!loaded)
        goto fail;
    size_t nodes = (size_t)(conf->document.nodes.top - conf->document.nodes.start);
    conf->up = calloc(nodes + 1, sizeof(*conf->up));
    if (conf->up)
        return conf;
    yaml_document_delete(&conf->document);
no_memory:
    snprintf(error->text, sizeof(error->text), "%s: out of memory", name);
fail:
    if (conf)
        free(conf->name);
    free(conf);
    return NULL;
}

struct conf *conf_load(const char *file, struct sm_errbuf *error)
{
    struct conf *conf = NULL;
    char *text = NULL;
    FILE *stream = fopen(file, "re");
    if (!stream)
        goto fail;
    text = malloc(CONF_MAX_FILE + 1);
    if (!text)
        goto fail;
    size_t length = fread(text, 1, CONF_MAX_FILE + 1, stream);
    if (ferror(stream))
        goto fail;
    if (length > CONF_MAX_FILE)
        snprintf(error->text, sizeof(error->text), "%s: expected at most %u bytes", file, CONF_MAX_FILE);
    else
        conf = conf_parse(file, text, length, error);
    goto out;
fail:
    snprintf(error->text, sizeof(error->text), "%s: %s", file, strerror(errno));
out:
    free(text);
    if (stream)
        fclose(stream);
    return conf;
}

void conf_free(struct conf *conf)
{
    if (!conf)
        return;
    yaml_document_delete(&conf->document);
    free(conf->up);
    free(conf->name);
    free(conf);
}

/* ---- errors ---- */

const char *conf_error(const struct conf *conf)
{
    return conf->failed ? conf->error.text : NULL;
}

static yaml_node_t *yaml_of(struct conf_node node)
{
    return node.id && !node.conf->failed ? yaml_document_get_node(&node.conf->document, node.id) : NULL;
}

/* The path from the top; outermost first, so by recursion, bounded since an alias may contain itself. */
static size_t write_path(const struct conf *conf, int id, unsigned depth, char *text, size_t size)
{
    const struct up *up = &conf->up[id];
    if (!up->parent || depth == 0)
        return 0;
    size_t at = write_path(conf, up->parent, depth - 1, text, size);
    if (at >= size)
        return at;
    int written = up->key ? snprintf(text + at, size - at, "%s%s", at ? "." : "", up->key)
                          : snprintf(text + at, size - at, "[%u]", up->index);
    return at + (size_t)written;
}

void conf_printable(char *text)
{
    for (; *text; text++)
        if (iscntrl((unsigned char)*text))
            *text = '?';
}

static void fail_at(struct conf *conf, int id, size_t line, const char *key, const char *text)
{
    char path[128];
    size_t at = write_path(conf, id, 8, path, sizeof(path));
    if (at >= sizeof(path))
        at = sizeof(path) - 1;
    path[at] = '\0';
    if (key)
        snprintf(path + at, sizeof(path) - at, "%s%.48s", at ? "." : "", key);
    struct sm_errbuf *error = &conf->error;
    snprintf(error->text, sizeof(error->text), "%s:%zu: %s%s%s", conf->name, line, path, *path ? ": " : "", text);
    conf_printable(error->text);
    conf->failed = true;
}

void conf_fail(struct conf_node node, const char *format, ...)
{
    yaml_node_t *yaml = yaml_of(node);
    if (!yaml)
        return;
    char text[192];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    fail_at(node.conf, node.id, yaml->start_mark.line + 1, NULL, text);
}

void conf_expected(struct conf_node node, const char *what)
{
    yaml_node_t *yaml = yaml_of(node);
    if (!yaml)
        return;
    if (yaml->type == YAML_SCALAR_NODE && yaml->data.scalar.length)
        conf_fail(node, "expected %s, got '%.48s'", what, (const char *)yaml->data.scalar.value);
    else
        conf_fail(node, "expected %s, got %s", what,
                  yaml->type == YAML_MAPPING_NODE    ? "a mapping"
                  : yaml->type == YAML_SEQUENCE_NODE ? "a list"
                                                     : "nothing");
}

static unsigned distance(const char *a, const char *b)
{
    enum { MAX = 32 };
    unsigned row[MAX + 1];
    size_t rows = strlen(a), columns = strlen(b);
    if (rows > MAX || columns > MAX)
        return MAX;
    for (unsigned j = 0; j <= columns; j++)
        row[j] = j;
    for (unsigned i = 1; i <= rows; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= columns; j++) {
            unsigned change = diagonal + (a[i - 1] != b[j - 1]);
            unsigned shift = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = change < shift ? change : shift;
        }
    }
    return row[columns];
}

const char *conf_nearest(const char *word, const char *const *names)
{
    const char *nearest = NULL;
    unsigned best = strlen(word) < 4 ? 2 : 3; /* closer than this */
    for (; *names; names++) {
        unsigned d = distance(word, *names);
        if (d < best) {
            best = d;
            nearest = *names;
        }
    }
    return nearest;
}

/* ---- structure ---- */

struct conf_node conf_root(struct conf *conf)
{
    return (struct conf_node){conf, 1};
}

static const char *scalar(struct conf *conf, int id)
{
    yaml_node_t *yaml = yaml_document_get_node(&conf->document, id);
    if (yaml->type != YAML_SCALAR_NODE)
        return NULL;
    const char *text = (const char *)yaml->data.scalar.value;
    return strlen(text) == yaml->data.scalar.length ? text : NULL;
}

static bool known(const char *key, const char *const *keys)
{
    for (; *keys; keys++)
        if (strcmp(key, *keys) == 0)
            return true;
    return false;
}

static bool check_key(struct conf_node map, const yaml_node_pair_t *first, const yaml_node_pair_t *pair,
                      const char *const *keys)
{
    struct conf *conf = map.conf;
    size_t line = yaml_document_get_node(&conf->document, pair->key)->start_mark.line + 1;
    const char *key = scalar(conf, pair->key);
    if (!key || !*key) {
        fail_at(conf, map.id, line, NULL, "expected keys of plain text");
        return false;
    }
    if (keys && !known(key, keys)) {
        char text[128];
        const char *nearest = conf_nearest(key, keys);
        snprintf(text, sizeof(text), nearest ? "unknown key, did you mean '%s'?" : "unknown key", nearest);
        fail_at(conf, map.id, line, key, text);
        return false;
    }
    for (; first < pair; first++) {
        if (strcmp(scalar(conf, first->key), key) == 0) {
            fail_at(conf, map.id, line, key, "expected once, got it again");
            return false;
        }
    }
    return true;
}

bool conf_map(struct conf_node node, const char *const *keys)
{
    yaml_node_t *yaml = yaml_of(node);
    if (!yaml)
        return false;
    if (yaml->type != YAML_MAPPING_NODE) {
        conf_expected(node, "a mapping");
        return false;
    }
    const yaml_node_pair_t *first = yaml->data.mapping.pairs.start, *end = yaml->data.mapping.pairs.top;
    if (end - first > CONF_MAX_KEYS) {
        conf_fail(node, "expected at most %d keys", CONF_MAX_KEYS);
        return false;
    }
    for (const yaml_node_pair_t *pair = first; pair < end; pair++)
        if (!check_key(node, first, pair, keys))
            return false;
    return true;
}

struct conf_node conf_get(struct conf_node map, const char *key)
{
    unsigned count = conf_count(map);
    for (unsigned i = 0; i < count; i++) {
        const char *name;
        struct conf_node node = conf_pair(map, i, &name);
        if (name && strcmp(name, key) == 0)
            return node;
    }
    return (struct conf_node){map.conf, 0};
}

struct conf_node conf_need(struct conf_node map, const char *key, const char *what)
{
    struct conf_node node = conf_get(map, key);
    yaml_node_t *yaml = yaml_of(map);
    if (!conf_present(node) && yaml) {
        char text[128];
        snprintf(text, sizeof(text), "expected %s, got nothing", what);
        fail_at(map.conf, map.id, yaml->start_mark.line + 1, key, text);
    }
    return node;
}

struct conf_node conf_pair(struct conf_node map, unsigned i, const char **key)
{
    yaml_node_t *yaml = yaml_of(map);
    *key = NULL;
    if (!yaml || yaml->type != YAML_MAPPING_NODE || i >= conf_count(map))
        return (struct conf_node){map.conf, 0};
    const yaml_node_pair_t *pair = &yaml->data.mapping.pairs.start[i];
    *key = scalar(map.conf, pair->key);
    map.conf->up[pair->value] = (struct up){map.id, *key ? *key : "?", 0};
    return (struct conf_node){map.conf, pair->value};
}

bool conf_list(struct conf_node node)
{
    yaml_node_t *yaml = yaml_of(node);
    if (yaml && yaml->type != YAML_SEQUENCE_NODE)
        conf_expected(node, "a list");
    return yaml && yaml->type == YAML_SEQUENCE_NODE;
}

struct conf_node conf_item(struct conf_node list, unsigned i)
{
    yaml_node_t *yaml = yaml_of(list);
    if (!yaml || yaml->type != YAML_SEQUENCE_NODE || i >= conf_count(list))
        return (struct conf_node){list.conf, 0};
    int id = yaml->data.sequence.items.start[i];
    list.conf->up[id] = (struct up){list.id, NULL, i};
    return (struct conf_node){list.conf, id};
}

unsigned conf_count(struct conf_node node)
{
    yaml_node_t *yaml = yaml_of(node);
    if (yaml && yaml->type == YAML_MAPPING_NODE)
        return (unsigned)(yaml->data.mapping.pairs.top - yaml->data.mapping.pairs.start);
    if (yaml && yaml->type == YAML_SEQUENCE_NODE)
        return (unsigned)(yaml->data.sequence.items.top - yaml->data.sequence.items.start);
    return 0;
}

/* ---- values ---- */

const char *conf_text(struct conf_node node)
{
    return yaml_of(node) ? scalar(node.conf, node.id) : NULL;
}

bool conf_string(struct conf_node node, const char **value)
{
    const char *text = conf_text(node);
    if (!text || !*text) {
        conf_expected(node, "text");
        return false;
    }
    *value = text;
    return true;
}

bool conf_bool(struct conf_node node, bool *value)
{
    static const char *const names[] = {"false", "true", NULL};
    unsigned place;
    if (!conf_enum(node, names, &place))
        return false;
    *value = place == 1;
    return true;
}

/* A number of some unit within bounds; `what` names the unit, by example. */
static bool number(struct conf_node node, bool (*parse)(const char *, uint64_t *), const char *what, uint64_t min,
                   uint64_t max, uint64_t *value)
{
    const char *text = conf_text(node);
    uint64_t parsed;
    if (!text || !parse(text, &parsed)) {
        conf_expected(node, what);
        return false;
    }
    if (parsed < min || parsed > max) {
        char range[128];
        const char *unit = parse == unit_size ? " bytes" : parse == unit_duration ? " nanoseconds" : "";
        if (max == UINT64_MAX)
            snprintf(range, sizeof(range), "at least %llu%s", (unsigned long long)min, unit);
        else
            snprintf(range, sizeof(range), "%llu to %llu%s", (unsigned long long)min, (unsigned long long)max, unit);
        conf_expected(node, range);
        return false;
    }
    *value = parsed;
    return true;
}

bool conf_u64(struct conf_node node, uint64_t min, uint64_t max, uint64_t *value)
{
    return number(node, unit_count, "a whole number such as 8 or 4M", min, max, value);
}

bool conf_u32(struct conf_node node, uint32_t min, uint32_t max, uint32_t *value)
{
    uint64_t wide;
    if (!conf_u64(node, min, max, &wide))
        return false;
    *value = (uint32_t)wide;
    return true;
}

bool conf_size(struct conf_node node, uint64_t min, uint64_t max, uint64_t *bytes)
{
    return number(node, unit_size, "a size such as 64KiB or 2GiB", min, max, bytes);
}

bool conf_duration(struct conf_node node, uint64_t min, uint64_t max, uint64_t *nanoseconds)
{
    return number(node, unit_duration, "a time such as 100ms or 2.5s", min, max, nanoseconds);
}

bool conf_rate(struct conf_node node, uint64_t *per_second, bool *packets)
{
    const char *text = conf_text(node);
    uint64_t rate;
    bool is_packets;
    if (!text || !unit_rate(text, &rate, &is_packets) || rate == 0) {
        conf_expected(node, "a rate such as 10Mbit or 50kpps");
        return false;
    }
    *per_second = rate;
    *packets = is_packets;
    return true;
}

bool conf_enum(struct conf_node node, const char *const *names, unsigned *value)
{
    const char *text = conf_text(node);
    for (unsigned i = 0; text && names[i]; i++) {
        if (strcmp(text, names[i]) == 0) {
            *value = i;
            return true;
        }
    }
    char what[128] = "";
    for (unsigned i = 0; names[i]; i++) {
        size_t at = strlen(what);
        snprintf(what + at, sizeof(what) - at, "%s%s", i == 0 ? "" : names[i + 1] ? ", " : " or ", names[i]);
    }
    conf_expected(node, what);
    return false;
}
