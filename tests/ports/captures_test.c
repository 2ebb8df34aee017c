/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A copy has the records of its original, whatever they say; a damaged file gives all that lies before the damage; an
 * output has its name only when the run was whole.
 */
#include "ports/port.h"

#include <splitmerge/packet.h>

#include <criterion/criterion.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[] = "/tmp/sm-captures-XXXXXX";
static char in_path[64], out_path[64], partial_path[80];

static void enter(void)
{
    cr_assert_not_null(mkdtemp(folder));
    snprintf(in_path, sizeof in_path, "%s/in", folder);
    snprintf(out_path, sizeof out_path, "%s/out", folder);
    snprintf(partial_path, sizeof partial_path, "%s.partial", out_path);
}

static void leave(void)
{
    unlink(in_path);
    unlink(out_path);
    unlink(partial_path);
    rmdir(folder);
}

TestSuite(captures, .init = enter, .fini = leave);

struct bytes {
    uint8_t *at;
    size_t size;
};

static struct bytes load(const char *path)
{
    struct bytes bytes = {NULL, 0};
    struct stat status;
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return bytes;
    cr_assert_eq(fstat(fileno(file), &status), 0);
    bytes.size = (size_t)status.st_size;
    bytes.at = malloc(bytes.size + 1);
    cr_assert_eq(fread(bytes.at, 1, bytes.size, file), bytes.size);
    fclose(file);
    return bytes;
}

static void save(const char *path, const void *bytes, size_t size)
{
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    cr_assert_eq(fwrite(bytes, 1, size, file), size);
    cr_assert_eq(fclose(file), 0);
}

static bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

/* Copy a capture to out_path. Returns what ended it: SM_E_END, or what went wrong, then with *error. */
static int copy(const char *from, uint64_t *packets, struct sm_errbuf *error)
{
    struct sm_port *in, *out;
    struct sm_frame frame;
    int result = sm_port_open_capture(&in, from, error);
    *packets = 0;
    if (result != 0)
        return result;
    cr_assert_eq(sm_port_create_capture(&out, out_path, in, error), 0, "%s", error->text);
    cr_assert_not(exists(out_path));
    while ((result = in->ops->receive(in, &frame)) == 1)
        cr_assert_eq(out->ops->send(out, &frame), 0);
    cr_assert_eq(in->ops->receive(in, &frame), result, "what ended it repeats");
    *error = in->error;
    *packets = in->counters.rx_packets;
    cr_assert_eq(out->counters.tx_packets, *packets);
    cr_assert_eq(in->ops->close(in, true, NULL), 0);
    cr_assert_eq(out->ops->close(out, result == SM_E_END, NULL), 0);
    return result;
}

/* A capture of `count` packets with odd records, in memory. */
static struct bytes make_capture(uint32_t magic, uint32_t snaplen, unsigned count)
{
    static const struct {
        uint32_t seconds, fraction, caplen, len;
    } records[] = {{1700000000, 123456, 60, 60},
                   {1700000000, 1000000, 10, 1500},
                   {0xffffffff, 0xffffffff, 14, 14},
                   {0x80000000, 999999999, 0, 64},
                   {0, 0, 0, 0},
                   {1, 2, 64, 32},
                   {1600000000, 4000000000u, 1, 1},
                   {1700000001, 5, 100, 0}};
    const uint32_t header[6] = {magic, 0x00040002, 0, 0, snaplen, 1};
    struct bytes made = {calloc(1, 24 + count * 256u), 24};
    memcpy(made.at, header, sizeof header);
    for (unsigned i = 0; i < count; i++) {
        size_t r = i % (sizeof records / sizeof records[0]);
        memcpy(made.at + made.size, &records[r], 16);
        made.size += 16;
        memset(made.at + made.size, (int)i, records[r].caplen);
        made.size += records[r].caplen;
    }
    return made;
}

static void expect_copy_is(const struct bytes *original, const char *what)
{
    struct bytes copied = load(out_path);
    cr_expect_eq(copied.size, original->size, "%s: %zu bytes, not %zu", what, copied.size, original->size);
    cr_expect(copied.size == original->size && memcmp(copied.at, original->at, copied.size) == 0, "%s: differs", what);
    free(copied.at);
}

