/* Every call that changes something, each on a fresh corner of ROOT: what it says, and what is
 * there afterwards. ROOT must hold what `make_corner` in differential_writes.rs makes. */
#include "common.h"
#include <dlfcn.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <utime.h>

static int root_fd;
static char path[PATH_MAX], other[PATH_MAX];

static const char *at(const char *relative) {
    snprintf(path, sizeof path, "%s/%s", root, relative);
    return path;
}

static const char *other_at(const char *relative) {
    snprintf(other, sizeof other, "%s/%s", root, relative);
    return other;
}

/* What a reader sees of a path after the call, without what differs between two copies. */
static void look(const char *relative) {
    struct stat st;
    printf("    now ");
    print_path(relative);
    if (fstatat(root_fd, relative, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        printf(" %s\n", errno_name(errno));
        return;
    }
    printf(" mode=%o nlink=%lu uid=%u gid=%u size=%ld", st.st_mode, (unsigned long)st.st_nlink, st.st_uid,
           st.st_gid, S_ISDIR(st.st_mode) ? 0L : (long)st.st_size);
    if (st.st_mtime < 2000000) printf(" mtime=%ld.%09ld", (long)st.st_mtime, st.st_mtim.tv_nsec);
    if (S_ISREG(st.st_mode)) {
        char text[64] = "";
        int fd = open(at(relative), O_RDONLY);
        long got = fd < 0 ? -1 : read(fd, text, sizeof text);
        if (fd >= 0) close(fd);
        printf(" text=");
        print_bytes(text, got > 0 ? got : 0);
    }
    if (S_ISLNK(st.st_mode)) {
        char target[PATH_MAX];
        long got = readlink(at(relative), target, sizeof target);
        printf(" target=");
        print_bytes(target, got > 0 ? got : 0);
    }
    printf("\n");
}

/* The names in a directory, sorted: two copies need not list alike. */
static void look_in(const char *relative) {
    struct dirent **names;
    int count = scandir(at(relative), &names, NULL, alphasort);
    printf("    in ");
    print_path(relative);
    printf(":");
    for (int i = 0; i < count; i++) {
        if (names[i]->d_name[0] != '.') {
            printf(" ");
            print_path(names[i]->d_name);
        }
        free(names[i]);
    }
    if (count >= 0) free(names);
    else printf(" %s", errno_name(errno));
    printf("\n");
}

#define TRY(call, ...)                                                                             \
    do {                                                                                           \
        errno = ERRNO_UNTOUCHED;                                                                   \
        long result_ = (call);                                                                     \
        int error_ = errno;                                                                        \
        printf("%s = %ld %s\n", #call, result_ > 0 ? 1 : result_, errno_name(error_));             \
        const char *looks_[] = {__VA_ARGS__ __VA_OPT__(, ) NULL};                                  \
        for (const char **look_ = looks_; *look_; look_++) look(*look_);                           \
    } while (0)

static long write_text(int fd, const char *text) {
    if (fd < 0) return -1;
    long result = write(fd, text, strlen(text));
    int error = errno;
    close(fd);
    errno = error;
    return result;
}

static long print_text(FILE *file, const char *text) {
    if (!file) return -1;
    int result = fputs(text, file);
    return fclose(file) || result < 0 ? -1 : 0;
}

static void creating(void) {
    TRY(write_text(open(at("new/open"), O_WRONLY | O_CREAT | O_EXCL, 0640), "one"), "new/open");
    TRY(write_text(open(at("new/open"), O_WRONLY | O_CREAT | O_EXCL, 0640), "one"), "new/open");
    TRY(write_text(open(at("new/open"), O_WRONLY | O_APPEND), " more"), "new/open");
    TRY(write_text(open(at("new/open"), O_WRONLY | O_TRUNC), "short"), "new/open");
    TRY(write_text(open(at("file/append"), O_WRONLY | O_APPEND), " appended"), "file/append");
    TRY(write_text(open(at("file/over"), O_RDWR), "OVER"), "file/over");
    TRY(write_text(open(at("file/truncate"), O_RDONLY | O_TRUNC), ""), "file/truncate");
    TRY(write_text(openat(root_fd, "new/openat", O_WRONLY | O_CREAT, 0600), "at"), "new/openat");
    TRY(write_text(creat(at("new/creat"), 0644), "creat"), "new/creat");
    TRY(write_text(syscall(SYS_open, at("new/syscall"), O_WRONLY | O_CREAT, 0600), "sys"), "new/syscall");
    TRY(write_text(syscall(SYS_creat, at("new/syscreat"), 0600), "sys"), "new/syscreat");
    TRY(write_text(open(at("file/missing/x"), O_WRONLY | O_CREAT, 0600), ""), "file/missing");
    TRY(write_text(open(at("file/over/x"), O_WRONLY | O_CREAT, 0600), ""));
    TRY(write_text(open(at("links/dangling"), O_WRONLY | O_CREAT, 0600), "made through a link"), "links/target");
    TRY(write_text(open(at("links/dangling2"), O_WRONLY | O_CREAT | O_EXCL, 0600), ""), "links/dangling2");
    TRY(write_text(open(at("links/dangling2"), O_WRONLY | O_CREAT | O_NOFOLLOW, 0600), ""));
    TRY(write_text(open(at("dir"), O_WRONLY), ""), "dir");
    TRY(write_text(open(at("dir"), O_WRONLY | O_CREAT, 0600), ""));
    TRY(write_text(open(at("dir/"), O_RDONLY | O_CREAT, 0600), ""));
    TRY(write_text(open(at("new/slash/"), O_WRONLY | O_CREAT, 0600), ""), "new/slash");
    TRY(write_text(open(at("dir"), O_TMPFILE | O_WRONLY, 0600), "temporary"));
    TRY(print_text(fopen(at("new/fopen"), "w"), "stream"), "new/fopen");
    TRY(print_text(fopen(at("new/fopen"), "a"), " more"), "new/fopen");
    TRY(print_text(fopen(at("new/fopen"), "r+"), "STR"), "new/fopen");
    TRY(print_text(fopen(at("new/fopen"), "wx"), "no"), "new/fopen");
    TRY(print_text(fopen64(at("new/fopen64"), "a+"), "64"), "new/fopen64");
    TRY(print_text(fopen(at("file/append"), "a"), " by stream"), "file/append");
    TRY(print_text(freopen(at("new/freopen"), "w", fopen("/dev/null", "r")), "again"), "new/freopen");
    look_in("new");
}

static void names(void) {
    TRY(mkdir(at("new/dir"), 0750), "new/dir");
    TRY(mkdir(at("new/dir"), 0750));
    TRY(mkdir(at("new/missing/dir"), 0750));
    TRY(mkdir(at("file/over/dir"), 0750));
    TRY(mkdir(at("new/slash-dir/"), 0750), "new/slash-dir");
    TRY(mkdirat(root_fd, "new/dir/at", 0700), "new/dir/at");
    TRY(rmdir(at("new/dir")), "new/dir");
    TRY(rmdir(at("new/dir/at")), "new/dir/at");
    TRY(rmdir(at("remove/empty")), "remove/empty");
    TRY(rmdir(at("remove/full")), "remove/full");
    TRY(rmdir(at("remove/file")), "remove/file");
    TRY(rmdir(at("remove/missing")));
    TRY(rmdir(at("dir/.")));
    TRY(unlink(at("remove/file")), "remove/file");
    TRY(unlink(at("remove/file")));
    TRY(unlink(at("remove/full")), "remove/full");
    TRY(unlink(at("remove/link")), "remove/link", "remove/full/file");
    TRY(unlinkat(root_fd, "remove/file2", 0), "remove/file2");
    TRY(unlinkat(root_fd, "remove/empty2", AT_REMOVEDIR), "remove/empty2");
    TRY(remove(at("remove/file3")), "remove/file3");
    TRY(remove(at("remove/empty3")), "remove/empty3");
    TRY(syscall(SYS_unlink, at("remove/file4")), "remove/file4");
    look_in("remove");
    TRY(rename(at("move/a"), other_at("move/b")), "move/a", "move/b");
    TRY(rename(at("move/missing"), other_at("move/x")));
    TRY(rename(at("move/b"), other_at("move/over")), "move/b", "move/over");
    TRY(rename(at("move/dir"), other_at("move/dir2")), "move/dir", "move/dir2", "move/dir2/file");
    TRY(rename(at("move/dir2"), other_at("move/dir2/inside")), "move/dir2");
    TRY(rename(at("move/dir2"), other_at("move/over")), "move/over");
    TRY(renameat(root_fd, "move/c", root_fd, "new/c"), "move/c", "new/c");
    TRY(renameat2(root_fd, "move/d", root_fd, "move/e", RENAME_NOREPLACE), "move/d", "move/e");
    TRY(renameat2(root_fd, "move/d", root_fd, "move/e", RENAME_EXCHANGE), "move/d", "move/e");
    TRY(syscall(SYS_rename, at("move/d"), other_at("move/f")), "move/d", "move/f");
    look_in("move");
    TRY(link(at("file/over"), other_at("new/hard")), "new/hard", "file/over");
    TRY(link(at("file/over"), other_at("file/append")));
    TRY(link(at("dir"), other_at("new/hard-dir")));
    TRY(linkat(root_fd, "links/to-file", root_fd, "new/hard-link", 0), "new/hard-link");
    TRY(linkat(root_fd, "links/to-file", root_fd, "new/hard-file", AT_SYMLINK_FOLLOW), "new/hard-file");
    TRY(symlink("some target", at("new/soft")), "new/soft");
    TRY(symlink("some target", at("file/over")), "file/over");
    TRY(symlink("", at("new/empty-target")), "new/empty-target");
    TRY(symlinkat("../dir", root_fd, "new/soft-at"), "new/soft-at");
    TRY(mkfifo(at("new/fifo"), 0600), "new/fifo");
    TRY(mkfifoat(root_fd, "new/fifo-at", 0600), "new/fifo-at");
    TRY(mknod(at("new/node"), S_IFREG | 0600, 0), "new/node");
    TRY(mknodat(root_fd, "new/node-at", S_IFIFO | 0600, 0), "new/node-at");
    look_in("new");
}

static void attributes(void) {
    struct timespec times[2] = {{1000, 1}, {1000000, 123456789}};
    struct timeval old_times[2] = {{1000, 1}, {1000001, 5}};
    struct utimbuf oldest = {1000, 1000002};
    TRY(chmod(at("file/over"), 0600), "file/over");
    TRY(chmod(at("links/to-file"), 0604), "links/to-file", "file/over");
    TRY(chmod(at("file/missing"), 0600));
    TRY(fchmodat(root_fd, "file/over", 0640, 0), "file/over");
    TRY(fchmodat(root_fd, "links/to-file", 0640, AT_SYMLINK_NOFOLLOW));
    TRY(lchmod(at("file/over"), 0644), "file/over");
    TRY(chown(at("file/over"), getuid(), getgid()), "file/over");
    TRY(chown(at("file/over"), -1, -1), "file/over");
    TRY(lchown(at("links/to-file"), getuid(), -1), "links/to-file");
    TRY(fchownat(root_fd, "file/over", -1, getgid(), 0), "file/over");
    TRY(utime(at("file/over"), &oldest), "file/over");
    TRY(utimes(at("file/over"), old_times), "file/over");
    TRY(lutimes(at("links/to-file"), old_times), "links/to-file");
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    TRY(futimesat(root_fd, "file/append", old_times), "file/append");
#pragma GCC diagnostic pop
    TRY(utimensat(root_fd, "file/over", times, 0), "file/over");
    TRY(utimensat(root_fd, "links/to-file", times, AT_SYMLINK_NOFOLLOW), "links/to-file");
    TRY(truncate(at("file/long"), 3), "file/long");
    TRY(truncate64(at("file/long"), 8), "file/long");
    TRY(truncate(at("dir"), 3));
    TRY(truncate(at("file/missing"), 3));
    TRY(setxattr(at("file/over"), "user.new", "value", 5, 0), "file/over");
    TRY(getxattr(at("file/over"), "user.new", NULL, 0));
    TRY(setxattr(at("file/over"), "user.new", "value", 5, XATTR_CREATE));
    TRY(lsetxattr(at("file/over"), "user.other", "v", 1, 0));
    TRY(listxattr(at("file/over"), NULL, 0));
    TRY(removexattr(at("file/over"), "user.new"));
    TRY(lremovexattr(at("file/over"), "user.missing"));
    TRY(getxattr(at("file/over"), "user.new", NULL, 0));
}

/* The letters that replace XXXXXX are random; only the rest of the name can be compared. */
static void temporary_names(void) {
    TRY(write_text(mkstemp((char *)at("new/m-XXXXXX")), "temp"));
    TRY(write_text(mkostemp((char *)at("new/m-XXXXXX"), O_CLOEXEC), "temp"));
    TRY(write_text(mkstemps((char *)at("new/m-XXXXXX.c"), 2), "temp"));
    TRY(write_text(mkostemps((char *)at("new/m-XXXXXX.c"), 2, O_CLOEXEC), "temp"));
    TRY(write_text(mkstemp((char *)at("missing/m-XXXXXX")), "temp"));
    TRY(mkdtemp((char *)at("new/d-XXXXXX")) ? 0 : -1);
    TRY(mkdtemp((char *)at("missing/d-XXXXXX")) ? 0 : -1);
    int made = 0;
    DIR *directory = opendir(at("new"));
    for (struct dirent *entry; directory && (entry = readdir(directory));)
        made += strncmp(entry->d_name, "m-", 2) == 0 || strncmp(entry->d_name, "d-", 2) == 0;
    if (directory) closedir(directory);
    printf("temporary names made: %d\n", made);
}

/* Through the working directory and through descriptors, where no path says where one is. */
static void by_relative_paths(void) {
    IN_CHILD({
        if (chdir(at("relative")) == 0) {
            TRY(write_text(open("made", O_WRONLY | O_CREAT, 0600), "made"), "relative/made");
            TRY(mkdir("dir", 0700), "relative/dir");
            TRY(rename("made", "dir/moved"), "relative/made", "relative/dir/moved");
            TRY(unlink("old"), "relative/old");
            TRY(access(".", W_OK));
            TRY(write_text(open("../relative/up", O_WRONLY | O_CREAT, 0600), "up"), "relative/up");
            look_in("relative");
        }
    });
    int fd = open(at("relative"), O_RDONLY | O_DIRECTORY);
    TRY(write_text(openat(fd, "by-fd", O_WRONLY | O_CREAT, 0600), "fd"), "relative/by-fd");
    TRY(mkdirat(fd, "dir-by-fd", 0700), "relative/dir-by-fd");
    TRY(unlinkat(fd, "by-fd", 0), "relative/by-fd");
    TRY(fchmod(fd, 0711), "relative");
    if (fd >= 0) close(fd);
    int file = open(at("file/over"), O_RDONLY);
    TRY(fchmod(file, 0600), "file/over");
    TRY(write(file, "x", 1));
    TRY(ftruncate(file, 0));
    if (file >= 0) close(file);
    look_in("relative");
}

/* The names that programs are seldom linked to. */
static void by_other_names(void) {
    struct timespec times[2] = {{1000, 1}, {1000007, 5}};
    struct timeval old_times[2] = {{1000, 1}, {1000008, 5}};
    dev_t none = 0;
    typedef int versioned(int, const char *, mode_t, dev_t *);
    typedef int versioned_at(int, int, const char *, mode_t, dev_t *);
    versioned *make_node = (versioned *)dlsym(RTLD_DEFAULT, "__xmknod");
    versioned_at *make_node_at = (versioned_at *)dlsym(RTLD_DEFAULT, "__xmknodat");
    TRY(write_text(creat64(at("new/creat64"), 0640), "64"), "new/creat64");
    TRY(make_node(0, at("new/xmknod"), S_IFIFO | 0600, &none), "new/xmknod");
    TRY(make_node_at(0, root_fd, "new/xmknodat", S_IFIFO | 0600, &none), "new/xmknodat");
    TRY(write_text(mkstemp64((char *)at("new/m-XXXXXX")), "temp"));
    TRY(write_text(mkostemp64((char *)at("new/m-XXXXXX"), O_CLOEXEC), "temp"));
    TRY(write_text(mkstemps64((char *)at("new/m-XXXXXX.c"), 2), "temp"));
    TRY(write_text(mkostemps64((char *)at("new/m-XXXXXX.c"), 2, O_CLOEXEC), "temp"));
    int fd = open(at("file/long"), O_RDONLY);
    TRY(fchown(fd, getuid(), getgid()), "file/long");
    TRY(futimens(fd, times), "file/long");
    TRY(futimes(fd, old_times), "file/long");
    TRY(fsetxattr(fd, "user.by-fd", "v", 1, 0));
    TRY(fgetxattr(fd, "user.by-fd", NULL, 0));
    TRY(fremovexattr(fd, "user.by-fd"));
    TRY(getxattr(at("file/long"), "user.by-fd", NULL, 0));
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    TRY(write_text(open(name, O_WRONLY | O_TRUNC), "by its number"), "file/long");
    TRY(print_text(fopen(name, "a"), " and more"), "file/long");
    snprintf(name, sizeof name, "/dev/fd/%d", fd);
    TRY(write_text(open(name, O_WRONLY), "B"), "file/long");
    if (fd >= 0) close(fd);
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    root = argv[1];
    umask(022);
    root_fd = open(root, O_RDONLY | O_DIRECTORY);
    creating();
    names();
    attributes();
    temporary_names();
    by_relative_paths();
    by_other_names();
    return 0;
}
