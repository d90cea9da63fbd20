/* Every way to list a directory: names in the order they come, their kinds and inodes. */
#include "common.h"
#include <fts.h>
#include <ftw.h>
#include <glob.h>

static int root_fd;

static void print_entry(const struct dirent *entry) {
    printf("  ");
    print_path(entry->d_name);
    printf(" ino=%lu type=%d\n", (unsigned long)entry->d_ino, entry->d_type);
}

static void list(DIR *directory) {
    struct dirent *entry;
    for (;;) {
        errno = ERRNO_UNTOUCHED;
        if ((entry = readdir(directory)) == NULL) break;
        print_entry(entry);
    }
    printf("  end %s\n", errno_name(errno));
}

static void positions(DIR *directory) {
    long places[8];
    char names[8][300];
    int count = 0;
    rewinddir(directory);
    while (count < 8) {
        places[count] = telldir(directory);
        struct dirent *entry = readdir(directory);
        if (!entry) break;
        snprintf(names[count++], sizeof names[0], "%s", entry->d_name);
    }
    for (int i = count - 1; i >= 0; i--) {
        seekdir(directory, places[i]);
        struct dirent *entry = readdir(directory);
        printf("  seek %d %s\n", i, entry && !strcmp(entry->d_name, names[i]) ? "same" : "other");
    }
    rewinddir(directory);
    struct dirent *entry = readdir(directory);
    printf("  rewind %s\n", entry && count && !strcmp(entry->d_name, names[0]) ? "same" : count ? "other" : "none");
}

static void by_stream(const char *relative, const char *path) {
    case_line("opendir", relative);
    DIR *directory = opendir(path);
    print_opened(directory ? 0 : -1);
    if (!directory) return;
    list(directory);
    positions(directory);
    int fd = dirfd(directory);
    struct stat st;
    printf("  dirfd %s ", fd >= 0 ? "yes" : "no");
    print_stat_result(fstat(fd, &st), &st);
    rewinddir(directory);
    struct dirent *entry;
    rewinddir(directory);
    int count = 0;
    while ((entry = (struct dirent *)readdir64(directory)) && count < 20) {
        int found = fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW);
        printf("  at dirfd %d ino %s\n", found,
               found == 0 && strcmp(entry->d_name, "..") && st.st_ino == entry->d_ino ? "same" : "other");
        count++;
    }
    printf("  closedir %d\n", closedir(directory));
}

static void by_descriptor(const char *relative, const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NONBLOCK);
    if (fd < 0) return;
    case_line("fdopendir", relative);
    DIR *directory = fdopendir(fd);
    print_opened(directory ? 0 : -1);
    if (directory) {
        printf("  same descriptor %d\n", dirfd(directory) == fd);
        list(directory);
        closedir(directory);
    } else {
        close(fd);
    }
    printf("  descriptor closed %s\n", fcntl(fd, F_GETFD) < 0 ? errno_name(errno) : "no");
    fd = openat(root_fd, relative, O_RDONLY | O_DIRECTORY | O_NONBLOCK);
    if (fd < 0) return;
    char buffer[4096];
    long got;
    while ((got = getdents64(fd, buffer, sizeof buffer)) > 0) {
        for (long at = 0; at < got;) {
            struct dirent64 *entry = (struct dirent64 *)(buffer + at);
            print_entry((struct dirent *)entry);
            at += entry->d_reclen;
        }
    }
    printf("  getdents64 %ld\n", got);
    lseek(fd, 0, SEEK_SET);
    long names = 0;
    while ((got = syscall(SYS_getdents64, fd, buffer, sizeof buffer)) > 0)
        for (long at = 0; at < got; at += ((struct dirent64 *)(buffer + at))->d_reclen) names++;
    printf("  names by system call %ld\n", names);
    close(fd);
}

static void reentrant(const char *relative, const char *path) {
    DIR *directory = opendir(path);
    if (!directory) return;
    union {
        struct dirent entry;
        char space[sizeof(struct dirent) + 256];
    } place;
    struct dirent *result;
    case_line("readdir_r", relative);
    int count = 0, error;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    while ((error = readdir_r(directory, &place.entry, &result)) == 0 && result) {
        if (count++ < 50) print_entry(result);
    }
#pragma GCC diagnostic pop
    printf("  %d names, %d\n", count, error);
    closedir(directory);
}

