//! The environment of programs that are started: where it was cleared or made anew, what names
//! the shim and its helper is put back into it, unless `COPPER_DISABLE=1` is in it. What names the
//! audit library is taken out of it for valgrind.

use crate::foreign::{preloads, value_of};
use crate::scratch::{as_bytes, with_scratch, words_for};
use crate::session::{self, Session};
use copper_core::location::{DISABLE_VARIABLE, PATHS_VARIABLE, RUNTIME_VARIABLE};
use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char, c_int};
use core::sync::atomic::{AtomicUsize, Ordering};

/// A NULL-terminated list of strings.
pub(crate) type List = *const *const c_char;

const PRELOAD: &str = "LD_PRELOAD";
const LIBRARY: &[u8] = b"libcopper.so";
const AUDIT: &str = "LD_AUDIT";
/// As installed, and as built.
const AUDIT_LIBRARIES: [&[u8]; 2] = [b"libcopper-audit.so", b"libcopper_audit.so"];
const TUNABLES: &str = "GLIBC_TUNABLES";
/// What valgrind sets for the program that it becomes.
const VALGRIND: &str = "VALGRIND_LAUNCHER";

/// The strings of a list; none where it is null.
pub(crate) fn strings(list: List) -> impl Iterator<Item = &'static CStr> {
    let mut at = list;
    core::iter::from_fn(move || {
        // SAFETY: libc's contract: the list ends with NULL and its strings with NUL; they stay
        // for the call that looks at them.
        unsafe {
            if at.is_null() || (*at).is_null() {
                return None;
            }
            let string = CStr::from_ptr(*at);
            at = at.add(1);
            Some(string)
        }
    })
}

