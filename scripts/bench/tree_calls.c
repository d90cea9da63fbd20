/* Times calls on paths that are each used once: `tree_calls stat|open|read < LIST` prints the median
 * time of a call and the time of all of them, in nanoseconds. `open` opens and closes; `read` reads
 * the file to its end, too. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 100000, BUFFER = 1 << 20 };

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static int compare(const void *one, const void *other) {
    double difference = *(const double *)one - *(const double *)other;
    return difference < 0 ? -1 : difference > 0;
}

static void call(char kind, const char *path, char *buffer) {
    struct stat st;
    if (kind == 's') {
        if (stat(path, &st) == 0) return;
    } else {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t got = fd < 0 ? -1 : 0;
        while (fd >= 0 && kind == 'r' && (got = read(fd, buffer, BUFFER)) > 0) {}
        if (got == 0 && close(fd) == 0) return;
    }
    perror(path);
    exit(1);
}

int main(int argc, char **argv) {
    static char *paths[MOST];
    static double times[MOST];
    char *line = NULL, *buffer = malloc(BUFFER);
    size_t room = 0;
    ssize_t length;
    int count = 0;
    if (argc != 2 || !strchr("sor", argv[1][0]) || !buffer) return 2;
    while (count < MOST && (length = getline(&line, &room, stdin)) > 0) {
        if (line[length - 1] == '\n') line[length - 1] = '\0';
        if (!(paths[count++] = strdup(line))) return 2;
    }
    if (count == 0) return 2;
    double begun = now();
    for (int i = 0; i < count; i++) {
        double start = now();
        call(argv[1][0], paths[i], buffer);
        times[i] = now() - start;
    }
    double all = now() - begun;
    qsort(times, count, sizeof *times, compare);
    printf("%.0f %.0f\n", times[count / 2], all);
    return 0;
}
