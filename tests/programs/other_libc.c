/* What programs do with files, in calls that another libc than glibc has too: the test compiles this
 * for musl. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static const char *root;
static char path[PATH_MAX];

static const char *at(const char *relative) {
    snprintf(path, sizeof path, "%s/%s", root, relative);
    return path;
}

static void print_stat(const char *what, int result, const struct stat *st) {
    if (result != 0) printf("%s %d %s\n", what, result, strerror(errno));
    else
        printf("%s ino=%lu mode=%o nlink=%lu size=%ld mtime=%ld.%09ld\n", what, (unsigned long)st->st_ino,
               (unsigned)st->st_mode, (unsigned long)st->st_nlink, (long)st->st_size, (long)st->st_mtim.tv_sec,
               (long)st->st_mtim.tv_nsec);
}

static int by_name(const void *one, const void *other) {
    return strcmp(*(char *const *)one, *(char *const *)other);
}

static void files(void) {
    static const char *names[] = {"sizes/4097", "links/to-dir", "missing", "sizes/1/x", "walk"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct stat st;
        int result = stat(at(names[i]), &st);
        print_stat(names[i], result, &st);
        result = lstat(path, &st);
        print_stat("lstat", result, &st);
        result = fstatat(AT_FDCWD, path, &st, 0);
        print_stat("fstatat", result, &st);
        printf("access %d\n", access(path, R_OK));
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        printf("open %d\n", fd >= 0);
        if (fd < 0) continue;
        result = fstat(fd, &st);
        print_stat("fstat", result, &st);
        char bytes[5000];
        printf("read %ld\n", (long)read(fd, bytes, sizeof bytes));
        close(fd);
    }
    FILE *file = fopen(at("sizes/4097"), "r");
    long sum = 0;
    for (int byte; file && (byte = fgetc(file)) != EOF;) sum += byte;
    printf("fopen %ld\n", sum);
    if (file) fclose(file);
    char real[PATH_MAX];
    printf("realpath %s\n", realpath(at("links/to-dir"), real) ? real : strerror(errno));
    long length = readlink(path, real, sizeof real);
    printf("readlink %.*s\n", (int)(length > 0 ? length : 0), real);
    struct statvfs fs;
    int known = statvfs(root, &fs);
    printf("statvfs %d %lu\n", known, known == 0 ? fs.f_namemax : 0);
}

static long seen;
static int count(const char *name, const struct stat *st, int kind, struct FTW *where) {
    (void)name, (void)kind, (void)where;
    seen += 1 + (st->st_ino & 7);
    return 0;
}

static void directories(void) {
    char *names[64];
    int length = 0;
    DIR *directory = opendir(at("walk"));
    for (struct dirent *entry; directory && length < 64 && (entry = readdir(directory));)
        names[length++] = strdup(entry->d_name);
    qsort(names, length, sizeof *names, by_name);
    for (int i = 0; i < length; i++) printf("entry %s\n", names[i]);
    if (directory) {
        printf("dirfd %d\n", dirfd(directory) >= 0);
        printf("closedir %d\n", closedir(directory));
    }
    struct dirent **entries;
    int found = scandir(at("walk"), &entries, NULL, alphasort);
    for (int i = 0; i < found; i++) printf("scandir %s %d\n", entries[i]->d_name, entries[i]->d_type);
    glob_t matches = {0};
    printf("glob %d", glob(at("sizes/*"), 0, NULL, &matches));
    printf(" %zu\n", matches.gl_pathc);
    for (size_t i = 0; i < matches.gl_pathc; i++) printf("  %s\n", matches.gl_pathv[i]);
    int result = nftw(at("walk"), count, 20, FTW_PHYS);
    printf("nftw %d %ld\n", result, seen);
}

static void processes(void) {
    fflush(stdout);
    pid_t child;
    int status = 0;
    char *arguments[] = {"cksum", NULL};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, at("sizes/4097"), O_RDONLY, 0);
    int spawned = posix_spawnp(&child, "cksum", &actions, NULL, arguments, environ);
    int ended = waitpid(child, &status, 0) == child;
    printf("spawned %d, ended %d %d\n", spawned, ended, status);
    fflush(stdout);
    if (fork() == 0) {
        if (chdir(at("walk")) != 0) _exit(1);
        printf("in %s\n", getcwd(path, sizeof path));
        fflush(stdout);
        execlp("ls", "ls", "-i", (char *)NULL);
        _exit(1);
    }
    ended = wait(&status) > 0;
    printf("child %d %d\n", ended, status);
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    root = argv[1];
    files();
    directories();
    processes();
    return 0;
}
