/* Access checks, links and canonical paths. */
#include "common.h"

extern ssize_t __readlink_chk(const char *, char *, size_t, size_t);
extern ssize_t __readlinkat_chk(int, const char *, char *, size_t, size_t);
extern char *__realpath_chk(const char *, char *, size_t);
extern int euidaccess(const char *, int);
extern int eaccess(const char *, int);

static int root_fd;

static void checks(const char *relative, const char *path) {
    static const struct {
        const char *name;
        int mode;
    } modes[] = {{"F", F_OK}, {"R", R_OK}, {"W", W_OK}, {"X", X_OK}, {"RX", R_OK | X_OK}, {"bad", 8}};
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        int mode = modes[i].mode;
        printf("%s ", modes[i].name);
        case_line("access", relative);
        print_result(access(path, mode));
        printf("%s ", modes[i].name);
        case_line("euidaccess", relative);
        print_result(euidaccess(path, mode));
        printf("%s ", modes[i].name);
        case_line("eaccess", relative);
        print_result(eaccess(path, mode));
        printf("%s ", modes[i].name);
        case_line("faccessat", relative);
        print_result(faccessat(root_fd, relative, mode, 0));
        printf("%s ", modes[i].name);
        case_line("faccessat EACCESS", relative);
        print_result(faccessat(root_fd, relative, mode, AT_EACCESS));
        printf("%s ", modes[i].name);
        case_line("faccessat NOFOLLOW", relative);
        print_result(faccessat(root_fd, relative, mode, AT_SYMLINK_NOFOLLOW));
        printf("%s ", modes[i].name);
        case_line("syscall access", relative);
        print_result(syscall(SYS_access, path, mode));
        printf("%s ", modes[i].name);
        case_line("syscall faccessat", relative);
        print_result(syscall(SYS_faccessat, root_fd, relative, mode));
        printf("%s ", modes[i].name);
        case_line("syscall faccessat2", relative);
        print_result(syscall(SYS_faccessat2, root_fd, relative, mode, AT_EACCESS));
    }
}

static void print_link(ssize_t length, const char *target, size_t capacity) {
    int error = errno;
    printf("%ld %s ", (long)length, errno_name(error));
    if (length >= 0) print_bytes(target, length);
    printf("%s\n", length >= 0 && (size_t)length < capacity && target[length] != '#' ? " overrun" : "");
}

static void links(const char *relative, const char *path) {
    static const size_t capacities[] = {PATH_MAX, 1, 3, 0};
    char target[PATH_MAX + 1];
    for (size_t i = 0; i < sizeof capacities / sizeof *capacities; i++) {
        size_t capacity = capacities[i];
        printf("%zu ", capacity);
        memset(target, '#', sizeof target);
        case_line("readlink", relative);
        print_link(readlink(path, target, capacity), target, capacity);
        printf("%zu ", capacity);
        memset(target, '#', sizeof target);
        case_line("readlinkat", relative);
        print_link(readlinkat(root_fd, relative, target, capacity), target, capacity);
    }
    memset(target, '#', sizeof target);
    case_line("__readlink_chk", relative);
    print_link(__readlink_chk(path, target, PATH_MAX, sizeof target), target, PATH_MAX);
    memset(target, '#', sizeof target);
    case_line("__readlinkat_chk", relative);
    print_link(__readlinkat_chk(root_fd, relative, target, PATH_MAX, sizeof target), target, PATH_MAX);
    memset(target, '#', sizeof target);
    case_line("syscall readlink", relative);
    print_link(syscall(SYS_readlink, path, target, PATH_MAX), target, PATH_MAX);
    memset(target, '#', sizeof target);
    case_line("syscall readlinkat", relative);
    print_link(syscall(SYS_readlinkat, root_fd, relative, target, PATH_MAX), target, PATH_MAX);
    int fd = open(path, O_PATH | O_NOFOLLOW);
    if (fd >= 0) {
        memset(target, '#', sizeof target);
        case_line("readlinkat empty", relative);
        print_link(readlinkat(fd, "", target, PATH_MAX), target, PATH_MAX);
        close(fd);
    }
}

static void print_canonical(const char *canonical) {
    int error = errno;
    if (canonical) print_path(canonical);
    else printf("NULL %s", errno_name(error));
    printf("\n");
}

static void canonical_paths(const char *relative, const char *path) {
    char buffer[PATH_MAX];
    case_line("realpath", relative);
    char *canonical = realpath(path, NULL);
    print_canonical(canonical);
    free(canonical);
    case_line("realpath buffer", relative);
    print_canonical(realpath(path, buffer));
    case_line("__realpath_chk", relative);
    print_canonical(__realpath_chk(path, buffer, sizeof buffer));
    case_line("canonicalize_file_name", relative);
    canonical = canonicalize_file_name(path);
    print_canonical(canonical);
    free(canonical);
}

static void visit(const char *relative, const char *path) {
    checks(relative, path);
    links(relative, path);
    canonical_paths(relative, path);
}

int main(int argc, char **argv) {
    start(argc, argv);
    root_fd = open(root, O_RDONLY | O_DIRECTORY);
    for_each_case(argv[2], visit);
    return 0;
}
