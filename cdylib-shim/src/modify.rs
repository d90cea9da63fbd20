//! Calls that change a file's mode, owner, times, length and extended attributes.

use crate::change::{Last, Meaning, Standing, change, change_descriptor, unchangeable};
use crate::filesystem::is_sound_name;
use crate::original::{hooks, original};
use crate::stat::means_descriptor;
use crate::target::is_bad_pointer;
use core::ffi::{c_char, c_int, c_void};
use libc::{
    AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, gid_t, mode_t, off_t, size_t, timespec, timeval,
    uid_t, utimbuf,
};

fn plainly(standing: Standing, _: Last) -> c_int {
    unchangeable(standing)
}

fn is_link(standing: Standing) -> bool {
    matches!(standing, Standing::Exists(mode) if mode & libc::S_IFMT == libc::S_IFLNK)
}

/// A link's own mode cannot be changed anywhere.
fn link_mode_refusal(standing: Standing, _: Last) -> c_int {
    if is_link(standing) {
        libc::EOPNOTSUPP
    } else {
        unchangeable(standing)
    }
}

fn fchmodat_refusal(flags: c_int, standing: Standing, last: Last) -> c_int {
    match flags {
        0 => unchangeable(standing),
        AT_SYMLINK_NOFOLLOW => link_mode_refusal(standing, last),
        _ => libc::EINVAL,
    }
}

fn flagged_refusal(flags: c_int, standing: Standing) -> c_int {
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return libc::EINVAL;
    }
    unchangeable(standing)
}

fn truncate_refusal(length: off_t, standing: Standing) -> c_int {
    if length < 0 {
        return libc::EINVAL;
    }
    match standing {
        Standing::Root => libc::EISDIR,
        Standing::Exists(mode) if mode & libc::S_IFMT == libc::S_IFDIR => libc::EISDIR,
        Standing::Exists(mode) if mode & libc::S_IFMT != libc::S_IFREG => libc::EINVAL,
        other => unchangeable(other),
    }
}

/// The two times of `utimensat`, if it was given any.
fn times_of(times: *const timespec) -> Option<[timespec; 2]> {
    // SAFETY: libc's contract: null or two timespecs.
    (!times.is_null()).then(|| unsafe { [*times, *times.add(1)] })
}

fn utimensat_refusal(times: *const timespec, flags: c_int, standing: Standing) -> c_int {
    let is_sound = |time: &timespec| {
        matches!(
            time.tv_nsec,
            0..=999_999_999 | libc::UTIME_NOW | libc::UTIME_OMIT
        )
    };
    match times_of(times) {
        Some(times) if times.iter().all(|time| time.tv_nsec == libc::UTIME_OMIT) => 0,
        Some(times) if !times.iter().all(is_sound) => match flagged_refusal(flags, standing) {
            libc::EROFS => libc::EINVAL,
            errno => errno,
        },
        _ => flagged_refusal(flags, standing),
    }
}

fn utimes_refusal(times: *const timeval, standing: Standing) -> c_int {
    let is_sound = |time: timeval| (0..1_000_000).contains(&time.tv_usec);
    // SAFETY: libc's contract: null or two timevals.
    let sound = times.is_null() || unsafe { is_sound(*times) && is_sound(*times.add(1)) };
    match unchangeable(standing) {
        libc::EROFS if !sound => libc::EINVAL,
        errno => errno,
    }
}

fn xattr_refusal(name: *const c_char, standing: Standing) -> c_int {
    if is_bad_pointer(name.cast()) {
        libc::EFAULT
    } else if is_sound_name(name) {
        unchangeable(standing)
    } else {
        libc::ERANGE
    }
}

fn setxattr_refusal(name: *const c_char, size: size_t, flags: c_int, standing: Standing) -> c_int {
    const SIZE_MAX: size_t = 65536;
    if flags & !(libc::XATTR_CREATE | libc::XATTR_REPLACE) != 0 {
        return libc::EINVAL;
    }
    if size > SIZE_MAX && is_sound_name(name) {
        return libc::E2BIG;
    }
    xattr_refusal(name, standing)
}

