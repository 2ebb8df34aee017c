/* SPDX-License-Identifier: BSD-2-Clause */
#include "conf/rundir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK_ENVIRONMENT "SPLITMERGE_LOCK_FD"

static void base_folder(char *text, size_t size)
{
    const char *base = getenv("SPLITMERGE_RUN"), *runtime = getenv("XDG_RUNTIME_DIR");
    if (base && *base)
        snprintf(text, size, "%s", base);
    else if (geteuid() == 0)
        snprintf(text, size, "/run/splitmerge");
    else if (runtime && *runtime)
        snprintf(text, size, "%s/splitmerge", runtime);
    else
        snprintf(text, size, "/tmp/splitmerge-%u", (unsigned)geteuid());
}

bool service_name_valid(const char *name)
{
    size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-");
    return length >= 1 && length <= SERVICE_MAX_NAME && name[length] == '\0';
}

int rundir_init(struct rundir *dir, const char *service, struct sm_errbuf *error)
{
    char base[4096];
    base_folder(base, sizeof(base));
    *dir = (struct rundir){.lock = -1};
    snprintf(dir->service, sizeof(dir->service), "%s", service);
    if ((size_t)snprintf(dir->path, sizeof(dir->path), "%s/%s", base, service) >= sizeof(dir->path)) {
        snprintf(error->text, sizeof(error->text), "run directory %.100s/%.64s: path is longer than %zu characters",
                 base, service, sizeof(dir->path) - 1);
        return SM_E_LIMIT;
    }
    return 0;
}

static int io_error(const char *what, const char *path, struct sm_errbuf *error)
{
    int code = errno == EACCES || errno == EPERM ? SM_E_PERMISSION : SM_E_IO;
    snprintf(error->text, sizeof(error->text), "%s %.150s: %s", what, path, strerror(errno));
    return code;
}

int rundir_create(const struct rundir *dir, struct sm_errbuf *error)
{
    char path[sizeof(dir->path)];
    snprintf(path, sizeof(path), "%s", dir->path);
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        /* Root's base is for all services' users to pass through; the others are a user's own. */
        if (mkdir(path, geteuid() == 0 ? 0755 : 0700) != 0 && errno != EEXIST)
            return io_error("cannot create", path, error);
        *slash = '/';
    }
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return io_error("cannot create", path, error);
    struct stat status;
    if (lstat(path, &status) != 0)
        return io_error("cannot use", path, error);
    /* /tmp is everyone's: do not speak through a directory that another user put there. */
    if (!S_ISDIR(status.st_mode) || status.st_uid != geteuid() || (status.st_mode & 077) != 0) {
        snprintf(error->text, sizeof(error->text), "%s: expected a directory of user %u with mode 0700", path,
                 (unsigned)geteuid());
        return SM_E_PERMISSION;
    }
    return 0;
}

const char *rundir_file(const struct rundir *dir, const char *file, char text[static 108])
{
    snprintf(text, 108, "%s/%.17s", dir->path, file);
    return text;
}

static int read_pid(int fd)
{
    char text[16] = "";
    return pread(fd, text, sizeof(text) - 1, 0) > 0 ? atoi(text) : 0;
}

/* A parent's lock, when the descriptor in the environment really is this service's lock file. */
static int inherited_lock(const char *path)
{
    const char *text = getenv(LOCK_ENVIRONMENT);
    struct stat ours, file;
    int fd = text ? atoi(text) : -1;
    if (fd < 3 || fstat(fd, &ours) != 0 || stat(path, &file) != 0 || ours.st_dev != file.st_dev ||
        ours.st_ino != file.st_ino || flock(fd, LOCK_EX | LOCK_NB) != 0)
        return -1;
    unsetenv(LOCK_ENVIRONMENT); /* it is ours; children of ours have no part in it */
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    return fd;
}

int rundir_lock(struct rundir *dir, struct sm_errbuf *error)
{
    char path[108];
    rundir_file(dir, "lock", path);
    dir->lock = inherited_lock(path);
    if (dir->lock >= 0)
        return 0;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return io_error("cannot open", path, error);
    /* rundir_running() holds it for an instant when it looks. */
    int refused;
    for (unsigned attempt = 0; (refused = flock(fd, LOCK_EX | LOCK_NB)) != 0 && attempt < 5; attempt++)
        usleep(10000);
    if (refused) {
        snprintf(error->text, sizeof(error->text), "service %s is already running (pid %d)", dir->service,
                 read_pid(fd));
        close(fd);
        return SM_E_STATE;
    }
    char pid[16];
    int length = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, pid, (size_t)length, 0) != length) {
        close(fd);
        return io_error("cannot write", path, error);
    }
    dir->lock = fd;
    return 0;
}

void rundir_unlock(struct rundir *dir)
{
    if (dir->lock >= 0)
        close(dir->lock);
    dir->lock = -1;
}

int rundir_pass_lock(const struct rundir *dir)
{
    char text[16];
    snprintf(text, sizeof(text), "%d", dir->lock);
    if (fcntl(dir->lock, F_SETFD, 0) != 0 || setenv(LOCK_ENVIRONMENT, text, 1) != 0)
        return SM_E_IO;
    return 0;
}

int rundir_running(const struct rundir *dir)
{
    char path[108];
    int fd = open(rundir_file(dir, "lock", path), O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    int pid = 0;
    if (flock(fd, LOCK_SH | LOCK_NB) != 0) {
        pid = read_pid(fd);
        pid = pid > 0 ? pid : -1;
    }
    close(fd);
    return pid;
}

void rundir_list(void (*found)(void *user, const char *service), void *user)
{
    char base[4096];
    base_folder(base, sizeof(base));
    DIR *folder = opendir(base);
    if (!folder)
        return;
    for (struct dirent *entry; (entry = readdir(folder));) {
        struct rundir dir;
        struct sm_errbuf error;
        if (service_name_valid(entry->d_name) && rundir_init(&dir, entry->d_name, &error) == 0 && rundir_running(&dir))
            found(user, entry->d_name);
    }
    closedir(folder);
}
