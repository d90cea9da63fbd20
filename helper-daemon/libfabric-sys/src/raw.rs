//! Declarations of the C shim (`shim/shim.c`). Structures mirror those declared there.

use std::ffi::{CStr, c_char, c_int, c_void};

/// What a provider's answer says.
#[repr(C)]
#[derive(Clone)]
pub(crate) struct ProviderInfo {
    pub(crate) provider: [c_char; 64],
    pub(crate) fabric: [c_char; 64],
    pub(crate) domain: [c_char; 64],
    pub(crate) provider_version: u32,
    pub(crate) protocol: u32,
    pub(crate) address_format: u32,
    pub(crate) memory_mode: c_int,
    pub(crate) address_length: usize,
    pub(crate) key_size: usize,
    pub(crate) max_message_size: usize,
    pub(crate) transmit_size: usize,
    pub(crate) receive_size: usize,
}

impl ProviderInfo {
    pub(crate) const EMPTY: Self = Self {
        provider: [0; 64],
        fabric: [0; 64],
        domain: [0; 64],
        provider_version: 0,
        protocol: 0,
        address_format: 0,
        memory_mode: 0,
        address_length: 0,
        key_size: 0,
        max_message_size: 0,
        transmit_size: 0,
        receive_size: 0,
    };
}

/// What to look for; null means "any".
#[repr(C)]
pub(crate) struct Hints {
    pub(crate) provider: *const c_char,
    pub(crate) domain: *const c_char,
    pub(crate) node: *const c_char,
    pub(crate) service: *const c_char,
}

/// One finished operation; `error` is 0 or a positive errno.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Completion {
    pub(crate) context: *mut c_void,
    pub(crate) length: usize,
    pub(crate) error: c_int,
    pub(crate) provider_error: c_int,
}

impl Completion {
    pub(crate) const EMPTY: Self = Self {
        context: std::ptr::null_mut(),
        length: 0,
        error: 0,
        provider_error: 0,
    };
}

/// An open endpoint with its domain, address table and completion queue.
pub(crate) enum Endpoint {}
/// A memory registration.
pub(crate) enum Registration {}

unsafe extern "C" {
    pub(crate) fn lfs_load(path: *const c_char, reason: *mut c_char, size: usize) -> c_int;
    pub(crate) fn lfs_library_path(path: *mut c_char, size: usize);
    pub(crate) fn lfs_version() -> u32;
    pub(crate) fn lfs_strerror(error: c_int) -> *const c_char;
    pub(crate) fn lfs_providers(out: *mut ProviderInfo, max: c_int) -> c_int;
    pub(crate) fn lfs_usable(want: *const Hints, out: *mut ProviderInfo, max: c_int) -> c_int;
    pub(crate) fn lfs_open(
        want: *const Hints,
        transmits: usize,
        receives: usize,
        out: *mut *mut Endpoint,
        info: *mut ProviderInfo,
        step: *mut *const c_char,
    ) -> c_int;
    pub(crate) fn lfs_close(endpoint: *mut Endpoint);
    pub(crate) fn lfs_address(e: *mut Endpoint, address: *mut c_void, length: *mut usize) -> c_int;
    pub(crate) fn lfs_address_text(
        e: *mut Endpoint,
        address: *const c_void,
        text: *mut c_char,
        size: usize,
    );
    pub(crate) fn lfs_insert(e: *mut Endpoint, address: *const c_void, peer: *mut u64) -> c_int;
    pub(crate) fn lfs_remove(e: *mut Endpoint, peer: u64) -> c_int;
    pub(crate) fn lfs_needs_local_registration(e: *mut Endpoint) -> c_int;
    pub(crate) fn lfs_register(
        e: *mut Endpoint,
        buffer: *mut c_void,
        length: usize,
        remote: c_int,
        key: u64,
        out: *mut *mut Registration,
        descriptor: *mut *mut c_void,
        used_key: *mut u64,
        address: *mut u64,
    ) -> c_int;
    pub(crate) fn lfs_deregister(registration: *mut Registration) -> c_int;
    pub(crate) fn lfs_send(
        e: *mut Endpoint,
        to: u64,
        buffer: *const c_void,
        length: usize,
        descriptor: *mut c_void,
        context: *mut c_void,
    ) -> isize;
    pub(crate) fn lfs_receive(
        e: *mut Endpoint,
        buffer: *mut c_void,
        length: usize,
        descriptor: *mut c_void,
        context: *mut c_void,
    ) -> isize;
    pub(crate) fn lfs_read(
        e: *mut Endpoint,
        from: u64,
        buffer: *mut c_void,
        length: usize,
        descriptor: *mut c_void,
        address: u64,
        key: u64,
        context: *mut c_void,
    ) -> isize;
    pub(crate) fn lfs_cancel(e: *mut Endpoint, context: *mut c_void) -> isize;
    pub(crate) fn lfs_completions(e: *mut Endpoint, out: *mut Completion, max: usize) -> isize;
    pub(crate) fn lfs_wait_descriptor(e: *mut Endpoint) -> c_int;
    pub(crate) fn lfs_may_sleep(e: *mut Endpoint) -> c_int;
}

/// Text of a fixed, zero-terminated field.
pub(crate) fn text(field: &[c_char]) -> String {
    let bytes: Vec<u8> = field
        .iter()
        .take_while(|&&c| c != 0)
        .map(|&c| c as u8)
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Text of a static, zero-terminated string of the C side.
///
/// # Safety
///
/// `string` is null or points to a zero-terminated string that stays valid during the call.
pub(crate) unsafe fn static_text(string: *const c_char) -> String {
    if string.is_null() {
        return String::new();
    }
    // SAFETY: as this function's contract says.
    unsafe { CStr::from_ptr(string) }
        .to_string_lossy()
        .into_owned()
}
