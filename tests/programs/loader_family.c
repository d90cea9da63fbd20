/* dlopen and its kin on libraries in ROOT/libraries, which the test builds there. */
#include "common.h"
#include <dlfcn.h>
#include <link.h>

static char path[PATH_MAX];

static const char *at(const char *relative) {
    snprintf(path, sizeof path, "%s/libraries/%s", root, relative);
    return path;
}

static void *try_open(const char *name, int flags) {
    dlerror();
    void *handle = dlopen(name, flags);
    const char *error = dlerror();
    printf("dlopen ");
    print_path(name ? name : "NULL");
    printf(" %s\n", handle ? "opened" : error);
    return handle;
}

static void call(void *handle, const char *function) {
    int (*answer)(void) = handle ? (int (*)(void))dlsym(handle, function) : NULL;
    if (answer) printf("  %s() = %d\n", function, answer());
    else printf("  no %s\n", function);
}

static void in_own_process(const char *name, int flags, const char *function) {
    IN_CHILD({
        void *handle = try_open(name, flags);
        if (handle) {
            call(handle, function);
            printf("  closed %d\n", dlclose(handle));
        }
    });
}

static void print_real(const char *name) {
    char real[PATH_MAX];
    struct stat status;
    printf("  real ");
    print_path(realpath(name, real) ? real : "none");
    printf(" size %lld\n", stat(name, &status) == 0 ? (long long)status.st_size : -1LL);
}

/* Libraries of the tree, whatever they are called. */
static int print_ours(struct dl_phdr_info *info, size_t size, void *data) {
    (void)size, (void)data;
    char real[PATH_MAX];
    if (realpath(info->dlpi_name, real) && strstr(real, "/libraries/")) print_real(info->dlpi_name);
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    root = argv[1];
    static const char *names[] = {"libleaf.so",    "libneeds_leaf.so", "libneeds_missing.so", "link.so",
                                  "hard.so",       "missing.so",       "garbage.so",          "empty.so",
                                  "directory.so",  "truncated.so",     "text.so",             "sub/libfar.so",
                                  "unreadable.so", "dangling.so"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        in_own_process(at(names[i]), RTLD_NOW, "answer");
        in_own_process(at(names[i]), RTLD_LAZY | RTLD_GLOBAL, "answer");
        in_own_process(at(names[i]), RTLD_NOLOAD | RTLD_NOW, "answer");
    }
    printf("one library by several names:\n");
    void *first = try_open(at("libleaf.so"), RTLD_NOW);
    printf("  by link %s\n", try_open(at("link.so"), RTLD_NOW) == first ? "same" : "another");
    printf("  by hard link %s\n", try_open(at("hard.so"), RTLD_NOW) == first ? "same" : "another");
    printf("  by dots %s\n", try_open(at("sub/../libleaf.so"), RTLD_NOW) == first ? "same" : "another");
    printf("  loaded already %s\n", try_open(at("libleaf.so"), RTLD_NOW | RTLD_NOLOAD) == first ? "same" : "another");
    printf("  by soname %s\n", try_open("libleaf.so", RTLD_NOW) == first ? "same" : "another");
    printf("relative:\n");
    IN_CHILD(if (chdir(at("")) == 0) {
        call(try_open("./libleaf.so", RTLD_NOW), "answer");
        call(try_open("sub/libfar.so", RTLD_NOW), "answer");
        call(try_open("libneeds_leaf.so", RTLD_NOW), "answer");
    });
    printf("from a library, by its own RUNPATH:\n");
    void *opener = try_open(at("libopens_leaf.so"), RTLD_NOW);
    call(opener, "answer");
    printf("in a namespace of its own:\n");
    dlerror();
    void *other = dlmopen(LM_ID_NEWLM, at("libneeds_leaf.so"), RTLD_NOW);
    printf("dlmopen %s\n", other ? "opened" : dlerror());
    call(other, "answer");
    printf("along search paths:\n");
    static const char *searching[] = {
        "libabsolute_rpath.so", "libabsolute_runpath.so", "libsecond_element.so", "libtoken_lib.so",
        "libtoken_lib_old.so",  "libtoken_platform.so",   "libvariants_absolute.so", "libvariants_origin.so",
        "libversions.so",       "libversions_old.so",     "libpasses_over.so"};
    for (size_t i = 0; i < sizeof searching / sizeof *searching; i++) {
        in_own_process(at(searching[i]), RTLD_NOW, "answer");
        IN_CHILD({
            void *handle = dlmopen(LM_ID_NEWLM, at(searching[i]), RTLD_NOW);
            printf("dlmopen %s\n", handle ? "opened" : "failed");
            call(handle, "answer");
        });
    }
    in_own_process(at("libinherits.so"), RTLD_NOW, "outer");
    in_own_process(at("libinherits_not.so"), RTLD_NOW, "outer");
    printf("names that come back:\n");
    IN_CHILD({
        try_open(at("libabsolute_rpath.so"), RTLD_NOW | RTLD_GLOBAL);
        void *inner = dlsym(RTLD_DEFAULT, "inner");
        Dl_info info;
        if (inner && dladdr(inner, &info)) print_real(info.dli_fname);
        dl_iterate_phdr(print_ours, NULL);
    });
    printf("main program:\n");
    call(try_open(NULL, RTLD_NOW), "getpid_is_not_there");
    fflush(stdout);
    char command[2 * PATH_MAX];
    snprintf(command, sizeof command, "%s/libraries/linked; echo status $?; cd %s/libraries && ./linked", root, root);
    if (system(command) != 0) printf("system failed\n");
    snprintf(command, sizeof command,
             "cd %s/libraries && ./by_rpath; ./by_runpath; LD_LIBRARY_PATH=%s/libraries/search/plain ./by_library_path; "
             "LD_LIBRARY_PATH=search/plain ./by_library_path; "
             "LD_LIBRARY_PATH=%s/libraries/search/foreign:%s/libraries/search/variants ./by_library_path; "
             "LD_LIBRARY_PATH=%s/libraries/search/variants ./by_runpath; ./by_library_path 2>&1 | grep -c inner",
             root, root, root, root, root);
    if (system(command) != 0) printf("system failed\n");
    return 0;
}
