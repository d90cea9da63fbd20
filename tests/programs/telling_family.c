/* What tells a descriptor on a copy from one on the file itself: the ways to come back to it by a
 * path, what only its file system can do, locks that others see, files that are no files. */
#include "common.h"
#include <dlfcn.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/un.h>
#include <sys/xattr.h>

static int root_fd;
/* A directory on the origin's file system that may be written. */
static const char *outside;

static void print_contents(int fd) {
    char buffer[8192];
    uint64_t hash = HASH_START;
    long total = 0, got;
    while ((got = read(fd, buffer, sizeof buffer)) > 0) {
        hash = hash_bytes(buffer, got, hash);
        total += got;
    }
    printf("  %ld bytes %016lx %s\n", total, (unsigned long)hash, got < 0 ? errno_name(errno) : "");
}

/* The kernel's own names of an open file. */
static void by_number(int fd) {
    static const char *forms[] = {"/proc/self/fd/%d", "/dev/fd/%d", "/proc/thread-self/fd/%d"};
    struct stat st;
    struct statx stx;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        char name[64], target[PATH_MAX];
        snprintf(name, sizeof name, forms[i], fd);
        case_line("stat", forms[i]);
        print_stat_result(stat(name, &st), &st);
        case_line("fstatat", forms[i]);
        print_stat_result(fstatat(AT_FDCWD, name, &st, 0), &st);
        case_line("statx", forms[i]);
        int result = statx(AT_FDCWD, name, 0, STATX_BASIC_STATS, &stx);
        printf("%d ino=%lx size=%ld dev=%x:%x\n", result, (unsigned long)stx.stx_ino, (long)stx.stx_size,
               stx.stx_dev_major, stx.stx_dev_minor);
        case_line("readlink", forms[i]);
        long length = readlink(name, target, sizeof target - 1);
        print_bytes(target, length > 0 ? length : 0);
        printf(" %s\n", length < 0 ? errno_name(errno) : "");
        case_line("realpath", forms[i]);
        print_path(realpath(name, target) ? target : errno_name(errno));
        printf("\n");
        case_line("open", forms[i]);
        int again = open(name, O_RDONLY);
        print_opened(again);
        if (again >= 0) {
            print_stat_result(fstat(again, &st), &st);
            print_contents(again);
            close(again);
        }
        case_line("access", forms[i]);
        print_result(access(name, R_OK));
    }
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        char name[64];
        snprintf(name, sizeof name, forms[i], fd);
        case_line("open for writing", forms[i]);
        int again = open(name, O_RDWR);
        print_opened(again);
        if (again >= 0) {
            print_stat_result(fstat(again, &st), &st);
            close(again);
        }
    }
}

static void by_empty_path(int fd) {
    struct stat st;
    printf("empty path\n  ");
    print_stat_result(fstatat(fd, "", &st, AT_EMPTY_PATH), &st);
    struct statx stx;
    int result = statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &stx);
    printf("  statx %d %lu %u\n", result, (unsigned long)stx.stx_ino, stx.stx_nlink);
    printf("  faccessat ");
    print_result(faccessat(fd, "", R_OK, AT_EMPTY_PATH));
    char target[PATH_MAX];
    printf("  readlinkat ");
    print_result(readlinkat(fd, "", target, sizeof target));
}

/* What the descriptor's file system says and does. */
static void file_system(int fd, const struct stat *st) {
    struct statfs fs = {0};
    struct statvfs vfs = {0};
    int result = fstatfs(fd, &fs);
    printf("fstatfs %d type=%lx fsid=%x blocks=%ld\n", result, (long)fs.f_type, fs.f_fsid.__val[0],
           (long)fs.f_blocks);
    result = fstatvfs(fd, &vfs);
    printf("fstatvfs %d fsid=%lx namemax=%lu\n", result, vfs.f_fsid, vfs.f_namemax);
    char names[256];
    long length = flistxattr(fd, names, sizeof names);
    printf("flistxattr %ld ", length);
    print_bytes(names, length > 0 ? length : 0);
    length = fgetxattr(fd, "user.one", names, sizeof names);
    printf("\nfgetxattr %ld %s\n", length, length < 0 ? errno_name(errno) : "");
    int flags = 0;
    printf("flags ");
    errno = ERRNO_UNTOUCHED;
    print_result(ioctl(fd, FS_IOC_GETFLAGS, &flags));
    printf("  %x\n", flags);
    if (!S_ISREG(st->st_mode)) return;
    off_t at = 0;
    for (int i = 0; i < 6 && at >= 0; i++) {
        errno = ERRNO_UNTOUCHED;
        at = lseek(fd, at, i % 2 ? SEEK_HOLE : SEEK_DATA);
        printf("%s %ld %s\n", i % 2 ? "hole" : "data", (long)at, errno_name(errno));
    }
    errno = ERRNO_UNTOUCHED;
    printf("data behind the end ");
    print_result(lseek(fd, st->st_size + 1, SEEK_DATA));
    printf("by number %ld\n", (long)syscall(SYS_lseek, fd, 0, SEEK_HOLE));
}

