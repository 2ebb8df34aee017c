/* SPDX-License-Identifier: BSD-2-Clause */
/* Service files as pairs: what is written, and the line that answers it. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "conf/rundir.h"
#include "conf/service.h"
#include "conf/units.h"

#define HEAD "service: edge\nmiddlebox: {exec: mb}\n"
#define PORTS "ports: {in: {pcap: a}, out: {pcap: b}}\n"

static const struct {
    const char *text;
    const char *error; /* behind "f:"; NULL: it is right */
} files[] = {
    {HEAD PORTS, NULL},
    {HEAD PORTS "mode: inline\nreplicas: {start: 2, min: 1, max: 64}\n", NULL},
    {HEAD "mode: tap\nports: {in: {interface: eth0, driver: pcap}}\n", NULL},
    {HEAD "ports: {in: {generator: {flows: 10, size: 64, count: 1M, rate: 1Mpps}}, out: {discard: true}}\n", NULL},
    {HEAD "ports: {in: {pcap: a, pace: recorded}, out: {interface: v, driver: xdp-native, order: arrival}}\n", NULL},
    {HEAD
     "ports: {in: {interface: a, driver: xdp, threads: 2}, out: {interface: b, driver: xdp-generic, threads: 0}}\n",
     NULL},
    {HEAD "ports: {in: {interface: a, driver: xdp, threads: 1}, out: {interface: b, order: arrival}}\n", NULL},
    {HEAD PORTS "limits: {flows: 4M, bindings: 1M, memory: 1.5GiB, hold: {bytes: 64MiB, time: 100ms}, shape: 8MiB, "
                "unresponsive: 2s}\n",
     NULL},
    {"", "1: expected a mapping, got an empty file"},
    {"[1, 2]\n", "1: expected a mapping, got a list"},
    {"a: [\n", "2: expected YAML: did not find expected node content"},
    {HEAD PORTS "---\nx: 1\n", "5: expected one document, got another"},
    {HEAD PORTS "# \x01\n", "4: expected YAML: control characters are not allowed"},
    {HEAD, "1: ports: expected a mapping with in and out, got nothing"},
    {HEAD PORTS "serivce: x\n", "4: serivce: unknown key, did you mean 'service'?"},
    {HEAD PORTS "colour: x\n", "4: colour: unknown key"},
    {HEAD PORTS "service: y\n", "4: service: expected once, got it again"},
    {HEAD PORTS "? [a]\n: b\n", "4: expected keys of plain text"},
    {"service: Edge\nmiddlebox: {exec: mb}\n" PORTS, "1: service: expected 1 to 63 of a-z, 0-9 and -, got 'Edge'"},
    {"service: [x]\nmiddlebox: {exec: mb}\n" PORTS, "1: service: expected text, got a list"},
    {"service:\nmiddlebox: {exec: mb}\n" PORTS, "1: service: expected text, got nothing"},
    {"service: e\nmiddlebox: mb\n" PORTS, "2: middlebox: expected a mapping, got 'mb'"},
    {"service: e\nmiddlebox: {args: []}\n" PORTS, "2: middlebox.exec: expected a program, got nothing"},
    {"service: e\nmiddlebox: {exec: m, args: -x}\n" PORTS, "2: middlebox.args: expected a list, got '-x'"},
    {"service: e\nmiddlebox: {exec: m, args: [a, {b: c}]}\n" PORTS,
     "2: middlebox.args[1]: expected text, got a mapping"},
    {"service: e\nmiddlebox: {exec: m, threads: 64}\n" PORTS, NULL},
    {"service: e\nmiddlebox: {exec: m, threads: 0}\n" PORTS, "2: middlebox.threads: expected 1 to 64, got '0'"},
    {"service: e\nmiddlebox: {exec: m, threads: 2, pcap: true}\n" PORTS,
     "2: middlebox.threads: expected 1 for a program of libpcap, got '2'"},
    {"service: e\nmiddlebox: {exec: m, strategy: drain, idle: 2s}\n" PORTS, NULL},
    {"service: e\nmiddlebox: {exec: m, strategy: new-flows-only}\n" PORTS, NULL},
    {"service: e\nmiddlebox: {exec: m, strategy: restart}\n" PORTS, NULL},
    {"service: e\nmiddlebox: {exec: m, strategy: drained}\n" PORTS,
     "2: middlebox.strategy: expected move, drain, new-flows-only or restart, got 'drained'"},
    {"service: e\nmiddlebox: {exec: m, steer: host-pair}\n" PORTS, NULL},
    {"service: e\nmiddlebox: {exec: m, steer: vlan}\n" PORTS,
     "2: middlebox.steer: expected flow, host-pair, source, destination or all, got 'vlan'"},
    {"service: e\nmiddlebox: {exec: m, idle: 2s}\n" PORTS,
     "2: middlebox.idle: expected only with strategy drain or new-flows-only"},
    {HEAD PORTS "limits: {memory: 65GiB}\n", "4: limits.memory: expected 1048576 to 68719476736 bytes, got '65GiB'"},
    {HEAD PORTS "metrics: 127.0.0.1:9464\n", NULL},
    {HEAD PORTS "cpus: {switch: [], replicas: [0]}\n",
     "4: cpus.switch: expected the number of a processor at least, got a list"},
    {HEAD PORTS "cpus: {replicas: [1023]}\n",
     "4: cpus.replicas[0]: expected a processor that may be used here, got '1023'"},
    {HEAD PORTS "cpus: {worker: [0]}\n", "4: cpus.worker: unknown key"},
    {HEAD PORTS "metrics: 10.0.0.1:9464\n",
     "4: metrics: expected a loopback address and a port such as 127.0.0.1:9464, got '10.0.0.1:9464'"},
    {HEAD PORTS "metrics: 127.0.0.1\n",
     "4: metrics: expected a loopback address and a port such as 127.0.0.1:9464, got '127.0.0.1'"},
    {HEAD PORTS "metrics: 127.0.0.1:0\n",
     "4: metrics: expected a loopback address and a port such as 127.0.0.1:9464, got '127.0.0.1:0'"},
    {HEAD PORTS "mode: inlin\n", "4: mode: expected inline or tap, got 'inlin'"},
    {HEAD PORTS "mode: tap\n", "3: ports.out: expected no out port in tap mode"},
    {HEAD PORTS "replicas: {start: two}\n", "4: replicas.start: expected a whole number such as 8 or 4M, got 'two'"},
    {HEAD PORTS "replicas: {max: 65}\n", "4: replicas.max: expected 1 to 64, got '65'"},
    {HEAD PORTS "replicas: {start: 9}\n", "4: replicas.start: expected min (1) to max (8), got '9'"},
    {HEAD PORTS "replicas: {min: 3, max: 2}\n", "4: replicas.max: expected at least min (3), got '2'"},
    {HEAD "ports: {in: {pcap: a}}\n", "3: ports.out: expected a port (mode is inline), got nothing"},
    {HEAD "ports: {in: {}, out: {pcap: b}}\n", "3: ports.in: expected one of pcap, interface, generator, got none"},
    {HEAD "ports: {in: {pcap: a, interface: b}, out: {pcap: b}}\n",
     "3: ports.in.interface: expected one of pcap, interface, generator, got two"},
    {HEAD "ports:\n  in: {interface: a, driver: dpdk}\n  out: {pcap: b}\n",
     "4: ports.in.driver: expected auto, pcap, xdp, xdp-native or xdp-generic, got 'dpdk'"},
    {HEAD "mode: tap\nports:\n  in: {interface: a, driver: xdp}\n",
     "5: ports.in.driver: expected auto or pcap in tap mode, got 'xdp'"},
    {HEAD "ports:\n  in: {interface: a, driver: xdp, threads: 17}\n  out: {interface: b}\n",
     "4: ports.in.threads: expected 0 to 16, got '17'"},
    {HEAD "ports:\n  in: {interface: a}\n  out: {interface: b, threads: 2}\n",
     "5: ports.out.threads: expected only with driver xdp, xdp-native or xdp-generic"},
    {HEAD "ports:\n  in: {interface: a, driver: xdp, threads: 2}\n  out: {interface: b, order: arrival}\n",
     "5: ports.out.order: expected flow where several threads send, got 'arrival'"},
    {HEAD "ports:\n  in: {pcap: a, driver: auto}\n  out: {pcap: b}\n",
     "4: ports.in.driver: expected only with interface"},
    {HEAD "ports:\n  in: {pcap: a, pace: fast}\n  out: {pcap: b}\n",
     "4: ports.in.pace: expected recorded, max or a packet rate such as 50kpps, got 'fast'"},
    {HEAD "ports:\n  in: {interface: a, pace: max}\n  out: {pcap: b}\n", "4: ports.in.pace: expected only with pcap"},
    {HEAD "ports: {in: {pcap: a}, out: {discard: false}}\n", "3: ports.out.discard: expected true, got 'false'"},
    {HEAD "ports: {in: {generator: {size: 63}}, out: {discard: true}}\n",
     "3: ports.in.generator.size: expected 64 to 1500, got '63'"},
    {HEAD PORTS "limits: {memory: 12}\n", "4: limits.memory: expected a size such as 64KiB or 2GiB, got '12'"},
    {HEAD PORTS "limits: {hold: {time: 0s}}\n",
     "4: limits.hold.time: expected 1 to 3600000000000 nanoseconds, got '0s'"},
    {HEAD PORTS "limits: {unresponsive: 100ms}\n",
     "4: limits.unresponsive: expected 500000000 to 3600000000000 nanoseconds, got '100ms'"},
    {HEAD PORTS "limits: {shape: 100B}\n", "4: limits.shape: expected 4096 to 68719476736 bytes, got '100B'"},
    {HEAD PORTS "limits: {bindings: 0}\n", "4: limits.bindings: expected 1 to 16777216, got '0'"},
    {HEAD PORTS "limits: {flow: 1}\n", "4: limits.flow: unknown key, did you mean 'flows'?"},
    {HEAD PORTS "limits: &a {hold: *a}\n", "4: hold.hold.hold.hold.hold.hold.hold.hold.hold: unknown key"},
    {HEAD PORTS "mode: \"a\\nb\"\n", "4: mode: expected inline or tap, got 'a?b'"},
};