Test(captures, odd_records_survive)
{
    static const uint32_t magics[] = {0xa1b2c3d4, 0xa1b23c4d};
    static const uint32_t snaplens[] = {65535, 262144, 32, 0, 0xffffffff}; /* 32: less than what was captured */
    for (unsigned m = 0; m < 2; m++)
        for (unsigned s = 0; s < sizeof snaplens / sizeof snaplens[0]; s++) {
            struct bytes made = make_capture(magics[m], snaplens[s], 20);
            struct sm_errbuf error;
            uint64_t packets;
            char what[64];
            snprintf(what, sizeof what, "magic %x, snap length %u", magics[m], snaplens[s]);
            save(in_path, made.at, made.size);
            cr_expect_eq(copy(in_path, &packets, &error), SM_E_END, "%s: %s", what, error.text);
            cr_expect_eq(packets, 20);
            expect_copy_is(&made, what);
            unlink(out_path);
            free(made.at);
        }
}

Test(captures, times)
{
    struct sm_port port = {.nanoseconds = false};
    struct sm_frame frame = {.seconds = 5, .fraction = 1000001};
    cr_expect_eq(sm_frame_time(&port, &frame).ns, 6000001000u);
    port.nanoseconds = true;
    cr_expect_eq(sm_frame_time(&port, &frame).ns, 5001000001u);
    frame.seconds = -6;
    cr_expect_eq(sm_frame_time(&port, &frame).ns, 0);
    frame.seconds = INT64_MAX;
    cr_expect_eq(sm_frame_time(&port, &frame).ns, (uint64_t)INT64_MAX);
    frame.seconds = INT64_MIN;
    frame.fraction = INT64_MIN;
    cr_expect_eq(sm_frame_time(&port, &frame).ns, 0);
}

/* Cut at every length: the records before the cut come out, then the damage is said, unless the cut is between two. */
Test(captures, cut_at_every_length)
{
    struct bytes made = make_capture(0xa1b2c3d4, 65535, 8);
    size_t whole = 24; /* where the last record that is whole ends */
    uint64_t expected = 0;
    for (size_t cut = 0; cut <= made.size; cut++) {
        struct sm_errbuf error = {""};
        uint64_t packets = 0;
        uint32_t caplen;
        while (whole + 16 <= cut) {
            memcpy(&caplen, made.at + whole + 8, sizeof caplen);
            if (whole + 16 + caplen > cut)
                break;
            whole += 16 + caplen;
            expected++;
        }
        save(in_path, made.at, cut);
        int result = copy(in_path, &packets, &error);
        cr_assert_eq(packets, expected, "cut at %zu", cut);
        if (cut >= 24 && cut == whole) {
            cr_assert_eq(result, SM_E_END, "cut at %zu: %s", cut, error.text);
            cr_assert(exists(out_path) && !exists(partial_path));
        } else {
            cr_assert_eq(result, SM_E_DAMAGED, "cut at %zu", cut);
            cr_assert_not_null(strstr(error.text, in_path), "cut at %zu: %s", cut, error.text);
            cr_assert(!exists(out_path) && exists(partial_path) == (cut >= 24));
        }
        unlink(out_path);
        unlink(partial_path);
    }
    free(made.at);
}

static void gzip_file(const char *path)
{
    char command[512];
    snprintf(command, sizeof command, "gzip -c %s > %s.z && mv %s.z %s", path, path, path, path);
    cr_assert_eq(system(command), 0);
}

