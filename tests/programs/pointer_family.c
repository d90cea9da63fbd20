/* NULL and its neighbours as arguments, by which programs find out what a system supports: the
 * kernel answers EFAULT, and so must whoever stands before it. (Other bad pointers are beyond a
 * library's reach: glibc's own functions crash on them too.) And strings at the end of a page. */
#include "common.h"
#include <sys/mman.h>
#include <sys/statfs.h>
#include <sys/xattr.h>

#define TRY(call)                                                                                  \
    do {                                                                                           \
        fflush(stdout);                                                                            \
        pid_t child_ = fork();                                                                     \
        if (child_ == 0) {                                                                         \
            errno = ERRNO_UNTOUCHED;                                                               \
            long result_ = (long)(call);                                                           \
            printf("%s = %ld %s\n", #call, result_ > 2 ? 3 : result_, errno_name(errno));          \
            fflush(stdout);                                                                        \
            _exit(0);                                                                              \
        }                                                                                          \
        int status_ = 0;                                                                           \
        waitpid(child_, &status_, 0);                                                              \
        if (status_) printf("%s ended by status %x\n", #call, status_);                            \
    } while (0)

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    root = argv[1];
    char file[PATH_MAX];
    snprintf(file, sizeof file, "%s/sizes/1", root);
    struct stat st;
    struct statfs fs;
    char buffer[PATH_MAX];
    int directory = open(root, O_RDONLY | O_DIRECTORY);
    /* A string that ends just before a page that is not there. */
    char *fits = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(fits + 4096, 4096);
    fits += 4096 - strlen(file) - 1;
    strcpy(fits, file);
    char *volatile null = NULL;
    char *volatile low = (char *)1;
    struct stat *volatile no_stat = NULL;
    char *bad[] = {null, low};
    for (int i = 0; i < 2; i++) {
        char *path = bad[i];
        printf("-- %d\n", i);
        TRY(syscall(SYS_open, path, O_RDONLY));
        TRY(open(path, O_RDONLY));
        TRY(openat(directory, path, O_RDONLY));
        TRY(stat(path, &st));
        TRY(lstat(path, &st));
        TRY(fstatat(directory, path, &st, 0));
        TRY(fstatat(directory, path, &st, AT_EMPTY_PATH));
        TRY(access(path, R_OK));
        TRY(faccessat(directory, path, R_OK, 0));
        TRY(readlink(path, buffer, sizeof buffer));
        TRY(chdir(path));
        TRY(statfs(path, &fs));
        TRY(getxattr(path, "user.one", buffer, 10));
        TRY(mkdir(path, 0700));
        TRY(unlink(path));
        TRY(rename(path, file));
        TRY(rename(file, path));
        TRY(truncate(path, 0));
    }
    printf("-- results\n");
    TRY(stat(file, no_stat));
    TRY(lstat(file, no_stat));
    TRY(syscall(SYS_newfstatat, directory, "sizes/1", NULL, 0));
    TRY(syscall(SYS_statx, AT_FDCWD, file, 0, STATX_ALL, NULL));
    TRY(readlink(file, null, 10));
    TRY(getxattr(file, null, buffer, 10));
    TRY(statfs(file, (struct statfs *)(void *)null));
    TRY(realpath(null, buffer) != NULL);
    TRY(realpath("", buffer) != NULL);
    TRY(stat(fits, &st));
    TRY(open(fits, O_RDONLY) >= 0);
    TRY(access(fits, R_OK));
    printf("-- directories\n");
    TRY(fstatat(-1, "x", &st, 0));
    TRY(fstatat(9999, "x", &st, 0));
    TRY(fstatat(9999, file, &st, 0));
    TRY(openat(9999, "x", O_RDONLY));
    TRY(openat(9999, file, O_RDONLY) >= 0);
    TRY(fstat(-1, &st));
    TRY(fstat(9999, &st));
    TRY(fchdir(9999));
    TRY(fdopendir(9999) != NULL);
    TRY(fdopendir(open(file, O_RDONLY)) != NULL);
    return 0;
}