/// Defines a call on one path.
macro_rules! path_hooks {
    ($(
        fn $name:ident($path:ident: *const c_char $(, $argument:ident: $kind:ty)*)
            as $meaning:ident: $refusal:expr;
    )*) => {$(
        hooks! { fn $name($path: *const c_char $(, $argument: $kind)*) -> c_int {
            change(AT_FDCWD, $path, Meaning::$meaning, &$refusal, &|_, $path| {
                original!(
                    fn $name($path: *const c_char $(, $argument: $kind)*) -> c_int;
                    or -1
                )
            })
        } }
    )*};
}

path_hooks! {
    fn chmod(path: *const c_char, mode: mode_t) as Followed: plainly;
    fn lchmod(path: *const c_char, mode: mode_t) as File: link_mode_refusal;
    fn chown(path: *const c_char, owner: uid_t, group: gid_t) as Followed: plainly;
    fn lchown(path: *const c_char, owner: uid_t, group: gid_t) as File: plainly;
    fn utime(path: *const c_char, times: *const utimbuf) as Followed: plainly;
    fn utimes(path: *const c_char, times: *const timeval) as Followed:
        |standing, _| utimes_refusal(times, standing);
    fn lutimes(path: *const c_char, times: *const timeval) as File:
        |standing, _| utimes_refusal(times, standing);
    fn truncate(path: *const c_char, length: off_t) as Followed:
        |standing, _| truncate_refusal(length, standing);
    fn truncate64(path: *const c_char, length: off_t) as Followed:
        |standing, _| truncate_refusal(length, standing);
    fn setxattr(
        path: *const c_char, name: *const c_char, value: *const c_void, size: size_t, flags: c_int
    ) as Followed: |standing, _| setxattr_refusal(name, size, flags, standing);
    fn lsetxattr(
        path: *const c_char, name: *const c_char, value: *const c_void, size: size_t, flags: c_int
    ) as File: |standing, _| setxattr_refusal(name, size, flags, standing);
    fn removexattr(path: *const c_char, name: *const c_char) as Followed:
        |standing, _| xattr_refusal(name, standing);
    fn lremovexattr(path: *const c_char, name: *const c_char) as File:
        |standing, _| xattr_refusal(name, standing);
}

/// The path of a file that an empty path may stand for.
fn named(path: *const c_char, flags: c_int) -> *const c_char {
    if !path.is_null() && means_descriptor(path, flags) {
        c".".as_ptr()
    } else {
        path
    }
}

