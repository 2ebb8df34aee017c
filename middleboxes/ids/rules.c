/* SPDX-License-Identifier: BSD-2-Clause */
#include "rules.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parser.h"

struct block {
    struct block *next;
    max_align_t bytes[];
};

void *parser_take(struct parser *parser, size_t bytes)
{
    struct block *block = calloc(1, sizeof *block + bytes);

    if (!block) {
        snprintf(parser->error->text, sizeof parser->error->text, "%s", sm_strerror(SM_E_NO_MEMORY));
        parser->failed = parser->no_memory = true;
        return NULL;
    }
    block->next = parser->rules->blocks;
    parser->rules->blocks = block;
    return block->bytes;
}

bool parser_expected(struct parser *parser, const char *format, ...)
{
    char said[200];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(said, sizeof said, format, arguments);
    va_end(arguments);
    if (!parser->failed)
        snprintf(parser->error->text, sizeof parser->error->text, "%.90s:%u: expected %.140s", parser->rules->file,
                 parser->line, said);
    parser->failed = true;
    return false;
}

void parser_skip(struct parser *parser)
{
    parser->at += strspn(parser->at, " \t");
}

const struct variable *parser_variable(const struct parser *parser, const char *name)
{
    for (unsigned i = 0; i < parser->variable_count; i++)
        if (strcmp(parser->variables[i].name, name) == 0)
            return &parser->variables[i];
    return NULL;
}

bool parse_number(const char *text, uint32_t most, uint32_t *number)
{
    uint64_t value = 0;

    if (*text == '\0')
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9' || (value = value * 10 + (uint64_t)(*text - '0')) > most)
            return false;
    }
    *number = (uint32_t)value;
    return true;
}

/* The word at the place, at most 31 characters, into `word`; over the blanks behind it. */
static bool read_word(struct parser *parser, char word[32])
{
    parser_skip(parser);
    size_t length = strcspn(parser->at, " \t");

    if (length == 0 || length > 31)
        return false;
    memcpy(word, parser->at, length);
    word[length] = '\0';
    parser->at += length;
    parser_skip(parser);
    return true;
}

/* A variable's value as one of that kind, if it is one. */
static const struct span *value_of(struct parser *parser, enum span_kind kind)
{
    const char *begin = parser->at;
    const struct span *span = parse_span(parser, kind);

    parser_skip(parser);
    if (span && *parser->at)
        span = NULL;
    parser->at = begin;
    parser->failed = parser->no_memory; /* it may be of the other kind */
    return span;
}

