/* Times single calls: `bench_calls TREE UNCOVERED` prints `name nanoseconds` for each, the median
 * of many batches; `bench_calls --first TREE` the same for paths that are used for the first time;
 * `bench_calls --spawn COUNT` the start of /bin/true, in turns plain and with $BENCH_PRELOAD preloaded and under
 * $BENCH_AUDIT; `bench_calls --load LIBRARY` one dlopen.
 *
 * TREE holds what scripts/bench/single_node.py makes: `small/N`, 16 KiB each, and `many`, a
 * directory of 300 names. */
#include "common.h"
#include <dlfcn.h>
#include <spawn.h>
#include <time.h>

enum { FILES = 300, BATCHES = 41, SIZE = 16 * 1024 };

static char buffer[SIZE];

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static int compare(const void *one, const void *other) {
    double difference = *(const double *)one - *(const double *)other;
    return difference < 0 ? -1 : difference > 0;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void stat_hit(const char *path) {
    struct stat st;
    if (stat(path, &st) != 0) fail(path);
}

static void stat_miss(const char *path) {
    struct stat st;
    if (stat(path, &st) == 0) fail(path);
}

static void read_whole(const char *path) {
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0 || read(fd, buffer, SIZE) != SIZE || close(fd) != 0) fail(path);
}

static void list(const char *path) {
    DIR *directory = opendir(path);
    if (!directory) fail(path);
    int names = 0;
    while (readdir(directory)) names++;
    if (names != FILES + 2) fail(path);
    closedir(directory);
}

/* The median over batches of the time per call, going round the paths. */
static void measure(const char *name, void (*call)(const char *), char **paths, int count, int calls) {
    double times[BATCHES];
    for (int i = 0; i < count; i++) call(paths[i]);
    for (int batch = 0; batch < BATCHES; batch++) {
        double start = now();
        for (int i = 0; i < calls; i++) call(paths[i % count]);
        times[batch] = (now() - start) / calls;
    }
    qsort(times, BATCHES, sizeof *times, compare);
    printf("%s %.1f\n", name, times[BATCHES / 2]);
}

/* The mean of the first use of each path. */
static void measure_first(const char *name, void (*call)(const char *), char **paths, int count) {
    double start = now();
    for (int i = 0; i < count; i++) call(paths[i]);
    printf("%s %.1f\n", name, (now() - start) / count);
}

static char **paths_of(const char *tree, const char *pattern) {
    char **paths = calloc(FILES, sizeof *paths);
    for (int i = 0; i < FILES; i++) {
        char relative[64];
        snprintf(relative, sizeof relative, pattern, i);
        if (asprintf(&paths[i], "%s/%s", tree, relative) < 0) exit(1);
    }
    return paths;
}

extern char **environ;

/* The environment of the programs to be timed: with what they run under, where that is given. */
static char **environment_of(int plain) {
    const char *const names[] = {"LD_PRELOAD", "LD_AUDIT"}, *const from[] = {"BENCH_PRELOAD", "BENCH_AUDIT"};
    int count = 0;
    while (environ[count]) count++;
    char **made = calloc(count + 3, sizeof *made);
    memcpy(made, environ, count * sizeof *made);
    for (int i = 0; i < 2 && !plain; i++) {
        const char *value = getenv(from[i]);
        if (value && *value && asprintf(&made[count++], "%s=%s", names[i], value) < 0) exit(1);
    }
    return made;
}

static void spawn(int count) {
    const char *const names[] = {"plain", "preloaded"};
    char **environments[] = {environment_of(1), environment_of(0)}, *arguments[] = {"true", NULL};
    double *times[] = {calloc(count, sizeof(double)), calloc(count, sizeof(double))};
    for (int i = 0; i < 2 * count; i++) {
        pid_t child;
        int status;
        double start = now();
        if (posix_spawn(&child, "/bin/true", NULL, NULL, arguments, environments[i % 2]) != 0) fail("/bin/true");
        if (waitpid(child, &status, 0) < 0 || status != 0) fail("/bin/true");
        times[i % 2][i / 2] = now() - start;
    }
    for (int i = 0; i < 2; i++) {
        qsort(times[i], count, sizeof **times, compare);
        printf("%s %.1f\n", names[i], times[i][count / 2]);
    }
}

/* The time of one dlopen in each of `count` processes, which have loaded nothing else. */
static void load(const char *library, int count) {
    double *times = calloc(count, sizeof *times);
    for (int i = 0; i < count; i++) {
        int ends[2];
        if (pipe(ends) != 0) fail("pipe");
        pid_t child = fork();
        if (child == 0) {
            double start = now();
            if (!dlopen(library, RTLD_NOW)) {
                fprintf(stderr, "%s\n", dlerror());
                _exit(1);
            }
            double took = now() - start;
            _exit(write(ends[1], &took, sizeof took) != sizeof took);
        }
        int status;
        close(ends[1]);
        if (read(ends[0], &times[i], sizeof times[i]) != sizeof times[i]) fail(library);
        if (waitpid(child, &status, 0) < 0 || status != 0) fail(library);
        close(ends[0]);
    }
    qsort(times, count, sizeof *times, compare);
    printf("load %.1f\n", times[count / 2]);
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: %s TREE UNCOVERED | --first TREE | --spawn COUNT | --load LIBRARY\n", argv[0]);
        return 2;
    }
    if (!strcmp(argv[1], "--load")) {
        load(argv[2], 15);
        return 0;
    }
    if (!strcmp(argv[1], "--spawn")) {
        spawn(atoi(argv[2]));
        return 0;
    }
    int first = !strcmp(argv[1], "--first");
    const char *tree = first ? argv[2] : argv[1];
    char **hits = paths_of(tree, "small/%d"), **misses = paths_of(tree, "small/missing-%d");
    char **directory = paths_of(tree, "many");
    if (first) {
        measure_first("stat_hit", stat_hit, hits, FILES);
        measure_first("stat_miss", stat_miss, misses, FILES);
        measure_first("open_read_close", read_whole, hits, FILES);
        measure_first("list_300", list, directory, 1);
        return 0;
    }
    char *uncovered[] = {argv[2]};
    measure("stat_hit", stat_hit, hits, FILES, 3000);
    measure("stat_miss", stat_miss, misses, FILES, 3000);
    measure("open_read_close", read_whole, hits, FILES, 600);
    measure("list_300", list, directory, 1, 60);
    measure("stat_uncovered", stat_hit, uncovered, 1, 3000);
    return 0;
}
