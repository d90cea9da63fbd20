//! Calls that make, remove and rename directory entries.

use crate::change::{
    Last, LastName, Meaning, Standing, Target, change, learn_links, mode_of, parent_error, refuse,
    settle, tell_of, with_lasting_name,
};
use crate::original::{hooks, original};
use crate::session;
use crate::target::{is_bad_pointer, text};
use copper_core::path::is_within;
use core::ffi::{c_char, c_int, c_uint};
use libc::{AT_FDCWD, AT_REMOVEDIR, AT_SYMLINK_FOLLOW, AT_SYMLINK_NOFOLLOW, dev_t, mode_t};

fn unlink_refusal(standing: Standing, last: Last) -> c_int {
    match (standing, last.name) {
        (Standing::Fails(errno), _) => errno,
        (Standing::Root, _) | (_, LastName::Dot | LastName::DotDot) => libc::EISDIR,
        _ => libc::EROFS,
    }
}

fn rmdir_refusal(standing: Standing, last: Last) -> c_int {
    match (standing, last.name) {
        (Standing::Fails(errno), _) => errno,
        (_, LastName::Dot) => libc::EINVAL,
        (_, LastName::DotDot) => libc::ENOTEMPTY,
        (Standing::Root, _) => libc::EBUSY,
        _ => libc::EROFS,
    }
}

/// `remove` unlinks, and removes a directory where that fails because it is one.
fn remove_refusal(standing: Standing, last: Last) -> c_int {
    match unlink_refusal(standing, last) {
        libc::EISDIR => rmdir_refusal(standing, last),
        errno => errno,
    }
}

fn unlinkat_refusal(flags: c_int, standing: Standing, last: Last) -> c_int {
    match flags {
        0 => unlink_refusal(standing, last),
        AT_REMOVEDIR => rmdir_refusal(standing, last),
        _ => libc::EINVAL,
    }
}

/// The refusal to make an entry: `directory` is to be one.
fn create_refusal(directory: bool, standing: Standing, last: Last) -> c_int {
    match standing {
        Standing::Fails(errno) => errno,
        Standing::Root | Standing::Exists(_) => libc::EEXIST,
        Standing::Missing(libc::ENOENT) if last.slash && !directory => libc::ENOENT,
        Standing::Missing(libc::ENOENT) => libc::EROFS,
        Standing::Missing(errno) => errno,
    }
}

pub(crate) fn mkdir_refusal(standing: Standing, last: Last) -> c_int {
    create_refusal(true, standing, last)
}

fn file_refusal(standing: Standing, last: Last) -> c_int {
    create_refusal(false, standing, last)
}

fn node_refusal(mode: mode_t, standing: Standing, last: Last) -> c_int {
    match mode & libc::S_IFMT {
        libc::S_IFDIR => libc::EPERM,
        0 | libc::S_IFREG | libc::S_IFCHR | libc::S_IFBLK | libc::S_IFIFO | libc::S_IFSOCK => {
            file_refusal(standing, last)
        }
        _ => libc::EINVAL,
    }
}

fn symlink_refusal(content: *const c_char, standing: Standing, last: Last) -> c_int {
    // SAFETY: libc's contract makes the text NUL-terminated.
    if !is_bad_pointer(content.cast()) && unsafe { *content } == 0 {
        return libc::ENOENT;
    }
    file_refusal(standing, last)
}

/// Defines a call that changes the path among its arguments: `in` names the arguments that stand
/// for the directory and the path.
macro_rules! entry_hooks {
    ($(
        fn $name:ident($($argument:ident: $kind:ty),*) in $directory:ident $path:ident:
            $refusal:expr;
    )*) => {$(
        hooks! { fn $name($($argument: $kind),*) -> c_int {
            change($directory, $path, Meaning::Entry, &$refusal, &|$directory, $path| {
                original!(fn $name($($argument: $kind),*) -> c_int; or -1)
            })
        } }
    )*};
    ($(
        fn $name:ident($($argument:ident: $kind:ty),*) at $path:ident: $refusal:expr;
    )*) => {$(
        hooks! { fn $name($($argument: $kind),*) -> c_int {
            change(AT_FDCWD, $path, Meaning::Entry, &$refusal, &|_, $path| {
                original!(fn $name($($argument: $kind),*) -> c_int; or -1)
            })
        } }
    )*};
}

entry_hooks! {
    fn unlink(path: *const c_char) at path: unlink_refusal;
    fn rmdir(path: *const c_char) at path: rmdir_refusal;
    fn remove(path: *const c_char) at path: remove_refusal;
    fn mkdir(path: *const c_char, mode: mode_t) at path: mkdir_refusal;
    fn mkfifo(path: *const c_char, mode: mode_t) at path: file_refusal;
    fn symlink(content: *const c_char, path: *const c_char) at path:
        |standing, last| symlink_refusal(content, standing, last);
    fn mknod(path: *const c_char, mode: mode_t, device: dev_t) at path:
        |standing, last| node_refusal(mode, standing, last);
    fn __xmknod(version: c_int, path: *const c_char, mode: mode_t, device: *mut dev_t) at path:
        |standing, last| node_refusal(mode, standing, last);
}