/* NAME VALUE: what it is, addresses or ports, shows where it is used. */
static bool read_variable(struct parser *parser)
{
    struct variable *variable = &parser->variables[parser->variable_count];
    char word[32];

    if (parser->variable_count == VARIABLES_MAX)
        return parser_expected(parser, "at most %u variables", VARIABLES_MAX);
    if (!read_word(parser, word) ||
        word[strspn(word, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")])
        return parser_expected(parser, "var NAME VALUE, with a name of letters, digits and _");
    if (parser_variable(parser, word))
        return parser_expected(parser, "another name: %s is set already", word);
    char *name = parser_take(parser, sizeof word);
    if (!name)
        return false;
    memcpy(name, word, sizeof word);
    *variable = (struct variable){.name = name};
    for (enum span_kind kind = SPAN_ADDRESSES; kind <= SPAN_PORTS && !parser->failed; kind++)
        variable->spans[kind] = value_of(parser, kind);
    if (!parser->failed && !variable->spans[SPAN_ADDRESSES] && !variable->spans[SPAN_PORTS])
        return parser_expected(parser, "addresses, ports, or a list of them, got '%.40s'", parser->at);
    parser->variable_count++;
    return !parser->failed;
}

static bool read_protocol(struct parser *parser, struct rule *rule)
{
    static const char *const names[] = {[RULE_IP] = "ip", [RULE_TCP] = "tcp", [RULE_UDP] = "udp", [RULE_ICMP] = "icmp"};
    char word[32] = "";

    if (read_word(parser, word))
        for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
            if (strcmp(word, names[i]) == 0) {
                rule->protocol = i;
                return true;
            }
    return parser_expected(parser, "tcp, udp, icmp or ip, got '%s'", word);
}

static bool read_direction(struct parser *parser, struct rule *rule)
{
    char word[32] = "";

    if (!read_word(parser, word) || (strcmp(word, "->") != 0 && strcmp(word, "<>") != 0))
        return parser_expected(parser, "-> or <>, got '%s'", word);
    rule->both_ways = word[0] == '<';
    return true;
}

/* What is to come on the line is the rule's, from its protocol on. */
static bool read_rule(struct parser *parser, struct rule *rule)
{
    *rule = (struct rule){.line = parser->line, .gid = 1, .msg = "", .classtype = ""};
    if (!read_protocol(parser, rule) || !(rule->source = parse_span(parser, SPAN_ADDRESSES)) ||
        !(rule->source_ports = parse_span(parser, SPAN_PORTS)) || !read_direction(parser, rule) ||
        !(rule->destination = parse_span(parser, SPAN_ADDRESSES)) ||
        !(rule->destination_ports = parse_span(parser, SPAN_PORTS)))
        return false;
    if ((rule->protocol == RULE_IP || rule->protocol == RULE_ICMP) &&
        (!rule->source_ports->any || !rule->destination_ports->any))
        return parser_expected(parser, "any for the ports of %s", rule->protocol == RULE_IP ? "ip" : "icmp");
    parser_skip(parser);
    if (!parse_options(parser, rule))
        return false;
    for (unsigned i = 0; i < parser->rules->count; i++) {
        const struct rule *other = &parser->rules->rules[i];
        if (other->sid == rule->sid && other->gid == rule->gid)
            return parser_expected(parser, "another sid: that of line %u is %u, too", other->line, rule->sid);
    }
    return true;
}

static bool read_line(struct parser *parser)
{
    struct rules *rules = parser->rules;
    char word[32] = "";

    parser_skip(parser);
    if (*parser->at == '\0' || *parser->at == '#')
        return true;
    if (read_word(parser, word) && strcmp(word, "var") == 0)
        return read_variable(parser);
    if (strcmp(word, "alert") != 0)
        return parser_expected(parser, "alert, var or a comment, got '%s'", word);
    if (rules->count == RULES_MAX)
        return parser_expected(parser, "at most %u rules", RULES_MAX);
    if ((rules->count & (rules->count - 1)) == 0) { /* full: double it */
        struct rule *more = realloc(rules->rules, (rules->count ? 2 * rules->count : 1) * sizeof *more);
        if (!more) {
            snprintf(parser->error->text, sizeof parser->error->text, "%s", sm_strerror(SM_E_NO_MEMORY));
            return false;
        }
        rules->rules = more;
    }
    if (!read_rule(parser, &rules->rules[rules->count]))
        return false;
    rules->count++;
    return true;
}

/* The next line of the text: printed ASCII and tabs, so that all that is said of it can be printed. */
static bool next_line(struct parser *parser, const char **text, const char *end)
{
    const char *newline = memchr(*text, '\n', (size_t)(end - *text));
    size_t length = (size_t)((newline ? newline : end) - *text);

    parser->line++;
    if (length > 0 && (*text)[length - 1] == '\r')
        length--;
    if (length >= LINE_BYTES)
        return parser_expected(parser, "a line of less than %u bytes", LINE_BYTES);
    for (size_t i = 0; i < length; i++)
        if (((*text)[i] < ' ' && (*text)[i] != '\t') || (*text)[i] > '~')
            return parser_expected(parser, "printed ASCII, got the byte 0x%02x (in contents: |%02x|)",
                                   (uint8_t)(*text)[i], (uint8_t)(*text)[i]);
    memcpy(parser->text, *text, length);
    parser->text[length] = '\0';
    parser->at = parser->text;
    *text = newline ? newline + 1 : end;
    return true;
}

static bool parse(struct parser *parser, const char *text, size_t length)
{
    const char *end = text + length;

    while (text < end)
        if (!next_line(parser, &text, end) || !read_line(parser))
            return false;
    return parser->rules->count > 0 || parser_expected(parser, "a rule: alert PROTOCOL ...");
}

struct rules *rules_parse(const char *name, const char *text, size_t length, struct sm_errbuf *error)
{
    struct parser *parser = calloc(1, sizeof *parser);
    struct rules *rules = calloc(1, sizeof *rules);

    if (rules)
        rules->file = strdup(name);
    if (!parser || !rules || !rules->file) {
        snprintf(error->text, sizeof error->text, "%s", sm_strerror(SM_E_NO_MEMORY));
    } else {
        parser->rules = rules;
        parser->error = error;
        if (parse(parser, text, length)) {
            free(parser);
            return rules;
        }
    }
    free(parser);
    rules_destroy(rules);
    return NULL;
}

/* All of a file; NULL: errno says why. */
static char *read_all(FILE *in, size_t *length)
{
    size_t room = 65536;
    char *text = malloc(room), *more = text;

    *length = 0;
    while (more) {
        *length += fread(text + *length, 1, room - *length, in);
        if (*length < room)
            break;
        room *= 2;
        if ((more = realloc(text, room)))
            text = more;
    }
    if (!more || ferror(in)) {
        free(text);
        return NULL;
    }
    return text;
}

struct rules *rules_load(const char *file, struct sm_errbuf *error)
{
    FILE *in = fopen(file, "r");
    size_t length;
    char *text = in ? read_all(in, &length) : NULL;
    struct rules *rules = NULL;

    if (text)
        rules = rules_parse(file, text, length, error);
    else
        snprintf(error->text, sizeof error->text, "%.180s: %s", file, strerror(errno));
    free(text);
    if (in)
        fclose(in);
    return rules;
}

void rules_destroy(struct rules *rules)
{
    if (!rules)
        return;
    for (struct block *block = rules->blocks, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    free(rules->rules);
    free(rules->file);
    free(rules);
}
