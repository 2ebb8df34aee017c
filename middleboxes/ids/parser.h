/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef IDS_PARSER_H
#define IDS_PARSER_H

/* What rules.c, spans.c and options.c have in common: a place in a line, and the first thing that was wrong. */

#include "rules.h"

#define VARIABLES_MAX 256u
#define LINE_BYTES 16384u

enum span_kind { SPAN_ADDRESSES, SPAN_PORTS };

struct variable {
    const char *name;
    const struct span *spans[2]; /* by kind; NULL: it is none of that kind */
};

struct parser {
    struct rules *rules;
    char text[LINE_BYTES]; /* the line */
    const char *at;        /* in it */
    unsigned line;         /* its number */
    struct sm_errbuf *error;
    bool failed; /* *error is set */
    bool no_memory;
    struct variable variables[VARIABLES_MAX];
    unsigned variable_count;
};

/* Zeroed memory that lives as long as the rules. NULL: out of memory, which is the error. */
void *parser_take(struct parser *parser, size_t bytes);

/* The error: "FILE:LINE: expected ...". Only the first one is kept. Returns false. */
bool parser_expected(struct parser *parser, const char *format, ...) __attribute__((format(printf, 2, 3)));

void parser_skip(struct parser *parser); /* over blanks */

const struct variable *parser_variable(const struct parser *parser, const char *name);

/* A decimal number of digits only, at most `most`. */
bool parse_number(const char *text, uint32_t most, uint32_t *number);

/* Addresses or ports, at parser->at. NULL: the error is set. */
const struct span *parse_span(struct parser *parser, enum span_kind kind);

/* The options of a rule, from their bracket on to the end of the line. */
bool parse_options(struct parser *parser, struct rule *rule);

#endif
