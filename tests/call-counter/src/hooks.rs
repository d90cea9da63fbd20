//! One hook per libc function that takes a path.
//!
//! All hooks have one shape: seven machine words in, one out. On the ABIs we run on, pointers and
//! integers travel in registers (the seventh on the stack) whatever their type, so this passes
//! every such call on unchanged, variadic ones with at most three arguments included. Functions
//! with an open argument list (`execl`, `execlp`, `execle`) cannot be counted so,
//! and `dlopen` must not: glibc looks at its caller's address to find the caller's RUNPATH.

use redhook::{hook, real};

/// The directory of a function that has no directory argument.
const CURRENT: usize = libc::AT_FDCWD as usize;

/// Declares the hooks: `symbol(base / path)` gives the positions of the directory argument, if the
/// function has one, and of the path argument.
macro_rules! counted {
    ($( $symbol:ident ( $($base:literal)? / $path:literal ) )*) => {
        /// The functions that are counted, in the order of the table's slots.
        pub(crate) const SYMBOLS: &[&str] = &[$(stringify!($symbol)),*];

        $(mod $symbol {
            use super::*;

            const SLOT: usize = super::position(stringify!($symbol));

            hook! {
                unsafe fn $symbol(
                    a: usize, b: usize, c: usize, d: usize, e: usize, f: usize, g: usize
                ) -> usize => counted {
                    let words = [a, b, c];
                    let base = counted!(@base words $($base)?);
                    crate::table::count(SLOT, base as libc::c_int, words[$path]);
                    // SAFETY: the same function with the same words that it was called with.
                    unsafe { real!($symbol)(a, b, c, d, e, f, g) }
                }
            }
        })*
    };
    (@base $words:ident $base:literal) => { $words[$base] };
    (@base $words:ident) => { CURRENT };
}

/// The slot of the function `name`.
const fn position(name: &str) -> usize {
    let mut index = 0;
    while index < SYMBOLS.len() {
        if equal(SYMBOLS[index].as_bytes(), name.as_bytes()) {
            return index;
        }
        index += 1;
    }
    panic!("not in the list")
}

const fn equal(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut index = 0;
    while index < one.len() {
        if one[index] != other[index] {
            return false;
        }
        index += 1;
    }
    true
}

counted! {
    open(/ 0)
    open64(/ 0)
    __open(/ 0)
    __open64(/ 0)
    __open_2(/ 0)
    __open64_2(/ 0)
    creat(/ 0)
    creat64(/ 0)
    fopen(/ 0)
    fopen64(/ 0)
    freopen(/ 0)
    freopen64(/ 0)
    stat(/ 0)
    stat64(/ 0)
    lstat(/ 0)
    lstat64(/ 0)
    access(/ 0)
    euidaccess(/ 0)
    eaccess(/ 0)
    readlink(/ 0)
    __readlink_chk(/ 0)
    realpath(/ 0)
    __realpath_chk(/ 0)
    canonicalize_file_name(/ 0)
    opendir(/ 0)
    scandir(/ 0)
    scandir64(/ 0)
    glob(/ 0)
    glob64(/ 0)
    ftw(/ 0)
    ftw64(/ 0)
    nftw(/ 0)
    nftw64(/ 0)
    wordexp(/ 0)
    chdir(/ 0)
    chroot(/ 0)
    statfs(/ 0)
    statfs64(/ 0)
    __statfs(/ 0)
    statvfs(/ 0)
    statvfs64(/ 0)
    pathconf(/ 0)
    getxattr(/ 0)
    lgetxattr(/ 0)
    listxattr(/ 0)
    llistxattr(/ 0)
    execve(/ 0)
    execv(/ 0)
    execvp(/ 0)
    execvpe(/ 0)
    unlink(/ 0)
    remove(/ 0)
    rename(/ 0)
    mkdir(/ 0)
    rmdir(/ 0)
    link(/ 0)
    symlink(/ 1)
    mknod(/ 0)
    mkfifo(/ 0)
    chmod(/ 0)
    lchmod(/ 0)
    chown(/ 0)
    lchown(/ 0)
    utime(/ 0)
    utimes(/ 0)
    lutimes(/ 0)
    truncate(/ 0)
    truncate64(/ 0)
    mkstemp(/ 0)
    mkstemp64(/ 0)
    mkostemp(/ 0)
    mkostemp64(/ 0)
    mkstemps(/ 0)
    mkstemps64(/ 0)
    mkostemps(/ 0)
    mkostemps64(/ 0)
    mkdtemp(/ 0)
    mktemp(/ 0)
    tempnam(/ 0)
    setxattr(/ 0)
    lsetxattr(/ 0)
    removexattr(/ 0)
    lremovexattr(/ 0)
    bindtextdomain(/ 1)
    setmntent(/ 0)
    ftok(/ 0)
    __xstat(/ 1)
    __xstat64(/ 1)
    __lxstat(/ 1)
    __lxstat64(/ 1)
    posix_spawn(/ 1)
    posix_spawnp(/ 1)
    inotify_add_watch(/ 1)
    __xmknod(/ 1)
    openat(0 / 1)
    openat64(0 / 1)
    __openat_2(0 / 1)
    __openat64_2(0 / 1)
    fstatat(0 / 1)
    fstatat64(0 / 1)
    statx(0 / 1)
    faccessat(0 / 1)
    readlinkat(0 / 1)
    __readlinkat_chk(0 / 1)
    scandirat(0 / 1)
    scandirat64(0 / 1)
    execveat(0 / 1)
    unlinkat(0 / 1)
    renameat(0 / 1)
    renameat2(0 / 1)
    mkdirat(0 / 1)
    linkat(0 / 1)
    mknodat(0 / 1)
    mkfifoat(0 / 1)
    fchmodat(0 / 1)
    fchownat(0 / 1)
    futimesat(0 / 1)
    utimensat(0 / 1)
    name_to_handle_at(0 / 1)
    __fxstatat(1 / 2)
    __fxstatat64(1 / 2)
    __xmknodat(1 / 2)
    symlinkat(1 / 2)
}