static int new_file(void) {
    char place[PATH_MAX];
    snprintf(place, sizeof place, "%s/copy-XXXXXX", outside);
    int to = mkstemp(place);
    unlink(place);
    return to;
}

static void copies(int fd) {
    int to = new_file();
    if (to < 0) {
        printf("no place for copies: %s\n", errno_name(errno));
        return;
    }
    loff_t from = 3;
    lseek(fd, 5, SEEK_SET);
    errno = ERRNO_UNTOUCHED;
    printf("copy_file_range at an offset ");
    print_result(copy_file_range(fd, &from, to, NULL, 5000, 0));
    printf("  offset %ld position %ld\n", (long)from, (long)lseek(fd, 0, SEEK_CUR));
    errno = ERRNO_UNTOUCHED;
    printf("copy_file_range at the position ");
    print_result(copy_file_range(fd, NULL, to, NULL, 700, 0));
    printf("  position %ld\n", (long)lseek(fd, 0, SEEK_CUR));
    errno = ERRNO_UNTOUCHED;
    from = 1;
    printf("copy_file_range by number ");
    print_result(syscall(SYS_copy_file_range, fd, &from, to, NULL, 9, 0));
    errno = ERRNO_UNTOUCHED;
    printf("copy_file_range with flags ");
    print_result(copy_file_range(fd, NULL, to, NULL, 700, 1));
    errno = ERRNO_UNTOUCHED;
    printf("copy_file_range to a reader ");
    print_result(copy_file_range(to, NULL, fd, NULL, 700, 0));
    lseek(to, 0, SEEK_SET);
    print_contents(to);
    errno = ERRNO_UNTOUCHED;
    printf("FICLONE ");
    print_result(ioctl(to, FICLONE, fd));
    struct file_clone_range range = {.src_fd = fd};
    errno = ERRNO_UNTOUCHED;
    printf("FICLONERANGE ");
    print_result(ioctl(to, FICLONERANGE, &range));
    close(to);
    int elsewhere = open("/dev/shm", O_TMPFILE | O_RDWR, 0600);
    errno = ERRNO_UNTOUCHED;
    from = 0;
    /* Where the copy's file system is this one, the kernel copies. */
    long copied = copy_file_range(fd, &from, elsewhere, NULL, 10, 0);
    printf("copy to another file system %s\n", copied < 0 && errno != EXDEV ? errno_name(errno) : "done or EXDEV");
    close(elsewhere);
}

/* Locks that another process asks for by the same name. */
static void locks(int fd, const char *path) {
    printf("flock %d %d position %ld\n", flock(fd, LOCK_SH), (int)syscall(SYS_flock, fd, LOCK_EX), (long)lseek(fd, 0, SEEK_CUR));
    IN_CHILD({
        int other = open(path, O_RDONLY);
        printf("flock beside ");
        errno = ERRNO_UNTOUCHED;
        print_result(flock(other, LOCK_SH | LOCK_NB));
    });
    flock(fd, LOCK_UN);
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 1, .l_len = 5};
    errno = ERRNO_UNTOUCHED;
    printf("read lock ");
    print_result(fcntl(fd, F_SETLK, &lock));
    IN_CHILD({
        int other = open(path, O_RDONLY);
        struct flock wanted = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 2};
        printf("who holds it ");
        int result = fcntl(other, F_GETLK, &wanted);
        printf("%d type=%d start=%ld length=%ld parent=%d\n", result, wanted.l_type, (long)wanted.l_start,
               (long)wanted.l_len, wanted.l_pid == getppid());
    });
    struct flock open_file = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    errno = ERRNO_UNTOUCHED;
    printf("lock of the open file ");
    print_result(fcntl(fd, F_OFD_SETLK, &open_file));
    errno = ERRNO_UNTOUCHED;
    printf("lockf ");
    print_result(lockf(fd, F_TEST, 0));
    errno = ERRNO_UNTOUCHED;
    printf("lockf64 ");
    print_result(lockf64(fd, F_TEST, 0));
    errno = ERRNO_UNTOUCHED;
    printf("fcntl64 ");
    print_result(((__typeof__(&fcntl))dlsym(RTLD_DEFAULT, "fcntl64"))(fd, F_GETFD));
    errno = ERRNO_UNTOUCHED;
    printf("lease ");
    print_result(fcntl(fd, F_GETLEASE));
}

