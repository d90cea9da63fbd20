//! The environment of programs that are started: where it was cleared or made anew, what names
//! the shim and its helper is put back into it, unless `COPPER_DISABLE=1` is in it.

use crate::foreign::{preloads, value_of};
use crate::scratch::{as_bytes, with_scratch, words_for};
use crate::session::{self, Session};
use copper_core::location::{DISABLE_VARIABLE, PATHS_VARIABLE, RUNTIME_VARIABLE};
use core::ffi::{CStr, c_char, c_int};

/// A NULL-terminated list of strings.
pub(crate) type List = *const *const c_char;

const PRELOAD: &str = "LD_PRELOAD";
const LIBRARY: &[u8] = b"libcopper.so";

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
    runtime: bool,
    paths: bool,
    disabled: bool,
}

impl Scan {
    fn of(environment: List) -> Scan {
        let mut scan = Scan {
            count: 0,
            preload: None,
            runtime: false,
            paths: false,
            disabled: false,
        };
        for entry in strings(environment) {
            let entry = entry.to_bytes();
            if let Some(value) = value_of(entry, PRELOAD) {
                scan.preload = Some((scan.count, value));
            }
            scan.runtime |= value_of(entry, RUNTIME_VARIABLE).is_some();
            scan.paths |= value_of(entry, PATHS_VARIABLE).is_some();
            scan.disabled |= value_of(entry, DISABLE_VARIABLE) == Some(b"1");
            scan.count += 1;
        }
        scan
    }

    fn preloads_us(&self) -> bool {
        self.preload
            .is_some_and(|(_, value)| preloads(value, LIBRARY))
    }
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

fn additions(session: &'static Session, scan: &Scan) -> [Option<Addition>; 3] {
    let own = (!scan.preloads_us()).then(own_path).flatten();
    let carries = |name: &str| own.is_some() || session::variable(name).is_some();
    let has_prefixes = session.prefixes().next().is_some();
    [
        own.map(|own| Addition::Preload {
            own,
            others: scan.preload.map_or(b"", |(_, value)| value),
        }),
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

/// Writes the pointers and behind them the new strings.
fn fill(
    words: &mut [usize],
    pointers: usize,
    environment: List,
    scan: &Scan,
    additions: &[Option<Addition>; 3],
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
