//! The exec family. The search along `PATH` happens here, since libc's own does not see what is
//! covered; candidates that the catalog knows to be missing are not tried.

use crate::cwd::{Left, is_in_store, leave_store};
use crate::descriptor::{demote, record_of};
use crate::environment::{List, brings_shim, strings, with_environment};
use crate::original::{hooks, original};
use crate::process::environment;
use crate::program::{is_script, takes_preload, with_program};
use crate::scratch::with_scratch;
use crate::session;
use crate::stat::means_descriptor;
use crate::stored_program::start_stored;
use crate::sys::{self, call, fail, finish};
use crate::target::proc_link;
use copper_core::path::{NAME_MAX, PATH_MAX};
use core::ffi::{CStr, c_char, c_int};
use libc::AT_FDCWD;

/// A program to start: by the kernel's names, with all that it is given.
#[derive(Clone, Copy)]
struct Start {
    directory: c_int,
    path: *const c_char,
    arguments: List,
    environment: List,
    flags: c_int,
}

impl Start {
    fn new(path: *const c_char, arguments: List, environment: List) -> Start {
        Start {
            directory: AT_FDCWD,
            path,
            arguments,
            environment,
            flags: 0,
        }
    }

    /// Starts the program; returns where that fails.
    fn now(self) -> c_int {
        if self.directory == AT_FDCWD && self.flags == 0 {
            let before = sys::errno();
            let start = &mut |path, arguments, environment| {
                Start::new(path, arguments, environment).in_fitting_directory()
            };
            start_stored(self.path, self.arguments, self.environment, start);
            sys::set_errno(before);
        }
        with_program(self.directory, self.path, &mut |program| match program {
            Err(errno) => fail(errno),
            Ok((directory, path)) => Start {
                directory,
                path,
                ..self
            }
            .in_fitting_directory(),
        })
    }

    /// Starts the program from the origin's directory where the shim will not be in it.
    fn in_fitting_directory(self) -> c_int {
        let left = self.leave_store();
        let result = self.by_kernel();
        if let Some(left) = left {
            left.back();
        }
        result
    }

    fn leave_store(&self) -> Option<Left> {
        leave_store_for(self.directory, self.path, self.environment)
    }

    fn by_kernel(self) -> c_int {
        let Start {
            directory,
            path,
            arguments,
            environment,
            flags,
        } = self;
        if directory == AT_FDCWD && flags == 0 {
            return original!(
                fn execve(path: *const c_char, arguments: List, environment: List) -> c_int;
                else {
                    // SAFETY: the caller's own arguments, or our own lists.
                    let result =
                        unsafe { call!(libc::SYS_execve, path, arguments, environment) };
                    finish(result) as c_int
                }
            );
        }
        // SAFETY: as above.
        finish(unsafe {
            call!(
                libc::SYS_execveat,
                directory,
                path,
                arguments,
                environment,
                flags
            )
        }) as c_int
    }

    /// Starts the program, or gives it to the shell where it is no program but text.
    fn or_shell(self) -> c_int {
        let result = self.now();
        if result == -1 && sys::errno() == libc::ENOEXEC {
            return self.by_shell();
        }
        result
    }

    #[cold]
    #[inline(never)]
    fn by_shell(self) -> c_int {
        let shell = c"/bin/sh".as_ptr();
        let count = strings(self.arguments).count();
        with_scratch(count.saturating_add(3), &mut |words| {
            let start = [shell as usize, self.path as usize];
            let rest = strings(self.arguments)
                .skip(1)
                .map(|text| text.as_ptr() as usize);
            for (place, word) in words.iter_mut().zip(start.into_iter().chain(rest)) {
                *place = word;
            }
            Start {
                path: shell,
                arguments: words.as_ptr().cast(),
                ..self
            }
            .now()
        })
    }
}

