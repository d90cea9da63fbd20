/* The names of one function that programs are seldom linked to: older programs, other libraries and
 * those that ask dlsym use them, so each is called by its name. They must answer as the others do. */
#include "common.h"
#include <dlfcn.h>
#include <fts.h>
#include <ftw.h>
#include <glob.h>
#include <mntent.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>

static int root_fd;
static int watcher;

/* The function of this name in the loader's order, as a pointer of the type of `like`. */
#define NAMED(name, like) ((__typeof__(&like))named(name))

static void *named(const char *name) {
    void *function = dlsym(RTLD_DEFAULT, name);
    if (!function) {
        fprintf(stderr, "%s is missing\n", name);
        exit(2);
    }
    return function;
}

/* The numbers of bytes and their sum, to know a descriptor's file by. */
static void print_and_close(int fd) {
    print_opened(fd);
    if (fd < 0) return;
    char buffer[4096];
    long got = read(fd, buffer, sizeof buffer);
    printf("  read %ld %lx\n", got, got > 0 ? (unsigned long)hash_bytes(buffer, got, HASH_START) : 0);
    struct stat st;
    /* Where a directory ends is the file system's own affair. */
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        printf("  lseek64 %ld\n", (long)NAMED("lseek64", lseek)(fd, 0, SEEK_END));
    close(fd);
}

static void opening(const char *relative, const char *path) {
    static const char *names[] = {"__open", "__open64"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        case_line(names[i], relative);
        print_and_close(NAMED(names[i], open)(path, O_RDONLY | O_NONBLOCK));
    }
    if (is_special(path)) return;
    case_line("_IO_fopen", relative);
    FILE *stream = NAMED("_IO_fopen", fopen)(path, "r");
    print_opened(stream ? 0 : -1);
    if (stream) fclose(stream);
    case_line("setmntent", relative);
    stream = setmntent(path, "r");
    print_opened(stream ? 0 : -1);
    if (stream) {
        struct mntent *entry = getmntent(stream);
        printf("  %s %d\n", entry ? entry->mnt_fsname : "none", fcntl(fileno(stream), F_GETFD));
        endmntent(stream);
    }
}

typedef int versioned(int, const char *, struct stat *);
typedef int versioned_at(int, int, const char *, struct stat *, int);
typedef int versioned_descriptor(int, int, struct stat *);

static void attributes(const char *relative, const char *path) {
    struct stat st;
    static const char *names[] = {"__xstat64", "__lxstat64"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        case_line(names[i], relative);
        int result = ((versioned *)named(names[i]))(1, path, &st);
        print_stat_result(result, &st);
    }
    case_line("__fxstatat64", relative);
    int result = ((versioned_at *)named("__fxstatat64"))(1, root_fd, relative, &st, AT_SYMLINK_NOFOLLOW);
    print_stat_result(result, &st);
    case_line("fstatat64", relative);
    result = NAMED("fstatat64", fstatat)(root_fd, relative, &st, 0);
    print_stat_result(result, &st);
    case_line("ftok", relative);
    print_result(ftok(path, 'c'));
    int fd = open(path, O_RDONLY | O_NONBLOCK);
    if (fd < 0) return;
    case_line("__fxstat64", relative);
    result = ((versioned_descriptor *)named("__fxstat64"))(1, fd, &st);
    print_stat_result(result, &st);
    close(fd);
}

/* Free space changes by itself; the flags tell the view from the origin. */
static void print_system(int result, const struct statfs *fs) {
    printf("%d type=%lx namelen=%ld blocks=%lu\n", result, result ? 0 : (long)fs->f_type, result ? 0 : (long)fs->f_namelen,
           result ? 0 : (unsigned long)fs->f_blocks);
}

static void file_systems(const char *relative, const char *path) {
    struct statfs fs;
    struct statvfs vfs;
    case_line("__statfs", relative);
    print_system(NAMED("__statfs", statfs)(path, &fs), &fs);
    int fd = open(path, O_RDONLY | O_NONBLOCK);
    if (fd < 0) return;
    case_line("fstatfs64", relative);
    print_system(NAMED("fstatfs64", fstatfs)(fd, &fs), &fs);
    case_line("fstatvfs64", relative);
    int result = NAMED("fstatvfs64", fstatvfs)(fd, &vfs);
    printf("%d namemax=%lu\n", result, result ? 0 : vfs.f_namemax);
    close(fd);
}

static void watches(const char *relative, const char *path) {
    case_line("inotify_add_watch", relative);
    int watch = inotify_add_watch(watcher, path, IN_MODIFY | IN_DONT_FOLLOW);
    print_opened(watch);
    if (watch >= 0) inotify_rm_watch(watcher, watch);
    union {
        struct file_handle handle;
        char room[sizeof(struct file_handle) + MAX_HANDLE_SZ];
    } to = {.handle.handle_bytes = MAX_HANDLE_SZ};
    int mount;
    case_line("name_to_handle_at", relative);
    int result = name_to_handle_at(root_fd, relative, &to.handle, &mount, 0);
    print_result(result);
    if (result == 0) printf("  %lx\n", (unsigned long)hash_bytes(to.handle.f_handle, to.handle.handle_bytes, HASH_START));
}

