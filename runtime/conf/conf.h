/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_CONF_CONF_H
#define SM_CONF_CONF_H

/*
 * A reader of YAML files that explains what is wrong with them.
 *
 * The first error sticks to the file and everything after it reads as absent, so a parser is straight-line code that
 * checks once, at its end:
 *
 *     struct conf *conf = conf_load(file, error);
 *     if (!conf)
 *         return SM_E_SYNTAX;
 *     struct conf_node root = conf_root(conf);
 *     static const char *const keys[] = {"rate", "burst", NULL};
 *     conf_map(root, keys);                                          // a mapping, with these keys and no others
 *     conf_rate(conf_need(root, "rate", RATE), &rate, &packets);     // must be there
 *     conf_size(conf_get(root, "burst"), 1, UINT32_MAX, &burst);     // may be absent: *burst is left as it was
 *     if (conf_error(conf))
 *         ...
 *
 * Errors are one line: "FILE:LINE: KEY: expected WHAT, got 'X'", KEY being the path from the file's top, such as
 * limits[2].rate. A conf and its nodes belong to one thread.
 */

#include <splitmerge/types.h>

#define CONF_MAX_FILE (16u << 20) /* bytes of a file */
#define CONF_MAX_KEYS 4096        /* keys of one mapping */
#define CONF_MAX_DEPTH 64         /* mappings and lists in one another */

struct conf;

/* A value in a file; by value, valid until conf_free(). Absent where `id` is 0: all getters then do nothing. */
struct conf_node {
    struct conf *conf;
    int id;
};

/* One line whatever is quoted in it: control characters become question marks. */
void conf_printable(char *text);

/* Read and parse a file. NULL: *error says why in one line. */
struct conf *conf_load(const char *file, struct sm_errbuf *error);

/* The same from memory; `name` stands for the file in errors (copied). */
struct conf *conf_parse(const char *name, const char *text, size_t length, struct sm_errbuf *error);

/* Free a file and all strings got from it. NULL is allowed. */
void conf_free(struct conf *conf);

/* The first error, or NULL. Valid as long as the file. */
const char *conf_error(const struct conf *conf);

/* The file's top. */
struct conf_node conf_root(struct conf *conf);

static inline bool conf_present(struct conf_node node)
{
    return node.id != 0;
}

/*
 * Whether `node` is a mapping; an error when not. Its keys must be plain, different from each other and, unless
 * `keys` (ended by NULL) is NULL, among them. Call it before conf_get() on the mapping. False for an absent node.
 */
bool conf_map(struct conf_node node, const char *const *keys);

/* The value of a key of a mapping; absent when there is none. conf_need(): an error then; `what` as conf_expected(). */
struct conf_node conf_get(struct conf_node map, const char *key);
struct conf_node conf_need(struct conf_node map, const char *key, const char *what);

/* Walk a mapping in the file's order: i in [0, conf_count()). *key is the file's. */
struct conf_node conf_pair(struct conf_node map, unsigned i, const char **key);

/* Whether `node` is a sequence; an error when not. Walk it: i in [0, conf_count()). */
bool conf_list(struct conf_node node);
struct conf_node conf_item(struct conf_node list, unsigned i);

/* Entries of a mapping or sequence; 0 for all else. */
unsigned conf_count(struct conf_node node);

/*
 * Values. True: *value is set. False: *value is left alone, because the node is absent (no error: set the default
 * before) or because it is wrong (an error sticks). min and max are inclusive; shown in the error when they are what
 * is broken. Units: conf/units.h.
 */
bool conf_string(struct conf_node node, const char **value); /* not empty; the file's, until conf_free() */
bool conf_bool(struct conf_node node, bool *value);          /* true, false */
bool conf_u64(struct conf_node node, uint64_t min, uint64_t max, uint64_t *value);
bool conf_u32(struct conf_node node, uint32_t min, uint32_t max, uint32_t *value);
bool conf_size(struct conf_node node, uint64_t min, uint64_t max, uint64_t *bytes);
bool conf_duration(struct conf_node node, uint64_t min, uint64_t max, uint64_t *nanoseconds);
/* Above 0; *packets: a rate of packets, else of bits. */
bool conf_rate(struct conf_node node, uint64_t *per_second, bool *packets);
/* One of `names` (ended by NULL): *value is its place. */
bool conf_enum(struct conf_node node, const char *const *names, unsigned *value);

/* The text of a scalar, as written; NULL for all else. Makes no error: for values of a form of the caller's own. */
const char *conf_text(struct conf_node node);

/* Errors of the caller's own: "FILE:LINE: KEY: expected WHAT, got 'X'", or any text after the key. Kept when first. */
void conf_expected(struct conf_node node, const char *what);
void conf_fail(struct conf_node node, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The nearest of `names` (ended by NULL) when it is close enough to be meant, else NULL. For other messages. */
const char *conf_nearest(const char *word, const char *const *names);

#endif
