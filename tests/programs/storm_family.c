/* Calls from where they are awkward: many threads at once, signal handlers, children of programs
 * with threads, children that may not call everything. Called as `program ROOT`; what it prints
 * does not depend on who comes first. */
#include "common.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/time.h>

/* Fewer where each takes long, as under a sanitizer. */
#ifndef THREADS
#define THREADS 1000
#endif
#define FILES 3000

static pthread_barrier_t all_here;
static int stop;

static void name_of(char *path, int number) { snprintf(path, PATH_MAX, "%s/many/name-%d", root, number % FILES); }

/* The number that the file holds, or the negative errno. */
static long number_in(int number) {
    char path[PATH_MAX], text[32] = "";
    name_of(path, number);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -errno;
    long got = read(fd, text, sizeof text - 1);
    struct stat by_path, by_fd;
    int same = stat(path, &by_path) == 0 && fstat(fd, &by_fd) == 0 && by_path.st_ino == by_fd.st_ino &&
               by_path.st_size == got;
    close(fd);
    return same ? atol(text) : -1000000;
}

static void *open_one(void *argument) {
    long number = (long)argument;
    pthread_barrier_wait(&all_here);
    return (void *)(number_in(number) == number ? 0L : 1L);
}

static void threads_at_once(void) {
    static pthread_t threads[THREADS];
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 256 << 10);
    pthread_barrier_init(&all_here, NULL, THREADS);
    for (long i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], &small, open_one, (void *)i) != 0) exit(3);
    long wrong = 0;
    for (int i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        wrong += (long)result;
    }
    printf("threads: %ld wrong\n", wrong);
}

static volatile long handled, handled_wrong;

/* open, read, stat and close are async-signal-safe. */
static void handler(int number) {
    (void)number;
    int before = errno;
    handled++;
    if (number_in(handled % 500) != handled % 500) handled_wrong++;
    errno = before;
}

static void signals(void) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval often = {{0, 300}, {0, 300}};
    setitimer(ITIMER_REAL, &often, NULL);
    long wrong = 0;
    for (int round = 0; round < 20 || handled < 50; round++) {
        for (int i = 500; i < 600; i++) wrong += number_in(i) != i;
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s/walk", root);
        DIR *directory = opendir(path);
        int count = 0;
        while (directory && readdir(directory)) count++;
        if (directory) closedir(directory);
        wrong += count != 7;
    }
    memset(&often, 0, sizeof often);
    setitimer(ITIMER_REAL, &often, NULL);
    printf("signals: %ld wrong, %ld wrong in handlers\n", wrong, handled_wrong);
}

static void *keep_opening(void *argument) {
    long wrong = 0;
    for (long i = (long)argument; !__atomic_load_n(&stop, __ATOMIC_RELAXED); i++) wrong += number_in(i) != i % FILES;
    return (void *)wrong;
}

extern char **environ;

static void children_of_threads(void) {
    pthread_t threads[4];
    for (long i = 0; i < 4; i++) pthread_create(&threads[i], NULL, keep_opening, (void *)(i * 700));
    long wrong = 0;
    for (int i = 0; i < 60; i++) {
        pid_t child;
        int status = 0;
        if (i % 3 == 0) {
            child = fork();
            if (child == 0) _exit(number_in(i + 1000) == i + 1000 ? 0 : 1);
        } else if (i % 3 == 1) {
            child = vfork();
            if (child == 0) {
                execl("/bin/true", "true", (char *)NULL);
                _exit(1);
            }
        } else {
            char *arguments[] = {"true", NULL};
            if (posix_spawnp(&child, "true", NULL, NULL, arguments, environ) != 0) child = -1;
        }
        wrong += child < 0 || waitpid(child, &status, 0) != child || status != 0;
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < 4; i++) {
        void *result;
        pthread_join(threads[i], &result);
        wrong += (long)result;
    }
    printf("children of threads: %ld wrong\n", wrong);
}

enum how { BY_PRCTL, BY_NUMBER, BY_SECCOMP };

/* A child that may make no socket and open no memory file: such a call is refused, or its end. */
static void filtered(unsigned action, enum how how, const char *what) {
    IN_CHILD({
        struct sock_filter program[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 3, 0),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_connect, 2, 0),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_memfd_create, 1, 0),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
            BPF_STMT(BPF_RET | BPF_K, action),
        };
        struct sock_fprog filter = {sizeof program / sizeof *program, program};
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        long result = -1;
        if (how == BY_PRCTL) result = prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
        if (how == BY_NUMBER) result = syscall(SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0);
        if (how == BY_SECCOMP) result = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter);
        if (result != 0) printf("no filter\n");
        long wrong = 0;
        /* Some of these nobody has asked for before. */
        for (int i = 0; i < 200; i++) wrong += number_in(900 + 200 * how + i) != 900 + 200 * how + i;
        struct stat st;
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s/sizes/4097", root);
        wrong += stat(path, &st) != 0 || st.st_size != 4097;
        snprintf(path, sizeof path, "%s/not/there-%d-%s", root, how, what);
        wrong += stat(path, &st) == 0 || errno != ENOENT;
        DIR *directory = opendir(root);
        int count = 0;
        while (directory && readdir(directory)) count++;
        if (directory) closedir(directory);
        printf("filtered by %s: %ld wrong, %d entries\n", what, wrong, count);
    });
}

/* A child that may read and write what it has open, and nothing else. */
static void strict(void) {
    char path[PATH_MAX], text[32] = "";
    name_of(path, 2000);
    int fd = open(path, O_RDONLY);
    IN_CHILD({
        setvbuf(stdout, NULL, _IONBF, 0);
        if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0) printf("not strict\n");
        long got = read(fd, text, sizeof text - 1);
        printf("strict: %ld bytes, %ld\n", got, atol(text));
        syscall(SYS_exit, 0);
    });
    close(fd);
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    root = argv[1];
    filtered(SECCOMP_RET_ERRNO | EPERM, BY_PRCTL, "errno");
    /* The thread sanitizer makes calls of its own that these filters do not know. */
#ifndef __SANITIZE_THREAD__
    filtered(SECCOMP_RET_KILL_PROCESS, BY_PRCTL, "death");
    filtered(SECCOMP_RET_TRAP, BY_NUMBER, "a signal");
    filtered(SECCOMP_RET_KILL_THREAD, BY_SECCOMP, "the thread's death");
    strict();
#endif
    threads_at_once();
    signals();
    children_of_threads();
    return 0;
}
