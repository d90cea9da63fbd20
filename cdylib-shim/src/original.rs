//! How a hook is written, and the functions behind our hooks: the next definition in the loader's order,
//! which is libc's or another preloaded library's.

use crate::next_definition::{self, Found, Table, each_library_behind};
use core::ffi::{CStr, c_char, c_void};
use core::num::NonZeroUsize;
use core::sync::atomic::{AtomicBool, Ordering};
use once_cell::race::OnceNonZeroUsize;

/// One function's next definition, looked up when the library is loaded.
///
/// Not at its first use, which comes in signal handlers and between a program's `dlopen` and
/// `dlerror`: `dlsym` forgets the error that the program is about to ask for. Hooks that run
/// before constructors do look up what they need themselves.
pub(crate) struct Original {
    /// NUL-terminated.
    name: Name,
    hash: u32,
    address: OnceNonZeroUsize,
}

/// A text of the program's; half as long as a reference to it, in a table that each program copies when
/// it starts.
struct Name(*const c_char);

// SAFETY: constant text.
unsafe impl Sync for Name {}

/// What stands for "there is none": no function begins at address 1.
const NONE: NonZeroUsize = NonZeroUsize::MIN;

impl Original {
    /// The function called `name`.
    pub(crate) const fn new(name: &'static CStr) -> Original {
        Original {
            name: Name(name.as_ptr()),
            hash: next_definition::hash(name),
            address: OnceNonZeroUsize::new(),
        }
    }

    /// Takes its address from a library's own table, if it is defined there and nowhere before; says
    /// whether it was.
    fn take_from(&self, library: &Table) -> bool {
        if self.address.get().is_some() {
            return false;
        }
        match library.find(self.name.0, self.hash) {
            Found::Address(address) => {
                let address = NonZeroUsize::new(address as usize).unwrap_or(NONE);
                self.address.set(address).is_ok()
            }
            Found::Nothing => false,
            Found::Unclear => {
                self.address();
                false
            }
        }
    }

    /// Its address; `None` where no library behind us defines it.
    #[inline]
    pub(crate) fn address(&self) -> Option<*const c_void> {
        let address = self.address.get_or_init(|| {
            // SAFETY: the name is NUL-terminated; dlsym allocates nothing where it succeeds.
            let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.0) };
            NonZeroUsize::new(found as usize).unwrap_or(NONE)
        });
        (address != NONE).then(|| address.get() as *const c_void)
    }
}

unsafe extern "C" {
    /// Where the linker puts the first of the originals, and the end of the last.
    #[link_name = "__start_copper_originals"]
    static FIRST: u8;
    #[link_name = "__stop_copper_originals"]
    static END: u8;
}

/// Looks up all functions behind our hooks, and makes the session: a program may forbid itself
/// the system calls that this takes (seccomp), call its first hook from a signal handler, or, as
/// `env -i` does, clear its environment before it makes its first call about a file.
#[ctor::ctor(unsafe)]
fn prepare() {
    look_up_all();
    crate::stored_program::take_name();
    crate::environment::keep_audit();
    crate::session::make();
}

/// Whether the functions behind our hooks are libc's own: then nobody misses a call that the hook
/// makes by itself, which is quicker for the shortest of them.
static LIBC_IS_NEXT: AtomicBool = AtomicBool::new(false);

/// See [`LIBC_IS_NEXT`]; no while it is not known.
#[inline]
pub(crate) fn libc_is_next() -> bool {
    LIBC_IS_NEXT.load(Ordering::Relaxed)
}

/// The functions whose hooks make the call themselves where libc's would be next.
#[unsafe(link_section = "copper_originals")]
static SHORTEST: [Original; 6] = [
    Original::new(c"fstat"),
    Original::new(c"fstat64"),
    Original::new(c"stat"),
    Original::new(c"stat64"),
    Original::new(c"lstat"),
    Original::new(c"lstat64"),
];

fn look_up_all() {
    let first = (&raw const FIRST).cast::<Original>();
    // SAFETY: the linker lays all statics of the section side by side between the two symbols.
    let all = unsafe {
        let count = (&raw const END)
            .cast::<Original>()
            .offset_from_unsigned(first);
        core::slice::from_raw_parts(first, count)
    };
    let mut libc_seen = false;
    let all_seen = each_library_behind(&mut |library| {
        libc_seen |= library.is_libc;
        let mut shortest = SHORTEST.iter().map(|short| short.take_from(library));
        if shortest.all(|taken| taken) && library.is_libc {
            LIBC_IS_NEXT.store(true, Ordering::Relaxed);
        }
        all.iter().for_each(|original| {
            original.take_from(library);
        });
    });
    if all_seen && libc_seen {
        // Some names are of newer or older libcs than this one.
        all.iter().for_each(|original| {
            let _ = original.address.set(NONE);
        });
        return;
    }
    all.iter().for_each(|original| {
        original.address();
    });
    // What `dlsym` leaves behind where it finds nothing is not the program's error.
    crate::loader::forget_error();
}

/// Calls the next definition of a function, or takes `else` where there is none.
///
/// `original!(fn stat(path: *const c_char, out: *mut stat) -> c_int; else { ... })`
macro_rules! original {
    (fn $name:ident($($argument:ident: $kind:ty),* $(,)?) -> $result:ty; else $otherwise:block) => {{
        const NAME: &core::ffi::CStr =
            match core::ffi::CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => unreachable!(),
            };
        #[unsafe(link_section = "copper_originals")]
        static ORIGINAL: $crate::original::Original = $crate::original::Original::new(NAME);
        match ORIGINAL.address() {
            Some(address) => {
                type Function = unsafe extern "C" fn($($kind),*) -> $result;
                // SAFETY: the next definition of this name has libc's signature for it.
                let function = unsafe { core::mem::transmute::<*const _, Function>(address) };
                // SAFETY: the arguments are the caller's own, or mean the same.
                unsafe { function($($argument),*) }
            }
            None => $otherwise,
        }
    }};
    (fn $name:ident($($argument:ident: $kind:ty),* $(,)?) -> $result:ty; or $missing:expr) => {
        $crate::original::original!(fn $name($($argument: $kind),*) -> $result; else {
            $crate::sys::set_errno(libc::ENOSYS);
            $missing
        })
    };
}
pub(crate) use original;

/// Defines functions that stand in front of libc's of the same name and signature.
///
/// Everything a hook is given is what the program gave to libc, so its safety is libc's contract.
macro_rules! hooks {
    ($(fn $name:ident($($argument:ident: $kind:ty),* $(,)?) $(-> $result:ty)? $body:block)*) => {$(
        #[doc = concat!("`", stringify!($name), "`.")]
        ///
        /// # Safety
        /// As the libc function of this name.
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $name($($argument: $kind),*) $(-> $result)? $body
    )*};
}
pub(crate) use hooks;