static int read_text(const char *text, struct service *service, struct sm_errbuf *error)
{
    struct conf *conf = conf_parse("f", text, strlen(text), error);
    return conf ? service_read(service, conf, "f", error) : SM_E_SYNTAX;
}

Test(conf, files_and_their_errors)
{
    for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
        struct service service = {0};
        struct sm_errbuf error = {""};
        int result = read_text(files[i].text, &service, &error);
        if (!files[i].error) {
            cr_expect(result == 0, "row %zu: %s", i, error.text);
        } else {
            cr_expect(result == SM_E_SYNTAX, "row %zu is accepted", i);
            cr_expect(strncmp(error.text, "f:", 2) == 0 && strcmp(error.text + 2, files[i].error) == 0, "row %zu: %s",
                      i, error.text);
        }
        service_free(&service);
    }
}

Test(conf, defaults)
{
    struct service s = {0};
    struct sm_errbuf error;
    cr_assert_eq(read_text(HEAD PORTS, &s, &error), 0);
    cr_expect(s.replicas.start == 1 && s.replicas.min == 1 && s.replicas.max == 8);
    cr_expect(s.mode == SERVICE_INLINE && s.in.pace == SERVICE_PACE_MAX && s.out.order == SERVICE_ORDER_ARRIVAL);
    cr_expect(s.limits.flows == 4000000 && s.limits.memory == 1u << 30);
    cr_expect(s.limits.bindings == 65536 && s.limits.shape_bytes == 64u << 20);
    cr_expect(s.limits.hold_bytes == 64u << 20 && s.limits.hold_ns == 100000000);
    cr_expect(s.strategy == SERVICE_MOVE && s.idle_ns == 60000000000 && !s.steered);
    cr_expect(s.limits.unresponsive_ns == 5000000000);
    cr_expect(s.args[0] == NULL && strcmp(s.exec, "mb") == 0 && service_ends(&s));
    service_free(&s);
    cr_assert_eq(read_text("service: e\nmiddlebox: {exec: m, args: [-p, 3]}\nports: {in: {interface: a}, out: "
                           "{interface: b}}\n",
                           &s, &error),
                 0, "%s", error.text);
    cr_expect(s.out.order == SERVICE_ORDER_FLOW && !service_ends(&s));
    cr_expect(strcmp(s.args[0], "-p") == 0 && strcmp(s.args[1], "3") == 0 && !s.args[2]);
    service_free(&s);
}

