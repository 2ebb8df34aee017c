/* SPDX-License-Identifier: BSD-2-Clause */
/* The options of a rule: `(name; name:value; ...)`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parser.h"

#define OPTION_BYTES 8192u

/* A value without the blanks around it; "" where there is none. */
typedef bool option_fn(struct parser *parser, struct rule *rule, const char *value);

/* What is between quotes that take all of the value. NULL: the error is set. */
static const char *quoted(struct parser *parser, const char *value, size_t *length)
{
    *length = strlen(value);
    if (value[0] == '!') {
        parser_expected(parser, "content that is to be there: negated content is not supported");
        return NULL;
    }
    if (*length < 3 || value[0] != '"' || value[*length - 1] != '"') {
        parser_expected(parser, "text in quotes, got '%.40s'", value);
        return NULL;
    }
    *length -= 2;
    return value + 1;
}

static bool is_escaped(char character)
{
    return strchr("\"\\;:", character) != NULL && character != '\0';
}

static bool read_text(struct parser *parser, const char *value, const char **text)
{
    size_t length;
    const char *from = quoted(parser, value, &length);
    char *to = from ? parser_take(parser, length + 1) : NULL;

    if (!to)
        return false;
    *text = to;
    for (size_t i = 0; i < length; i++) {
        i += from[i] == '\\' && i + 1 < length && is_escaped(from[i + 1]);
        *to++ = from[i];
    }
    return strlen(*text) <= RULE_TEXT || parser_expected(parser, "at most %u characters", RULE_TEXT);
}

static bool read_msg(struct parser *parser, struct rule *rule, const char *value)
{
    return read_text(parser, value, &rule->msg);
}

static bool read_classtype(struct parser *parser, struct rule *rule, const char *value)
{
    size_t length = strlen(value);
    char *text = parser_take(parser, length + 1);

    if (!text)
        return false;
    memcpy(text, value, length);
    rule->classtype = text;
    return length <= RULE_TEXT || parser_expected(parser, "at most %u characters", RULE_TEXT);
}

static bool read_id(struct parser *parser, const char *name, const char *value, uint32_t *id)
{
    if (parse_number(value, UINT32_MAX, id) && (*id > 0 || strcmp(name, "rev") == 0))
        return true;
    return parser_expected(parser, "%s: a number up to %u, got '%.40s'", name, UINT32_MAX, value);
}

static bool read_sid(struct parser *parser, struct rule *rule, const char *value)
{
    return read_id(parser, "sid", value, &rule->sid);
}

static bool read_gid(struct parser *parser, struct rule *rule, const char *value)
{
    return read_id(parser, "gid", value, &rule->gid);
}

static bool read_rev(struct parser *parser, struct rule *rule, const char *value)
{
    return read_id(parser, "rev", value, &rule->rev);
}

/* For people: it says nothing of what is looked for. */
static bool read_remark(struct parser *parser, struct rule *rule, const char *value)
{
    (void)parser, (void)rule, (void)value;
    return true;
}

static bool read_flow(struct parser *parser, struct rule *rule, const char *value)
{
    static const struct {
        const char *name;
        enum rule_toward toward;
    } words[] = {{"established", RULE_EITHER},
                 {"to_server", RULE_TO_SERVER},
                 {"from_client", RULE_TO_SERVER},
                 {"to_client", RULE_TO_CLIENT},
                 {"from_server", RULE_TO_CLIENT}};
    const unsigned count = sizeof words / sizeof *words;

    if (rule->protocol != RULE_TCP)
        return parser_expected(parser, "flow in rules of tcp only");
    for (const char *at = value;; at++) {
        at += strspn(at, " \t");
        size_t length = strcspn(at, ", \t");
        unsigned i = 0;
        while (i < count && (strlen(words[i].name) != length || strncmp(words[i].name, at, length) != 0))
            i++;
        if (i == count || (words[i].toward && rule->toward && words[i].toward != rule->toward))
            return parser_expected(parser,
                                   "flow: established, and one of to_server (from_client) and to_client "
                                   "(from_server), got '%.40s'",
                                   value);
        rule->established |= words[i].toward == RULE_EITHER;
        rule->toward = words[i].toward ? words[i].toward : rule->toward;
        at += length + strspn(at + length, " \t");
        if (*at == '\0')
            return true;
        if (*at != ',')
            return parser_expected(parser, "a comma between the words of flow, got '%.40s'", value);
    }
}