static int no_dots(const struct dirent *entry) { return entry->d_name[0] != '.'; }

static void print_list(int count, struct dirent **names) {
    int error = errno;
    printf("%d %s\n", count, count < 0 ? errno_name(error) : "");
    for (int i = 0; i < count; i++) {
        print_entry(names[i]);
        free(names[i]);
    }
    if (count >= 0) free(names);
}

static void scans(const char *relative, const char *path) {
    struct dirent **names;
    int count;
    case_line("scandir", relative);
    count = scandir(path, &names, no_dots, alphasort);
    print_list(count, names);
    case_line("scandir unsorted", relative);
    count = scandir(path, &names, NULL, NULL);
    print_list(count, names);
    case_line("scandirat", relative);
    count = scandirat(root_fd, relative, &names, no_dots, versionsort);
    print_list(count, names);
    case_line("scandir64", relative);
    count = scandir64(path, (struct dirent64 ***)&names, NULL, NULL);
    print_list(count, names);
}

static void visit(const char *relative, const char *path) {
    by_stream(relative, path);
    by_descriptor(relative, path);
    reentrant(relative, path);
    scans(relative, path);
}

static int walked(const char *path, const struct stat *st, int kind, struct FTW *where) {
    printf("nftw ");
    print_path(path);
    printf(" kind=%d base=%d level=%d ino=%lu size=%ld\n", kind, where->base - (int)strlen(root),
           where->level, (unsigned long)st->st_ino, (long)st->st_size);
    return 0;
}

static int walked_old(const char *path, const struct stat *st, int kind) {
    printf("ftw ");
    print_path(path);
    printf(" kind=%d ino=%lu\n", kind, (unsigned long)st->st_ino);
    return 0;
}

static int compare(const FTSENT **one, const FTSENT **other) {
    return strcmp((*one)->fts_name, (*other)->fts_name);
}

/* The walkers run wholly inside glibc. They take the shallow part of the tree: its longest paths
 * are longer than what some of them can handle. */
static void walkers(void) {
    char shallow[PATH_MAX];
    snprintf(shallow, sizeof shallow, "%s/walk", root);
    printf("nftw %d\n", nftw(shallow, walked, 20, FTW_PHYS));
    printf("nftw depth %d\n", nftw(shallow, walked, 20, FTW_PHYS | FTW_DEPTH | FTW_CHDIR));
    printf("ftw %d\n", ftw(shallow, walked_old, 20));
    char *roots[] = {shallow, NULL};
    FTS *fts = fts_open(roots, FTS_PHYSICAL, compare);
    FTSENT *entry;
    while (fts && (entry = fts_read(fts))) {
        printf("fts ");
        print_path(entry->fts_path);
        printf(" info=%d level=%d\n", entry->fts_info, entry->fts_level);
    }
    if (fts) fts_close(fts);
    static const char *patterns[] = {"*", "*/*", "?", "[a-m]*", "missing*", "{a,b}*", "*/", "al\\pha", "\\*", "*/\\one", "dangling", "l?nk/*", ".*"};
    static const int flag_sets[] = {GLOB_MARK | GLOB_BRACE, GLOB_NOESCAPE, GLOB_NOCHECK | GLOB_ERR, GLOB_ONLYDIR | GLOB_PERIOD, GLOB_NOSORT};
    size_t sets = sizeof flag_sets / sizeof *flag_sets;
    for (size_t i = 0; i < sets * (sizeof patterns / sizeof *patterns); i++) {
        int flags = flag_sets[i % sets];
        char pattern[PATH_MAX];
        snprintf(pattern, sizeof pattern, "%s/walk/%s", root, patterns[i / sets]);
        glob_t found = {0};
        int result = glob(pattern, flags, NULL, &found);
        printf("glob %s %x = %d %zu %x\n", patterns[i / sets], flags, result, found.gl_pathc, found.gl_flags);
        for (size_t j = 0; j < found.gl_pathc; j++) {
            printf("  ");
            print_path(found.gl_pathv[j]);
            printf("\n");
        }
        globfree(&found);
    }
}

int main(int argc, char **argv) {
    start(argc, argv);
    root_fd = open(root, O_RDONLY | O_DIRECTORY);
    for_each_case(argv[2], visit);
    walkers();
    return 0;
}