/// What of ours an environment holds.
struct Scan {
    count: usize,
    /// Where `LD_PRELOAD` stands, and its value.
    preload: Option<(usize, &'static [u8])>,
    /// Where `LD_AUDIT` stands, and its value.
    audit: Option<(usize, &'static [u8])>,
    tunables: bool,
    runtime: bool,
    paths: bool,
    disabled: bool,
    valgrind: bool,
}

impl Scan {
    fn of(environment: List) -> Scan {
        let mut scan = Scan {
            count: 0,
            preload: None,
            audit: None,
            tunables: false,
            runtime: false,
            paths: false,
            disabled: false,
            valgrind: false,
        };
        for entry in strings(environment) {
            let entry = entry.to_bytes();
            if let Some(value) = value_of(entry, PRELOAD) {
                scan.preload = Some((scan.count, value));
            }
            if let Some(value) = value_of(entry, AUDIT) {
                scan.audit = Some((scan.count, value));
            }
            scan.tunables |= value_of(entry, TUNABLES).is_some();
            scan.runtime |= value_of(entry, RUNTIME_VARIABLE).is_some();
            scan.paths |= value_of(entry, PATHS_VARIABLE).is_some();
            scan.disabled |= value_of(entry, DISABLE_VARIABLE) == Some(b"1");
            scan.valgrind |= value_of(entry, VALGRIND).is_some();
            scan.count += 1;
        }
        scan
    }

    fn preloads_us(&self) -> bool {
        self.preload
            .is_some_and(|(_, value)| preloads(value, LIBRARY))
    }

    /// Where our audit library is named to valgrind, which takes what glibc does with any audit
    /// library at a program's end for errors of the program.
    fn audit_under_valgrind(&self) -> Option<usize> {
        let (at, value) = self.audit.filter(|_| self.valgrind)?;
        is_our_audit(value).then_some(at)
    }
}

fn is_our_audit(value: &[u8]) -> bool {
    AUDIT_LIBRARIES.iter().any(|name| preloads(value, name))
}

/// Whether a program started with this environment has the shim in it, if it can have it.
pub(crate) fn brings_shim(environment: List) -> bool {
    let scan = Scan::of(environment);
    scan.preloads_us() && !scan.disabled
}

/// The path that the loader has for this library, as it was given it.
fn own_path() -> Option<&'static [u8]> {
    // SAFETY: an all-zero Dl_info is valid; dladdr fills it where it succeeds.
    let path = unsafe {
        let mut info: libc::Dl_info = core::mem::zeroed();
        let here = own_path as *const ();
        if libc::dladdr(here.cast(), &raw mut info) == 0 || info.dli_fname.is_null() {
            return None;
        }
        // The loader keeps the name for as long as the library is loaded.
        CStr::from_ptr(info.dli_fname).to_bytes()
    };
    (!path.is_empty()).then_some(path)
}

/// A variable to be set.
enum Addition {
    Preload {
        own: &'static [u8],
        others: &'static [u8],
    },
    Audit(&'static [u8]),
    Tunables(&'static [u8]),
    Runtime(&'static Session),
    Paths(&'static Session),
}

impl Addition {
    /// Gives the text piece by piece.
    fn text(&self, put: &mut dyn FnMut(&[u8])) {
        match self {
            Addition::Preload { own, others } => {
                put(PRELOAD.as_bytes());
                put(b"=");
                put(own);
                if !others.is_empty() {
                    put(b":");
                    put(others);
                }
            }
            Addition::Audit(value) | Addition::Tunables(value) => {
                let is_audit = matches!(self, Addition::Audit(_));
                put(if is_audit { AUDIT } else { TUNABLES }.as_bytes());
                put(b"=");
                put(value);
            }
            Addition::Runtime(session) => {
                put(RUNTIME_VARIABLE.as_bytes());
                put(b"=");
                put(session.runtime());
            }
            Addition::Paths(session) => {
                put(PATHS_VARIABLE.as_bytes());
                for (index, prefix) in session.prefixes().enumerate() {
                    put(if index == 0 { b"=" } else { b":" });
                    put(prefix);
                }
            }
        }
    }

    /// Writes the text into `out`, which is zeroed and of its length, and returns its start.
    fn write(&self, out: &mut [u8]) -> *const u8 {
        let mut used = 0;
        self.text(&mut |piece| {
            if let Some(target) = out.get_mut(used..used + piece.len()) {
                target.copy_from_slice(piece);
            }
            used += piece.len();
        });
        out.as_ptr()
    }

    /// Its length with a NUL.
    fn length(&self) -> usize {
        let mut length = 1;
        self.text(&mut |piece| length += piece.len());
        length
    }
}

/// The value of a variable as the process was given it.
struct Kept {
    text: UnsafeCell<[u8; KEPT_MAX]>,
    length: AtomicUsize,
}

/// Longer values are not kept.
const KEPT_MAX: usize = 2048;

// SAFETY: the text is written once, when the library is loaded, before the length is published.
unsafe impl Sync for Kept {}

impl Kept {
    const fn new() -> Kept {
        Kept {
            text: UnsafeCell::new([0; KEPT_MAX]),
            length: AtomicUsize::new(0),
        }
    }

    fn keep(&self, value: &[u8]) {
        // SAFETY: the library is being loaded, and nobody reads before the length is there.
        let text = unsafe { &mut *self.text.get() };
        if let Some(room) = text.get_mut(..value.len()) {
            room.copy_from_slice(value);
            self.length.store(value.len(), Ordering::Release);
        }
    }

    fn value(&'static self) -> Option<&'static [u8]> {
        let length = self.length.load(Ordering::Acquire);
        // SAFETY: written before the length was published, and never again.
        let text = unsafe { &*self.text.get() };
        text.get(..length).filter(|value| !value.is_empty())
    }
}

static KEPT_AUDIT: Kept = Kept::new();
static KEPT_TUNABLES: Kept = Kept::new();

/// Keeps what switches the audit library on, for programs that are started with an environment made
/// anew.
pub(crate) fn keep_audit() {
    let Some(audit) = session::variable(AUDIT).filter(|value| is_our_audit(value)) else {
        return;
    };
    KEPT_AUDIT.keep(audit);
    KEPT_TUNABLES.keep(session::variable(TUNABLES).unwrap_or(b""));
}

/// As many variables as are ever added.
const ADDITIONS: usize = 5;

fn additions(session: &'static Session, scan: &Scan) -> [Option<Addition>; ADDITIONS] {
    let own = (!scan.preloads_us()).then(own_path).flatten();
    let carries = |name: &str| own.is_some() || session::variable(name).is_some();
    // Where only the audit library's variable is missing somebody has switched it off.
    let audit = KEPT_AUDIT.value();
    let audit = audit.filter(|_| own.is_some() && scan.audit.is_none() && !scan.valgrind);
    let tunables = audit.and_then(|_| KEPT_TUNABLES.value());
    let has_prefixes = session.prefixes().next().is_some();
    [
        own.map(|own| Addition::Preload {
            own,
            others: scan.preload.map_or(b"", |(_, value)| value),
        }),
        audit.map(Addition::Audit),
        tunables.filter(|_| !scan.tunables).map(Addition::Tunables),
        (!scan.runtime && carries(RUNTIME_VARIABLE)).then_some(Addition::Runtime(session)),
        (!scan.paths && has_prefixes && carries(PATHS_VARIABLE))
            .then_some(Addition::Paths(session)),
    ]
}

/// Hands `environment`, with what is missing of ours, to `then`.
pub(crate) fn with_environment(environment: List, then: &mut dyn FnMut(List) -> c_int) -> c_int {
    let Some(session) = session::known() else {
        return then(environment);
    };
    let scan = Scan::of(environment);
    if scan.disabled {
        return then(environment);
    }
    if let Some(audit) = scan.audit_under_valgrind() {
        return with_all_but(audit, environment, scan.count, &mut |environment| {
            with_environment(environment, then)
        });
    }
    let additions = additions(session, &scan);
    let count = additions.iter().flatten().count();
    if count == 0 {
        return then(environment);
    }
    let bytes: usize = additions.iter().flatten().map(Addition::length).sum();
    let pointers = scan.count + count + 1;
    with_scratch(pointers + words_for(bytes), &mut |words| {
        fill(words, pointers, environment, &scan, &additions);
        then(words.as_ptr().cast())
    })
}

/// Hands the environment, which has `count` entries, to `then` without the one at `left_out`.
#[cold]
#[inline(never)]
fn with_all_but(
    left_out: usize,
    environment: List,
    count: usize,
    then: &mut dyn FnMut(List) -> c_int,
) -> c_int {
    // As many as stay, and the end.
    with_scratch(count, &mut |words| {
        let entries = strings(environment).enumerate();
        let stay = entries.filter(|&(at, _)| at != left_out);
        for (place, (_, entry)) in words.iter_mut().zip(stay) {
            *place = entry.as_ptr() as usize;
        }
        then(words.as_ptr().cast())
    })
}

/// Writes the pointers and behind them the new strings.
fn fill(
    words: &mut [usize],
    pointers: usize,
    environment: List,
    scan: &Scan,
    additions: &[Option<Addition>; ADDITIONS],
) {
    let Some((list, room)) = words.split_at_mut_checked(pointers) else {
        return;
    };
    for (place, entry) in list.iter_mut().zip(strings(environment)) {
        *place = entry.as_ptr() as usize;
    }
    let mut room = as_bytes(room);
    let mut end = scan.count;
    for addition in additions.iter().flatten() {
        let Some((text, rest)) = room.split_at_mut_checked(addition.length()) else {
            return;
        };
        room = rest;
        let place = match (addition, scan.preload) {
            (Addition::Preload { .. }, Some((at, _))) => at,
            _ => {
                end += 1;
                end - 1
            }
        };
        if let Some(place) = list.get_mut(place) {
            *place = addition.write(text) as usize;
        }
    }
}
