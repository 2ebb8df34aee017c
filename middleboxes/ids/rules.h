/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef IDS_RULES_H
#define IDS_RULES_H

/*
 * The rule file: lines `alert PROTOCOL SOURCE PORTS -> DESTINATION PORTS (OPTIONS)` and `var NAME VALUE`, a subset of
 * Suricata's language (README.md). What is read here is what was written; what is made of contents is the engine's.
 */

#include <splitmerge/types.h>

#define RULES_MAX 65536u       /* rules in a file */
#define RULE_CONTENTS 32u      /* content and pcre of a rule */
#define RULE_CONTENT_BYTES 255 /* of a content */
#define RULE_DISTANCE 32767u   /* most that offset + depth, and distance + within, come to: what Hyperscan counts to */
#define RULE_TEXT 255u         /* of msg and classtype */
#define RULE_NESTING 8u        /* lists in lists */

/* Addresses or ports: any, from low to high, or a list. */
struct span {
    struct span *next;   /* in its list */
    struct span *inside; /* the list's first */
    bool negated, any;
    uint8_t family;            /* 4 or 6; 0: ports, two bytes each */
    uint8_t low[16], high[16]; /* as in a packet, both included */
};

/* Whether a value, of `width` bytes, is among them: in one that is not negated (if there are such), and in no other. */
bool span_has(const struct span *span, uint8_t family, const uint8_t *value, size_t width);

struct content {
    char *text; /* the bytes, or the expression */
    uint32_t length;
    bool pcre, nocase;
    bool relative;                         /* begins behind the match of the one before */
    bool ignore_case, dot_all, multi_line; /* of an expression */
    uint8_t has;                           /* CONTENT_* */
    uint32_t offset, depth, distance, within;
};

enum {
    CONTENT_OFFSET = 1 << 0,
    CONTENT_DEPTH = 1 << 1,
    CONTENT_DISTANCE = 1 << 2,
    CONTENT_WITHIN = 1 << 3,
    CONTENT_NOCASE = 1 << 4
};

enum rule_protocol { RULE_IP, RULE_TCP, RULE_UDP, RULE_ICMP };
enum rule_toward { RULE_EITHER, RULE_TO_SERVER, RULE_TO_CLIENT };

struct rule {
    unsigned line;
    uint32_t gid, sid, rev;
    const char *msg, *classtype; /* never NULL */
    enum rule_protocol protocol;
    const struct span *source, *source_ports, *destination, *destination_ports;
    bool both_ways; /* <> */
    bool established;
    enum rule_toward toward;
    bool anchored; /* depends on where the data begins */
    struct content *contents;
    unsigned content_count;
};

struct rules {
    char *file;
    struct rule *rules;
    unsigned count;
    void *blocks; /* all memory of the rules, for rules_destroy() */
};

/*
 * Read a rule file; rules_parse() reads `length` bytes from memory, `name` standing for the file. NULL: *error has one
 * line, "FILE:LINE: expected ...". The rules are the caller's until rules_destroy(), which takes NULL too.
 */
struct rules *rules_load(const char *file, struct sm_errbuf *error);
struct rules *rules_parse(const char *name, const char *text, size_t length, struct sm_errbuf *error);
void rules_destroy(struct rules *rules);

#endif