#define TEN(x) x x x x x x x x x x

/* Deeper than anybody means; libyaml alone would be at the second one for minutes. */
Test(conf, deep_files)
{
    static char deep[400000];
    struct sm_errbuf error;
    memset(deep, '[', sizeof(deep));
    cr_expect_null(conf_parse("f", "a:\n " TEN("[[[[[[[") TEN("]]]]]]]"), strlen("a:\n ") + 140, &error));
    cr_expect_str_eq(error.text, "f:2: expected at most 64 mappings and lists in one another");
    cr_expect_null(conf_parse("f", deep, sizeof(deep), &error));
    cr_expect_str_eq(error.text, "f:1: expected at most 64 mappings and lists in one another");
}

Test(conf, missing_file)
{
    struct service s = {0};
    struct sm_errbuf error;
    cr_expect_eq(service_load(&s, "/nowhere/x.yaml", &error), SM_E_SYNTAX);
    cr_expect_str_eq(error.text, "/nowhere/x.yaml: No such file or directory");
}

Test(conf, free_form_mappings)
{
    static const char text[] = "limits:\n  a: 10Mbit\n  b: 50kpps\n";
    struct sm_errbuf error;
    struct conf *conf = conf_parse("p", text, strlen(text), &error);
    cr_assert_not_null(conf);
    struct conf_node limits = conf_get(conf_root(conf), "limits");
    cr_expect(conf_map(limits, NULL) && conf_count(limits) == 2);
    const char *key;
    uint64_t rate = 0;
    bool packets = true;
    cr_expect(conf_rate(conf_pair(limits, 0, &key), &rate, &packets) && rate == 10000000 && !packets);
    cr_expect_str_eq(key, "a");
    cr_expect(conf_rate(conf_pair(limits, 1, &key), &rate, &packets) && rate == 50000 && packets);
    conf_expected(conf_pair(limits, 1, &key), "less");
    cr_expect_str_eq(conf_error(conf), "p:3: limits.b: expected less, got '50kpps'");
    cr_expect(!conf_present(conf_pair(limits, 2, &key)));
    cr_expect(!conf_rate(conf_pair(limits, 0, &key), &rate, &packets), "after an error all is absent");
    conf_free(conf);
}

