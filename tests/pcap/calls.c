/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * libpcap's calls and their edge cases, one after the other, on a device; what each returned is a line. Run on an
 * interface by libpcap itself and on a service's device by the drop-in, the lines are the same (calls.py compares
 * them). Packets are asked for on a pipe: whoever reads it sends them, and ends the program. They are UDP of ascending
 * sizes to port 7777.
 *
 * usage: calls DEVICE LINES ASK
 */

#include <net/if.h>
#include <pcap/pcap.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static FILE *lines, *ask;
static pcap_t *handle;
static int seen, stop_at;
static int ours; /* it is the drop-in's device */

#define SAY(...) (fprintf(lines, __VA_ARGS__), fputc('\n', lines), fflush(lines))

static void want(int packets)
{
    fprintf(ask, "%d\n", packets);
    fflush(ask);
}

static void on_packet(u_char *user, const struct pcap_pkthdr *header, const u_char *data)
{
    SAY("  packet of %u, %u captured, type %02x%02x, %s", header->len, header->caplen, data[12], data[13],
        (char *)user);
    if (++seen == stop_at)
        pcap_breakloop(handle);
}

static void on_alarm(int number)
{
    (void)number;
    if (handle)
        pcap_breakloop(handle);
}

static void alarm_in(int ms)
{
    struct itimerval in = {.it_value = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000}};
    setitimer(ITIMER_REAL, &in, NULL);
}

/* Each call that needs an activated handle, on one that is not. */
static void before_activation(void)
{
    struct pcap_pkthdr *header;
    const u_char *data;
    struct pcap_stat stats;
    struct bpf_program program = {0};
    int *list;

    SAY("datalink %d", pcap_datalink(handle));
    SAY("error: %s", pcap_geterr(handle));
    SAY("snapshot %d", pcap_snapshot(handle));
    SAY("next_ex %d", pcap_next_ex(handle, &header, &data));
    SAY("dispatch %d", pcap_dispatch(handle, 1, on_packet, NULL));
    SAY("loop %d", pcap_loop(handle, 1, on_packet, NULL));
    SAY("error: %s", pcap_geterr(handle));
    SAY("setfilter %d", pcap_setfilter(handle, &program));
    SAY("stats %d", pcap_stats(handle, &stats));
    SAY("inject %d", pcap_inject(handle, "x", 1));
    SAY("sendpacket %d", pcap_sendpacket(handle, (const u_char *)"x", 1));
    SAY("setdirection %d", pcap_setdirection(handle, PCAP_D_IN));
    SAY("list_datalinks %d", pcap_list_datalinks(handle, &list));
    SAY("set_datalink %d", pcap_set_datalink(handle, DLT_EN10MB));
    SAY("fileno %d", pcap_fileno(handle));
    SAY("selectable_fd %d", pcap_get_selectable_fd(handle));
    SAY("select timeout %d", pcap_get_required_select_timeout(handle) != NULL);
    SAY("is_swapped %d", pcap_is_swapped(handle));
    SAY("dump_open %d", pcap_dump_open(handle, "/dev/null") != NULL);
    SAY("error: %s", pcap_geterr(handle));
    SAY("precision %d", pcap_get_tstamp_precision(handle));
}

static void set(void)
{
    SAY("set_snaplen %d", pcap_set_snaplen(handle, 96));
    SAY("set_promisc %d", pcap_set_promisc(handle, 0));
    SAY("set_timeout %d", pcap_set_timeout(handle, 50));
    SAY("set_immediate_mode %d", pcap_set_immediate_mode(handle, 1));
    SAY("set_buffer_size %d", pcap_set_buffer_size(handle, 1 << 20));
    SAY("set_precision unknown %d", pcap_set_tstamp_precision(handle, 7));
    SAY("set_precision nano %d", pcap_set_tstamp_precision(handle, PCAP_TSTAMP_PRECISION_NANO));
    SAY("set_tstamp_type host %d", pcap_set_tstamp_type(handle, PCAP_TSTAMP_HOST));
    SAY("activate %d", pcap_activate(handle));
    SAY("activate again %d", pcap_activate(handle));
    SAY("error: %s", pcap_geterr(handle));
    SAY("set_snaplen activated %d", pcap_set_snaplen(handle, 100));
    SAY("error: %s", pcap_geterr(handle));
    SAY("set_timeout activated %d", pcap_set_timeout(handle, 1));
    SAY("set_precision activated %d", pcap_set_tstamp_precision(handle, 0));
    SAY("can_set_rfmon activated %d", pcap_can_set_rfmon(handle));
}