entry_hooks! {
    fn unlinkat(directory: c_int, path: *const c_char, flags: c_int) in directory path:
        |standing, last| unlinkat_refusal(flags, standing, last);
    fn mkdirat(directory: c_int, path: *const c_char, mode: mode_t) in directory path:
        mkdir_refusal;
    fn mkfifoat(directory: c_int, path: *const c_char, mode: mode_t) in directory path:
        file_refusal;
    fn symlinkat(content: *const c_char, directory: c_int, path: *const c_char)
        in directory path: |standing, last| symlink_refusal(content, standing, last);
    fn mknodat(directory: c_int, path: *const c_char, mode: mode_t, device: dev_t)
        in directory path: |standing, last| node_refusal(mode, standing, last);
    fn __xmknodat(
        version: c_int, directory: c_int, path: *const c_char, mode: mode_t, device: *mut dev_t
    ) in directory path: |standing, last| node_refusal(mode, standing, last);
}

/// One end of a call with two paths.
#[derive(Clone, Copy)]
struct End {
    directory: c_int,
    path: *const c_char,
}

type NativePair<'n> = &'n dyn Fn(End, End) -> c_int;

const RENAME_NOREPLACE: c_uint = 1;
const RENAME_EXCHANGE: c_uint = 2;
const RENAME_WHITEOUT: c_uint = 4;

fn rename_common(from: End, to: End, flags: c_uint, native: NativePair<'_>) -> c_int {
    pair(from, to, Meaning::Entry, native, &|old, new| {
        rename_refusal((from, old), (to, new), flags)
    })
}

/// Settles both ends, and makes the call or refuses it.
fn pair(
    from: End,
    to: End,
    meaning: Meaning,
    native: NativePair<'_>,
    refusal: &dyn Fn(&Target<'_>, &Target<'_>) -> c_int,
) -> c_int {
    settle(from.directory, from.path, meaning, &mut |old| {
        settle(to.directory, to.path, Meaning::Entry, &mut |new| {
            new.count();
            match (&old, &new) {
                (
                    Target::Writable {
                        directory,
                        path,
                        told,
                    },
                    Target::Writable {
                        directory: to_directory,
                        path: to_path,
                        told: to_told,
                    },
                ) => {
                    let old = End {
                        directory: *directory,
                        path: *path,
                    };
                    let new = End {
                        directory: *to_directory,
                        path: *to_path,
                    };
                    learn_links(*to_told, new.directory, new.path);
                    with_lasting_names(*told, *to_told, |told, to_told| {
                        let result = native(old, new);
                        if result == 0 {
                            tell_of(told, to_told);
                        }
                        result
                    })
                }
                _ => refuse(refusal(&old, &new)),
            }
        })
    })
}

/// Hands the names to tell of to `then`. Where one lies below the other, the one is a link that
/// may be gone afterwards.
fn with_lasting_names(
    old: Option<&[u8]>,
    new: Option<&[u8]>,
    then: impl FnOnce(Option<&[u8]>, Option<&[u8]>) -> c_int,
) -> c_int {
    match (old, new, session::known()) {
        (Some(old), Some(new), Some(session)) if is_within(old, new) || is_within(new, old) => {
            with_lasting_name(session, old, |old| {
                with_lasting_name(session, new, |new| then(Some(old), Some(new)))
            })
        }
        _ => then(old, new),
    }
}

/// What the kernel says of a path before it looks anything up.
fn name_error(path: *const c_char) -> Option<c_int> {
    if is_bad_pointer(path.cast()) {
        return Some(libc::EFAULT);
    }
    // SAFETY: libc's contract makes the path NUL-terminated.
    let empty = unsafe { *path } == 0;
    match text(path) {
        Some(_) => None,
        None if empty => Some(libc::ENOENT),
        None => Some(libc::ENAMETOOLONG),
    }
}

/// The error of the way to an end's directory, if it does not lead there.
fn way_error(end: End, target: &Target<'_>) -> Option<c_int> {
    match target {
        Target::View(Standing::Fails(errno)) => Some(*errno),
        Target::View(_) => None,
        Target::Writable { .. } => {
            name_error(end.path).or_else(|| parent_error(end.directory, end.path))
        }
    }
}

/// Whether an entry at this end would lie on the view's mount.
fn is_inside(target: &Target<'_>) -> bool {
    matches!(target, Target::View(standing) if !matches!(standing, Standing::Root))
}

