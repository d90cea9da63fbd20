/* Every way to start a program: by path, by PATH, through an interpreter line; in the awkward
 * tree's `programs` and elsewhere. A child's output is part of what is compared. */
#include "common.h"
#include <spawn.h>

extern char **environ;
static int root_fd;

static void wait_and_print(pid_t child) {
    int status = 0;
    waitpid(child, &status, 0);
    printf("  status %x\n", status);
}

/* Starts a child that makes one exec call, and prints how that failed if it did. */
#define EXEC(call)                                                                                 \
    do {                                                                                           \
        fflush(stdout);                                                                            \
        pid_t child_ = fork();                                                                     \
        if (child_ == 0) {                                                                         \
            errno = ERRNO_UNTOUCHED;                                                               \
            call;                                                                                  \
            printf("  exec failed %s\n", errno_name(errno));                                       \
            fflush(stdout);                                                                        \
            _exit(0);                                                                              \
        }                                                                                          \
        wait_and_print(child_);                                                                    \
    } while (0)

static void by_path(const char *relative, const char *path) {
    char *arguments[] = {"name", "one", "two three", NULL};
    case_line("execve", relative);
    EXEC(execve(path, arguments, environ));
    case_line("execv", relative);
    EXEC(execv(path, arguments));
    case_line("execl", relative);
    EXEC(execl(path, "name", "a", "b", (char *)NULL));
    case_line("execle", relative);
    EXEC(execle(path, "name", "a", (char *)NULL, environ));
    case_line("execvp path", relative);
    EXEC(execvp(path, arguments));
    case_line("syscall execve", relative);
    EXEC(syscall(SYS_execve, path, arguments, environ));
    case_line("execveat", relative);
    EXEC(execveat(root_fd, relative, arguments, environ, 0));
    case_line("execveat NOFOLLOW", relative);
    EXEC(execveat(root_fd, relative, arguments, environ, AT_SYMLINK_NOFOLLOW));
    case_line("vfork execve", relative);
    fflush(stdout);
    volatile int error = 0;
    pid_t child = vfork();
    if (child == 0) {
        execve(path, arguments, environ);
        error = errno;
        _exit(1);
    }
    wait_and_print(child);
    printf("  vfork error %s\n", error ? errno_name(error) : "none");
    case_line("fexecve", relative);
    int fd = open(path, O_RDONLY | O_NONBLOCK);
    if (fd >= 0) {
        /* An interpreter would see /dev/fd/N, whose number is not to be compared. */
        EXEC(dup2(fd, 100); fexecve(100, arguments, environ));
        close(fd);
    } else {
        printf("not opened\n");
    }
}

static void by_spawn(const char *relative, const char *path) {
    char *arguments[] = {"name", "spawned", NULL};
    pid_t child;
    case_line("posix_spawn", relative);
    fflush(stdout);
    int error = posix_spawn(&child, path, NULL, NULL, arguments, environ);
    printf("%s\n", error ? errno_name(error) : "started");
    if (!error) wait_and_print(child);

    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    char input[PATH_MAX];
    snprintf(input, sizeof input, "%s/sizes/4097", root);
    posix_spawn_file_actions_addopen(&actions, 0, input, O_RDONLY, 0);
    snprintf(input, sizeof input, "%s/programs", root);
    posix_spawn_file_actions_addchdir_np(&actions, input);
    case_line("posix_spawn actions", relative);
    fflush(stdout);
    error = posix_spawn(&child, path, &actions, NULL, arguments, environ);
    printf("%s\n", error ? errno_name(error) : "started");
    if (!error) wait_and_print(child);
    char *commands[] = {"sh", "-c", "cksum; pwd; echo *", NULL};
    case_line("posix_spawnp actions", "sh");
    fflush(stdout);
    error = posix_spawnp(&child, "sh", &actions, NULL, commands, environ);
    printf("%s\n", error ? errno_name(error) : "started");
    if (!error) wait_and_print(child);
    posix_spawn_file_actions_destroy(&actions);
}

