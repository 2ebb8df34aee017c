/* SPDX-License-Identifier: BSD-2-Clause */
#include "html.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATH_BYTES 4096u

int html_prepare(const char *directory, struct sm_errbuf *error)
{
    if (mkdir(directory, 0777) == 0 || errno == EEXIST)
        return 0;
    snprintf(error->text, sizeof error->text, "%.160s: %s", directory, strerror(errno));
    return SM_E_IO;
}

FILE *html_open(const char *directory, const char *name, const char *mode, struct sm_errbuf *error)
{
    char path[PATH_BYTES];
    FILE *file;

    if (snprintf(path, sizeof path, "%s/%s", directory, name) >= (int)sizeof path) {
        snprintf(error->text, sizeof error->text, "%.160s...: the path is too long", directory);
        return NULL;
    }
    file = fopen(path, mode);
    if (!file)
        snprintf(error->text, sizeof error->text, "%.160s: %s", path, strerror(errno));
    return file;
}

int html_close(FILE *file, const char *name, struct sm_errbuf *error)
{
    bool failed = ferror(file) != 0;

    if (fclose(file) == 0 && !failed)
        return 0;
    snprintf(error->text, sizeof error->text, "%s: %s", name, strerror(errno));
    return SM_E_IO;
}

void html_begin(FILE *page, const char *title)
{
    fprintf(page,
            "<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>%s</title>\n"
            "<style>body{font:15px/1.5 sans-serif;max-width:75em;margin:2em auto;padding:0 1em}"
            "table{border-collapse:collapse;margin:1em 0}td,th{padding:.15em .7em;text-align:right;"
            "border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}"
            ".no{color:#b00;font-weight:bold}.ours{background:#eef5ff}img{max-width:100%%}</style>\n<h1>%s</h1>\n",
            title, title);
}

void html_end(FILE *page)
{
    fputs("</html>\n", page);
}

void html_text(FILE *page, const char *text)
{
    for (; *text; text++)
        if (*text == '<')
            fputs("&lt;", page);
        else if (*text == '&')
            fputs("&amp;", page);
        else
            fputc(*text, page);
}

int html_draw(const char *directory, struct sm_errbuf *error)
{
    int status = -1;
    pid_t child = fork();

    if (child == 0) {
        if (chdir(directory) == 0)
            execlp("gnuplot", "gnuplot", "plots.gp", (char *)NULL);
        _exit(127);
    }
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (child > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    snprintf(error->text, sizeof error->text, "%.160s/plots.gp: gnuplot %s", directory,
             child > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 127 ? "cannot be run: is it installed?"
                                                                          : "failed");
    return SM_E_IO;
}

int html_picture(FILE *page, const char *directory, const char *name, struct sm_errbuf *error)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char picture[64];
    unsigned char in[3];

    snprintf(picture, sizeof picture, "%s.png", name);
    FILE *from = html_open(directory, picture, "rb", error);
    if (!from)
        return SM_E_IO;
    fprintf(page, "<p><img alt=\"%s\" src=\"data:image/png;base64,", name);
    for (size_t got; memset(in, 0, sizeof in), (got = fread(in, 1, sizeof in, from)) > 0;) {
        uint32_t bits = (uint32_t)in[0] << 16 | (uint32_t)in[1] << 8 | in[2];
        for (unsigned i = 0; i < 4; i++)
            fputc(i <= got ? digits[bits >> (18 - 6 * i) & 63] : '=', page);
    }
    fputs("\"></p>\n", page);
    return html_close(from, picture, error);
}