Test(captures, gzip)
{
    struct bytes made = make_capture(0xa1b2c3d4, 65535, 5000);
    struct sm_errbuf error;
    uint64_t packets;
    save(in_path, made.at, made.size);
    gzip_file(in_path);
    cr_expect_eq(copy(in_path, &packets, &error), SM_E_END, "%s", error.text);
    cr_expect_eq(packets, 5000);
    expect_copy_is(&made, "gzip");
    unlink(out_path);

    /* an archive that ends early, one with a wrong checksum, and one closed before its end */
    struct bytes archive = load(in_path);
    for (size_t cut = 1; cut < archive.size; cut += archive.size / 7) {
        save(in_path, archive.at, archive.size - cut);
        cr_expect_eq(copy(in_path, &packets, &error), SM_E_DAMAGED, "cut by %zu", cut);
        cr_expect(!exists(out_path));
    }
    archive.at[archive.size - 6] ^= 1;
    save(in_path, archive.at, archive.size);
    cr_expect_eq(copy(in_path, &packets, &error), SM_E_DAMAGED);
    cr_expect_eq(packets, 5000);
    struct sm_port *port;
    struct sm_frame frame;
    cr_assert_eq(sm_port_open_capture(&port, in_path, &error), 0);
    cr_assert_eq(port->ops->receive(port, &frame), 1);
    cr_assert_eq(port->ops->close(port, true, NULL), 0);
    cr_expect_eq(waitpid(-1, NULL, WNOHANG), -1, "gzip was reaped");
    free(archive.at);
    free(made.at);
}

/* A section, an interface in microseconds, two packets: read in nanoseconds, written as such. */
Test(captures, pcapng)
{
    static const uint32_t blocks[] = {
        0x0a0d0d0a, 28, 0x1a2b3c4d, 0x00000001, 0xffffffff, 0xffffffff, 28,                 /* section, version 1.0 */
        1,          20, 1,          4096,       20,                                         /* interface, Ethernet */
        6,          36, 0,          0x0005f5e1, 0x00000007, 4,          60, 0xddccbbaa, 36, /* packet */
        6,          36, 0,          0x0005f5e1, 0x00000009, 4,          4,  0x11223344, 36,
    };
    const uint64_t microseconds = (uint64_t)0x0005f5e1 << 32 | 7;
    struct bytes copied;
    struct sm_errbuf error;
    uint64_t packets;
    uint32_t header[6], record[4];

    save(in_path, blocks, sizeof blocks);
    cr_assert_eq(copy(in_path, &packets, &error), SM_E_END, "%s", error.text);
    cr_expect_eq(packets, 2);
    copied = load(out_path);
    cr_assert_eq(copied.size, 24 + 2 * 20);
    memcpy(header, copied.at, sizeof header);
    memcpy(record, copied.at + 24, sizeof record);
    cr_expect_eq(header[0], 0xa1b23c4d);
    cr_expect_eq(header[4], 4096);
    cr_expect_eq(header[5], 1);
    cr_expect_eq(record[0], microseconds / 1000000);
    cr_expect_eq(record[1], microseconds % 1000000 * 1000);
    cr_expect_eq(record[2], 4);
    cr_expect_eq(record[3], 60);
    free(copied.at);
}

Test(captures, what_cannot_be_opened)
{
    struct sm_port *port;
    struct sm_errbuf error;
    cr_expect_eq(sm_port_open_capture(&port, "/nowhere/file", &error), SM_E_NOT_FOUND);
    cr_expect_str_eq(error.text, "/nowhere/file: No such file or directory");
    cr_expect_null(port);
    cr_expect_eq(sm_port_open_capture(&port, folder, &error), SM_E_IO);
    cr_expect_not_null(strstr(error.text, "is a directory"));
    save(in_path, "this is not a capture at all, but text\n", 39);
    cr_expect_eq(sm_port_open_capture(&port, in_path, &error), SM_E_DAMAGED);
    cr_expect_not_null(strstr(error.text, "not a capture file"));
    gzip_file(in_path);
    cr_expect_eq(sm_port_open_capture(&port, in_path, &error), SM_E_DAMAGED);
    cr_expect_not_null(strstr(error.text, "not a capture file"));
    save(in_path, "", 0);
    cr_expect_eq(sm_port_open_capture(&port, in_path, &error), SM_E_DAMAGED);
    cr_expect_not_null(strstr(error.text, "empty"));
    cr_expect_eq(sm_port_open_capture(&port, in_path, NULL), SM_E_DAMAGED, "no room for a message is fine");

    struct sm_port model = {.linktype = 1, .snaplen = 65535};
    cr_expect_eq(sm_port_create_capture(&port, "/nowhere/file", &model, &error), SM_E_NOT_FOUND);
    cr_expect_eq(sm_port_create_capture(&port, folder, &model, &error), SM_E_IO);
    if (geteuid() != 0) {
        chmod(in_path, 0);
        cr_expect_eq(sm_port_open_capture(&port, in_path, &error), SM_E_PERMISSION);
    }
}