/* PATH decides: an entry without the right to execute is passed over, a directory too. */
static void by_search(void) {
    static const char *orders[] = {"%1$s/programs:/usr/bin:/bin", "%1$s/missing:%1$s/programs",
                                   "%1$s/sizes/1:%1$s/programs", ":%1$s/programs", "%1$s/programs/", "/usr/bin:/bin",
                                   "%1$s/permissions/dir-0000:%1$s/programs", ""};
    static const char *wanted[] = {"a-script", "not-executable", "echo", "missing", "by-env", "no-interpreter-line",
                                   "missing-interpreter", "", "./a-script", "walk", "own-interpreter"};
    char *arguments[] = {"name", "searched", NULL};
    for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
        char order[3 * PATH_MAX];
        snprintf(order, sizeof order, orders[i], root);
        setenv("PATH", order, 1);
        for (size_t j = 0; j < sizeof wanted / sizeof *wanted; j++) {
            printf("PATH %s: ", orders[i]);
            case_line("execvp", wanted[j]);
            EXEC(execvp(wanted[j], arguments));
            case_line("execlp", wanted[j]);
            EXEC(execlp(wanted[j], "name", "l", (char *)NULL));
            case_line("execvpe", wanted[j]);
            EXEC(execvpe(wanted[j], arguments, environ));
            pid_t child;
            case_line("posix_spawnp", wanted[j]);
            fflush(stdout);
            int error = posix_spawnp(&child, wanted[j], NULL, NULL, arguments, environ);
            printf("%s\n", error ? errno_name(error) : "started");
            if (!error) wait_and_print(child);
        }
    }
    char order[PATH_MAX];
    snprintf(order, sizeof order, "%s/programs:/usr/bin:/bin", root);
    setenv("PATH", order, 1);
}

static void by_shell(void) {
    char command[2 * PATH_MAX];
    snprintf(command, sizeof command, "cd %s/programs && ./a-script here && cat ../sizes/1 | od -c && pwd", root);
    fflush(stdout);
    printf("system %x\n", system(command));
    FILE *pipe = popen(command, "r");
    char line[1000];
    while (pipe && fgets(line, sizeof line, pipe)) printf("popen: %s", line);
    printf("pclose %x\n", pipe ? pclose(pipe) : -1);
}

/* A program started from a directory of the tree must find its relative paths. */
static void from_directory(void) {
    char *arguments[] = {"sh", "-c", "pwd -P; ls | head -3; test -x a-script && echo executable; ./a-script", NULL};
    char place[PATH_MAX];
    snprintf(place, sizeof place, "%s/programs", root);
    printf("from programs:\n");
    EXEC(if (chdir(place) == 0) execvp("sh", arguments));
    printf("relative execv:\n");
    EXEC(if (chdir(place) == 0) execv("./a-script", (char *[]){"script", "relative", NULL}));
    printf("relative execvp:\n");
    EXEC(if (chdir(place) == 0) execvp("./a-script", (char *[]){"script", "relative", NULL}));
}

/* What the child finds of the environment must not have been lost or doubled. */
static void environments(void) {
    char *arguments[] = {"sh", "-c", "echo A=$A; unset LD_PRELOAD; cat \"$PLACE/sizes/1\" | od -c", NULL};
    char place[PATH_MAX];
    snprintf(place, sizeof place, "PLACE=%s", root);
    char *small[] = {"A=1", "PATH=/usr/bin:/bin", place, NULL};
    printf("own environment:\n");
    EXEC(execve("/bin/sh", arguments, small));
    printf("empty environment:\n");
    EXEC(execve("/bin/echo", (char *[]){"echo", "empty", NULL}, (char *[]){NULL}));
    printf("no environment:\n");
    EXEC(execve("/bin/echo", (char *[]){"echo", "none", NULL}, NULL));
}

static void visit(const char *relative, const char *path) {
    by_path(relative, path);
    by_spawn(relative, path);
}

int main(int argc, char **argv) {
    start(argc, argv);
    setvbuf(stdout, NULL, _IOFBF, 1 << 20);
    dup2(1, 2);
    root_fd = open(root, O_RDONLY | O_DIRECTORY);
    for_each_case(argv[2], visit);
    by_search();
    by_shell();
    from_directory();
    environments();
    return 0;
}
