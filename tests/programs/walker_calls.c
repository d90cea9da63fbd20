/* Walks ROOT with nftw, fts and glob, and says how much each saw; with a second argument "changing"
 * also by the walks that change the working directory. */
#include "common.h"
#include <fts.h>
#include <ftw.h>
#include <glob.h>

static long seen;

static int count(const char *path, const struct stat *st, int kind, struct FTW *where) {
    (void)path, (void)kind, (void)where;
    seen += 1 + st->st_size % 3;
    return 0;
}

static void walk(int flags) {
    seen = 0;
    int result = nftw(root, count, 20, flags);
    printf("nftw %d %d %ld\n", flags, result, seen);
}

static void fts_walk(int options) {
    FTS *fts = fts_open((char *[]){(char *)root, NULL}, options, NULL);
    long entries = 0;
    while (fts && fts_read(fts)) entries++;
    printf("fts %d %d %ld\n", options, fts ? fts_close(fts) : -1, entries);
}

int main(int argc, char **argv) {
    start(argc, argv);
    int changing = strcmp(argv[2], "changing") == 0;
    walk(FTW_PHYS);
    fts_walk(FTS_PHYSICAL | FTS_NOCHDIR);
    if (changing) {
        walk(FTW_PHYS | FTW_CHDIR);
        fts_walk(FTS_PHYSICAL);
    }
    char pattern[PATH_MAX];
    snprintf(pattern, sizeof pattern, "%s/*/*.py", root);
    glob_t found = {0};
    printf("glob %d", glob(pattern, GLOB_MARK, NULL, &found));
    printf(" %zu\n", found.gl_pathc);
    return 0;
}