static void look(void)
{
    char error[PCAP_ERRBUF_SIZE] = "";
    struct bpf_insn nonsense = {.code = 0xffff};
    struct bpf_program bad = {.bf_len = 1, .bf_insns = &nonsense}, program;

    SAY("datalink %d", pcap_datalink(handle));
    SAY("datalink_ext %d", pcap_datalink_ext(handle));
    SAY("snapshot %d", pcap_snapshot(handle));
    SAY("precision %d", pcap_get_tstamp_precision(handle));
    SAY("is_swapped %d", pcap_is_swapped(handle));
    SAY("file %d", pcap_file(handle) != NULL);
    SAY("select timeout %d", pcap_get_required_select_timeout(handle) != NULL);
    SAY("set_datalink the same %d", pcap_set_datalink(handle, pcap_datalink(handle)));
    SAY("set_datalink another %d", pcap_set_datalink(handle, DLT_PPP));
    SAY("setdirection both %d", pcap_setdirection(handle, PCAP_D_INOUT));
    SAY("setfilter none %d", pcap_setfilter(handle, NULL));
    SAY("error: %s", pcap_geterr(handle));
    SAY("setfilter nonsense %d", pcap_setfilter(handle, &bad) < 0);
    SAY("compile nonsense %d", pcap_compile(handle, &program, "udp prot 7", 1, 0));
    SAY("error: %s", pcap_geterr(handle));
    SAY("compile %d", pcap_compile(handle, &program, "udp port 7777", 1, PCAP_NETMASK_UNKNOWN));
    SAY("setfilter %d", pcap_setfilter(handle, &program));
    SAY("setfilter again %d", pcap_setfilter(handle, &program));
    pcap_freecode(&program);
    SAY("getnonblock %d", pcap_getnonblock(handle, error));
    SAY("setnonblock %d", pcap_setnonblock(handle, 1, error));
    SAY("getnonblock %d", pcap_getnonblock(handle, error));
}

/* Some programs ask the kernel, before and while they read. */
static void flags(const char *device)
{
    struct ifreq interface = {0};
    int result, fd = socket(AF_INET, SOCK_DGRAM, 0);

    snprintf(interface.ifr_name, sizeof interface.ifr_name, "%s", device);
    result = ioctl(fd, SIOCGIFFLAGS, &interface);
    SAY("interface flags %d: up %d", result, (interface.ifr_flags & IFF_UP) != 0);
    snprintf(interface.ifr_name, sizeof interface.ifr_name, "none");
    SAY("interface flags of none %d", ioctl(fd, SIOCGIFFLAGS, &interface));
    close(fd);
}

/* A timeout is over, or, since libpcap may well wait beyond it, the alarm has broken the call. The drop-in does not. */
static void in_time(const char *call, int result)
{
    alarm_in(0);
    SAY("%s, none %d", call, result == PCAP_ERROR_BREAK ? 0 : result);
    if (ours && result != 0)
        SAY("and beyond its time");
}

/* Nothing has been sent. */
static void empty(void)
{
    char error[PCAP_ERRBUF_SIZE];
    struct pcap_pkthdr *header, one;
    const u_char *data;

    SAY("next_ex, none, at once %d", pcap_next_ex(handle, &header, &data));
    SAY("dispatch, none, at once %d", pcap_dispatch(handle, -1, on_packet, NULL));
    SAY("setnonblock %d", pcap_setnonblock(handle, 0, error));
    alarm_in(300);
    in_time("next_ex", pcap_next_ex(handle, &header, &data));
    alarm_in(300);
    in_time("dispatch", pcap_dispatch(handle, -1, on_packet, NULL));
    alarm_in(300);
    in_time("next", pcap_next(handle, &one) ? 1 : 0);
    pcap_breakloop(handle);
    SAY("dispatch, broken before %d", pcap_dispatch(handle, -1, on_packet, NULL));
    pcap_breakloop(handle);
    SAY("next_ex, broken before %d", pcap_next_ex(handle, &header, &data));
    alarm_in(200);
    SAY("loop, broken by a signal %d", pcap_loop(handle, -1, on_packet, NULL));
}

