/* SPDX-License-Identifier: BSD-2-Clause */

/* What replicas run: a program and its arguments, and where it is found. */

#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "orchestrator.h"

static bool in_path(const char *name, char *found, size_t size)
{
    const char *path = getenv("PATH");
    for (const char *at = path ? path : ""; *at;) {
        size_t length = strcspn(at, ":");
        int written = snprintf(found, size, "%.*s/%s", (int)length, at, name);
        if (length > 0 && written > 0 && (size_t)written < size && access(found, X_OK) == 0)
            return true;
        at += length + (at[length] == ':');
    }
    return false;
}

/* The first that is there of some places, seen from our own program's folder. */
static bool beside_us(const char *const *places, const char *name, char *found, size_t size)
{
    char self[2048], pattern[4096];
    ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (length < 0)
        return false;
    self[length] = '\0';
    *strrchr(self, '/') = '\0';
    bool done = false;
    for (unsigned i = 0; places[i] && !done; i++) {
        glob_t matches;
        snprintf(pattern, sizeof(pattern), "%s/%s/%s", self, places[i], name);
        if (glob(pattern, 0, NULL, &matches) != 0)
            continue;
        done = access(matches.gl_pathv[0], R_OK) == 0;
        snprintf(found, size, "%s", matches.gl_pathv[0]);
        globfree(&matches);
    }
    return done;
}

int program_find(const char *exec, char *found, size_t size, struct sm_errbuf *error)
{
    static const char *const places[] = {".", "../middleboxes/*", NULL}; /* installed; in a build tree */
    struct stat status;
    if (!strchr(exec, '/')) {
        if (in_path(exec, found, size) || beside_us(places, exec, found, size))
            return 0;
        snprintf(error->text, sizeof(error->text), "middlebox '%.100s' is not in PATH", exec);
        return SM_E_NOT_FOUND;
    }
    snprintf(found, size, "%s", exec);
    if (stat(exec, &status) != 0) {
        snprintf(error->text, sizeof(error->text), "middlebox '%.150s' cannot be started: %s", exec, strerror(errno));
        return SM_E_NOT_FOUND;
    }
    if (!S_ISREG(status.st_mode) || access(exec, X_OK) != 0) {
        snprintf(error->text, sizeof(error->text), "middlebox '%.150s' cannot be started: it is no executable file",
                 exec);
        return SM_E_PERMISSION;
    }
    return 0;
}

int program_find_pcap(char *found, size_t size, struct sm_errbuf *error)
{
    static const char *const places[] = {"../runtime/pcap", SM_LIBRARY_FOLDER, NULL}; /* in a build tree; installed */
    if (beside_us(places, SM_PCAP_LIBRARY, found, size))
        return 0;
    snprintf(error->text, sizeof(error->text), "%s, by which programs of libpcap become replicas, is not installed",
             SM_PCAP_LIBRARY);
    return SM_E_NOT_FOUND;
}

bool program_uses_pcap(const struct program *program)
{
    for (char **arg = program->args; *arg; arg++)
        if (strstr(*arg, "sm:{service}"))
            return true;
    return false;
}

void program_free(struct program *program)
{
    for (char **arg = program->args; arg && *arg; arg++)
        free(*arg);
    free(program->args);
    free(program->exec);
    *program = (struct program){0};
}

int program_set(struct program *program, const char *exec, const char *const *args)
{
    size_t count = 0;
    while (args[count])
        count++;
    struct program made = {.exec = strdup(exec), .args = calloc(count + 1, sizeof(*made.args))};
    bool whole = made.exec && made.args;
    for (size_t i = 0; whole && i < count; i++)
        whole = (made.args[i] = strdup(args[i])) != NULL;
    if (!whole) {
        program_free(&made);
        return SM_E_NO_MEMORY;
    }
    program_free(program);
    *program = made;
    return 0;
}

void program_take_over(struct program *program, struct program *from)
{
    if (!from->exec)
        return;
    program_free(program);
    *program = *from;
    *from = (struct program){0};
}
