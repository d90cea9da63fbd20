/* Another library that stands in front of libc, as tracers and file-system clients do: it counts,
 * and hands every call on to whoever is next. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static long calls;

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    calls++;
    return NEXT(open)(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    calls++;
    return NEXT(open64)(path, flags, mode);
}

int stat(const char *path, struct stat *out) {
    calls++;
    return NEXT(stat)(path, out);
}

int fstat(int fd, struct stat *out) {
    calls++;
    return NEXT(fstat)(fd, out);
}

int lstat(const char *path, struct stat *out) {
    calls++;
    return NEXT(lstat)(path, out);
}

DIR *opendir(const char *path) {
    calls++;
    return NEXT(opendir)(path);
}

struct dirent *readdir(DIR *directory) {
    calls++;
    return NEXT(readdir)(directory);
}

int closedir(DIR *directory) {
    calls++;
    return NEXT(closedir)(directory);
}

FILE *fopen(const char *path, const char *mode) {
    calls++;
    return NEXT(fopen)(path, mode);
}

ssize_t readlink(const char *path, char *out, size_t room) {
    calls++;
    return NEXT(readlink)(path, out, room);
}

int access(const char *path, int mode) {
    calls++;
    return NEXT(access)(path, mode);
}

int execve(const char *path, char *const arguments[], char *const environment[]) {
    calls++;
    return NEXT(execve)(path, arguments, environment);
}
