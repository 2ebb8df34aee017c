/* SPDX-License-Identifier: BSD-2-Clause */
#include "share.h"

#include <fcntl.h>
#include <mntent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define QUOTA_US 1000u /* the least that the kernel takes; the period follows */

static bool put(const char *folder, const char *file, const char *text)
{
    char path[320];

    snprintf(path, sizeof path, "%s/%s", folder, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0)
        close(fd);
    return done;
}

/* Where groups with a CPU quota are made. `v2`: of which version. */
static bool find(char *folder, size_t size, bool *v2)
{
    FILE *mounts = setmntent("/proc/mounts", "re");
    bool found = false;

    for (const struct mntent *mount; !found && mounts && (mount = getmntent(mounts));) {
        *v2 = strcmp(mount->mnt_type, "cgroup2") == 0;
        if (*v2)
            found = put(mount->mnt_dir, "cgroup.subtree_control", "+cpu");
        else
            found = strcmp(mount->mnt_type, "cgroup") == 0 && hasmntopt(mount, "cpu");
        snprintf(folder, size, "%s", mount->mnt_dir);
    }
    if (mounts)
        endmntent(mounts);
    return found;
}

bool share_open(struct share *share, unsigned number, double part)
{
    char folder[200], quota[32], period[32], both[64];
    bool v2;

    share->path[0] = '\0';
    if (!find(folder, sizeof folder, &v2))
        return false;
    snprintf(share->path, sizeof share->path, "%s/sm-bench.%d.%u", folder, (int)getpid(), number);
    snprintf(quota, sizeof quota, "%u", QUOTA_US);
    snprintf(period, sizeof period, "%u", (unsigned)(QUOTA_US / part));
    snprintf(both, sizeof both, "%s %s", quota, period);
    if (mkdir(share->path, 0755) == 0) {
        /* What it may have it is to get at once, whoever else wants the core: the most that there is; no matter if not.
         */
        (void)put(share->path, v2 ? "cpu.weight" : "cpu.shares", v2 ? "10000" : "262144");
        if (v2 ? put(share->path, "cpu.max", both)
               : put(share->path, "cpu.cfs_period_us", period) && put(share->path, "cpu.cfs_quota_us", quota))
            return true;
        rmdir(share->path);
    }
    share->path[0] = '\0';
    return false;
}

bool share_add(const struct share *share, pid_t pid)
{
    char text[16];

    snprintf(text, sizeof text, "%d", (int)pid);
    return put(share->path, "cgroup.procs", text);
}

void share_close(struct share *share)
{
    if (share->path[0])
        rmdir(share->path);
    share->path[0] = '\0';
}
