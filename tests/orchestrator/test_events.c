/* SPDX-License-Identifier: BSD-2-Clause */
/* Files of events as pairs, and selectors. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "events.h"
#include "selector.h"

static const struct {
    const char *line;
    const char *error; /* behind "f:1: "; NULL: it is right */
} rows[] = {
    {"packet=1 scale 2", NULL},
    {"packet=4k\tscale 2 # more", NULL},
    {"  time=2.5s  split r1  ", NULL},
    {"time=0s split r1 --into r2", NULL},
    {"packet=9 merge r1 --into r2\r", NULL},
    {"packet=9 move shards:0-99,200 --to r2", NULL},
    {"packet=9 move 'net 10.0.0.0/8' --to r2", NULL},
    {"packet=9 move \"tcp port 80\" --to r2", NULL},
    {"packet=9 move tcp port 80 and host 10.0.0.1 --to r12", NULL},
    {"packet=9 drain r3", NULL},
    {"packet=9 rebalance", NULL},
    {"packet=9 rebalance --copy", NULL},
    {"packet=9 scale --copy 3", NULL},
    {"packet=9 move tcp --to r2 --copy", NULL},
    {"packet=9 move --copy tcp --to r2", NULL},
    {"packet=9 scale 1 --strategy drain", NULL},
    {"packet=9 move --strategy new-flows-only tcp --to r2", NULL},
    {"packet=9 scale 1 --strategy drains", "expected --strategy move, drain, new-flows-only or restart, got 'drains'"},
    {"packet=9 scale 1 --strategymove", "expected the line's end, got '--strategymove'"},
    {"packet=9 kill any", NULL},
    {"packet=9 kill r3", NULL},
    {"packet=0 scale 2", "expected packet=N or time=2.5s, got 'packet=0'"},
    {"time=3 scale 2", "expected packet=N or time=2.5s, got 'time=3'"},
    {"scale 2", "expected packet=N or time=2.5s, got 'scale'"},
    {"packet=1",
     "expected scale, split, merge, move, drain, rebalance, upgrade, kill or checkpoint, got the line's end"},
    {"packet=1 upgrade", "expected --exec PROGRAM, got the line's end"},
    {"packet=9 upgrade --exec ./new --no-rollback --args -a b", NULL},
    {"packet=9 upgrade --exec ./new --trial 300ms", NULL},
    {"packet=9 upgrade --trial 3 --exec ./new",
     "expected a time of at most 1 h such as 30s, or 0s, behind --trial, got '3'"},
    {"packet=9 upgrade --exec ./new --trial 3601s",
     "expected a time of at most 1 h such as 30s, or 0s, behind --trial, got '3601s'"},
    {"packet=9 upgrade --exec ./new --trial",
     "expected a time of at most 1 h such as 30s, or 0s, behind --trial, got the line's end"},
    {"packet=1 upgrade now", "expected --exec, --trial, --no-rollback or --args, got 'now'"},
    {"packet=1 scale", "expected a number of replicas, 1 to 64, got the line's end"},
    {"packet=1 scale 65", "expected a number of replicas, 1 to 64, got '65'"},
    {"packet=1 scale 2 3", "expected the line's end, got '3'"},
    {"packet=1 split", "expected a replica such as r1, got the line's end"},
    {"packet=1 split 1", "expected a replica such as r1, got '1'"},
    {"packet=1 split r01", "expected a replica such as r1, got 'r01'"},
    {"packet=1 split r1 r2", "expected --into, got 'r2'"},
    {"packet=1 merge r1", "expected --into, got the line's end"},
    {"packet=1 merge r1 --into", "expected a replica such as r1, got the line's end"},
    {"packet=1 drain any", "expected a replica such as r1, got 'any'"},
    {"packet=1 move tcp", "expected SELECTOR --to R, got 'tcp'"},
    {"packet=1 move --to r1", "expected SELECTOR --to R, got '--to r1'"},
    {"packet=1 move shards:5-4 --to r1", "expected shards:FIRST-LAST,... of 0 to 16383, got 'shards:5-4'"},
    {"packet=1 move shards:16384 --to r1", "expected shards:FIRST-LAST,... of 0 to 16383, got 'shards:16384'"},
    {"packet=1 move shards: --to r1", "expected shards:FIRST-LAST,... of 0 to 16383, got 'shards:'"},
    {"packet=1 move shards:1, --to r1", "expected shards:FIRST-LAST,... of 0 to 16383, got 'shards:1,'"},
    {"packet=1 kill any --copy", "expected the line's end, got '--copy'"},
    {"packet=1 drain r1 --copying", "expected the line's end, got '--copying'"},
    {"packet=1 rebalance now", "expected the line's end, got 'now'"},
    {"packet=1 rebalance \x1b[31m", "expected the line's end, got '?[31m'"},
};

