/* What a descriptor of a file in the tree is good for once it is open: everything that a plain
 * one is, in this process and in others. */
#include "common.h"
#include <poll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>

static void print_rest(const char *how, int fd) {
    char buffer[8192];
    uint64_t hash = HASH_START;
    long total = 0, got;
    while ((got = read(fd, buffer, sizeof buffer)) > 0) {
        hash = hash_bytes(buffer, got, hash);
        total += got;
    }
    printf("%s: %ld bytes %016lx %s\n", how, total, (unsigned long)hash, got < 0 ? errno_name(errno) : "");
}

static void duplicates(int fd) {
    lseek(fd, 10, SEEK_SET);
    int copies[] = {dup(fd), dup2(fd, 200), dup3(fd, 201, O_CLOEXEC), fcntl(fd, F_DUPFD, 300)};
    for (int i = 0; i < 4; i++) printf("copy %d at %ld\n", i, (long)lseek(copies[i], 0, SEEK_CUR));
    lseek(copies[0], 20, SEEK_SET);
    printf("original moved to %ld\n", (long)lseek(fd, 0, SEEK_CUR));
    for (int i = 0; i < 4; i++) close(copies[i]);
}

static void children(int fd) {
    lseek(fd, 0, SEEK_SET);
    IN_CHILD(print_rest("forked child", fd));
    lseek(fd, 0, SEEK_SET);
    IN_CHILD({
        dup2(fd, 0);
        execlp("cksum", "cksum", (char *)NULL);
    });
    int sockets[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) != 0) return;
    IN_CHILD({
        char byte;
        char space[CMSG_SPACE(sizeof(int))];
        struct iovec part = {&byte, 1};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
        lseek(fd, 1, SEEK_SET);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), &fd, sizeof fd);
        byte = 'x';
        sendmsg(sockets[0], &message, 0);
    });
    char byte;
    char space[CMSG_SPACE(sizeof(int))];
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    if (recvmsg(sockets[1], &message, 0) == 1 && CMSG_FIRSTHDR(&message)) {
        int passed;
        memcpy(&passed, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof passed);
        print_rest("passed descriptor", passed);
        close(passed);
    }
    close(sockets[0]);
    close(sockets[1]);
}

static void copies(int fd) {
    char place[] = "/tmp/copper-copy-XXXXXX";
    int to = mkstemp(place);
    off_t offset = 1;
    printf("sendfile %ld\n", (long)sendfile(to, fd, &offset, 5000));
    lseek(to, 0, SEEK_SET);
    print_rest("sent", to);
    printf("ftruncate %d\n", ftruncate(to, 0));
    lseek(to, 0, SEEK_SET);
    loff_t from = 0;
    /* Between file systems a kernel may refuse; then programs read and write. */
    long copied = copy_file_range(fd, &from, to, NULL, 4096, 0);
    printf("copy_file_range %s\n", copied < 0 && errno != EXDEV ? errno_name(errno) : "done or EXDEV");
    unlink(place);
    close(to);
    int pipes[2];
    if (pipe(pipes) == 0) {
        loff_t at = 0;
        printf("splice %ld\n", (long)splice(fd, &at, pipes[1], NULL, 4096, 0));
        close(pipes[1]);
        print_rest("spliced", pipes[0]);
        close(pipes[0]);
    }
}

static void vectors(int fd) {
    char one[100] = "", two[200] = "";
    struct iovec parts[] = {{one, sizeof one}, {two, sizeof two}};
    lseek(fd, 50, SEEK_SET);
    long got = readv(fd, parts, 2);
    printf("readv %ld %lx\n", got, (unsigned long)hash_bytes(two, sizeof two, hash_bytes(one, sizeof one, HASH_START)));
    got = preadv(fd, parts, 2, 4000);
    printf("preadv %ld %lx\n", got, (unsigned long)hash_bytes(one, sizeof one, HASH_START));
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    printf("poll %d %x\n", poll(&poll_fd, 1, 0), poll_fd.revents);
    printf("posix_fadvise %d\n", posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL));
    printf("readahead %ld\n", (long)readahead(fd, 0, 4096));
}

static void locks(int fd, const char *path) {
    int other = open(path, O_RDONLY);
    printf("shared lock %d\n", flock(fd, LOCK_SH | LOCK_NB));
    printf("second shared lock %d\n", flock(other, LOCK_SH | LOCK_NB));
    printf("exclusive lock beside it %s\n", flock(other, LOCK_EX | LOCK_NB) < 0 ? errno_name(errno) : "granted");
    flock(fd, LOCK_UN);
    printf("exclusive lock alone %s\n", flock(other, LOCK_EX | LOCK_NB) < 0 ? errno_name(errno) : "granted");
    printf("second exclusive lock %s\n", flock(fd, LOCK_EX | LOCK_NB) < 0 ? errno_name(errno) : "granted");
    close(other);
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    printf("record lock %s\n", fcntl(fd, F_SETLK, &lock) < 0 ? errno_name(errno) : "granted");
    lock.l_type = F_WRLCK;
    printf("record write lock %s\n", fcntl(fd, F_SETLK, &lock) < 0 ? errno_name(errno) : "granted");
}

/* A mapping outlives its descriptor, and is shared with children. */
static void mappings(int fd) {
    struct stat st;
    if (fstat(fd, &st) != 0 || st.st_size == 0) return;
    int kinds[] = {MAP_SHARED, MAP_PRIVATE};
    for (int i = 0; i < 2; i++) {
        char *map = mmap(NULL, st.st_size, PROT_READ, kinds[i], fd, 0);
        if (map == MAP_FAILED) {
            printf("mmap %d %s\n", i, errno_name(errno));
            continue;
        }
        printf("mmap %d %lx\n", i, (unsigned long)hash_bytes(map, st.st_size, HASH_START));
        IN_CHILD(printf("mmap in child %lx\n", (unsigned long)hash_bytes(map, st.st_size, HASH_START)));
        munmap(map, st.st_size);
    }
    char *copy = mmap(NULL, st.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    if (copy != MAP_FAILED) {
        copy[0] ^= 1;
        char byte;
        printf("private write leaves the file alone %d\n", pread(fd, &byte, 1, 0) == 1 && byte != copy[0]);
        munmap(copy, st.st_size);
    }
    void *writable = mmap(NULL, st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    printf("shared writable mapping %s\n", writable == MAP_FAILED ? errno_name(errno) : "granted");
    printf("write %s\n", write(fd, "x", 1) < 0 ? errno_name(errno) : "granted");
}

/* Programs that close what they do not know must not lose their files. */
static void closing(const char *path) {
    IN_CHILD({
        closefrom(3);
        int fd = open(path, O_RDONLY);
        printf("first free descriptor %d\n", fd);
        print_rest("after closefrom", fd);
        struct stat st;
        printf("stat %d\n", stat(path, &st));
        for (int i = 3; i < 64; i++) close(i);
        fd = open(path, O_RDONLY);
        print_rest("after closing by number", fd);
        close_range(3, 100, 0);
        close(0);
        printf("descriptor 0 taken: %d\n", open(path, O_RDONLY));
    });
}

static void visit(const char *relative, const char *path) {
    printf("== %s\n", relative);
    int fd = open(path, O_RDONLY);
    if (fd < 0) {
        printf("%s\n", errno_name(errno));
        return;
    }
    print_rest("read", fd);
    duplicates(fd);
    children(fd);
    copies(fd);
    vectors(fd);
    locks(fd, path);
    mappings(fd);
    close(fd);
    closing(path);
}

int main(int argc, char **argv) {
    start(argc, argv);
    for_each_case(argv[2], visit);
    return 0;
}
