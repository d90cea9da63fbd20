/* Does the operations that a file names, one after the other, below ROOT, and prints what each
 * says. Nothing is printed that differs between two equal trees: no inodes, no times. */
#include "common.h"

static char path[2 * PATH_MAX], other[2 * PATH_MAX];
static int root_fd;

static void print_kind(const struct stat *st) {
    printf(" mode=%o nlink=%lu", st->st_mode, S_ISDIR(st->st_mode) ? 0ul : (unsigned long)st->st_nlink);
    if (!S_ISDIR(st->st_mode)) printf(" size=%ld", (long)st->st_size);
}

static void print_stream(FILE *file) {
    char buffer[5000];
    uint64_t hash = HASH_START;
    size_t total = 0, got;
    while ((got = fread(buffer, 1, sizeof buffer, file)) > 0) {
        hash = hash_bytes(buffer, got, hash);
        total += got;
    }
    printf(" bytes=%zu hash=%lx", total, (unsigned long)hash);
}

static int do_open(int flags, const char *relative, int number) {
    int fd = number % 2 ? openat(root_fd, relative, flags | O_NONBLOCK, 0644) : open(path, flags | O_NONBLOCK, 0644);
    struct stat st;
    if (fd >= 0 && fstat(fd, &st) == 0) print_kind(&st);
    return fd;
}

static void list(const char *relative, int number) {
    struct dirent **names;
    int count = number % 2 ? scandirat(root_fd, relative, &names, NULL, alphasort) : scandir(path, &names, NULL, alphasort);
    if (count < 0) return;
    errno = ERRNO_UNTOUCHED;
    for (int i = 0; i < count; i++) {
        printf(" ");
        print_path(names[i]->d_name);
        printf("/%d", names[i]->d_type);
        free(names[i]);
    }
    free(names);
}

static void write_at(int fd, int number) {
    if (fd < 0) return;
    char text[32];
    int length = snprintf(text, sizeof text, "written %d", number);
    if (pwrite(fd, text, length, number % 5000) != length) printf(" short");
    close(fd);
    errno = ERRNO_UNTOUCHED;
}

static void asking(char what, const char *relative, int number) {
    struct stat st;
    char target[PATH_MAX];
    int fd;
    switch (what) {
    case 's':
        if (stat(path, &st) == 0) print_kind(&st);
        break;
    case 'l':
        if (fstatat(root_fd, relative, &st, AT_SYMLINK_NOFOLLOW) == 0) print_kind(&st);
        break;
    case 'r': {
        long length = number % 2 ? readlinkat(root_fd, relative, target, sizeof target) : readlink(path, target, sizeof target);
        if (length >= 0) {
            printf(" ");
            print_bytes(target, length);
        }
        break;
    }
    case 'R':
        /* glibc leaves some errno behind when it succeeds. */
        if (realpath(path, target)) {
            print_path(target);
            errno = ERRNO_UNTOUCHED;
        }
        break;
    case 'o':
    case 'O':
        fd = do_open(what == 'o' ? O_RDONLY : O_RDONLY | O_NOFOLLOW, relative, number);
        if (fd >= 0) {
            char buffer[20000];
            long got = read(fd, buffer, sizeof buffer);
            printf(" read=%ld hash=%lx", got, (unsigned long)hash_bytes(buffer, got > 0 ? got : 0, HASH_START));
            close(fd);
            errno = ERRNO_UNTOUCHED;
        }
        break;
    case 'd':
        list(relative, number);
        break;
    case 'a':
        printf(" %d", number % 2 ? access(path, number % 8) : faccessat(root_fd, relative, number % 8, 0));
        break;
    case 'c': {
        if (chdir(path) != 0) break;
        char here[PATH_MAX];
        printf(" ");
        print_path(getcwd(here, sizeof here) ? here : "?");
        printf(" %d %d", stat("..", &st), access("a", F_OK));
        if (chdir("/") != 0) printf(" no way back");
        errno = ERRNO_UNTOUCHED;
        break;
    }
    case 'p':
        printf(" %ld", pathconf(path, _PC_NAME_MAX));
        break;
    case 'x': {
        struct statx stx;
        if (statx(root_fd, relative, 0, STATX_MODE | STATX_SIZE, &stx) == 0) printf(" mode=%o", stx.stx_mode);
        break;
    }
    case 'f': {
        if (is_special(path)) break;
        errno = ERRNO_UNTOUCHED;
        FILE *file = fopen(path, "r");
        if (file) {
            print_stream(file);
            fclose(file);
            errno = ERRNO_UNTOUCHED;
        }
        break;
    }
    }
}

static void changing(char what, const char *relative, const char *to, int number) {
    switch (what) {
    case 'w':
        write_at(do_open(O_WRONLY | O_CREAT, relative, number), number);
        break;
    case 'W':
        write_at(do_open(O_WRONLY | O_APPEND, relative, number), number);
        break;
    case 'E':
        write_at(do_open(O_RDWR | O_CREAT | O_EXCL, relative, number), number);
        break;
    case 'e': {
        FILE *file = is_special(path) ? NULL : fopen(path, number % 2 ? "w" : "a+");
        if (file) {
            fprintf(file, "stream %d", number);
            fclose(file);
        }
        break;
    }
    case 't':
        printf(" %d", truncate(path, number));
        break;
    case 'm':
        printf(" %d", chmod(path, number % 3 ? 0644 : 0600));
        break;
    case 'k':
        printf(" %d", number % 2 ? mkdirat(root_fd, relative, 0755) : mkdir(path, 0755));
        break;
    case 'u':
        printf(" %d", number % 2 ? unlinkat(root_fd, relative, 0) : unlink(path));
        break;
    case 'n':
        printf(" %d", number % 2 ? renameat(root_fd, relative, root_fd, to) : rename(path, other));
        break;
    case 'h':
        printf(" %d", number % 2 ? linkat(root_fd, relative, root_fd, to, 0) : link(path, other));
        break;
    case 'y':
        printf(" %d", number % 2 ? symlinkat(to, root_fd, relative) : symlink(to, path));
        break;
    case 'S':
        printf(" %d", rmdir(path));
        break;
    case 'C':
        printf(" %d", remove(path));
        break;
    }
}

static const char *next(const char **at) {
    const char *field = *at;
    *at += strlen(field) + 1;
    return field;
}

int main(int argc, char **argv) {
    start(argc, argv);
    umask(022);
    root_fd = open(root, O_RDONLY | O_DIRECTORY);
    size_t length;
    char *text = read_manifest(argv[2], &length);
    for (const char *at = text; at < text + length;) {
        char what = *next(&at);
        const char *relative = next(&at), *to = next(&at);
        int number = atoi(next(&at));
        snprintf(path, sizeof path, "%s/%s", root, relative);
        snprintf(other, sizeof other, "%s/%s", root, to);
        printf("%c %d ", what, number);
        print_path(relative);
        printf(" ");
        print_path(to);
        printf(":");
        errno = ERRNO_UNTOUCHED;
        if (strchr("slrRoOdacpxf", what)) asking(what, relative, number);
        else changing(what, relative, to, number);
        printf(" %s\n", errno_name(errno));
    }
    return 0;
}
