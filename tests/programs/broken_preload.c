/* A preload library that is wrong in one way, named by $BROKEN: the differential tests must see
 * each. It stands for the mistakes that a shim can make. */
#include "common.h"
#include <dlfcn.h>
#include <sys/xattr.h>

static int broken(const char *way) {
    const char *asked = getenv("BROKEN");
    return asked && strcmp(asked, way) == 0;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int stat(const char *path, struct stat *st) {
    int result = NEXT(stat)(path, st);
    if (result == 0 && broken("size")) st->st_size += 1;
    if (result == 0 && broken("inode")) st->st_ino += 1;
    if (result == 0 && broken("mtime")) st->st_mtim.tv_nsec = 0;
    if (result == 0 && broken("errno touched")) errno = ENOENT;
    return result;
}

int open(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    int mode = va_arg(arguments, int);
    va_end(arguments);
    int result = NEXT(open)(path, flags, mode);
    if (result < 0 && errno == ENOTDIR && broken("errno")) errno = ENOENT;
    if (result < 0 && errno == EACCES && broken("permission")) errno = ENOENT;
    if (result >= 0 && broken("flags")) fcntl(result, F_SETFL, O_APPEND);
    return result;
}

ssize_t read(int fd, void *buffer, size_t size) {
    ssize_t got = NEXT(read)(fd, buffer, size);
    if (got == 4096 && broken("page")) memset(buffer, 0, 1);
    return got;
}

struct dirent *readdir(DIR *directory) {
    struct dirent *entry = NEXT(readdir)(directory);
    if (entry && broken("entry lost") && strcmp(entry->d_name, ".hidden") == 0)
        entry = NEXT(readdir)(directory);
    if (entry && broken("kind")) entry->d_type = DT_UNKNOWN;
    return entry;
}

ssize_t readlink(const char *path, char *target, size_t size) {
    ssize_t length = NEXT(readlink)(path, target, size);
    if (length > 1000 && broken("long link")) length = 1000;
    return length;
}

ssize_t getxattr(const char *path, const char *name, void *value, size_t size) {
    ssize_t length = NEXT(getxattr)(path, name, value, size);
    if (length >= 0 && broken("xattr")) {
        errno = ENODATA;
        return -1;
    }
    return length;
}

char *getcwd(char *buffer, size_t size) {
    char *here = NEXT(getcwd)(buffer, size);
    if (here && broken("cwd")) here[strlen(here) - 1] = '_';
    return here;
}
