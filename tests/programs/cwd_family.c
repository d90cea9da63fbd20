/* The working directory: chdir, fchdir, getcwd and everything seen from it by relative paths. */
#include "common.h"

extern char *__getcwd_chk(char *, size_t, size_t);
extern char *__getwd_chk(char *, size_t);

static char start_directory[PATH_MAX];
static int root_fd;

static void print_here(void) {
    char buffer[PATH_MAX];
    errno = ERRNO_UNTOUCHED;
    printf("  getcwd ");
    if (getcwd(buffer, sizeof buffer)) print_path(buffer);
    else printf("NULL %s", errno_name(errno));
    printf("\n  getcwd NULL ");
    char *here = getcwd(NULL, 0);
    if (here) print_path(here);
    else printf("NULL %s", errno_name(errno));
    free(here);
    printf("\n  get_current_dir_name ");
    here = get_current_dir_name();
    if (here) print_path(here);
    else printf("NULL %s", errno_name(errno));
    free(here);
    printf("\n  getwd ");
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    printf("%s ", __getwd_chk(buffer, sizeof buffer) ? "found" : "none");
    here = getwd(buffer);
#pragma GCC diagnostic pop
    if (here) print_path(here);
    else printf("NULL %s", errno_name(errno));
    printf("\n  __getcwd_chk ");
    if (__getcwd_chk(buffer, sizeof buffer, sizeof buffer)) print_path(buffer);
    printf("\n  getcwd short %s", getcwd(buffer, 2) ? buffer : errno_name(errno));
    printf("\n  getcwd zero %s\n", getcwd(buffer, 0) ? buffer : errno_name(errno));
}

static void look_around(void) {
    static const char *places[] = {".", "..", "./", "../", "../..", "file", "sub", "sub/file", "./missing", "../missing", ""};
    struct stat st;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        case_line("  stat", places[i]);
        print_stat_result(stat(places[i], &st), &st);
        case_line("  lstat at", places[i]);
        print_stat_result(fstatat(AT_FDCWD, places[i], &st, AT_SYMLINK_NOFOLLOW), &st);
        char *canonical = realpath(places[i], NULL);
        printf("  realpath %s\n", canonical ? canonical : errno_name(errno));
        free(canonical);
    }
    DIR *directory = opendir(".");
    printf("  opendir . %s\n", directory ? "opened" : errno_name(errno));
    struct dirent *entry;
    for (int i = 0; directory && i < 20 && (entry = readdir(directory)); i++) {
        printf("    ");
        print_path(entry->d_name);
        struct stat found;
        printf(" %d\n", lstat(entry->d_name, &found));
    }
    if (directory) closedir(directory);
    int fd = open(".", O_RDONLY | O_DIRECTORY);
    printf("  open . %s\n", fd >= 0 ? "opened" : errno_name(errno));
    if (fd >= 0) {
        print_stat_result(fstat(fd, &st), &st);
        close(fd);
    }
}

/* A child of vfork shares its parent's memory but not its working directory. */
static void vfork_child(const char *path) {
    pid_t child = vfork();
    if (child == 0) {
        if (chdir(path) != 0) _exit(1);
        _exit(access(".", F_OK) != 0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    printf("  vfork child %x\n", status);
    print_here();
}

/* What a program that is not interposed sees as its working directory must be the same place. */
static void other_programs(void) {
    fflush(stdout);
    if (system("/bin/pwd -P; ls -a | head -5") != 0) printf("  system failed\n");
}

static void visit(const char *relative, const char *path) {
    IN_CHILD({
        case_line("chdir", relative);
        int result = chdir(path);
        print_result(result);
        print_here();
        if (result == 0) {
            look_around();
            other_programs();
            vfork_child("..");
            printf("  chdir .. %d\n", chdir(".."));
            print_here();
            printf("  chdir sub %d\n", chdir("sub"));
            print_here();
        }
    });
    IN_CHILD({
        int fd = openat(root_fd, relative, O_RDONLY | O_NONBLOCK);
        if (fd >= 0) {
            case_line("fchdir", relative);
            print_result(fchdir(fd));
            print_here();
        }
    });
    IN_CHILD({
        int fd = openat(root_fd, relative, O_PATH);
        if (fd >= 0) {
            case_line("fchdir O_PATH", relative);
            print_result(fchdir(fd));
            print_here();
        }
    });
    IN_CHILD({
        case_line("syscall chdir", relative);
        print_result(syscall(SYS_chdir, path));
        print_here();
        char buffer[PATH_MAX];
        printf("  syscall getcwd %s\n", syscall(SYS_getcwd, buffer, sizeof buffer) > 0 ? buffer : errno_name(errno));
    });
}

int main(int argc, char **argv) {
    start(argc, argv);
    if (!getcwd(start_directory, sizeof start_directory)) return 2;
    root_fd = open(root, O_RDONLY | O_DIRECTORY);
    for_each_case(argv[2], visit);
    print_here();
    return 0;
}
