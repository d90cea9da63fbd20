/* Every way to open a file for reading, and what can be done with the descriptor. */
#include "common.h"
#include <linux/openat2.h>
#include <sys/mman.h>

extern int __open_2(const char *, int);
extern int __open64_2(const char *, int);
extern int __openat_2(int, const char *, int);
extern int __openat64_2(int, const char *, int);

static int root_fd;

/* The whole contents by read(2), with where it ends. */
static void print_contents(int fd) {
    char buffer[10000];
    uint64_t hash = HASH_START;
    long total = 0, got;
    while ((got = read(fd, buffer, sizeof buffer)) > 0) {
        hash = hash_bytes(buffer, got, hash);
        total += got;
    }
    if (got < 0) printf("read %s\n", errno_name(errno));
    else printf("bytes=%ld hash=%016lx\n", total, (unsigned long)hash);
}

/* Contents by position, by mapping and by another process. */
static void print_positions(int fd) {
    char buffer[16];
    static const long offsets[] = {0, 1, 4094, 4095, 4096, 4097, 65536, 1 << 20};
    for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
        long got = pread(fd, buffer, sizeof buffer, offsets[i]);
        printf("  pread %ld = %ld %lx\n", offsets[i], got,
               got > 0 ? (unsigned long)hash_bytes(buffer, got, HASH_START) : 0);
    }
    printf("  lseek end = %ld\n", (long)lseek(fd, 0, SEEK_END));
    printf("  lseek past = %ld\n", (long)lseek(fd, 10, SEEK_END));
    printf("  lseek set = %ld\n", (long)lseek(fd, 3, SEEK_SET));
    printf("  lseek cur = %ld\n", (long)lseek(fd, 2, SEEK_CUR));
    struct stat st;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0) {
        static const int kinds[] = {MAP_PRIVATE, MAP_SHARED};
        for (int i = 0; i < 2; i++) {
            void *map = mmap(NULL, st.st_size, PROT_READ, kinds[i], fd, 0);
            if (map == MAP_FAILED) {
                printf("  mmap %d %s\n", i, errno_name(errno));
                continue;
            }
            printf("  mmap %d %016lx\n", i, (unsigned long)hash_bytes(map, st.st_size, HASH_START));
            munmap(map, st.st_size);
        }
    }
    int copy = dup(fd);
    printf("  dup at %ld\n", (long)lseek(copy, 0, SEEK_CUR));
    lseek(copy, 0, SEEK_SET);
    IN_CHILD(printf("  in child "); print_contents(fd));
    printf("  after child at %ld\n", (long)lseek(fd, 0, SEEK_CUR));
    close(copy);
}

/* Where the holes lie; file systems may report fewer holes than there are, but not other data. */
static void print_holes(int fd) {
    printf("  data at %ld", (long)lseek(fd, 0, SEEK_DATA));
    printf(" hole at %ld\n", (long)lseek(fd, 0, SEEK_HOLE));
}

static void open_flags(const char *relative, const char *path) {
    static const struct {
        const char *name;
        int flags;
    } ways[] = {
        {"O_RDONLY", O_RDONLY},
        {"O_CLOEXEC", O_RDONLY | O_CLOEXEC},
        {"O_NOFOLLOW", O_RDONLY | O_NOFOLLOW},
        {"O_DIRECTORY", O_RDONLY | O_DIRECTORY},
        {"O_DIRECTORY NOFOLLOW", O_RDONLY | O_DIRECTORY | O_NOFOLLOW},
        {"O_PATH", O_PATH},
        {"O_PATH DIRECTORY", O_PATH | O_DIRECTORY},
        {"O_NOCTTY", O_RDONLY | O_NOCTTY},
        {"O_WRONLY DIRECTORY", O_WRONLY | O_DIRECTORY},
        {"access mode 3", 3},
        {"O_EXCL", O_RDONLY | O_EXCL},
        {"O_APPEND", O_RDONLY | O_APPEND},
    };
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        printf("open ");
        case_line(ways[i].name, relative);
        int fd = open(path, ways[i].flags | O_NONBLOCK);
        print_opened(fd);
        printf("openat ");
        case_line(ways[i].name, relative);
        int at = openat(root_fd, relative, ways[i].flags | O_NONBLOCK);
        print_opened(at);
        if (fd >= 0) {
            int status = fcntl(fd, F_GETFL), flags = fcntl(fd, F_GETFD);
            printf("  F_GETFL %o F_GETFD %d\n", status, flags);
            close(fd);
        }
        if (at >= 0) close(at);
    }
}

