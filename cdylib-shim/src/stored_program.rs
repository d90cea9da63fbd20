//! Programs started from the store: the kernel opens the store's file of a covered program, and the
//! loader finds its libraries beside it, in the mirror of the origin's tree.
//!
//! Only programs with the shim in them are, since it translates what the kernel then says of them
//! (`/proc/self/exe`). Scripts are taken apart here as the kernel would: it would open the
//! interpreter itself. Where anything is in doubt, or the start fails, the program is started by
//! its own name.

use crate::content::{open_stored, with_stored};
use crate::environment::{List, brings_shim, strings};
use crate::foreign::{interpreter, interpreter_argument};
use crate::program::{elf_header, names_glibc_loader, program_headers, read_at, segment_holds};
use crate::scope::grants;
use crate::scratch::{as_bytes, with_scratch, words_for};
use crate::session;
use crate::sys::{Descriptor, call};
use crate::target::{FOLLOW, Found, Outcome, resolve_place, text, with_place};
use copper_core::path;
use copper_core::request::Operation;
use core::ffi::{CStr, c_char, c_int};
use libc::AT_FDCWD;

/// Starts a program by a path, with arguments and an environment; returns where that fails, or
/// whether it did.
pub(crate) type Starter<'s> = &'s mut dyn FnMut(*const c_char, List, List) -> c_int;

/// What a program is started with.
#[derive(Clone, Copy)]
struct Given {
    /// As the caller has it.
    path: *const c_char,
    arguments: List,
    environment: List,
}

/// Starts `path` from the store; `None` where it is not for us, and has to be started as it is.
#[inline(never)]
pub(crate) fn start_stored(
    path: *const c_char,
    arguments: List,
    environment: List,
    start: Starter<'_>,
) -> Option<c_int> {
    if session::known().is_none() || !brings_shim(environment) {
        return None;
    }
    let given = Given {
        path,
        arguments,
        environment,
    };
    with_program_at(path, &mut |found, file| {
        let mut head = [0u8; HEAD];
        let length = read_at(file.number(), &mut head, 0).min(HEAD);
        match Script::of(&head[..length]) {
            Some(script) => script.start(given, start),
            None => start_program(found, file, given, start),
        }
    })
}

/// Opens the store's file of a program that this user may start without gaining any rights.
fn with_program_at(
    path: *const c_char,
    then: &mut dyn FnMut(&Found<'_>, &Descriptor) -> Option<c_int>,
) -> Option<c_int> {
    with_place(AT_FDCWD, path, |place| {
        let (place, session) = (place?, session::known()?);
        // Only the kernel says what is wrong with a slash behind a program.
        if !place.ending.is_empty() {
            return None;
        }
        resolve_place(session, place, FOLLOW, |outcome| {
            let Outcome::Found(found) = outcome else {
                return None;
            };
            let attributes = found.record.attributes();
            let gains_rights = attributes.mode & (libc::S_ISUID | libc::S_ISGID) != 0;
            let may_start = attributes.is_regular()
                && attributes.mode & 0o111 != 0
                && grants(session, attributes, libc::X_OK) == Some(true);
            if gains_rights || !may_start {
                return None;
            }
            let opened = open_stored(&found, libc::O_CLOEXEC)?.ok()?;
            let file = Descriptor::from_result(opened as isize)?;
            then(&found, &file)
        })
    })
}

/// Starts a program that is no script.
fn start_program(
    found: &Found<'_>,
    file: &Descriptor,
    given: Given,
    start: Starter<'_>,
) -> Option<c_int> {
    if !is_for_glibc(file) {
        return None;
    }
    with_stored(found, Operation::Closure, |stored| {
        let stored = stored?;
        Some(with_name_of(given, stored, &mut |environment| {
            start(stored.as_ptr(), given.arguments, environment)
        }))
    })
}

/// As much as the kernel reads of a script to see what it is.
const HEAD: usize = 256;

/// The first line of a script.
struct Script<'h> {
    interpreter: &'h [u8],
    argument: Option<&'h [u8]>,
}