static void some(void)
{
    struct pcap_pkthdr *header, one;
    const u_char *data;
    struct pcap_stat stats;
    int result;

    want(12);
    while ((result = pcap_next_ex(handle, &header, &data)) == 0)
        ;
    SAY("next_ex %d: %u, %u captured, nanoseconds %d", result, header->len, header->caplen,
        header->ts.tv_usec >= 0 && header->ts.tv_usec < 1000000000);
    while (!(data = pcap_next(handle, &one)))
        ;
    SAY("next: %u, %u captured, to port %u", one.len, one.caplen, data[36] << 8 | data[37]);
    SAY("loop 3: %d", pcap_loop(handle, 3, on_packet, (u_char *)(uintptr_t) "a"));
    seen = 0, stop_at = 2;
    SAY("loop, broken at 2: %d", pcap_loop(handle, -1, on_packet, (u_char *)(uintptr_t) "b"));
    stop_at = 0;
    SAY("loop 4: %d", pcap_loop(handle, 4, on_packet, (u_char *)(uintptr_t) "c"));
    while ((result = pcap_dispatch(handle, 1, on_packet, (u_char *)(uintptr_t) "d")) == 0)
        ;
    SAY("dispatch 1: %d", result);
    result = pcap_stats(handle, &stats);
    SAY("stats %d: %u received, %u dropped", result, stats.ps_recv, stats.ps_drop);
}

static int readable(int fd, int ms)
{
    fd_set set;
    struct timeval time = {.tv_usec = ms * 1000};

    FD_ZERO(&set);
    FD_SET(fd, &set);
    return select(fd + 1, &set, NULL, NULL, &time);
}

/* A loop of the program's own. */
static void selected(void)
{
    char error[PCAP_ERRBUF_SIZE];
    int fd = pcap_get_selectable_fd(handle), got = 0;
    struct pcap_pkthdr *header;
    const u_char *data;

    pcap_setnonblock(handle, 1, error);
    SAY("descriptor %d", fd >= 0 && fd == pcap_fileno(handle));
    while (readable(fd, 50) > 0)
        if (pcap_next_ex(handle, &header, &data) == 1)
            SAY("there is a packet that was not asked for");
    want(5);
    while (got < 5)
        if (readable(fd, 5000) == 1 && pcap_next_ex(handle, &header, &data) == 1)
            SAY("  %d: %u", ++got, header->len);
    while (readable(fd, 50) > 0)
        pcap_next_ex(handle, &header, &data);
    SAY("and none is left");
    pcap_setnonblock(handle, 0, error);
}

static void dump(void)
{
    char name[] = "/tmp/calls-XXXXXX", error[PCAP_ERRBUF_SIZE];
    int fd = mkstemp(name);
    pcap_dumper_t *dumper = pcap_dump_open(handle, name);

    want(2);
    SAY("dump, loop: %d", pcap_loop(handle, 2, pcap_dump, (u_char *)dumper));
    pcap_dump_close(dumper);
    pcap_t *file = pcap_open_offline_with_tstamp_precision(name, PCAP_TSTAMP_PRECISION_NANO, error);
    SAY("a file of link type %d, snapshot %d", pcap_datalink(file), pcap_snapshot(file));
    SAY("a file's loop: %d", pcap_loop(file, -1, on_packet, (u_char *)(uintptr_t) "file"));
    pcap_close(file);
    close(fd);
    unlink(name);
}

/* A child that has nothing to do with packets comes and goes. */
static void with_child(void)
{
    int status;
    pid_t child = fork();

    if (child == 0)
        _exit(0);
    waitpid(child, &status, 0);
    want(1);
    SAY("loop beside a child's end: %d", pcap_loop(handle, 1, on_packet, (u_char *)(uintptr_t) "e"));
}

/* The handle is opened, then all goes on in a child. */
static int in_child(void)
{
    int status = 1;
    pid_t child = fork();

    if (child != 0) {
        waitpid(child, &status, 0);
        return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
    }
    empty();
    some();
    selected();
    dump();
    with_child();
    pcap_close(handle);
    handle = NULL;
    _exit(0);
}

int main(int argc, char **argv)
{
    char error[PCAP_ERRBUF_SIZE] = "";

    if (argc != 4 || !(lines = fopen(argv[2], "w")) || !(ask = fopen(argv[3], "w")))
        return 2;
    signal(SIGALRM, on_alarm);
    ours = strncmp(argv[1], "sm:", 3) == 0;
    handle = pcap_create(argv[1], error);
    if (!handle)
        return fprintf(stderr, "%s\n", error), 1;
    before_activation();
    set();
    look();
    flags(argv[1]);
    int status = in_child();
    pcap_close(handle);
    handle = pcap_open_live(argv[1], 0, 0, 10, error);
    SAY("open_live %d: snapshot %d, precision %d", handle != NULL, handle ? pcap_snapshot(handle) : 0,
        handle ? pcap_get_tstamp_precision(handle) : 0);
    if (handle)
        pcap_close(handle);
    SAY("open_live of none %d", pcap_open_live("sm:none", 0, 0, 10, error) != NULL);
    SAY("the child ended with %d", status);
    SAY("end");
    pause(); /* whoever reads the lines ends it */
    return status;
}
