/* SPDX-License-Identifier: BSD-2-Clause */

/* `prefixes:` of a limit: a list in the policy, or a file beside it, of PREFIX [RATE [BURST [CEIL]]], one a line. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy.h"

/* What has been read. */
struct table {
    const struct limit *limit;
    const struct terms *terms; /* of prefixes that have none of their own */
    struct prefix *prefix;
    struct allowance *allowed;
    unsigned *line;
    uint32_t count, room, most;
};

/* What is wrong with a line: what was expected of which word. */
struct complaint {
    const char *expected, *got;
};

static bool grow(struct table *table)
{
    uint32_t room = table->room ? table->room * 2 : 256;
    void *prefix = realloc(table->prefix, room * sizeof(*table->prefix));
    void *allowed = prefix ? realloc(table->allowed, room * sizeof(*table->allowed)) : NULL;
    void *line = allowed ? realloc(table->line, room * sizeof(*table->line)) : NULL;

    table->prefix = prefix ? prefix : table->prefix;
    table->allowed = allowed ? allowed : table->allowed;
    table->line = line ? line : table->line;
    table->room = line ? room : table->room;
    return line != NULL;
}

/* The next word of a line, NULL: a comment, or the end. */
static char *next_word(char **rest)
{
    char *word = *rest ? strtok_r(NULL, " \t\r\n", rest) : NULL;

    if (word && *word == '#')
        *rest = word = NULL;
    return word;
}

/* What a line says behind the prefix. False: *complaint says why it cannot be. */
static bool read_terms(const struct limit *limit, char **rest, struct terms *terms, struct complaint *complaint)
{
    char *word = next_word(rest);

    *complaint =
        (struct complaint){limit->packets ? "a rate in packets, as the limit's" : "a rate such as 10Mbit", word};
    if (word && !policy_parse_rate(limit, word, &terms->rate))
        return false;
    word = next_word(rest);
    *complaint = (struct complaint){limit->packets ? "a burst in packets" : "a burst such as 16KiB", word};
    if (word && !policy_parse_burst(limit, word, &terms->burst))
        return false;
    if (limit->borrows) {
        word = next_word(rest);
        *complaint = (struct complaint){"a ceil of at least the rate", word ? word : "the limit's"};
        if ((word && !policy_parse_rate(limit, word, &terms->ceil)) || terms->ceil < terms->rate)
            return false;
    }
    word = next_word(rest);
    *complaint = (struct complaint){
        limit->borrows ? "PREFIX, RATE, BURST and CEIL, no more" : "PREFIX, RATE and BURST, no more", word};
    return word == NULL;
}

/* One line, which is cut to pieces; an empty one adds nothing. False: *complaint says why. */
static bool read_line(struct table *table, char *text, unsigned line, struct complaint *complaint)
{
    struct terms terms = *table->terms;
    char *rest, *word = strtok_r(text, " \t\r\n", &rest);
    struct prefix prefix;

    if (!word || *word == '#')
        return true;
    *complaint = (struct complaint){"a prefix such as 10.0.0.0/8 or 2001:db8::/32, without bits behind it", word};
    if (!prefix_parse(word, &prefix) || !read_terms(table->limit, &rest, &terms, complaint))
        return false;
    *complaint = (struct complaint){"fewer prefixes, 65535 with the other limits", NULL};
    if (table->count == table->most)
        return false;
    *complaint = (struct complaint){"more memory", NULL};
    if (table->count == table->room && !grow(table))
        return false;
    table->prefix[table->count] = prefix;
    table->allowed[table->count] = policy_allow(&terms);
    table->line[table->count++] = line;
    return true;
}

/* The file's path is relative to the policy's. NULL: errno. */
static FILE *open_beside(const char *policy, const char *name)
{
    const char *slash = strrchr(policy, '/');
    char path[4096];

    if (*name == '/' || !slash)
        return fopen(name, "re");
    if ((size_t)snprintf(path, sizeof(path), "%.*s/%s", (int)(slash - policy), policy, name) >= sizeof(path)) {
        errno = ENAMETOOLONG;
        return NULL;
    }
    return fopen(path, "re");
}

static void read_file(struct table *table, const struct policy *policy, struct conf_node node, const char *name)
{
    FILE *file = open_beside(policy->file, name);
    struct complaint complaint;
    char *text = NULL;
    size_t size = 0;
    unsigned line = 0;
    ssize_t length;

    if (!file) {
        conf_fail(node, "expected a file of prefixes, got '%.80s' (%s)", name, strerror(errno));
        return;
    }
    while ((length = getline(&text, &size, file)) >= 0) {
        line++;
        if (strlen(text) < (size_t)length) /* what is behind it would never be looked at */
            complaint = (struct complaint){"text", "a zero byte"};
        else if (read_line(table, text, line, &complaint))
            continue;
        conf_fail(node, "%.60s:%u: expected %s, got '%.40s'", name, line, complaint.expected,
                  complaint.got ? complaint.got : "one more");
        break;
    }
    if (ferror(file))
        conf_fail(node, "%.80s: cannot be read (%s)", name, strerror(errno));
    free(text);
    fclose(file);
}