Test(conf, units)
{
    uint64_t v;
    bool p;
    static const struct {
        bool (*parse)(const char *, uint64_t *);
        const char *text;
        bool good;
        uint64_t value;
    } rows[] = {
        {unit_count, "0", true, 0},
        {unit_count, "4M", true, 4000000},
        {unit_count, "2.5k", true, 2500},
        {unit_count, "18446744073709551615", true, UINT64_MAX},
        {unit_count, "18446744073709551616", false, 0},
        {unit_count, "18446744073709551615k", false, 0},
        {unit_count, "2.5", false, 0},
        {unit_count, "-1", false, 0},
        {unit_count, " 1", false, 0},
        {unit_count, "1 ", false, 0},
        {unit_count, "", false, 0},
        {unit_count, "K", false, 0},
        {unit_count, "1.", false, 0},
        {unit_size, "1.5GiB", true, 3ull << 29},
        {unit_size, "12B", true, 12},
        {unit_size, "0.1KiB", false, 0},
        {unit_size, "12", false, 0},
        {unit_size, "1MB", false, 0},
        {unit_duration, "2.5s", true, 2500000000},
        {unit_duration, "0.000000001s", true, 1},
        {unit_duration, "0.0000000001s", false, 0},
        {unit_duration, "100ms", true, 100000000},
        {unit_duration, "1m", false, 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        v = 0;
        cr_expect_eq(rows[i].parse(rows[i].text, &v), rows[i].good, "row %zu", i);
        cr_expect_eq(v, rows[i].value, "row %zu", i);
    }
    cr_expect(unit_rate("0.5Mbit", &v, &p) && v == 500000 && !p);
    cr_expect(unit_rate("1Mpps", &v, &p) && v == 1000000 && p);
    cr_expect(!unit_rate("1MBit", &v, &p));
}

/* ---- run directory ---- */

static char base[] = "/tmp/sm-test-XXXXXX";

static void make_base(void)
{
    cr_assert_not_null(mkdtemp(base));
    setenv("SPLITMERGE_RUN", base, 1);
}

static void remove_base(void)
{
    char command[64];
    snprintf(command, sizeof(command), "rm -rf %s", base);
    cr_assert_eq(system(command), 0);
}

static void remember(void *user, const char *service)
{
    snprintf(user, 64, "%s", service);
}

Test(rundir, one_holder, .init = make_base, .fini = remove_base)
{
    struct rundir a, b;
    struct sm_errbuf error;
    char expected[64], path[108], found[64] = "";
    cr_assert_eq(rundir_init(&a, "edge", &error), 0);
    cr_assert_eq(rundir_create(&a, &error), 0, "%s", error.text);
    cr_assert_eq(rundir_create(&a, &error), 0, "%s", error.text);
    cr_expect_eq(rundir_running(&a), 0);
    cr_assert_eq(rundir_lock(&a, &error), 0, "%s", error.text);
    b = a;
    cr_expect_eq(rundir_lock(&b, &error), SM_E_STATE);
    snprintf(expected, sizeof(expected), "service edge is already running (pid %d)", (int)getpid());
    cr_expect_str_eq(error.text, expected);
    cr_expect_eq(rundir_running(&b), getpid());
    rundir_list(remember, found);
    cr_expect_str_eq(found, "edge");
    rundir_unlock(&a);
    cr_expect_eq(rundir_running(&a), 0);
    cr_assert_eq(rundir_lock(&b, &error), 0);
    rundir_unlock(&b);
    snprintf(expected, sizeof(expected), "%s/edge/switch.sock", base);
    cr_expect_str_eq(rundir_file(&a, "switch.sock", path), expected);
}

Test(rundir, child_takes_over, .init = make_base, .fini = remove_base)
{
    struct rundir dir, again;
    struct sm_errbuf error;
    cr_assert_eq(rundir_init(&dir, "edge", &error), 0);
    cr_assert_eq(rundir_create(&dir, &error), 0);
    cr_assert_eq(rundir_lock(&dir, &error), 0);
    cr_assert_eq(rundir_pass_lock(&dir), 0);
    pid_t child = fork();
    if (child == 0) {
        rundir_init(&again, "edge", &error);
        if (rundir_lock(&again, &error) != 0)
            _exit(1);
        sleep(1);
        _exit(0);
    }
    rundir_unlock(&dir);
    unsetenv("SPLITMERGE_LOCK_FD");
    cr_expect_neq(rundir_running(&dir), 0, "the child holds it");
    int status;
    waitpid(child, &status, 0);
    cr_expect_eq(status, 0);
    cr_expect_eq(rundir_running(&dir), 0);
}

Test(rundir, others_directories_are_refused, .init = make_base, .fini = remove_base)
{
    struct rundir dir;
    struct sm_errbuf error;
    char name[64];
    memset(name, 'x', 63);
    name[63] = '\0';
    cr_assert_eq(rundir_init(&dir, "edge", &error), 0);
    cr_assert_eq(mkdir(dir.path, 0755), 0);
    chmod(dir.path, 0755);
    cr_expect_eq(rundir_create(&dir, &error), SM_E_PERMISSION);
    setenv("SPLITMERGE_RUN", "/a/base/folder/whose/name/is/too/long", 1);
    cr_expect_eq(rundir_init(&dir, name, &error), SM_E_LIMIT);
}