static void listings(const char *relative, const char *path) {
    struct dirent **names;
    case_line("scandirat64", relative);
    int count = NAMED("scandirat64", scandirat)(root_fd, relative, &names, NULL, NULL);
    printf("%d\n", count);
    for (int i = 0; i < count; i++) {
        if (i < 20) printf("  %lu %d\n", (unsigned long)names[i]->d_ino, names[i]->d_type);
        free(names[i]);
    }
    if (count >= 0) free(names);
    DIR *directory = opendir(path);
    if (!directory) return;
    union {
        struct dirent entry;
        char space[sizeof(struct dirent) + 256];
    } place;
    struct dirent *result;
    typedef int reentrant(DIR *, struct dirent *, struct dirent **);
    reentrant *next = (reentrant *)named("readdir64_r");
    for (count = 0; next(directory, &place.entry, &result) == 0 && result; count++) {}
    printf("  readdir64_r %d\n", count);
    closedir(directory);
    static const char *readers[] = {"getdirentries", "getdirentries64"};
    for (size_t i = 0; i < sizeof readers / sizeof *readers; i++) {
        typedef ssize_t entries(int, char *, size_t, off_t *);
        char buffer[4096];
        off_t base = 0;
        long got, bytes = 0;
        int fd = open(path, O_RDONLY | O_DIRECTORY);
        while ((got = ((entries *)named(readers[i]))(fd, buffer, sizeof buffer, &base)) > 0) bytes += got;
        printf("  %s %ld %ld\n", readers[i], bytes, got);
        close(fd);
    }
}

static void visit(const char *relative, const char *path) {
    opening(relative, path);
    attributes(relative, path);
    file_systems(relative, path);
    watches(relative, path);
    listings(relative, path);
}

/* A path of a walk without the root, if it began there. */
static const char *below_root(const char *path) {
    size_t length = strlen(root);
    return strncmp(path, root, length) == 0 ? path + length : path;
}

static int walked(const char *path, const struct stat *st, int kind, struct FTW *where) {
    printf("  %s kind=%d base=%d level=%d", below_root(path), kind, where->base - (int)(below_root(path) - path), where->level);
    if (kind == FTW_NS) printf("\n");
    else printf(" ino=%lu size=%ld\n", (unsigned long)st->st_ino, (long)st->st_size);
    return 0;
}

static int walked_old(const char *path, const struct stat *st, int kind) {
    (void)st;
    printf("  %s kind=%d\n", below_root(path), kind);
    return 0;
}

static int until_beta(const char *path, const struct stat *st, int kind, struct FTW *where) {
    walked(path, st, kind, where);
    return strstr(path, "beta") ? 77 : 0;
}

static int without_alpha(const char *path, const struct stat *st, int kind, struct FTW *where) {
    walked(path, st, kind, where);
    if (!strcmp(path + where->base, "alpha")) return FTW_SKIP_SUBTREE;
    return !strcmp(path + where->base, "deep") ? FTW_SKIP_SIBLINGS : FTW_CONTINUE;
}

static void one_walk(const char *place, const char *spelling) {
    static const int flags[] = {0, FTW_PHYS, FTW_DEPTH, FTW_PHYS | FTW_MOUNT, FTW_PHYS | FTW_CHDIR, FTW_CHDIR | FTW_DEPTH};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        printf("nftw %s %d\n", spelling, flags[i]);
        errno = ERRNO_UNTOUCHED;
        print_result(nftw(place, walked, 1, flags[i]));
        print_result(NAMED("nftw64", nftw)(place, walked, 20, flags[i]));
    }
    printf("ftw %s\n", spelling);
    print_result(ftw(place, walked_old, 1));
    print_result(NAMED("ftw64", ftw)(place, walked_old, 20));
}

/* The walkers, below a part of the tree that is shallow enough for them. */
static void walks(void) {
    static const char *places[] = {"walk", "walk/", "walk//", "walk/link", "walk/dangling", "walk/beta/file", "walk/missing",
                                   "walk/beta/file/x", "links", "permissions", "empty", "special"};
    char place[PATH_MAX];
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        snprintf(place, sizeof place, "%s/%s", root, places[i]);
        one_walk(place, places[i]);
    }
    snprintf(place, sizeof place, "%s/walk", root);
    printf("stopped ");
    print_result(nftw(place, until_beta, 5, FTW_PHYS));
    printf("skipping ");
    print_result(nftw(place, without_alpha, 5, FTW_PHYS | FTW_ACTIONRETVAL));
    printf("wrong flags ");
    print_result(nftw(place, walked, 5, 1 << 20));
    printf("nowhere ");
    print_result(nftw("", walked, 5, 0));
    if (chdir(place) == 0) {
        nftw(".", walked, 5, FTW_PHYS);
        nftw("alpha", until_beta, 5, FTW_PHYS | FTW_DEPTH);
        nftw("gamma/deep/..", until_beta, 5, FTW_PHYS | FTW_CHDIR);
    }
    char *roots[] = {place, NULL};
    typedef FTS *opens(char *const *, int, int (*)(const FTSENT **, const FTSENT **));
    FTS *fts = ((opens *)named("fts64_open"))(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    typedef FTSENT *reads(FTS *);
    FTSENT *entry;
    int count = 0;
    while ((entry = ((reads *)named("fts64_read"))(fts))) {
        typedef FTSENT *lists(FTS *, int);
        for (FTSENT *child = ((lists *)named("fts64_children"))(fts, 0); child; child = child->fts_link) count += 100;
        count++;
    }
    printf("fts64 %d\n", count);
    ((int (*)(FTS *))named("fts64_close"))(fts);
    glob_t found = {0};
    printf("glob64 %d", NAMED("glob64", glob)("*/*", GLOB_MARK, NULL, &found));
    printf(" %zu\n", found.gl_pathc);
    for (size_t i = 0; i < found.gl_pathc; i++) printf("  %s\n", found.gl_pathv[i]);
    globfree(&found);
}

int main(int argc, char **argv) {
    start(argc, argv);
    root_fd = open(root, O_RDONLY | O_DIRECTORY);
    watcher = inotify_init1(IN_CLOEXEC);
    for_each_case(argv[2], visit);
    walks();
    return 0;
}