fn rename_refusal(from: (End, &Target<'_>), to: (End, &Target<'_>), flags: c_uint) -> c_int {
    let known = RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT;
    let exchange = flags & RENAME_EXCHANGE != 0;
    if flags & !known != 0 || (exchange && flags & (RENAME_NOREPLACE | RENAME_WHITEOUT) != 0) {
        return libc::EINVAL;
    }
    if let Some(errno) = way_error(from.0, from.1).or_else(|| way_error(to.0, to.1)) {
        return errno;
    }
    let is_plain = |end: End| Last::of(end.path).name == LastName::Plain;
    match (is_inside(from.1), is_inside(to.1)) {
        (true, true) if !is_plain(from.0) => libc::EBUSY,
        (true, true) if !is_plain(to.0) && flags & RENAME_NOREPLACE != 0 => libc::EEXIST,
        (true, true) if !is_plain(to.0) => libc::EBUSY,
        (true, true) => libc::EROFS,
        (false, false) => libc::EBUSY,
        _ => libc::EXDEV,
    }
}

fn link_common(from: End, to: End, flags: c_int, native: NativePair<'_>) -> c_int {
    let meaning = Meaning::file(flags & AT_SYMLINK_FOLLOW != 0);
    pair(from, to, meaning, native, &|old, new| {
        link_refusal((from, old), (to, new), flags)
    })
}

fn link_refusal(from: (End, &Target<'_>), to: (End, &Target<'_>), flags: c_int) -> c_int {
    if flags & !(AT_SYMLINK_FOLLOW | libc::AT_EMPTY_PATH) != 0 {
        return libc::EINVAL;
    }
    let old_error = match from.1 {
        Target::View(Standing::Fails(errno) | Standing::Missing(errno)) => Some(*errno),
        Target::View(_) => None,
        Target::Writable { .. } => link_source_error(from.0, flags),
    };
    if let Some(errno) = old_error {
        return errno;
    }
    match to.1 {
        Target::View(standing) => file_refusal(*standing, Last::of(to.0.path)),
        Target::Writable {
            directory, path, ..
        } => match mode_of(*directory, *path, AT_SYMLINK_NOFOLLOW) {
            _ if name_error(*path).is_some() => name_error(*path).unwrap_or(libc::ENOENT),
            Ok(_) => libc::EEXIST,
            Err(_) => parent_error(to.0.directory, to.0.path).unwrap_or(libc::EXDEV),
        },
    }
}

fn link_source_error(end: End, flags: c_int) -> Option<c_int> {
    let empty = flags & libc::AT_EMPTY_PATH;
    let no_follow = if flags & AT_SYMLINK_FOLLOW == 0 {
        AT_SYMLINK_NOFOLLOW
    } else {
        0
    };
    let error = name_error(end.path);
    if error.is_some() && (empty == 0 || error != Some(libc::ENOENT)) {
        return error;
    }
    mode_of(end.directory, end.path, empty | no_follow).err()
}

/// Defines the calls with two paths.
macro_rules! pair_hooks {
    ($(
        fn $name:ident($($argument:ident: $kind:ty),*)
            from $old_directory:tt $old:ident to $new_directory:tt $new:ident
            by $common:ident $flags:expr;
    )*) => {$(
        hooks! { fn $name($($argument: $kind),*) -> c_int {
            let from = End { directory: pair_hooks!(@value $old_directory), path: $old };
            let to = End { directory: pair_hooks!(@value $new_directory), path: $new };
            $common(from, to, $flags, &|from, to| {
                pair_hooks!(@bind $old_directory = from.directory);
                let $old = from.path;
                pair_hooks!(@bind $new_directory = to.directory);
                let $new = to.path;
                original!(fn $name($($argument: $kind),*) -> c_int; or -1)
            })
        } }
    )*};
    (@value _) => { AT_FDCWD };
    (@value $directory:ident) => { $directory };
    (@bind _ = $value:expr) => {};
    (@bind $directory:ident = $value:expr) => { let $directory = $value; };
}

pair_hooks! {
    fn rename(old: *const c_char, new: *const c_char) from _ old to _ new by rename_common 0;
    fn renameat(
        old_directory: c_int, old: *const c_char, new_directory: c_int, new: *const c_char
    ) from old_directory old to new_directory new by rename_common 0;
    fn renameat2(
        old_directory: c_int, old: *const c_char, new_directory: c_int, new: *const c_char,
        flags: c_uint
    ) from old_directory old to new_directory new by rename_common flags;
    fn link(old: *const c_char, new: *const c_char) from _ old to _ new by link_common 0;
    fn linkat(
        old_directory: c_int, old: *const c_char, new_directory: c_int, new: *const c_char,
        flags: c_int
    ) from old_directory old to new_directory new by link_common flags;
}
