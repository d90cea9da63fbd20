//! `syscall`: calls that programs make by number go through the same hooks as those by name.
//!
//! All other numbers go to the kernel from the caller's own frame, as libc's function lets them:
//! what clones threads or forks must not return through a frame of ours.

use crate::access::{access, faccessat};
use crate::copying::{copy_file_range, ioctl};
use crate::credentials::{group_changing, user_changed};
use crate::cwd::{chdir, fchdir, getcwd};
use crate::descriptor::{demote, record_of};
use crate::entries::{
    link, linkat, mkdir, mkdirat, mknod, mknodat, rename, renameat, renameat2, rmdir, symlink,
    symlinkat, unlink, unlinkat,
};
use crate::exec::{execve, execveat};
use crate::filesystem::{
    fgetxattr, flistxattr, fstatfs64, getxattr, inotify_add_watch, lgetxattr, listxattr,
    llistxattr, name_to_handle_at, statfs64,
};
use crate::holes::lseek;
use crate::links::{readlink, readlinkat};
use crate::locks::{fcntl, flock};
use crate::modify::{
    chmod, chown, fchmod, fchmodat, fchown, fchownat, fremovexattr, fsetxattr, futimens, futimesat,
    lchown, lremovexattr, lsetxattr, removexattr, setxattr, truncate, utime, utimensat, utimes,
};
use crate::open::{creat, open, openat};
use crate::seccomp::{prctl, seccomp};
use crate::session;
use crate::stat::{fstat, fstatat, lstat, stat, statx};
use crate::sys::{self, call, fail, finish};
use crate::target::is_bad_pointer;
use core::ffi::{CStr, c_char, c_int, c_long, c_uint};

/// Numbers below this may have a hook.
const NUMBERS: usize = 512;

const SYS_FCHMODAT2: c_long = 452;

