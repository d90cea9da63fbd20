/* Every way to ask for a path's attributes, on every case; none may differ from the origin's. */
#include "common.h"
#include <dlfcn.h>
#include <sys/sysmacros.h>

static int root_fd;

/* The names that binaries linked with an older glibc call. */
static int (*old_stat)(int, const char *, struct stat *);
static int (*old_lstat)(int, const char *, struct stat *);
static int (*old_fstat)(int, int, struct stat *);
static int (*old_fstatat)(int, int, const char *, struct stat *, int);

static void print_statx(long result, const struct statx *stx) {
    int error = errno;
    if (result < 0) {
        printf("%ld %s\n", result, errno_name(error));
        return;
    }
    printf("%s dev=%x:%x ino=%llu mode=%o nlink=%u uid=%u gid=%u rdev=%x:%x size=%llu blksize=%u "
           "blocks=%llu mtime=%lld.%09u ctime=%lld.%09u\n",
           errno_name(error), stx->stx_dev_major, stx->stx_dev_minor,
           (unsigned long long)stx->stx_ino, stx->stx_mode, stx->stx_nlink, stx->stx_uid,
           stx->stx_gid, stx->stx_rdev_major, stx->stx_rdev_minor,
           (unsigned long long)stx->stx_size, stx->stx_blksize, (unsigned long long)stx->stx_blocks,
           (long long)stx->stx_mtime.tv_sec, stx->stx_mtime.tv_nsec,
           (long long)stx->stx_ctime.tv_sec, stx->stx_ctime.tv_nsec);
}

static void by_path(const char *relative, const char *path) {
    struct stat st;
    case_line("stat", relative);
    print_stat_result(stat(path, &st), &st);
    case_line("lstat", relative);
    print_stat_result(lstat(path, &st), &st);
    struct stat64 st64;
    case_line("stat64", relative);
    print_stat_result(stat64(path, &st64), (struct stat *)&st64);
    case_line("lstat64", relative);
    print_stat_result(lstat64(path, &st64), (struct stat *)&st64);
    case_line("__xstat", relative);
    print_stat_result(old_stat(1, path, &st), &st);
    case_line("__lxstat", relative);
    print_stat_result(old_lstat(1, path, &st), &st);
    case_line("fstatat AT_FDCWD", relative);
    print_stat_result(fstatat(AT_FDCWD, path, &st, 0), &st);
}

static void by_directory(const char *relative) {
    struct stat st;
    static const struct {
        const char *name;
        int flags;
    } ways[] = {{"0", 0},
                {"NOFOLLOW", AT_SYMLINK_NOFOLLOW},
                {"EMPTY_PATH", AT_EMPTY_PATH},
                {"NO_AUTOMOUNT", AT_NO_AUTOMOUNT},
                {"bad flag", 0x40000000}};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        printf("fstatat ");
        case_line(ways[i].name, relative);
        print_stat_result(fstatat(root_fd, relative, &st, ways[i].flags), &st);
        struct statx stx;
        memset(&stx, 0, sizeof stx);
        printf("statx ");
        case_line(ways[i].name, relative);
        print_statx(statx(root_fd, relative, ways[i].flags, STATX_BASIC_STATS, &stx), &stx);
    }
    case_line("__fxstatat", relative);
    print_stat_result(old_fstatat(1, root_fd, relative, &st, 0), &st);
}

static void by_system_call(const char *relative, const char *path) {
    struct stat st;
    struct statx stx;
    case_line("syscall stat", relative);
    print_stat_result(syscall(SYS_stat, path, &st), &st);
    case_line("syscall lstat", relative);
    print_stat_result(syscall(SYS_lstat, path, &st), &st);
    case_line("syscall newfstatat", relative);
    print_stat_result(syscall(SYS_newfstatat, root_fd, relative, &st, AT_SYMLINK_NOFOLLOW), &st);
    memset(&stx, 0, sizeof stx);
    case_line("syscall statx", relative);
    print_statx(syscall(SYS_statx, AT_FDCWD, path, AT_STATX_DONT_SYNC, STATX_BASIC_STATS, &stx), &stx);
}

static void by_descriptor(const char *relative, const char *path) {
    static const struct {
        const char *name;
        int flags;
    } ways[] = {{"O_RDONLY", O_RDONLY | O_NONBLOCK},
                {"O_PATH", O_PATH},
                {"O_PATH NOFOLLOW", O_PATH | O_NOFOLLOW}};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        int fd = open(path, ways[i].flags);
        if (fd < 0) continue;
        struct stat st;
        struct statx stx;
        printf("fstat ");
        case_line(ways[i].name, relative);
        print_stat_result(fstat(fd, &st), &st);
        printf("fstat64 ");
        case_line(ways[i].name, relative);
        print_stat_result(fstat64(fd, (struct stat64 *)&st), &st);
        printf("__fxstat ");
        case_line(ways[i].name, relative);
        print_stat_result(old_fstat(1, fd, &st), &st);
        printf("fstatat empty ");
        case_line(ways[i].name, relative);
        print_stat_result(fstatat(fd, "", &st, AT_EMPTY_PATH), &st);
        printf("syscall fstat ");
        case_line(ways[i].name, relative);
        print_stat_result(syscall(SYS_fstat, fd, &st), &st);
        memset(&stx, 0, sizeof stx);
        printf("statx empty ");
        case_line(ways[i].name, relative);
        print_statx(statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &stx), &stx);
        close(fd);
    }
}

static void visit(const char *relative, const char *path) {
    by_path(relative, path);
    by_directory(relative);
    by_system_call(relative, path);
    by_descriptor(relative, path);
}

int main(int argc, char **argv) {
    start(argc, argv);
    old_stat = dlsym(RTLD_DEFAULT, "__xstat");
    old_lstat = dlsym(RTLD_DEFAULT, "__lxstat");
    old_fstat = dlsym(RTLD_DEFAULT, "__fxstat");
    old_fstatat = dlsym(RTLD_DEFAULT, "__fxstatat");
    root_fd = open(root, O_RDONLY | O_DIRECTORY);
    for_each_case(argv[2], visit);
    return 0;
}