/* ---- what is looked for ---- */

static struct content *add_content(struct parser *parser, struct rule *rule, size_t bytes)
{
    if (rule->content_count == RULE_CONTENTS) {
        parser_expected(parser, "at most %u content and pcre in a rule", RULE_CONTENTS);
        return NULL;
    }
    if (!rule->contents && !(rule->contents = parser_take(parser, RULE_CONTENTS * sizeof *rule->contents)))
        return NULL;
    char *text = parser_take(parser, bytes + 1);
    if (!text)
        return NULL;
    struct content *content = &rule->contents[rule->content_count++];
    content->text = text;
    return content;
}

static int hex_digit(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    digit |= ' ';
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

/* Of the text behind a '|', up to and with the next one: bytes of two digits each. 0: it is none; else its length. */
static size_t read_hex(const char *from, size_t length, struct content *content)
{
    size_t i = 0;

    while (i < length && from[i] != '|') {
        if (from[i] == ' ') {
            i++;
            continue;
        }
        int high = hex_digit(from[i]), low = i + 1 < length ? hex_digit(from[i + 1]) : -1;
        if (high < 0 || low < 0)
            return 0;
        content->text[content->length++] = (char)(high << 4 | low);
        i += 2;
    }
    return i < length ? i + 1 : 0;
}

static bool read_content(struct parser *parser, struct rule *rule, const char *value)
{
    size_t length;
    const char *from = quoted(parser, value, &length);
    struct content *content = from ? add_content(parser, rule, length) : NULL;

    for (size_t i = 0; content && i < length; i++) {
        if (from[i] == '|') {
            size_t hex = read_hex(from + i + 1, length - i - 1, content);
            if (hex == 0)
                return parser_expected(parser, "bytes of two hexadecimal digits up to the next |, got '%.40s'",
                                       from + i);
            i += hex;
            continue;
        }
        if (from[i] == '\\' && (++i == length || !is_escaped(from[i])))
            return parser_expected(parser, "one of \" \\ ; : behind a backslash in content");
        content->text[content->length++] = from[i];
    }
    if (!content)
        return false;
    return (content->length > 0 && content->length <= RULE_CONTENT_BYTES) ||
           parser_expected(parser, "content of 1 to %u bytes", RULE_CONTENT_BYTES);
}

/* Whether an expression says where the data begins: a ^ or \A that is no character of a class. */
static bool is_anchored(const char *text)
{
    bool in_class = false;

    for (; *text; text++) {
        if (*text == '\\' && text[1]) {
            text++;
            if (*text == 'A' && !in_class)
                return true;
        } else if (in_class) {
            in_class = *text != ']';
        } else if (*text == '[') {
            in_class = true;
            text += text[1] == '^';
            text += text[1] == ']'; /* first in a class it is a character */
        } else if (*text == '^') {
            return true;
        }
    }
    return false;
}

static bool read_pcre(struct parser *parser, struct rule *rule, const char *value)
{
    size_t length;
    const char *from = quoted(parser, value, &length), *end = from ? from + length : NULL;

    while (end && end > from && end[-1] != '/')
        end--;
    if (from && (from[0] != '/' || end - from < 3))
        return parser_expected(parser, "pcre:\"/EXPRESSION/FLAGS\", got '%.40s'", value);
    struct content *content = from ? add_content(parser, rule, length) : NULL;
    if (!content)
        return false;
    content->pcre = true;
    content->length = (uint32_t)(end - from - 2);
    memcpy(content->text, from + 1, content->length);
    for (; *end != '"'; end++) {
        bool *flag = *end == 'i'   ? &content->ignore_case
                     : *end == 's' ? &content->dot_all
                     : *end == 'm' ? &content->multi_line
                     : *end == 'R' ? &content->relative
                                   : NULL;
        if (!flag)
            return parser_expected(parser, "of pcre's flags i, s, m and R, got '%c'", *end);
        *flag = true;
    }
    rule->anchored |= is_anchored(content->text);
    if (content->relative && rule->content_count == 1)
        return parser_expected(parser, "a content before a pcre with R");
    return true;
}

/* The content that an option is about. */
static struct content *modified(struct parser *parser, struct rule *rule, const char *name, unsigned bit)
{
    struct content *content = rule->content_count ? &rule->contents[rule->content_count - 1] : NULL;

    if (!content || content->pcre) {
        parser_expected(parser, "a content before %s", name);
        return NULL;
    }
    if (content->has & bit) {
        parser_expected(parser, "one %s for a content", name);
        return NULL;
    }
    content->has |= (uint8_t)bit;
    return content;
}

static bool read_distance_of(struct parser *parser, const char *name, const char *value, uint32_t *number)
{
    return parse_number(value, RULE_DISTANCE, number) ||
           parser_expected(parser, "%s: a number from 0 to %u, got '%.40s'", name, RULE_DISTANCE, value);
}

static bool read_nocase(struct parser *parser, struct rule *rule, const char *value)
{
    struct content *content = modified(parser, rule, "nocase", CONTENT_NOCASE);

    (void)value;
    if (content)
        content->nocase = true;
    return content != NULL;
}

static bool read_offset(struct parser *parser, struct rule *rule, const char *value)
{
    struct content *content = modified(parser, rule, "offset", CONTENT_OFFSET);
    return content && read_distance_of(parser, "offset", value, &content->offset);
}

static bool read_depth(struct parser *parser, struct rule *rule, const char *value)
{
    struct content *content = modified(parser, rule, "depth", CONTENT_DEPTH);
    return content && read_distance_of(parser, "depth", value, &content->depth);
}

static bool read_distance(struct parser *parser, struct rule *rule, const char *value)
{
    struct content *content = modified(parser, rule, "distance", CONTENT_DISTANCE);
    return content && read_distance_of(parser, "distance", value, &content->distance);
}

static bool read_within(struct parser *parser, struct rule *rule, const char *value)
{
    struct content *content = modified(parser, rule, "within", CONTENT_WITHIN);
    return content && read_distance_of(parser, "within", value, &content->within);
}

/* ---- all of them ---- */

static const struct option {
    const char *name;
    option_fn *read;
    bool has_value, once;
} options[] = {
    {"msg", read_msg, true, true},
    {"sid", read_sid, true, true},
    {"gid", read_gid, true, true},
    {"rev", read_rev, true, true},
    {"classtype", read_classtype, true, true},
    {"reference", read_remark, true, false},
    {"metadata", read_remark, true, false},
    {"flow", read_flow, true, true},
    {"content", read_content, true, false},
    {"nocase", read_nocase, false, false},
    {"offset", read_offset, true, false},
    {"depth", read_depth, true, false},
    {"distance", read_distance, true, false},
    {"within", read_within, true, false},
    {"pcre", read_pcre, true, false},
};

/* A content's options agree with one another. */
static bool check_content(struct parser *parser, struct rule *rule, unsigned index)
{
    struct content *content = &rule->contents[index];
    const bool placed = content->has & (CONTENT_OFFSET | CONTENT_DEPTH);

    if (content->pcre)
        return true;
    content->relative = content->has & (CONTENT_DISTANCE | CONTENT_WITHIN);
    if (content->relative && (placed || index == 0))
        return parser_expected(parser, placed ? "offset and depth, or distance and within: not both of one content"
                                              : "a content or pcre before one with distance or within");
    if (content->has & CONTENT_DEPTH && content->depth < content->length)
        return parser_expected(parser, "a depth of at least the content's %u bytes", content->length);
    if (content->has & CONTENT_WITHIN && content->within < content->length)
        return parser_expected(parser, "a within of at least the content's %u bytes", content->length);
    if (content->offset + content->depth > RULE_DISTANCE || content->distance + content->within > RULE_DISTANCE)
        return parser_expected(parser, "offset + depth, and distance + within, of at most %u", RULE_DISTANCE);
    rule->anchored |= placed;
    return true;
}

static bool check_rule(struct parser *parser, struct rule *rule)
{
    if (rule->sid == 0)
        return parser_expected(parser, "sid:NUMBER in a rule");
    if (rule->content_count == 0)
        return parser_expected(parser, "content or pcre in a rule");
    for (unsigned i = 0; i < rule->content_count; i++)
        if (!check_content(parser, rule, i))
            return false;
    return true;
}

/* Up to the semicolon, which is not in quotes, and over it; without the blanks around it. */
static bool read_value(struct parser *parser, char value[OPTION_BYTES])
{
    bool in_quotes = false;
    size_t length = 0;

    parser_skip(parser);
    for (; *parser->at && (in_quotes || *parser->at != ';'); parser->at++) {
        if (length + 2 >= OPTION_BYTES)
            return parser_expected(parser, "a value of less than %u bytes", OPTION_BYTES);
        if (*parser->at == '\\' && parser->at[1])
            value[length++] = *parser->at++;
        else if (*parser->at == '"')
            in_quotes = !in_quotes;
        value[length++] = *parser->at;
    }
    if (*parser->at != ';')
        return parser_expected(parser, in_quotes ? "a closing quote" : "a semicolon behind each option");
    parser->at++;
    while (length > 0 && (value[length - 1] == ' ' || value[length - 1] == '\t'))
        length--;
    value[length] = '\0';
    return true;
}

static bool read_option(struct parser *parser, struct rule *rule, uint32_t *seen)
{
    const unsigned count = sizeof options / sizeof *options;
    char value[OPTION_BYTES] = "";
    size_t length = strcspn(parser->at, ":; \t)");
    unsigned i = 0;

    while (i < count && (strlen(options[i].name) != length || strncmp(options[i].name, parser->at, length) != 0))
        i++;
    if (i == count)
        return parser_expected(parser, "an option that is supported, got '%.*s'", (int)(length < 40 ? length : 40),
                               parser->at);
    if (options[i].once && *seen & 1u << i)
        return parser_expected(parser, "%s once", options[i].name);
    *seen |= 1u << i;
    parser->at += length;
    parser_skip(parser);
    if (options[i].has_value != (*parser->at == ':'))
        return parser_expected(parser, options[i].has_value ? "%s:VALUE;" : "%s;", options[i].name);
    parser->at += options[i].has_value;
    if (!read_value(parser, value))
        return false;
    if (options[i].has_value != (value[0] != '\0'))
        return parser_expected(parser, options[i].has_value ? "%s:VALUE;" : "%s;", options[i].name);
    return options[i].read(parser, rule, value);
}

bool parse_options(struct parser *parser, struct rule *rule)
{
    uint32_t seen = 0;

    if (*parser->at != '(')
        return parser_expected(parser, "( and the rule's options, got '%.20s'", parser->at);
    for (parser->at++;;) {
        parser_skip(parser);
        if (*parser->at == ')')
            break;
        if (*parser->at == '\0')
            return parser_expected(parser, ") at the end of a rule");
        if (!read_option(parser, rule, &seen))
            return false;
    }
    parser->at++;
    parser_skip(parser);
    if (*parser->at)
        return parser_expected(parser, "nothing behind a rule's ), got '%.20s'", parser->at);
    return check_rule(parser, rule);
}