/// Lists what is dispatched: for each number the call by name, with the arguments as given.
macro_rules! dispatch {
    (|$number:ident: $a:ident, $b:ident, $c:ident, $d:ident, $e:ident, $f:ident|
        $($(#[$condition:meta])* $known:path => $call:expr;)*) =>
    {
        /// 1 for every number that [`dispatched`] knows.
        static DISPATCHED: [u8; NUMBERS] = {
            let mut table = [0; NUMBERS];
            $($(#[$condition])* { table[$known as usize] = 1; })*
            table
        };

        /// Makes a call by its name.
        unsafe extern "C" fn dispatched(
            $number: c_long,
            $a: usize,
            $b: usize,
            $c: usize,
            $d: usize,
            $e: usize,
            $f: usize,
        ) -> c_long {
            // SAFETY: the caller's own arguments, in the kernel's order, which is libc's here.
            unsafe {
                match $number {
                    $($(#[$condition])* $known => ($call) as c_long,)*
                    _ => finish(call!($number, $a, $b, $c, $d, $e, $f)) as c_long,
                }
            }
        }
    };
}

dispatch! { |number: a, b, c, d, e, f|
    #[cfg(target_arch = "x86_64")] libc::SYS_open => open(a as _, b as _, c as _);
    #[cfg(target_arch = "x86_64")] libc::SYS_creat => creat(a as _, b as _);
    #[cfg(target_arch = "x86_64")] libc::SYS_stat => stat(a as _, b as _);
    #[cfg(target_arch = "x86_64")] libc::SYS_lstat => lstat(a as _, b as _);
    #[cfg(target_arch = "x86_64")] libc::SYS_access => access(a as _, b as _);
    #[cfg(target_arch = "x86_64")] libc::SYS_readlink => readlink(a as _, b as _, c);
    #[cfg(target_arch = "x86_64")] libc::SYS_unlink => unlink(a as _);
    #[cfg(target_arch = "x86_64")] libc::SYS_rmdir => rmdir(a as _);
    #[cfg(target_arch = "x86_64")] libc::SYS_rename => rename(a as _, b as _);
    #[cfg(target_arch = "x86_64")] libc::SYS_mkdir => mkdir(a as _, b as _);
    #[cfg(target_arch = "x86_64")] libc::SYS_link => link(a as _, b as _);
    #[cfg(target_arch = "x86_64")] libc::SYS_symlink => symlink(a as _, b as _);
    #[cfg(target_arch = "x86_64")] libc::SYS_mknod => mknod(a as _, b as _, c as _);
    #[cfg(target_arch = "x86_64")] libc::SYS_chmod => chmod(a as _, b as _);
    #[cfg(target_arch = "x86_64")] libc::SYS_chown => chown(a as _, b as _, c as _);
    #[cfg(target_arch = "x86_64")] libc::SYS_lchown => lchown(a as _, b as _, c as _);
    #[cfg(target_arch = "x86_64")] libc::SYS_utime => utime(a as _, b as _);
    #[cfg(target_arch = "x86_64")] libc::SYS_utimes => utimes(a as _, b as _);
    #[cfg(target_arch = "x86_64")] libc::SYS_futimesat => futimesat(a as _, b as _, c as _);
    #[cfg(target_arch = "x86_64")] libc::SYS_getdents => list(libc::SYS_getdents, a, b, c);
    libc::SYS_getdents64 => list(libc::SYS_getdents64, a, b, c);
    libc::SYS_openat => openat(a as _, b as _, c as _, d as _);
    libc::SYS_openat2 => open_how(a as _, b as _, c as _, d);
    libc::SYS_fstat => fstat(a as _, b as _);
    libc::SYS_newfstatat => fstatat(a as _, b as _, c as _, d as _);
    libc::SYS_statx => statx(a as _, b as _, c as _, d as _, e as _);
    libc::SYS_faccessat => faccessat(a as _, b as _, c as _, 0);
    libc::SYS_faccessat2 => faccessat(a as _, b as _, c as _, d as _);
    libc::SYS_readlinkat => readlinkat(a as _, b as _, c as _, d);
    libc::SYS_execve => execve(a as _, b as _, c as _);
    libc::SYS_execveat => execveat(a as _, b as _, c as _, d as _, e as _);
    libc::SYS_lseek => lseek(a as _, b as _, c as _);
    libc::SYS_copy_file_range => copy_file_range(a as _, b as _, c as _, d as _, e, f as _);
    libc::SYS_flock => flock(a as _, b as _);
    libc::SYS_fcntl => fcntl(a as _, b as _, c as _);
    libc::SYS_ioctl => ioctl(a as _, b as _, c as _);
    libc::SYS_chdir => chdir(a as _);
    libc::SYS_fchdir => fchdir(a as _);
    libc::SYS_getcwd => working_directory(a as _, b);
    libc::SYS_statfs => statfs64(a as _, b as _);
    libc::SYS_fstatfs => fstatfs64(a as _, b as _);
    libc::SYS_unlinkat => unlinkat(a as _, b as _, c as _);
    libc::SYS_renameat => renameat(a as _, b as _, c as _, d as _);
    libc::SYS_renameat2 => renameat2(a as _, b as _, c as _, d as _, e as _);
    libc::SYS_mkdirat => mkdirat(a as _, b as _, c as _);
    libc::SYS_linkat => linkat(a as _, b as _, c as _, d as _, e as _);
    libc::SYS_symlinkat => symlinkat(a as _, b as _, c as _);
    libc::SYS_mknodat => mknodat(a as _, b as _, c as _, d as _);
    libc::SYS_fchmod => fchmod(a as _, b as _);
    libc::SYS_fchmodat => fchmodat(a as _, b as _, c as _, 0);
    SYS_FCHMODAT2 => fchmodat(a as _, b as _, c as _, d as _);
    libc::SYS_fchown => fchown(a as _, b as _, c as _);
    libc::SYS_fchownat => fchownat(a as _, b as _, c as _, d as _, e as _);
    libc::SYS_utimensat => if b == 0 {
        futimens(a as _, c as _)
    } else {
        utimensat(a as _, b as _, c as _, d as _)
    };
    libc::SYS_truncate => truncate(a as _, b as _);
    libc::SYS_setxattr => setxattr(a as _, b as _, c as _, d, e as _);
    libc::SYS_lsetxattr => lsetxattr(a as _, b as _, c as _, d, e as _);
    libc::SYS_fsetxattr => fsetxattr(a as _, b as _, c as _, d, e as _);
    libc::SYS_removexattr => removexattr(a as _, b as _);
    libc::SYS_lremovexattr => lremovexattr(a as _, b as _);
    libc::SYS_fremovexattr => fremovexattr(a as _, b as _);
    libc::SYS_getxattr => getxattr(a as _, b as _, c as _, d);
    libc::SYS_lgetxattr => lgetxattr(a as _, b as _, c as _, d);
    libc::SYS_fgetxattr => fgetxattr(a as _, b as _, c as _, d);
    libc::SYS_listxattr => listxattr(a as _, b as _, c);
    libc::SYS_llistxattr => llistxattr(a as _, b as _, c);
    libc::SYS_flistxattr => flistxattr(a as _, b as _, c);
    libc::SYS_inotify_add_watch => inotify_add_watch(a as _, b as _, c as _);
    libc::SYS_name_to_handle_at => name_to_handle_at(a as _, b as _, c as _, d as _, e as _);
    libc::SYS_prctl => prctl(a as _, b as _, c as _, d as _, e as _);
    libc::SYS_seccomp => seccomp(a, b, c);
    // By number these change the calling thread only.
    libc::SYS_setuid => user_changed(finish(call!(number, a)) as c_int);
    libc::SYS_setreuid => user_changed(finish(call!(number, a, b)) as c_int);
    libc::SYS_setresuid => user_changed(finish(call!(number, a, b, c)) as c_int);
    libc::SYS_setgid => group_changing(|| finish(call!(number, a)) as c_int);
    libc::SYS_setregid => group_changing(|| finish(call!(number, a, b)) as c_int);
    libc::SYS_setresgid => group_changing(|| finish(call!(number, a, b, c)) as c_int);
    libc::SYS_chroot => {
        let result = finish(call!(number, a));
        if result == 0 {
            session::switch_off();
        }
        result
    };
}

/// Lists a directory by the kernel.
fn list(number: c_long, descriptor: usize, out: usize, room: usize) -> isize {
    demote(descriptor as c_int);
    // SAFETY: the caller's own arguments.
    finish(unsafe { call!(number, descriptor, out, room) })
}

/// `getcwd(2)`, which returns the length with the NUL.
fn working_directory(out: *mut c_char, room: usize) -> isize {
    if room == 0 {
        return fail(libc::ERANGE) as isize;
    }
    if is_bad_pointer(out.cast()) {
        // SAFETY: the kernel refuses the buffer.
        return finish(unsafe { call!(libc::SYS_getcwd, out, room) });
    }
    // SAFETY: the caller's buffer, which holds a NUL-terminated path where the call succeeds.
    unsafe {
        let path = getcwd(out, room);
        if path.is_null() {
            -1
        } else {
            CStr::from_ptr(path).to_bytes_with_nul().len() as isize
        }
    }
}

/// Room for what `openat2` is told.
const HOW_LENGTH: usize = size_of::<libc::open_how>();

/// `openat2`: without restrictions on the way it is an `openat`; with them only the kernel can
/// judge the way, from the origin's directory.
fn open_how(
    directory: c_int,
    path: *const c_char,
    how: *const libc::open_how,
    length: usize,
) -> c_int {
    let kernel = |directory: c_int| {
        // SAFETY: the caller's own arguments.
        finish(unsafe { call!(libc::SYS_openat2, directory, path, how, length) }) as c_int
    };
    if is_bad_pointer(how.cast()) || length < HOW_LENGTH {
        return kernel(directory);
    }
    // SAFETY: the caller's structure is at least as long as the fields that are read.
    let (flags, mode, restrictions) = unsafe { ((*how).flags, (*how).mode, (*how).resolve) };
    let creates = flags & (libc::O_CREAT | libc::O_TMPFILE & !libc::O_DIRECTORY) as u64 != 0;
    let plain = length == HOW_LENGTH
        && restrictions == 0
        && flags <= c_int::MAX as u64
        && (mode == 0 || (creates && mode & !0o7777 == 0));
    if plain {
        // SAFETY: the caller's own arguments.
        return unsafe { openat(directory, path, flags as c_int, mode as c_uint) };
    }
    let Some(record) = session::known().and_then(|session| record_of(session, directory)) else {
        return kernel(directory);
    };
    let origin = record.path_terminated().as_ptr().cast();
    match sys::open(origin, libc::O_PATH | libc::O_DIRECTORY) {
        Some(opened) => kernel(opened.number()),
        None => kernel(directory),
    }
}

/// Gives the kernel's error to a caller of `syscall`.
unsafe extern "C" fn failed(result: isize) -> c_long {
    finish(result) as c_long
}

/// `syscall`.
///
/// # Safety
/// As the libc function of this name.
#[unsafe(no_mangle)]
#[unsafe(naked)]
#[cfg(target_arch = "x86_64")]
pub(crate) unsafe extern "C" fn syscall() {
    core::arch::naked_asm!(
        "cmp rdi, {numbers}",
        "jae 2f",
        "lea rax, [rip + {table}]",
        "cmp byte ptr [rax + rdi], 0",
        "jne {dispatched}",
        "2:",
        "mov rax, rdi",
        "mov rdi, rsi",
        "mov rsi, rdx",
        "mov rdx, rcx",
        "mov r10, r8",
        "mov r8, r9",
        "mov r9, [rsp + 8]",
        "syscall",
        "cmp rax, -4095",
        "jae 3f",
        "ret",
        "3:",
        "mov rdi, rax",
        "jmp {failed}",
        numbers = const NUMBERS,
        table = sym DISPATCHED,
        dispatched = sym dispatched,
        failed = sym failed,
    )
}

/// `syscall`.
///
/// # Safety
/// As the libc function of this name.
#[unsafe(no_mangle)]
#[unsafe(naked)]
#[cfg(target_arch = "aarch64")]
pub(crate) unsafe extern "C" fn syscall() {
    core::arch::naked_asm!(
        "cmp x0, #{numbers}",
        "b.hs 2f",
        "adrp x9, {table}",
        "add x9, x9, :lo12:{table}",
        "ldrb w9, [x9, x0]",
        "cbnz w9, {dispatched}",
        "2:",
        "mov x8, x0",
        "mov x0, x1",
        "mov x1, x2",
        "mov x2, x3",
        "mov x3, x4",
        "mov x4, x5",
        "mov x5, x6",
        "svc 0",
        "cmn x0, #4095",
        "b.hs 3f",
        "ret",
        "3:",
        "b {failed}",
        numbers = const NUMBERS,
        table = sym DISPATCHED,
        dispatched = sym dispatched,
        failed = sym failed,
    )
}
