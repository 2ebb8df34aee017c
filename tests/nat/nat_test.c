/* SPDX-License-Identifier: BSD-2-Clause */
/* The pure parts: the configuration's errors; FTP commands and shifts; checksums of what is translated. */

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "checksum.h"
#include "config.h"
#include "ftp.h"
#include "translate.h"

Test(nat, configurations)
{
    static const struct {
        const char *text, *said; /* NULL: it is one */
    } rows[] = {
        {"inside: 10.0.0.0/8\noutside: 192.0.2.1\n", NULL},
        {"inside: 10.0.0.0/8\noutside: [192.0.2.1, 192.0.2.2]\nports: 20000-40000\ntimeouts: {udp: 5s}\nftp: false\n",
         NULL},
        {"outside: 192.0.2.1\n", "1: inside: expected an IPv4 prefix such as 10.0.0.0/8"},
        {"inside: 10.0.0.1/8\noutside: 192.0.2.1\n", "1: inside: expected an IPv4 prefix such as 10.0.0.0/8"},
        {"inside: 10.0.0.0/33\noutside: 192.0.2.1\n", "1: inside: expected an IPv4 prefix"},
        {"inside: 10.0.0.0/8\n", "outside: expected an IPv4 address, or a list of them"},
        {"inside: 10.0.0.0/8\noutside: []\n", "2: outside: expected 1 to 64 addresses, got 0"},
        {"inside: 10.0.0.0/8\noutside: [192.0.2.1, x]\n", "2: outside[1]: expected an IPv4 address, got 'x'"},
        {"inside: 10.0.0.0/8\noutside: 10.1.1.1\n",
         "2: outside: expected an address that is not inside, got '10.1.1.1'"},
        {"inside: 10.0.0.0/8\noutside: [192.0.2.1, 192.0.2.1]\n", "2: outside[1]: '192.0.2.1' is there twice"},
        {"inside: 10.0.0.0/8\noutside: 192.0.2.1\nports: 1-2\n", "3: ports: expected a range of at least 16384 ports"},
        {"inside: 10.0.0.0/8\noutside: 192.0.2.1\nports: 0-65535\n", "3: ports: expected a range"},
        {"inside: 10.0.0.0/8\noutside: 192.0.2.1\ntimeouts: {tcp: 1}\n", "3: timeouts.tcp: expected a time"},
        {"inside: 10.0.0.0/8\noutside: 192.0.2.1\nport: 1\n", "3: port: unknown key, did you mean 'ports'?"},
    };

    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct sm_errbuf error = {""};
        struct nat_config *config = nat_config_parse("f", rows[i].text, strlen(rows[i].text), &error);
        cr_expect_eq(config == NULL, rows[i].said != NULL, "row %u: %s", i, error.text);
        cr_expect(!rows[i].said || strstr(error.text, rows[i].said), "row %u: %s", i, error.text);
        free(config);
    }
}

static bool reads(const char *text, struct ftp_command *command)
{
    return ftp_read((const uint8_t *)text, (uint32_t)strlen(text), command);
}

Test(nat, ftp_commands)
{
    static const char *const none[] = {
        "",
        "PORT",
        "PORT 1,2,3,4,5,6",
        "PORT 1,2,3,4,5\r\n",
        "PORT 1,2,3,4,5,256\r\n",
        "PORT 1,2,3,4,5,6,7\r\n",
        "PORT 1,2,3,4,5,\r\n",
        "EPRT |2|::1|5|\r\n",
        "EPRT |1|1.2.3.4|65536|\r\n",
        "EPRT |1|1.2.3|5|\r\n",
        "EPRT |1|1.2.3.4|5\r\n",
        "PASV\r\n",
        "PORT 1,2,3,4,5,6                                                           \r\n"};
    struct ftp_command command;
    const struct end end = {{192, 0, 2, 1}, 513};
    char text[FTP_MAX_TEXT];

    for (unsigned i = 0; i < sizeof none / sizeof *none; i++)
        cr_expect(!reads(none[i], &command), "'%s'", none[i]);
    cr_assert(reads("port 10,0,0,5,4,1\r\n", &command) && !command.extended && command.length == 19);
    cr_assert(command.end.address[3] == 5 && command.end.port == 1025);
    cr_assert_eq(ftp_write(text, &command, &end), strlen("PORT 192,0,2,1,2,1\r\n"));
    cr_assert_str_eq(text, "PORT 192,0,2,1,2,1\r\n");
    cr_assert(reads("EPRT |1|10.0.0.5|65535|\nmore", &command) && command.extended && command.length == 24);
    cr_assert_eq(command.end.port, 65535);
    ftp_write(text, &command, &end);
    cr_assert_str_eq(text, "EPRT |1|192.0.2.1|513|\r\n");
}

Test(nat, ftp_shifts)
{
    struct ftp_shift shift = {0};
    uint32_t at = 0xfffffff0;

    cr_assert_eq(ftp_shift_sequence(&shift, at), at);
    ftp_shift_add(&shift, at, 3);
    ftp_shift_add(&shift, at, 3); /* sent again */
    cr_assert_eq(ftp_shift_sequence(&shift, at), at);
    cr_assert_eq(ftp_shift_sequence(&shift, at + 20), at + 23);
    cr_assert_eq(ftp_shift_back(&shift, at + 23), at + 20);
    cr_assert_eq(ftp_shift_back(&shift, at), at);
    ftp_shift_add(&shift, at + 20, -5);
    cr_assert_eq(ftp_shift_sequence(&shift, at + 20), at + 23);
    cr_assert_eq(ftp_shift_sequence(&shift, at + 40), at + 38);
    cr_assert_eq(ftp_shift_back(&shift, at + 38), at + 40);
    cr_assert_eq(ftp_shift_back(&shift, at + 23), at + 20);
}

Test(nat, wrong_sums_stay_wrong_and_none_stays_none)
{
    uint8_t ip[40] = {0x45, 0, 0, 40,  0,  0,   0, 0, 64, IP_UDP, 0x12, 0x34, 10,
                      0,    0, 1, 198, 51, 100, 1, 4, 0,  0,      53,   0,    20};
    const struct end end = {{192, 0, 2, 1}, 5000};
    uint16_t off = checksum_finish(checksum_add(0, ip, 20));

    translate(ip, sizeof ip, 20, true, &end);
    cr_assert_eq(checksum_finish(checksum_add(0, ip, 20)), off, "as far off as before");
    cr_assert_eq(load16(ip + 26), 0, "no checksum");
    cr_assert(load16(ip + 20) == 5000 && ip[12] == 192 && load16(ip + 22) == 53);
    translate(ip, 24, 20, false, &end); /* the checksum was not captured */
    cr_assert(load16(ip + 22) == 5000 && load16(ip + 26) == 0);
}