Test(captures, output_names)
{
    struct sm_port model = {.linktype = 1, .snaplen = 65535}, *port;
    struct sm_errbuf error;
    struct stat status;

    /* not whole: an older file of that name stays */
    save(out_path, "old", 3);
    cr_assert_eq(sm_port_create_capture(&port, out_path, &model, &error), 0);
    cr_assert_eq(port->ops->close(port, false, &error), 0);
    cr_expect(exists(partial_path));
    cr_expect(stat(out_path, &status) == 0 && status.st_size == 3);

    /* whole, through a link: the link stays one */
    cr_assert_eq(symlink(out_path, in_path), 0);
    cr_assert_eq(sm_port_create_capture(&port, in_path, &model, &error), 0);
    cr_assert_eq(port->ops->close(port, true, &error), 0);
    cr_expect(lstat(in_path, &status) == 0 && S_ISLNK(status.st_mode));
    cr_expect(stat(out_path, &status) == 0 && status.st_size == 24);
    cr_expect_not(exists(partial_path));

    /* a device is written to, and not renamed over */
    cr_assert_eq(sm_port_create_capture(&port, "/dev/null", &model, &error), 0);
    cr_assert_eq(port->ops->close(port, true, &error), 0);
    cr_expect(stat("/dev/null", &status) == 0 && S_ISCHR(status.st_mode));
}

Test(captures, a_full_disk)
{
    struct sm_port model = {.linktype = 1, .snaplen = 65535}, *port;
    struct sm_frame frame = {.data = (const uint8_t *)"x", .caplen = 1, .len = 1};
    struct sm_errbuf error = {""};
    if (!exists("/dev/full"))
        return;
    cr_assert_eq(sm_port_create_capture(&port, "/dev/full", &model, &error), 0);
    cr_expect_eq(port->ops->send(port, &frame), 0, "still in the buffer");
    cr_expect_eq(port->ops->flush(port), SM_E_IO);
    cr_expect_eq(port->ops->send(port, &frame), SM_E_IO);
    cr_expect_eq(port->ops->close(port, true, &error), SM_E_IO);
    cr_expect_not_null(strstr(error.text, "No space left"));
}

/* Standard input and output, which are given to a child: a file, a pipe, an archive in a pipe. */
static int copy_standard(const char *shell_input)
{
    char command[512];
    snprintf(command, sizeof command, shell_input, in_path);
    FILE *input = popen(command, "r");
    cr_assert_not_null(input);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        struct sm_port *in, *out;
        struct sm_frame frame;
        int file = open(out_path, O_WRONLY | O_CREAT | O_TRUNC, 0600), result;
        dup2(fileno(input), STDIN_FILENO);
        dup2(file, STDOUT_FILENO);
        if (sm_port_open_capture(&in, "-", NULL) != 0 || sm_port_create_capture(&out, "-", in, NULL) != 0)
            _exit(2);
        while ((result = in->ops->receive(in, &frame)) == 1)
            out->ops->send(out, &frame);
        in->ops->close(in, true, NULL);
        _exit(out->ops->close(out, true, NULL) == 0 && result == SM_E_END ? 0 : 3);
    }
    int status = -1;
    waitpid(child, &status, 0);
    pclose(input);
    return status;
}

Test(captures, standard_input_and_output)
{
    struct bytes made = make_capture(0xa1b2c3d4, 65535, 3000);
    save(in_path, made.at, made.size);
    cr_expect_eq(copy_standard("cat %s"), 0);
    expect_copy_is(&made, "pipe");
    cr_expect_eq(copy_standard("gzip -c %s"), 0);
    expect_copy_is(&made, "archive in a pipe");
    cr_expect_eq(copy_standard("head -c 1 %1$s; sleep 0.1; tail -c +2 %1$s"), 0);
    expect_copy_is(&made, "pipe in parts");
    free(made.at);
}