hooks! {
    fn fchmodat(
        directory: c_int,
        path: *const c_char,
        mode: mode_t,
        flags: c_int,
    ) -> c_int {
        let meaning = Meaning::file(flags & AT_SYMLINK_NOFOLLOW == 0);
        let refusal = |standing, last| fchmodat_refusal(flags, standing, last);
        change(directory, path, meaning, &refusal, &|directory, path| original!(
            fn fchmodat(
                directory: c_int, path: *const c_char, mode: mode_t, flags: c_int,
            ) -> c_int;
            or -1
        ))
    }

    fn fchownat(
        directory: c_int,
        path: *const c_char,
        owner: uid_t,
        group: gid_t,
        flags: c_int,
    ) -> c_int {
        let native = |directory: c_int, path: *const c_char| original!(
            fn fchownat(
                directory: c_int, path: *const c_char, owner: uid_t, group: gid_t, flags: c_int,
            ) -> c_int;
            or -1
        );
        if !path.is_null() && means_descriptor(path, flags) && directory != AT_FDCWD {
            return change_descriptor(
                directory, &|path| native(AT_FDCWD, path), &|| native(directory, path),
            );
        }
        let path = named(path, flags);
        let meaning = Meaning::file(flags & AT_SYMLINK_NOFOLLOW == 0);
        let refusal = |standing, _: Last| flagged_refusal(flags, standing);
        change(directory, path, meaning, &refusal, &native)
    }

    fn utimensat(
        directory: c_int,
        path: *const c_char,
        times: *const timespec,
        flags: c_int,
    ) -> c_int {
        let native = |directory: c_int, path: *const c_char| original!(
            fn utimensat(
                directory: c_int, path: *const c_char, times: *const timespec, flags: c_int,
            ) -> c_int;
            or -1
        );
        if !path.is_null() && means_descriptor(path, flags) && directory != AT_FDCWD {
            return change_descriptor(
                directory, &|path| native(AT_FDCWD, path), &|| native(directory, path),
            );
        }
        let path = named(path, flags);
        let meaning = Meaning::file(flags & AT_SYMLINK_NOFOLLOW == 0);
        let refusal = |standing, _: Last| utimensat_refusal(times, flags, standing);
        change(directory, path, meaning, &refusal, &native)
    }

    fn futimesat(
        directory: c_int,
        path: *const c_char,
        times: *const timeval,
    ) -> c_int {
        let native = |directory: c_int, path: *const c_char| original!(
            fn futimesat(directory: c_int, path: *const c_char, times: *const timeval) -> c_int;
            or -1
        );
        if path.is_null() {
            // SAFETY: the caller's own arguments.
            return unsafe { futimes(directory, times) };
        }
        let refusal = |standing, _: Last| utimes_refusal(times, standing);
        change(directory, path, Meaning::Followed, &refusal, &native)
    }

    fn fchmod(descriptor: c_int, mode: mode_t) -> c_int {
        change_descriptor(
            descriptor,
            &|path| original!(fn chmod(path: *const c_char, mode: mode_t) -> c_int; or -1),
            &|| original!(fn fchmod(descriptor: c_int, mode: mode_t) -> c_int; or -1),
        )
    }

    fn fchown(descriptor: c_int, owner: uid_t, group: gid_t) -> c_int {
        change_descriptor(
            descriptor,
            &|path| original!(
                fn chown(path: *const c_char, owner: uid_t, group: gid_t) -> c_int;
                or -1
            ),
            &|| original!(
                fn fchown(descriptor: c_int, owner: uid_t, group: gid_t) -> c_int;
                or -1
            ),
        )
    }

    fn futimens(descriptor: c_int, times: *const timespec) -> c_int {
        let (directory, flags) = (AT_FDCWD, 0);
        change_descriptor(
            descriptor,
            &|path| original!(
                fn utimensat(
                    directory: c_int, path: *const c_char, times: *const timespec, flags: c_int,
                ) -> c_int;
                or -1
            ),
            &|| original!(
                fn futimens(descriptor: c_int, times: *const timespec) -> c_int;
                or -1
            ),
        )
    }

    fn futimes(descriptor: c_int, times: *const timeval) -> c_int {
        change_descriptor(
            descriptor,
            &|path| original!(
                fn utimes(path: *const c_char, times: *const timeval) -> c_int;
                or -1
            ),
            &|| original!(fn futimes(descriptor: c_int, times: *const timeval) -> c_int; or -1),
        )
    }

    fn fsetxattr(
        descriptor: c_int,
        name: *const c_char,
        value: *const c_void,
        size: size_t,
        flags: c_int,
    ) -> c_int {
        change_descriptor(
            descriptor,
            &|path| original!(
                fn setxattr(
                    path: *const c_char, name: *const c_char, value: *const c_void, size: size_t,
                    flags: c_int,
                ) -> c_int;
                or -1
            ),
            &|| original!(
                fn fsetxattr(
                    descriptor: c_int, name: *const c_char, value: *const c_void, size: size_t,
                    flags: c_int,
                ) -> c_int;
                or -1
            ),
        )
    }

    fn fremovexattr(descriptor: c_int, name: *const c_char) -> c_int {
        change_descriptor(
            descriptor,
            &|path| original!(
                fn removexattr(path: *const c_char, name: *const c_char) -> c_int;
                or -1
            ),
            &|| original!(
                fn fremovexattr(descriptor: c_int, name: *const c_char) -> c_int;
                or -1
            ),
        )
    }
}