Test(events, lines_and_their_errors)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct events events = {0};
        struct sm_errbuf error = {""};
        int result = events_parse(&events, "f", rows[i].line, &error);
        if (!rows[i].error) {
            cr_expect_eq(result, 0, "row %zu: %s", i, error.text);
        } else {
            cr_expect_eq(result, SM_E_SYNTAX, "row %zu is accepted", i);
            cr_expect(strncmp(error.text, "f:1: ", 5) == 0 && strcmp(error.text + 5, rows[i].error) == 0, "row %zu: %s",
                      i, error.text);
        }
        events_free(&events);
    }
}

Test(events, a_file)
{
    struct events events;
    struct sm_errbuf error;
    static const char text[] = "# trial\n\npacket=10 move udp port 53 --to r2\n  \ntime=1.5s kill any\n";
    cr_assert_eq(events_parse(&events, "f", text, &error), 0, "%s", error.text);
    cr_assert_eq(events.count, 2);
    cr_expect_eq(events.list[0].line, 3);
    cr_expect_eq(events.list[0].when, 10);
    cr_expect_str_eq(events.list[0].selector, "udp port 53");
    cr_expect_eq(events.list[0].request.into, 2);
    cr_expect_str_eq(events.list[0].text, "move udp port 53 --to r2");
    cr_expect(events.list[1].by_time && events.list[1].when == 1500000000 && events.list[1].kill);
    events_free(&events);
    cr_assert_eq(events_parse(&events, "f",
                              "packet=1 merge r1 --into r2 --copy\npacket=2 move --copy udp --to r2\npacket=3 drain r1",
                              &error),
                 0);
    cr_expect(events.list[0].request.copy && events.list[1].request.copy && !events.list[2].request.copy);
    cr_expect_str_eq(events.list[0].text, "merge r1 --into r2 --copy");
    cr_expect_str_eq(events.list[1].selector, "udp");
    events_free(&events);
    cr_expect_eq(events_parse(&events, "f", "\npacket=1 scale 1\nbad\n", &error), SM_E_SYNTAX);
    cr_expect_str_eq(error.text, "f:3: expected packet=N or time=2.5s, got 'bad'");
}

Test(events, a_file_that_is_no_text)
{
    char file[] = "/tmp/events-XXXXXX";
    static const char bytes[] = "packet=1 scale 2\n\0packet=2 nonsense\n";
    struct events events;
    struct sm_errbuf error;
    int fd = mkstemp(file);
    cr_assert(fd >= 0 && write(fd, bytes, sizeof(bytes)) == sizeof(bytes));
    close(fd);
    cr_expect_eq(events_load(&events, file, &error), SM_E_SYNTAX);
    cr_expect_not_null(strstr(error.text, ": expected text, got a zero byte behind 17 others"), "%s", error.text);
    unlink(file);
}

static struct sm_key key(uint8_t protocol, const char *a, uint16_t a_port, const char *b, uint16_t b_port)
{
    struct sm_key k = {.family = strchr(a, ':') ? 6 : 4, .protocol = protocol, .a_port = a_port, .b_port = b_port};
    inet_pton(k.family == 6 ? AF_INET6 : AF_INET, a, k.a);
    inet_pton(k.family == 6 ? AF_INET6 : AF_INET, b, k.b);
    return k;
}

static bool matches(const char *text, struct sm_key k, uint32_t shard)
{
    struct selector *selector;
    struct sm_errbuf error;
    cr_assert_eq(selector_create(&selector, text, &error), 0, "%s", error.text);
    bool result = selector_match(selector, &k, shard);
    selector_free(selector);
    return result;
}

Test(selector, matches_either_direction)
{
    struct sm_key tcp = key(6, "10.0.0.1", 80, "10.0.0.2", 1234), udp6 = key(17, "2001:db8::1", 53, "2001:db8::2", 99);
    struct sm_key echo = key(1, "10.0.0.1", 7, "10.0.0.2", 7), pair = key(0, "10.0.0.1", 0, "10.0.0.2", 0);
    cr_expect(matches("tcp port 80", tcp, 1));
    cr_expect(matches("src host 10.0.0.2 and dst port 80", tcp, 1));
    cr_expect(matches("src host 10.0.0.1 and src port 80", tcp, 1));
    cr_expect(!matches("src host 10.0.0.1 and dst port 80", tcp, 1));
    cr_expect(!matches("udp", tcp, 1));
    cr_expect(matches("ip6 and udp dst port 99", udp6, 1));
    cr_expect(matches("net 2001:db8::/32", udp6, 1));
    cr_expect(matches("icmp[icmptype] == icmp-echo", echo, 1));
    cr_expect(matches("host 10.0.0.2", pair, 1));
    cr_expect(!matches("tcp or udp", pair, 1));
    cr_expect(!matches("ip", (struct sm_key){0}, 1));
    cr_expect(matches("shards:1-3,9", tcp, 9));
    cr_expect(!matches("shards:1-3,9", tcp, 8));
    cr_expect(!matches("shards:1-3,9", tcp, 20000));
}