Test(captures, filters)
{
    struct sm_filter *filter;
    struct sm_errbuf error;
    uint8_t packet[60] = {[12] = 8, [14] = 0x45, [23] = 17};
    cr_assert_eq(sm_filter_create(&filter, 1, "udp and greater 100", &error), 0, "%s", error.text);
    cr_expect(sm_filter_match(filter, packet, sizeof packet, 100));
    cr_expect_not(sm_filter_match(filter, packet, sizeof packet, 60));
    cr_expect_not(sm_filter_match(filter, packet, 20, 100), "the protocol was not captured");
    sm_filter_destroy(filter);
    sm_filter_destroy(NULL);
    cr_expect_eq(sm_filter_create(&filter, 1, "udp and and", &error), SM_E_SYNTAX);
    cr_expect_not_null(strstr(error.text, "syntax error"));
    cr_expect_null(filter);
}

/* To the other byte order: words of headers are swapped, all else is equal. */
static void swap_headers(struct bytes *bytes, bool is_native)
{
    static const uint8_t sizes[] = {4, 2, 2, 4, 4, 4, 4};
    size_t at = 0;
    for (unsigned i = 0; i < sizeof sizes; at += sizes[i++])
        for (unsigned b = 0; b < sizes[i] / 2u; b++) {
            uint8_t byte = bytes->at[at + b];
            bytes->at[at + b] = bytes->at[at + sizes[i] - 1 - b];
            bytes->at[at + sizes[i] - 1 - b] = byte;
        }
    for (uint32_t words[4], caplen; at + 16 <= bytes->size; at += 16 + caplen) {
        memcpy(words, bytes->at + at, sizeof words);
        caplen = is_native ? words[2] : __builtin_bswap32(words[2]);
        for (unsigned i = 0; i < 4; i++)
            words[i] = __builtin_bswap32(words[i]);
        memcpy(bytes->at + at, words, sizeof words);
    }
}

Test(captures, other_byte_order)
{
    struct bytes made = make_capture(0xa1b2c3d4, 65535, 20), swapped = make_capture(0xa1b2c3d4, 65535, 20);
    struct sm_errbuf error;
    uint64_t packets;
    swap_headers(&swapped, true);
    save(in_path, swapped.at, swapped.size);
    cr_expect_eq(copy(in_path, &packets, &error), SM_E_END);
    expect_copy_is(&made, "swapped");
    free(made.at);
    free(swapped.at);
}

static unsigned traces;

static int check_trace(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    struct bytes original = {NULL, 0};
    struct sm_errbuf error = {""};
    uint64_t packets;
    uint32_t magic = 0;
    (void)status;
    (void)where;
    if (kind == FTW_F)
        original = load(path);
    if (original.size >= 24)
        memcpy(&magic, original.at, sizeof magic);
    bool swapped = magic == 0xd4c3b2a1;
    if (magic == 0xa1b2c3d4 || magic == 0xa1b23c4d || swapped) {
        int result = copy(path, &packets, &error);
        if (swapped)
            swap_headers(&original, false);
        memset(original.at + 8, 0, 8); /* a time zone and an accuracy that nobody uses are not copied */
        if (result == SM_E_END)
            expect_copy_is(&original, path);
        else
            cr_expect_eq(result, SM_E_DAMAGED, "%s: %s", path, error.text);
        traces++;
        unlink(out_path);
        unlink(partial_path);
    }
    free(original.at);
    return 0;
}

Test(captures, copies_of_traces)
{
    const char *place = getenv("SM_TRACES") != NULL ? getenv("SM_TRACES") : SM_TRACES_DEFAULT;
    if (access(place, R_OK) != 0 || nftw(place, check_trace, 16, 0) != 0 || traces == 0)
        fprintf(stderr, "no captures in %s: only captures made by this test were copied\n", place);
    fprintf(stderr, "%u captures copied\n", traces);
}
