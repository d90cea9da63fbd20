/* What the differential programs share: they are called as `program ROOT MANIFEST`, visit the
 * cases that MANIFEST names (paths below ROOT, each ended by a NUL), and print what each call
 * says in a form that two runs can be compared by. */
#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

/* A value that no call sets, to see that a call that succeeds leaves errno alone. */
#define ERRNO_UNTOUCHED 4242

static const char *root;

/* The name of an errno value. */
static inline const char *errno_name(int value) {
    if (value == ERRNO_UNTOUCHED) return "-";
    const char *name = strerrorname_np(value);
    return name ? name : "?";
}

/* Prints bytes so that one case stays one line. */
static inline void print_bytes(const void *bytes, size_t length) {
    const unsigned char *byte = bytes;
    for (size_t i = 0; i < length; i++) {
        if (byte[i] > ' ' && byte[i] < 127 && byte[i] != '\\') putchar(byte[i]);
        else printf("\\x%02x", byte[i]);
    }
}

/* Prints a path. */
static inline void print_path(const char *path) { print_bytes(path, strlen(path)); }

/* Starts the line of one call on one case: the calls are named, the case is its path below ROOT. */
static inline void case_line(const char *call, const char *relative) {
    printf("%s ", call);
    size_t length = strlen(relative);
    if (length > 600) {
        print_bytes(relative, 40);
        printf("...[%zu]...", length);
        print_bytes(relative + length - 40, 40);
    } else {
        print_bytes(relative, length);
    }
    printf(" = ");
    errno = ERRNO_UNTOUCHED;
}

/* Ends the line of a call that returns -1 for failure. */
static inline void print_result(long result) {
    int error = errno;
    printf("%ld %s\n", result, errno_name(error));
}

/* Prints only whether the call worked, for calls that return a descriptor. */
static inline void print_opened(long result) {
    int error = errno;
    printf("%s %s\n", result < 0 ? "failed" : "opened", errno_name(error));
}

/* FNV-1a, to compare contents. */
static inline uint64_t hash_bytes(const void *bytes, size_t length, uint64_t hash) {
    const unsigned char *byte = bytes;
    for (size_t i = 0; i < length; i++) hash = (hash ^ byte[i]) * 0x100000001b3ull;
    return hash;
}
#define HASH_START 0xcbf29ce484222325ull

/* What a program must be able to tell apart; everything but the time of last access. */
static inline void print_stat(const struct stat *st) {
    printf("dev=%lx ino=%lu mode=%o nlink=%lu uid=%u gid=%u rdev=%lx size=%ld blksize=%ld blocks=%ld "
           "mtime=%ld.%09ld ctime=%ld.%09ld\n",
           (unsigned long)st->st_dev, (unsigned long)st->st_ino, st->st_mode,
           (unsigned long)st->st_nlink, st->st_uid, st->st_gid, (unsigned long)st->st_rdev,
           (long)st->st_size, (long)st->st_blksize, (long)st->st_blocks, (long)st->st_mtim.tv_sec,
           st->st_mtim.tv_nsec, (long)st->st_ctim.tv_sec, st->st_ctim.tv_nsec);
}

/* The rest of a line after a stat-like call. */
static inline void print_stat_result(long result, const struct stat *st) {
    int error = errno;
    if (result < 0) {
        printf("%ld %s\n", result, errno_name(error));
        return;
    }
    printf("%ld %s ", result, errno_name(error));
    print_stat(st);
}

/* Whether opening could wait for somebody: FIFOs and devices are opened with O_NONBLOCK only. */
static inline int is_special(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode);
}

/* The manifest, and the loop over its cases. */
static inline char *read_manifest(const char *path, size_t *length) {
    FILE *file = fopen(path, "r");
    if (!file) {
        perror(path);
        exit(2);
    }
    char *text = NULL;
    size_t capacity = 0;
    *length = 0;
    for (;;) {
        if (capacity - *length < 65536) text = realloc(text, capacity += 1 << 20);
        size_t got = fread(text + *length, 1, 65536, file);
        if (got == 0) break;
        *length += got;
    }
    fclose(file);
    return text;
}

typedef void (*visitor)(const char *relative, const char *path);

static inline void for_each_case(const char *manifest, visitor visit) {
    size_t length;
    char *text = read_manifest(manifest, &length);
    for (char *entry = text; entry < text + length; entry += strlen(entry) + 1) {
        size_t size = strlen(root) + strlen(entry) + 2;
        char *path = malloc(size);
        snprintf(path, size, "%s/%s", root, entry);
        visit(entry, path);
        free(path);
        fflush(stdout);
    }
    free(text);
}

static inline void start(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: %s ROOT MANIFEST\n", argv[0]);
        exit(2);
    }
    root = argv[1];
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
}

/* The machine may be short of processes for a moment; a child that is never made must be seen. */
static inline pid_t fork_patiently(void) {
    pid_t child = fork();
    for (int tries = 0; child < 0 && tries < 100; tries++) {
        usleep(20000);
        child = fork();
    }
    if (child < 0) printf("no child: %s\n", strerror(errno));
    return child;
}

/* Runs in a child, so that what the calls change of the process does not outlive the case. */
#define IN_CHILD(...)                                                                              \
    do {                                                                                           \
        fflush(stdout);                                                                            \
        pid_t child_ = fork_patiently();                                                           \
        if (child_ == 0) {                                                                         \
            __VA_ARGS__;                                                                           \
            fflush(stdout);                                                                        \
            _exit(0);                                                                              \
        }                                                                                          \
        int status_ = 0;                                                                           \
        waitpid(child_, &status_, 0);                                                              \
        if (status_) printf("child status %x\n", status_);                                         \
    } while (0)
