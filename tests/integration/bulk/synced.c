/* Copies each file of SYNCED_FROM to SYNCED_TO whenever it is flushed to the disk: what a power
   cut would leave of it. Preloaded into a job by test_campaigns.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void keep(int fd) {
    const char *from = getenv("SYNCED_FROM"), *to = getenv("SYNCED_TO");
    char link[64], path[PATH_MAX], part[PATH_MAX + 16], kept[PATH_MAX], block[65536];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (!from || !to || length < 0)
        return;
    path[length] = 0;
    size_t folder = strlen(from);
    if (strncmp(path, from, folder) || path[folder] != '/')
        return;
    snprintf(kept, sizeof kept, "%s%s", to, path + folder);
    snprintf(part, sizeof part, "%s.part", kept);
    int out = open(part, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    off_t at = 0;
    ssize_t got;
    while (out >= 0 && (got = pread(fd, block, sizeof block, at)) > 0) {
        if (write(out, block, got) != got)
            abort();
        at += got;
    }
    if (out >= 0) {
        close(out);
        rename(part, kept);
    }
}

static int sync_with(const char *name, int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int result = real(fd);
    if (!result)
        keep(fd);
    return result;
}

int fsync(int fd) { return sync_with("fsync", fd); }
int fdatasync(int fd) { return sync_with("fdatasync", fd); }