/* Opened for writing without a change; the view is read-only. */
static void open_for_writing(const char *relative, const char *path) {
    if (is_special(path)) return;
    case_line("open O_WRONLY", relative);
    int fd = open(path, O_WRONLY | O_NONBLOCK);
    print_opened(fd);
    if (fd >= 0) close(fd);
    case_line("open O_RDWR", relative);
    fd = open(path, O_RDWR | O_NONBLOCK);
    print_opened(fd);
    if (fd >= 0) {
        print_contents(fd);
        close(fd);
    }
    case_line("open O_CREAT O_EXCL", relative);
    struct stat st;
    if (lstat(path, &st) == 0) {
        fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
        print_opened(fd);
    } else {
        printf("not tried\n");
    }
}

static void other_names(const char *relative, const char *path) {
    int flags = O_RDONLY | O_NONBLOCK;
    struct {
        const char *name;
        int fd;
    } ways[16];
    int count = 0;
#define TRY(call)                                                                                  \
    errno = ERRNO_UNTOUCHED;                                                                       \
    ways[count].fd = call;                                                                         \
    ways[count].name = #call;                                                                      \
    printf("%s ", ways[count].name);                                                               \
    print_bytes(relative, strlen(relative) > 100 ? 100 : strlen(relative));                        \
    printf(" ");                                                                                   \
    print_opened(ways[count].fd);                                                                  \
    count++
    TRY(open64(path, flags));
    TRY(__open_2(path, flags));
    TRY(__open64_2(path, flags));
    TRY(openat64(root_fd, relative, flags));
    TRY(__openat_2(root_fd, relative, flags));
    TRY(__openat64_2(root_fd, relative, flags));
    TRY(syscall(SYS_open, path, flags));
    TRY(syscall(SYS_openat, root_fd, relative, flags));
    struct open_how how = {.flags = flags};
    TRY(syscall(SYS_openat2, root_fd, relative, &how, sizeof how));
    how.resolve = RESOLVE_NO_SYMLINKS;
    TRY(syscall(SYS_openat2, root_fd, relative, &how, sizeof how));
    how.resolve = RESOLVE_BENEATH;
    TRY(syscall(SYS_openat2, root_fd, relative, &how, sizeof how));
    for (int i = 0; i < count; i++) {
        if (ways[i].fd < 0) continue;
        struct stat st;
        if (fstat(ways[i].fd, &st) == 0 && S_ISREG(st.st_mode)) print_contents(ways[i].fd);
        close(ways[i].fd);
    }
}

static void streams(const char *relative, const char *path) {
    static const char *modes[] = {"r", "rb", "re", "rm", "r,ccs=UTF-8", "rx", "r+", "z", ""};
    if (is_special(path)) return;
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        printf("fopen %s ", modes[i]);
        case_line("", relative);
        FILE *file = fopen(path, modes[i]);
        printf("%s", file ? "opened" : errno_name(errno));
        if (file) {
            char line[300] = "";
            if (strchr(modes[i], ',') == NULL) {
                size_t got = fread(line, 1, sizeof line, file);
                printf(" got %zu hash %lx error %d eof %d", got,
                       (unsigned long)hash_bytes(line, got, HASH_START), ferror(file), feof(file));
            }
            printf(" F_GETFL %o F_GETFD %d", fcntl(fileno(file), F_GETFL), fcntl(fileno(file), F_GETFD));
            fclose(file);
        }
        printf("\n");
    }
    FILE *file = fopen64("/dev/null", "r");
    case_line("freopen", relative);
    file = freopen(path, "r", file);
    printf("%s", file ? "opened" : errno_name(errno));
    if (file) {
        int first = fgetc(file), second = fgetc(file);
        printf(" %d %d", first, second);
        FILE *again = freopen64(NULL, "r", file);
        printf(" again %s", again ? "opened" : errno_name(errno));
        if (again) fclose(again);
    }
    printf("\n");
}

static void visit(const char *relative, const char *path) {
    open_flags(relative, path);
    open_for_writing(relative, path);
    other_names(relative, path);
    streams(relative, path);
    int fd = open(path, O_RDONLY | O_NONBLOCK);
    struct stat st;
    if (fd >= 0 && fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode))) {
        case_line("contents", relative);
        print_contents(fd);
        if (S_ISREG(st.st_mode)) {
            print_positions(fd);
            print_holes(fd);
        }
    }
    if (fd >= 0) close(fd);
}

int main(int argc, char **argv) {
    start(argc, argv);
    root_fd = open(root, O_RDONLY | O_DIRECTORY);
    for_each_case(argv[2], visit);
    return 0;
}