/* Opened without following links, or under restrictions on the way. */
static void ways(const char *relative, const char *path) {
    static const int flags[] = {O_PATH, O_PATH | O_NOFOLLOW, O_NOFOLLOW, O_DIRECTORY, O_NOATIME, O_DIRECT, O_RDONLY | O_SYNC};
    struct stat st;
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        printf("%o ", flags[i]);
        case_line("open", relative);
        int fd = open(path, flags[i] | O_NONBLOCK | O_RDONLY);
        print_opened(fd);
        if (fd < 0) continue;
        int known = fstat(fd, &st);
        /* A pipe's times change with what goes through it. */
        if (S_ISFIFO(st.st_mode)) memset(&st.st_mtim, 0, 2 * sizeof st.st_mtim);
        print_stat_result(known, &st);
        char byte;
        errno = ERRNO_UNTOUCHED;
        printf("  read ");
        if (S_ISREG(st.st_mode) && !(flags[i] & O_DIRECT)) print_result(read(fd, &byte, 1));
        else printf("not tried\n");
        if (flags[i] & O_PATH) {
            char name[64];
            snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
            int again = S_ISREG(st.st_mode) ? open(name, O_RDONLY) : -1;
            printf("  opened again %d\n", again >= 0);
            if (again >= 0) close(again);
            struct statfs fs = {0};
            int result = fstatfs(fd, &fs);
            printf("  fstatfs %d %lx\n", result, (long)fs.f_type);
        }
        close(fd);
    }
    static const unsigned long long resolves[] = {0, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_NO_XDEV,
                                                  RESOLVE_NO_MAGICLINKS};
    for (size_t i = 0; i < sizeof resolves / sizeof *resolves; i++) {
        struct open_how how = {.flags = O_RDONLY | O_NONBLOCK | O_CLOEXEC, .resolve = resolves[i]};
        printf("openat2 %llx ", resolves[i]);
        case_line("", relative);
        int fd = syscall(SYS_openat2, root_fd, relative, &how, sizeof how);
        print_opened(fd);
        if (fd < 0) continue;
        printf("  ");
        int known = fstat(fd, &st);
        if (S_ISFIFO(st.st_mode)) memset(&st.st_mtim, 0, 2 * sizeof st.st_mtim);
        print_stat_result(known, &st);
        close(fd);
    }
}

/* A FIFO and a socket between two processes that know only the path. */
static void special(const char *relative, const char *path, const struct stat *st) {
    char buffer[32] = "";
    if (S_ISFIFO(st->st_mode)) {
        int reader = open(path, O_RDONLY | O_NONBLOCK);
        IN_CHILD({
            int writer = open(path, O_WRONLY);
            printf("written %ld\n", (long)write(writer, "through", 7));
        });
        printf("%s carries %ld %s\n", relative, (long)read(reader, buffer, sizeof buffer - 1), buffer);
        close(reader);
    }
    if (S_ISSOCK(st->st_mode)) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        if (strlen(path) >= sizeof address.sun_path) {
            int place = open(root, O_PATH | O_DIRECTORY);
            snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%.60s", place, relative);
        } else {
            snprintf(address.sun_path, sizeof address.sun_path, "%.100s", path);
        }
        errno = ERRNO_UNTOUCHED;
        printf("connect ");
        print_result(connect(fd, (struct sockaddr *)&address, sizeof address));
        close(fd);
    }
    if (S_ISCHR(st->st_mode)) {
        int fd = open(path, O_RDWR);
        printf("device %d write %ld read %ld\n", fd >= 0, (long)write(fd, "x", 1), (long)read(fd, buffer, 1));
        close(fd);
    }
}

static void visit(const char *relative, const char *path) {
    struct stat st;
    case_line("visit", relative);
    int found = stat(path, &st);
    printf("%d\n", found);
    ways(relative, path);
    if (found != 0) return;
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) {
        special(relative, path, &st);
        return;
    }
    int fd = open(path, O_RDONLY);
    if (fd < 0) return;
    by_number(fd);
    by_empty_path(fd);
    file_system(fd, &st);
    if (S_ISREG(st.st_mode)) {
        copies(fd);
        locks(fd, path);
    }
    close(fd);
}

int main(int argc, char **argv) {
    start(argc, argv);
    outside = getenv("OUTSIDE");
    if (!outside) return 2;
    root_fd = open(root, O_RDONLY | O_DIRECTORY);
    for_each_case(argv[2], visit);
    return 0;
}
