/* Questions about the file system a path lies on, and extended attributes. */
#include "common.h"
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>

static int root_fd;

/* Free space changes by itself and is left out. The view is read-only, the origin is not, and the
 * flags say so: they are left out too where the caller asks for it. */
static int with_flags;

static void print_statfs(long result, const struct statfs *fs) {
    int error = errno;
    printf("%ld %s", result, errno_name(error));
    if (result == 0) {
        printf(" type=%lx bsize=%ld blocks=%lu files=%lu fsid=%x:%x namelen=%ld frsize=%ld", (long)fs->f_type,
               (long)fs->f_bsize, (unsigned long)fs->f_blocks, (unsigned long)fs->f_files,
               fs->f_fsid.__val[0], fs->f_fsid.__val[1], (long)fs->f_namelen, (long)fs->f_frsize);
        if (with_flags) printf(" flags=%lx", (long)fs->f_flags);
    }
    printf("\n");
}

static void print_statvfs(long result, const struct statvfs *fs) {
    int error = errno;
    printf("%ld %s", result, errno_name(error));
    if (result == 0) {
        printf(" bsize=%lu frsize=%lu blocks=%lu files=%lu fsid=%lx namemax=%lu", fs->f_bsize, fs->f_frsize,
               (unsigned long)fs->f_blocks, (unsigned long)fs->f_files, fs->f_fsid, fs->f_namemax);
        if (with_flags) printf(" flag=%lx", fs->f_flag);
    }
    printf("\n");
}

static void file_system(const char *relative, const char *path) {
    struct statfs fs;
    struct statvfs vfs;
    case_line("statfs", relative);
    print_statfs(statfs(path, &fs), &fs);
    case_line("statfs64", relative);
    print_statfs(statfs64(path, (struct statfs64 *)&fs), &fs);
    case_line("syscall statfs", relative);
    print_statfs(syscall(SYS_statfs, path, &fs), &fs);
    case_line("statvfs", relative);
    print_statvfs(statvfs(path, &vfs), &vfs);
    case_line("statvfs64", relative);
    print_statvfs(statvfs64(path, (struct statvfs64 *)&vfs), &vfs);
    static const int names[] = {_PC_NAME_MAX, _PC_PATH_MAX, _PC_LINK_MAX, _PC_PIPE_BUF, _PC_2_SYMLINKS,
                                _PC_CHOWN_RESTRICTED, _PC_NO_TRUNC, _PC_FILESIZEBITS, _PC_ALLOC_SIZE_MIN, 9999};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        printf("%d ", names[i]);
        case_line("pathconf", relative);
        print_result(pathconf(path, names[i]));
    }
    int fd = openat(root_fd, relative, O_RDONLY | O_NONBLOCK);
    if (fd < 0) return;
    case_line("fstatfs", relative);
    print_statfs(fstatfs(fd, &fs), &fs);
    case_line("fstatvfs", relative);
    print_statvfs(fstatvfs(fd, &vfs), &vfs);
    case_line("fpathconf", relative);
    print_result(fpathconf(fd, _PC_LINK_MAX));
    close(fd);
}

static void print_value(ssize_t length, const char *value, size_t capacity) {
    int error = errno;
    printf("%ld %s ", (long)length, errno_name(error));
    if (length > 0 && capacity) print_bytes(value, length);
    printf("\n");
}

static void attributes(const char *relative, const char *path) {
    static const char *names[] = {"user.one", "user.empty", "user.missing", "security.selinux", "nonsense",
                                  "system.posix_acl_access", ""};
    static const size_t capacities[] = {256, 0, 1};
    char value[256];
    int fd = openat(root_fd, relative, O_RDONLY | O_NONBLOCK);
    for (size_t j = 0; j < sizeof capacities / sizeof *capacities; j++) {
        size_t capacity = capacities[j];
        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
            printf("%zu %s ", capacity, names[i]);
            case_line("getxattr", relative);
            print_value(getxattr(path, names[i], value, capacity), value, capacity);
            printf("%zu %s ", capacity, names[i]);
            case_line("lgetxattr", relative);
            print_value(lgetxattr(path, names[i], value, capacity), value, capacity);
            if (fd < 0) continue;
            printf("%zu %s ", capacity, names[i]);
            case_line("fgetxattr", relative);
            print_value(fgetxattr(fd, names[i], value, capacity), value, capacity);
        }
        printf("%zu ", capacity);
        case_line("listxattr", relative);
        print_value(listxattr(path, value, capacity), value, capacity);
        printf("%zu ", capacity);
        case_line("llistxattr", relative);
        print_value(llistxattr(path, value, capacity), value, capacity);
        if (fd < 0) continue;
        printf("%zu ", capacity);
        case_line("flistxattr", relative);
        print_value(flistxattr(fd, value, capacity), value, capacity);
    }
    if (fd >= 0) close(fd);
}

static void visit(const char *relative, const char *path) {
    file_system(relative, path);
    attributes(relative, path);
}

int main(int argc, char **argv) {
    start(argc, argv);
    with_flags = getenv("WITHOUT_MOUNT_FLAGS") == NULL;
    root_fd = open(root, O_RDONLY | O_DIRECTORY);
    for_each_case(argv[2], visit);
    return 0;
}