/// Leaves a working directory in the store if the program to be started would see only what the
/// kernel shows there.
pub(crate) fn leave_store_for(
    directory: c_int,
    path: *const c_char,
    environment: List,
) -> Option<Left> {
    let session = session::known()?;
    if !is_in_store(session) || (brings_shim(environment) && takes_preload(directory, path)) {
        return None;
    }
    leave_store()
}

/// Starts a program with an environment that brings the shim along.
fn start(program: Start) -> c_int {
    with_environment(program.environment, &mut |environment| {
        Start {
            environment,
            ..program
        }
        .now()
    })
}

/// Where programs are searched for when there is no `PATH`.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";

/// The directories to search, in order; an empty one is the working directory.
pub(crate) fn search_path() -> impl Iterator<Item = &'static [u8]> {
    session::variable("PATH")
        .unwrap_or(DEFAULT_PATH)
        .split(|&byte| byte == b':')
}

/// A directory and a name put together.
pub(crate) struct Candidate {
    text: [u8; PATH_MAX + NAME_MAX + 3],
}

impl Candidate {
    pub(crate) const fn new() -> Candidate {
        Candidate {
            text: [0; PATH_MAX + NAME_MAX + 3],
        }
    }

    /// The path of `name` in `directory`; `None` where that is too long to be one.
    pub(crate) fn put(&mut self, directory: &[u8], name: &[u8]) -> Option<*const c_char> {
        if directory.len() >= PATH_MAX || name.len() > NAME_MAX {
            return None;
        }
        let slash = usize::from(!directory.is_empty());
        let start = directory.len() + slash;
        self.text[..directory.len()].copy_from_slice(directory);
        self.text[directory.len()..start].fill(b'/');
        self.text[start..start + name.len()].copy_from_slice(name);
        self.text[start + name.len()] = 0;
        Some(self.text.as_ptr().cast())
    }
}

/// Whether the search goes on after a candidate failed in this way.
pub(crate) fn search_goes_on(errno: c_int) -> bool {
    matches!(
        errno,
        libc::EACCES | libc::ENOENT | libc::ESTALE | libc::ENOTDIR | libc::ENODEV | libc::ETIMEDOUT
    )
}

/// Searches for a program as libc does, and starts the first that can be.
#[cold]
#[inline(never)]
fn search(program: Start) -> c_int {
    // SAFETY: libc's contract makes the name NUL-terminated.
    let name = unsafe { CStr::from_ptr(program.path) }.to_bytes();
    if name.is_empty() {
        return fail(libc::ENOENT);
    }
    if name.contains(&b'/') {
        return program.or_shell();
    }
    if name.len() > NAME_MAX {
        return fail(libc::ENAMETOOLONG);
    }
    let mut candidate = Candidate::new();
    let mut denied = false;
    for directory in search_path() {
        let Some(path) = candidate.put(directory, name) else {
            continue;
        };
        Start { path, ..program }.or_shell();
        let errno = sys::errno();
        denied |= errno == libc::EACCES;
        if !search_goes_on(errno) {
            return -1;
        }
    }
    if denied {
        return fail(libc::EACCES);
    }
    -1
}

fn search_with_environment(name: *const c_char, arguments: List, environment: List) -> c_int {
    with_environment(environment, &mut |environment| {
        search(Start::new(name, arguments, environment))
    })
}

/// Starts the program that a descriptor is open on.
fn start_descriptor(
    descriptor: c_int,
    environment: List,
    arguments: List,
    native: &dyn Fn(List) -> c_int,
) -> c_int {
    let Some(session) = session::known() else {
        return native(environment);
    };
    if let Some(record) = record_of(session, descriptor)
        && !is_script(descriptor)
    {
        let path = record.path_terminated().as_ptr();
        return start(Start::new(path, arguments, environment));
    }
    with_environment(environment, &mut |environment| {
        let left = proc_link(descriptor)
            .and_then(|link| leave_store_for(AT_FDCWD, link.as_ptr().cast(), environment));
        let result = native(environment);
        if let Some(left) = left {
            left.back();
        }
        result
    })
}

