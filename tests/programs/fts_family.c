/* fts: every option, every instruction, lists of children, in sorted and in listed order; and walks
 * of nftw that change the working directory. What is printed of an entry is all that its structure
 * says, and where the working directory is. */
#include "common.h"
#include <fts.h>
#include <ftw.h>

static int compare(const FTSENT **one, const FTSENT **other) { return -strcmp((*one)->fts_name, (*other)->fts_name); }

static const char *below_root(const char *path) {
    size_t length = strlen(root);
    return strncmp(path, root, length) == 0 ? path + length : path;
}

static void print_here(void) {
    char here[PATH_MAX];
    printf(" in ");
    print_path(getcwd(here, sizeof here) ? below_root(here) : errno_name(errno));
}

/* Attributes are there unless the entry has none, or they were not asked for. */
static void print_entry(const FTSENT *entry, int options) {
    printf("  ");
    print_path(below_root(entry->fts_path));
    printf(" name=");
    print_path(below_root(entry->fts_name));
    printf(" access=");
    print_path(below_root(entry->fts_accpath));
    printf(" info=%d level=%d error=%s number=%ld", entry->fts_info, entry->fts_level,
           entry->fts_errno ? errno_name(entry->fts_errno) : "0", entry->fts_number);
    int known = entry->fts_info != FTS_NS && entry->fts_info != FTS_NSOK && entry->fts_info != FTS_INIT;
    if (known && !(options & FTS_NOSTAT)) printf(" ino=%lu size=%ld mode=%o", (unsigned long)entry->fts_statp->st_ino, (long)entry->fts_statp->st_size, entry->fts_statp->st_mode);
    if (entry->fts_info == FTS_DC) printf(" cycle=%s", below_root(entry->fts_cycle->fts_name));
    if (entry->fts_level > 0) printf(" parent=%s", below_root(entry->fts_parent->fts_name));
    print_here();
    printf("\n");
}

static void print_list(FTS *fts, int names, int options) {
    errno = ERRNO_UNTOUCHED;
    FTSENT *child = fts_children(fts, names);
    printf("  children %d %s:\n", names, child ? "" : errno_name(errno));
    for (; child; child = child->fts_link) {
        printf("    ");
        print_path(child->fts_name);
        printf(" level=%d info=%d", child->fts_level, names ? -1 : child->fts_info);
        if (!names && child->fts_info != FTS_NS && child->fts_info != FTS_NSOK && !(options & FTS_NOSTAT))
            printf(" ino=%lu", (unsigned long)child->fts_statp->st_ino);
        child->fts_number = 7;
        printf("\n");
    }
    print_here();
    printf("\n");
}

/* What is done on the way: nothing; lists of children; each instruction; children and instructions. */
enum { WALK, CHILDREN, NAMES, SKIP, FOLLOW, AGAIN, FOLLOW_CHILDREN, WAYS };

static void instruct(FTS *fts, FTSENT *entry, int way, int options) {
    int first = entry->fts_number == 0;
    entry->fts_number++;
    if (way == CHILDREN) print_list(fts, 0, options);
    if (way == NAMES && entry->fts_level % 2 == 0) print_list(fts, FTS_NAMEONLY, options);
    if (way == SKIP && strlen(entry->fts_name) > 4) fts_set(fts, entry, FTS_SKIP);
    if (way == FOLLOW && (entry->fts_info == FTS_SL || entry->fts_info == FTS_SLNONE) && first) fts_set(fts, entry, FTS_FOLLOW);
    if (way == AGAIN && first && entry->fts_info != FTS_DP) fts_set(fts, entry, FTS_AGAIN);
    if (way == FOLLOW_CHILDREN && entry->fts_info == FTS_D) {
        FTSENT *child = fts_children(fts, 0);
        for (int count = 0; child; child = child->fts_link, count++)
            fts_set(fts, child, count % 3 == 0 ? FTS_SKIP : FTS_FOLLOW);
    }
}

static void one_walk(char *const *places, int options, int (*order)(const FTSENT **, const FTSENT **), int way) {
    printf("fts %s options=%x sorted=%d way=%d\n", below_root(places[0]), options, order != NULL, way);
    errno = ERRNO_UNTOUCHED;
    FTS *fts = fts_open(places, options, order);
    if (!fts) {
        printf("  none %s\n", errno_name(errno));
        return;
    }
    if (way == CHILDREN) print_list(fts, 0, options);
    FTSENT *entry;
    int count = 0;
    while ((entry = fts_read(fts)) && count++ < 400) {
        print_entry(entry, options);
        instruct(fts, entry, way, options);
        /* Some walks are ended early. */
        if (way == WALK && (options & FTS_XDEV) && count == 5) break;
    }
    printf("  ended %s", entry ? "early" : errno_name(errno));
    printf(" closed %d", fts_close(fts));
    print_here();
    printf("\n");
}

/* The last has links that lead out of the tree, so none of its links is followed. */
static const char *const names[] = {"walk", "walk/", "walk//", "cycles", "permissions", "empty", "special", "walk/link", "walk/dangling", "walk/beta/file", "walk/missing", "names", "links"};
enum { NAMED = sizeof names / sizeof *names, LEADS_OUT = NAMED - 1 };

