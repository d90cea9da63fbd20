/* Makes a known number of calls, so that a test can compare what was counted with it:
 * `counted_calls DIRECTORY HOW`. DIRECTORY holds `file`, `link` and nothing called `missing`.
 *
 * HOW is `plain`, `threads`, `fork`, `vfork`, `kill` (ends by a signal) or `signals` (a handler
 * makes calls too; prints how many there were). */
#include "common.h"
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>

static char file[PATH_MAX], missing[PATH_MAX], link_path[PATH_MAX], directory[PATH_MAX];

static void check(int is_right, const char *what) {
    if (is_right) return;
    printf("%s: %s\n", what, errno_name(errno));
    exit(1);
}

static void make_calls(void) {
    struct stat status;
    char target[64];
    for (int i = 0; i < 100; i++) check(stat(file, &status) == 0, "stat");
    for (int i = 0; i < 50; i++) check(stat(missing, &status) == -1, "stat of nothing");
    for (int i = 0; i < 20; i++) {
        int descriptor = open(file, O_RDONLY);
        check(descriptor >= 0, "open");
        check(fstat(descriptor, &status) == 0, "fstat");
        close(descriptor);
    }
    for (int i = 0; i < 10; i++) {
        DIR *stream = opendir(directory);
        check(stream != NULL, "opendir");
        closedir(stream);
    }
    for (int i = 0; i < 5; i++) check(readlink(link_path, target, sizeof target) > 0, "readlink");
    for (int i = 0; i < 7; i++) check(access(file, F_OK) == 0, "access");
    for (int i = 0; i < 30; i++) check(stat("/usr/bin", &status) == 0, "stat elsewhere");
}

static void *make_calls_in_thread(void *nothing) {
    make_calls();
    return nothing;
}

static void in_threads(void) {
    enum { THREADS = 12 };
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        check(pthread_create(&threads[i], NULL, make_calls_in_thread, NULL) == 0, "thread");
    }
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
}

static void in_children(void) {
    enum { CHILDREN = 5 };
    for (int i = 0; i < CHILDREN; i++) {
        pid_t child = fork();
        check(child >= 0, "fork");
        if (child == 0) {
            make_calls();
            _exit(0);
        }
    }
    for (int i = 0; i < CHILDREN; i++) {
        int status;
        check(wait(&status) > 0 && status == 0, "child");
    }
}

static void in_vfork(void) {
    pid_t child = vfork();
    check(child >= 0, "vfork");
    if (child == 0) {
        make_calls();
        _exit(0);
    }
    int status;
    check(waitpid(child, &status, 0) == child && status == 0, "child");
}

static volatile sig_atomic_t from_handler;

static void make_call_in_handler(int number) {
    struct stat status;
    int before = errno;
    (void)number;
    stat(file, &status);
    from_handler++;
    errno = before;
}

static void with_signals(void) {
    enum { CALLS = 2000000 };
    struct stat status;
    struct itimerval often = {{0, 50}, {0, 50}}, never = {{0, 0}, {0, 0}};
    signal(SIGALRM, make_call_in_handler);
    setitimer(ITIMER_REAL, &often, NULL);
    for (int i = 0; i < CALLS; i++) check(stat(file, &status) == 0, "stat");
    setitimer(ITIMER_REAL, &never, NULL);
    printf("%d\n", CALLS + from_handler);
}

int main(int count, char **arguments) {
    if (count != 3) return 2;
    const char *how = arguments[2];
    snprintf(directory, sizeof directory, "%s", arguments[1]);
    snprintf(file, sizeof file, "%.4000s/file", arguments[1]);
    snprintf(missing, sizeof missing, "%.4000s/missing", arguments[1]);
    snprintf(link_path, sizeof link_path, "%.4000s/link", arguments[1]);
    if (strcmp(how, "signals") == 0) {
        with_signals();
        return 0;
    }
    make_calls();
    if (strcmp(how, "threads") == 0) in_threads();
    else if (strcmp(how, "fork") == 0) in_children();
    else if (strcmp(how, "vfork") == 0) in_vfork();
    else if (strcmp(how, "kill") == 0) raise(SIGKILL);
    puts("done");
    return 0;
}