hooks! {
    fn execve(path: *const c_char, arguments: List, environment: List) -> c_int {
        start(Start::new(path, arguments, environment))
    }

    fn execv(path: *const c_char, arguments: List) -> c_int {
        if session::known().is_none() {
            return original!(fn execv(path: *const c_char, arguments: List) -> c_int; or -1);
        }
        start(Start::new(path, arguments, environment()))
    }

    fn execvp(name: *const c_char, arguments: List) -> c_int {
        if session::known().is_none() {
            return original!(fn execvp(name: *const c_char, arguments: List) -> c_int; or -1);
        }
        search_with_environment(name, arguments, environment())
    }

    fn execvpe(name: *const c_char, arguments: List, environment: List) -> c_int {
        if session::known().is_none() {
            return original!(
                fn execvpe(name: *const c_char, arguments: List, environment: List) -> c_int;
                or -1
            );
        }
        search_with_environment(name, arguments, environment)
    }

    fn fexecve(descriptor: c_int, arguments: List, environment: List) -> c_int {
        start_descriptor(descriptor, environment, arguments, &|environment| original!(
            fn fexecve(descriptor: c_int, arguments: List, environment: List) -> c_int;
            or -1
        ))
    }

    fn execveat(
        directory: c_int,
        path: *const c_char,
        arguments: List,
        environment: List,
        flags: c_int,
    ) -> c_int {
        if means_descriptor(path, flags) {
            return start_descriptor(directory, environment, arguments, &|environment| original!(
                fn execveat(
                    directory: c_int, path: *const c_char, arguments: List, environment: List,
                    flags: c_int,
                ) -> c_int;
                or -1
            ));
        }
        // A script is told its path by way of the descriptor, and finds it there.
        demote(directory);
        start(Start { directory, path, arguments, environment, flags })
    }
}

/// `execle`, with its arguments as a list; the environment stands behind the list's NULL.
unsafe extern "C" fn execle_list(path: *const c_char, arguments: List) -> c_int {
    let count = strings(arguments).count();
    // SAFETY: libc's contract: the environment is the argument behind the NULL.
    unsafe {
        let environment = *arguments.add(count + 1);
        execve(path, arguments, environment.cast())
    }
}

/// Defines a function whose arguments from the second on are a list that ends with NULL, by one
/// that takes the list: the arguments in registers are put on the stack right below the others.
macro_rules! list_hooks {
    ($($name:ident by $listed:path;)*) => {$(
        #[doc = concat!("`", stringify!($name), "`.")]
        ///
        /// # Safety
        /// As the libc function of this name.
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        #[cfg(target_arch = "x86_64")]
        pub(crate) unsafe extern "C" fn $name() {
            core::arch::naked_asm!(
                "pop rax",
                "push r9",
                "push r8",
                "push rcx",
                "push rdx",
                "push rsi",
                "mov rsi, rsp",
                "push rax",
                "call {listed}",
                "pop rcx",
                "add rsp, 40",
                "push rcx",
                "ret",
                listed = sym $listed,
            )
        }

        #[doc = concat!("`", stringify!($name), "`.")]
        ///
        /// # Safety
        /// As the libc function of this name.
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        #[cfg(target_arch = "aarch64")]
        pub(crate) unsafe extern "C" fn $name() {
            core::arch::naked_asm!(
                "stp x29, x30, [sp, #-80]!",
                "mov x29, sp",
                "str x1, [sp, #24]",
                "stp x2, x3, [sp, #32]",
                "stp x4, x5, [sp, #48]",
                "stp x6, x7, [sp, #64]",
                "add x1, sp, #24",
                "bl {listed}",
                "ldp x29, x30, [sp], #80",
                "ret",
                listed = sym $listed,
            )
        }
    )*};
}

list_hooks! {
    execl by execv;
    execlp by execvp;
    execle by execle_list;
}
