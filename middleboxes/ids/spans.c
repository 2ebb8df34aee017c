/* SPDX-License-Identifier: BSD-2-Clause */
/* Addresses and ports of rules: `any`, one, a range, a prefix, lists of them, `!` before any of these, and variables.
 */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "parser.h"

static bool has(const struct span *span, uint8_t family, const uint8_t *value, size_t width)
{
    if (span->any)
        return true;
    if (!span->inside)
        return span->family == family && memcmp(span->low, value, width) <= 0 && memcmp(value, span->high, width) <= 0;
    bool among = false, wanted = false;
    for (const struct span *item = span->inside; item; item = item->next) {
        bool in = has(item, family, value, width);
        if (item->negated && in)
            return false;
        wanted |= !item->negated;
        among |= !item->negated && in;
    }
    return among || !wanted;
}

bool span_has(const struct span *span, uint8_t family, const uint8_t *value, size_t width)
{
    return has(span, family, value, width) != span->negated;
}

/* `text` as an address; 0: it is none, else its bytes. */
static size_t read_address(const char *text, uint8_t *family, uint8_t *bytes)
{
    *family = strchr(text, ':') ? 6 : 4;
    size_t width = *family == 6 ? 16 : 4;
    return inet_pton(*family == 6 ? AF_INET6 : AF_INET, text, bytes) == 1 ? width : 0;
}

/* ADDRESS, ADDRESS/BITS, or ADDRESS-ADDRESS. */
static bool read_addresses(char *text, struct span *span)
{
    char *slash = strchr(text, '/'), *dash = strchr(text, '-');
    uint8_t family;
    uint32_t bits;

    if (slash)
        *slash = '\0';
    if (dash)
        *dash = '\0';
    size_t width = read_address(text, &span->family, span->low);
    if (width == 0 || (slash && dash))
        return false;
    memcpy(span->high, span->low, width);
    if (dash)
        return read_address(dash + 1, &family, span->high) == width && memcmp(span->low, span->high, width) <= 0;
    if (!slash)
        return true;
    if (!parse_number(slash + 1, 8 * (uint32_t)width, &bits))
        return false;
    for (uint32_t i = bits; i < 8 * width; i++) {
        span->low[i / 8] &= (uint8_t) ~(0x80 >> i % 8);
        span->high[i / 8] |= (uint8_t)(0x80 >> i % 8);
    }
    return true;
}

/* PORT, PORT:, :PORT, or PORT:PORT. */
static bool read_ports(char *text, struct span *span)
{
    char *colon = strchr(text, ':');
    uint32_t low = 0, high = UINT16_MAX;

    if (colon)
        *colon = '\0';
    if (colon ? (!*text && !colon[1]) || (*text && !parse_number(text, UINT16_MAX, &low)) ||
                    (colon[1] && !parse_number(colon + 1, UINT16_MAX, &high))
              : !parse_number(text, UINT16_MAX, &low))
        return false;
    high = colon ? high : low;
    span->low[0] = (uint8_t)(low >> 8), span->low[1] = (uint8_t)low;
    span->high[0] = (uint8_t)(high >> 8), span->high[1] = (uint8_t)high;
    return low <= high;
}

static const char *what(enum span_kind kind)
{
    return kind == SPAN_ADDRESSES ? "addresses (any, 10.0.0.1, 10.0.0.0/8, 10.0.0.1-10.0.0.9, $NAME or [a list])"
                                  : "ports (any, 80, 1024:, 1:1023, $NAME or [a list])";
}

static struct span *read_item(struct parser *parser, enum span_kind kind, unsigned nesting);

static struct span *read_list(struct parser *parser, enum span_kind kind, unsigned nesting)
{
    struct span *list = parser_take(parser, sizeof *list), **end = list ? &list->inside : NULL;

    while (end) {
        parser->at++; /* the bracket, or the comma */
        parser_skip(parser);
        if (!(*end = read_item(parser, kind, nesting + 1)))
            return NULL;
        end = &(*end)->next;
        parser_skip(parser);
        if (*parser->at == ']') {
            parser->at++;
            return list;
        }
        if (*parser->at != ',') {
            parser_expected(parser, "a comma or ] in a list, got '%.20s'", parser->at);
            return NULL;
        }
    }
    return NULL;
}

static struct span *of_variable(struct parser *parser, enum span_kind kind, const char *name)
{
    const struct variable *variable = parser_variable(parser, name);

    if (!variable) {
        parser_expected(parser, "a variable that is set above, got $%s", name);
        return NULL;
    }
    if (!variable->spans[kind]) {
        parser_expected(parser, "%s, got $%s", what(kind), name);
        return NULL;
    }
    struct span *copy = parser_take(parser, sizeof *copy);
    if (copy) {
        *copy = *variable->spans[kind];
        copy->next = NULL; /* it may be in several lists */
    }
    return copy;
}

/* One that is neither negated nor a list. */
static struct span *read_one(struct parser *parser, enum span_kind kind)
{
    char word[64];
    size_t length = strcspn(parser->at, ",] \t");

    if (length >= sizeof word || length == 0) {
        parser_expected(parser, "%s, got '%.20s'", what(kind), parser->at);
        return NULL;
    }
    memcpy(word, parser->at, length);
    word[length] = '\0';
    parser->at += length;
    if (word[0] == '$')
        return of_variable(parser, kind, word + 1);
    struct span *span = parser_take(parser, sizeof *span);
    if (!span)
        return NULL;
    span->any = strcmp(word, "any") == 0;
    if (span->any || (kind == SPAN_ADDRESSES ? read_addresses(word, span) : read_ports(word, span)))
        return span;
    parser_expected(parser, "%s, got '%.*s'", what(kind), (int)length, parser->at - length);
    return NULL;
}

static struct span *read_item(struct parser *parser, enum span_kind kind, unsigned nesting)
{
    bool negated = *parser->at == '!';
    struct span *span;

    parser->at += negated;
    if (*parser->at != '[') {
        span = read_one(parser, kind);
    } else if (nesting < RULE_NESTING) {
        span = read_list(parser, kind, nesting);
    } else {
        parser_expected(parser, "at most %u lists in one another", RULE_NESTING);
        return NULL;
    }
    if (!span)
        return NULL;
    if (negated && span->any) {
        parser_expected(parser, "%s: !any is nothing", what(kind));
        return NULL;
    }
    span->negated ^= negated;
    return span;
}

const struct span *parse_span(struct parser *parser, enum span_kind kind)
{
    parser_skip(parser);
    return read_item(parser, kind, 0);
}