static void read_list(struct table *table, struct conf_node node)
{
    for (unsigned i = 0; i < conf_count(node); i++) {
        struct conf_node item = conf_item(node, i);
        struct complaint complaint;
        const char *given;
        char *text;

        if (!conf_string(item, &given) || !(text = strdup(given)))
            return;
        if (!read_line(table, text, i + 1, &complaint))
            conf_expected(item, complaint.expected);
        free(text);
    }
}

static int by_prefix(const void *a, const void *b)
{
    const struct prefix *one = *(const struct prefix *const *)a, *other = *(const struct prefix *const *)b;

    if (one->family != other->family)
        return one->family - other->family;
    if (one->bits != other->bits)
        return one->bits - other->bits;
    return memcmp(one->word, other->word, sizeof(one->word)); /* in whatever order: equal ones meet */
}

/* Each prefix stands once. */
static void check_twins(const struct table *table, struct conf_node node)
{
    const struct prefix **sorted = calloc(table->count ? table->count : 1, sizeof(*sorted));

    for (uint32_t i = 0; sorted && i < table->count; i++)
        sorted[i] = &table->prefix[i];
    if (sorted)
        qsort(sorted, table->count, sizeof(*sorted), by_prefix);
    for (uint32_t i = 1; sorted && i < table->count; i++)
        if (by_prefix(&sorted[i - 1], &sorted[i]) == 0)
            conf_fail(node, "expected each prefix once, got the same in lines %u and %u",
                      table->line[sorted[i - 1] - table->prefix], table->line[sorted[i] - table->prefix]);
    free(sorted);
}

/* Hand what was read to the policy. False: out of memory. */
static bool keep(struct policy *policy, struct limit *limit, const struct table *table)
{
    struct allowance *allowed =
        realloc(policy->allowed, (policy->allowed_count + table->count) * sizeof(*policy->allowed));
    uint32_t before = policy->allowed_count - policy->count;
    struct prefix *prefix = realloc(policy->prefix, (before + table->count) * sizeof(*policy->prefix));

    policy->allowed = allowed ? allowed : policy->allowed;
    policy->prefix = prefix ? prefix : policy->prefix;
    if (!allowed || !prefix)
        return false;
    memcpy(prefix + before, table->prefix, table->count * sizeof(*prefix));
    memcpy(allowed + policy->allowed_count, table->allowed, table->count * sizeof(*allowed));
    limit->tag = (uint16_t)policy->allowed_count;
    limit->prefix_count = table->count;
    policy->allowed_count += table->count;
    limit->prefixes = prefixes_create(table->prefix, table->count, limit->tag);
    return limit->prefixes != NULL;
}

void policy_read_prefixes(struct policy *policy, struct limit *limit, const struct terms *terms, struct conf_node node,
                          int shortest[2])
{
    static const char *const keys[] = {"source", "destination", NULL};
    struct table table = {.limit = limit, .terms = terms, .most = POLICY_MAX_TAGS - policy->allowed_count};
    struct conf_node source, destination;
    const char *file;

    shortest[0] = shortest[1] = -1;
    if (!conf_map(node, keys) || terms->rate == 0 || terms->burst == 0)
        return;
    source = conf_get(node, "source");
    destination = conf_get(node, "destination");
    if (conf_present(source) == conf_present(destination)) {
        conf_expected(node, "source or destination, with a list of prefixes or the name of a file");
        return;
    }
    limit->prefixes_of = conf_present(source) ? SM_BY_SOURCE : SM_BY_DESTINATION;
    node = conf_present(source) ? source : destination;
    file = conf_text(node);
    if (file)
        read_file(&table, policy, node, file);
    else if (conf_list(node))
        read_list(&table, node);
    check_twins(&table, node);
    for (uint32_t i = 0; i < table.count; i++) {
        int *least = &shortest[table.prefix[i].family == 6];
        *least = *least < 0 || table.prefix[i].bits < *least ? table.prefix[i].bits : *least;
    }
    if (table.count == 0)
        conf_expected(node, "at least one prefix");
    else if (!conf_error(policy->conf) && !keep(policy, limit, &table))
        conf_fail(node, "expected more memory");
    free(table.prefix);
    free(table.allowed);
    free(table.line);
}