impl<'h> Script<'h> {
    fn of(head: &'h [u8]) -> Option<Script<'h>> {
        // What is cut off the kernel judges.
        let end = head.iter().position(|&byte| byte == b'\n')?;
        let line = &head[..end];
        let interpreter = interpreter(line).filter(|name| name[0] == b'/')?;
        Some(Script {
            interpreter,
            argument: interpreter_argument(line),
        })
    }

    /// Starts the interpreter with the script, under the script's name.
    fn start(&self, given: Given, start: Starter<'_>) -> Option<c_int> {
        let count = strings(given.arguments).count();
        let texts = self.interpreter.len() + self.argument.map_or(0, <[u8]>::len) + 2;
        let pointers = count + 4;
        let mut result = None;
        with_scratch(pointers + words_for(texts), &mut |words| {
            let Some((list, room)) = words.split_at_mut_checked(pointers) else {
                return 0;
            };
            let room = as_bytes(room);
            let (first, second) = room.split_at_mut(self.interpreter.len() + 1);
            first[..self.interpreter.len()].copy_from_slice(self.interpreter);
            let interpreter = first.as_ptr();
            let argument = self.argument.map(|text| {
                second[..text.len()].copy_from_slice(text);
                second.as_ptr() as usize
            });
            let rest = strings(given.arguments).skip(1);
            let all = [interpreter as usize]
                .into_iter()
                .chain(argument)
                .chain([given.path as usize])
                .chain(rest.map(|text| text.as_ptr() as usize));
            list.iter_mut()
                .zip(all)
                .for_each(|(place, word)| *place = word);
            let given = Given {
                arguments: list.as_ptr().cast(),
                ..given
            };
            result = self.start_interpreter(interpreter.cast(), given, start);
            0
        });
        result
    }

    fn start_interpreter(
        &self,
        interpreter: *const c_char,
        given: Given,
        start: Starter<'_>,
    ) -> Option<c_int> {
        let covered = with_place(AT_FDCWD, interpreter, |place| place.is_some());
        if covered {
            return with_program_at(interpreter, &mut |found, file| {
                start_program(found, file, given, start)
            });
        }
        // SAFETY: the interpreter's name was terminated.
        let name = unsafe { CStr::from_ptr(interpreter) };
        Some(with_name_of(given, name, &mut |environment| {
            start(interpreter, given.arguments, environment)
        }))
    }
}

/// Whether an ELF file is a program of our kind that glibc's loader starts, and that asks the kernel
/// for its own place by way of libc.
fn is_for_glibc(file: &Descriptor) -> bool {
    const GO: &[u8] = b"Go\0\0";
    let Some(header) = elf_header(file) else {
        return false;
    };
    let mut for_glibc = false;
    for segment in program_headers(file, &header) {
        // Go's own library makes system calls by itself.
        if segment.p_type == libc::PT_NOTE && segment_holds(file, &segment, GO) {
            return false;
        }
        for_glibc |= names_glibc_loader(file, &segment);
    }
    for_glibc
}

/// Tells the shim of the program to be started what the kernel would have called the process.
const NAME_VARIABLE: &CStr = c"COPPER_PROCESS_NAME=";
/// As much as the kernel keeps of a process's name.
const NAME_MAX: usize = 15;

fn process_name(path: &[u8]) -> &[u8] {
    let name = path::split_last(path).1;
    &name[..name.len().min(NAME_MAX)]
}

/// Hands the environment to `then`, with the process's name in it where the kernel would find
/// another one in `started`.
fn with_name_of(given: Given, started: &CStr, then: &mut dyn FnMut(List) -> c_int) -> c_int {
    let name = process_name(text(given.path).unwrap_or(b""));
    if name == process_name(started.to_bytes()) || name.is_empty() {
        return then(given.environment);
    }
    let count = strings(given.environment).count();
    let pointers = count + 2;
    let variable = NAME_VARIABLE.to_bytes();
    let length = variable.len() + name.len();
    with_scratch(pointers + words_for(length + 1), &mut |words| {
        let Some((list, room)) = words.split_at_mut_checked(pointers) else {
            return then(given.environment);
        };
        let room = as_bytes(room);
        room[..variable.len()].copy_from_slice(variable);
        room[variable.len()..length].copy_from_slice(name);
        let entries = strings(given.environment).map(|entry| entry.as_ptr() as usize);
        let all = entries.chain([room.as_ptr() as usize]);
        list.iter_mut()
            .zip(all)
            .for_each(|(place, word)| *place = word);
        then(list.as_ptr().cast())
    })
}

/// Takes the name that [`with_name_of`] gave, before the program looks at its environment.
pub(crate) fn take_name() {
    let environment = crate::process::environment().cast_mut();
    if environment.is_null() {
        return;
    }
    // SAFETY: the list ends with NULL and its strings with NUL; while libraries are initialised
    // nobody else looks at it.
    unsafe {
        let mut at = environment;
        while !(*at).is_null() {
            let entry = CStr::from_ptr(*at).to_bytes();
            if entry.starts_with(NAME_VARIABLE.to_bytes()) {
                let name = (*at).add(NAME_VARIABLE.to_bytes().len());
                call!(libc::SYS_prctl, libc::PR_SET_NAME, name, 0, 0, 0);
                while !(*at).is_null() {
                    *at = *at.add(1);
                    at = at.add(1);
                }
                return;
            }
            at = at.add(1);
        }
    }
}