static void all_walks(void) {
    static const int options[] = {FTS_PHYSICAL, FTS_LOGICAL, FTS_PHYSICAL | FTS_NOCHDIR, FTS_PHYSICAL | FTS_NOSTAT, FTS_PHYSICAL | FTS_NOSTAT | FTS_NOCHDIR, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_XDEV, FTS_PHYSICAL | FTS_SEEDOT, FTS_LOGICAL | FTS_SEEDOT | FTS_NOSTAT};
    char place[NAMED][PATH_MAX];
    for (int i = 0; i < NAMED; i++) {
        snprintf(place[i], sizeof place[i], "%s/%s", root, names[i]);
        /* Root may enter what the mode bits forbid, which only the kernel knows: docs/LIMITATIONS.md. */
        if (geteuid() == 0 && strcmp(names[i], "permissions") == 0) continue;
        for (size_t j = 0; j < sizeof options / sizeof *options; j++)
            for (int way = WALK; way < WAYS; way++) {
                int follows = way == FOLLOW || way == FOLLOW_CHILDREN || options[j] & FTS_LOGICAL;
                if (i == LEADS_OUT && follows) continue;
                one_walk((char *[]){place[i], NULL}, options[j], way % 2 ? compare : NULL, way);
            }
    }
    one_walk((char *[]){place[3], place[9], place[10], place[0], "/proc/self/nothing", NULL}, FTS_PHYSICAL, compare, CHILDREN);
    one_walk((char *[]){place[3], place[9], place[10], place[0], NULL}, FTS_PHYSICAL | FTS_NOCHDIR, NULL, CHILDREN);
    one_walk((char *[]){place[0], "", NULL}, FTS_PHYSICAL, NULL, WALK);
    one_walk((char *[]){place[0], NULL}, 1 << 20, NULL, WALK);
    snprintf(place[1], sizeof place[1], "%s/walk", root);
    if (chdir(place[1]) != 0) return;
    for (int way = WALK; way < WAYS; way++) {
        one_walk((char *[]){".", NULL}, FTS_PHYSICAL, way % 2 ? compare : NULL, way);
        one_walk((char *[]){"alpha", "link", "../cycles", "gamma/deep/..", NULL}, FTS_PHYSICAL, NULL, way);
        one_walk((char *[]){"alpha", "link", "..//cycles", NULL}, FTS_LOGICAL, NULL, way);
    }
    FTS *fts = fts_open((char *[]){".", NULL}, FTS_PHYSICAL, NULL);
    errno = 0;
    printf("wrong %d %s", fts_children(fts, 5) != NULL, errno_name(errno));
    FTSENT *entry = fts_read(fts);
    errno = 0;
    printf(" %d %s", fts_set(fts, entry, 77), errno_name(errno));
    printf(" %d\n", fts_close(fts));
}

static int walked(const char *path, const struct stat *st, int kind, struct FTW *where) {
    printf("  %s kind=%d base=%d level=%d", below_root(path), kind, where->base - (int)(below_root(path) - path), where->level);
    if (kind != FTW_NS) printf(" ino=%lu", (unsigned long)st->st_ino);
    print_here();
    printf("\n");
    return 0;
}

static int skipping(const char *path, const struct stat *st, int kind, struct FTW *where) {
    walked(path, st, kind, where);
    size_t length = strlen(path + where->base);
    return length % 3 == 1 ? FTW_SKIP_SUBTREE : length % 7 == 2 ? FTW_SKIP_SIBLINGS : FTW_CONTINUE;
}

static int stopping(const char *path, const struct stat *st, int kind, struct FTW *where) {
    walked(path, st, kind, where);
    return where->level == 2 ? 5 : 0;
}

static void changing(const char *place, int depth) {
    for (int flags = 0; flags < 16; flags++) {
        if (strstr(place, "links") && !(flags & FTW_PHYS)) continue;
        printf("nftw %s %d %d = ", below_root(place), depth, flags);
        errno = ERRNO_UNTOUCHED;
        int most = flags | FTW_CHDIR;
        print_result(nftw(place, walked, depth, most));
        print_result(nftw(place, skipping, depth, most | FTW_ACTIONRETVAL));
        print_result(nftw(place, stopping, depth, most));
        print_here();
        printf("\n");
    }
}

int main(int argc, char **argv) {
    start(argc, argv);
    char place[PATH_MAX];
    for (int i = 0; i < NAMED; i++) {
        snprintf(place, sizeof place, "%s/%s", root, names[i]);
        changing(place, 1);
        changing(place, 2);
        changing(place, 20);
    }
    snprintf(place, sizeof place, "%s/walk", root);
    if (chdir(place) != 0) return 1;
    changing(".", 1);
    changing("alpha", 3);
    changing("gamma/deep/..", 20);
    changing("../cycles", 1);
    if (chdir("/") != 0) return 1;
    all_walks();
    return 0;
}
