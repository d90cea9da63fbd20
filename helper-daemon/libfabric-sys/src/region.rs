//! Memory known to an endpoint: target of reads, source of messages, or readable by peers.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::ptr::NonNull;
use std::rc::{Rc, Weak};

use crate::error::FabricError;
use crate::memory::Memory;
use crate::raw;

/// What a region is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Our own operations: target of reads, source of messages.
    Local,
    /// Peers that know the key may read it. On networks over sockets anyone who can reach the
    /// port and guesses the key may: keys are random, and new for each region.
    RemoteRead,
}

/// What a peer must know to read a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoteRegion {
    /// Address of its first byte, as the provider counts.
    pub address: u64,
    /// Its key.
    pub key: u64,
    /// Its size in bytes.
    pub length: u64,
}

/// The open libfabric objects, shared by the endpoint and its regions.
pub(crate) struct Handle {
    /// Null once closed.
    endpoint: Cell<*mut raw::Endpoint>,
    /// Bits of the keys that peers use.
    key_mask: u64,
    regions: RefCell<Vec<Weak<Inner>>>,
}

impl Handle {
    pub(crate) fn new(endpoint: NonNull<raw::Endpoint>, key_size: usize) -> Self {
        let key_mask = if key_size == 0 || key_size >= 8 {
            u64::MAX
        } else {
            (1 << (8 * key_size)) - 1
        };
        Self {
            endpoint: Cell::new(endpoint.as_ptr()),
            key_mask,
            regions: RefCell::default(),
        }
    }

    pub(crate) fn raw(&self) -> *mut raw::Endpoint {
        self.endpoint.get()
    }

    /// Withdraws every region, whose memory stays, and closes the endpoint. No operation may be
    /// under way: an endpoint with some keeps its handle for ever (`Endpoint::shut_down`).
    pub(crate) fn close(&self) {
        for region in self.regions.borrow_mut().drain(..) {
            if let Some(region) = region.upgrade() {
                region.deregister();
            }
        }
        let endpoint = self.endpoint.replace(std::ptr::null_mut());
        if !endpoint.is_null() {
            // SAFETY: the endpoint is open, closed only here, once, and its regions are gone.
            unsafe { raw::lfs_close(endpoint) };
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

struct Inner {
    handle: Rc<Handle>,
    registration: Cell<Option<NonNull<raw::Registration>>>,
    descriptor: Cell<*mut c_void>,
    remote: Option<RemoteRegion>,
    memory: Memory,
}

impl Inner {
    fn deregister(&self) {
        if let Some(registration) = self.registration.take() {
            self.descriptor.set(std::ptr::null_mut());
            // SAFETY: the registration is open, and closed only here, once.
            unsafe { raw::lfs_deregister(registration.as_ptr()) };
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.deregister();
    }
}

/// Registered memory. Clones are the same region; the last one ends the registration, and with
/// it every peer's access. Operations under way hold clones of their own.
#[derive(Clone)]
pub struct Region(Rc<Inner>);

impl Region {
    pub(crate) fn register(
        handle: &Rc<Handle>,
        memory: Memory,
        access: Access,
    ) -> Result<Self, FabricError> {
        // SAFETY: the handle keeps the endpoint open.
        let needs_registration = access == Access::RemoteRead
            || unsafe { raw::lfs_needs_local_registration(handle.raw()) } != 0;
        let mut inner = Inner {
            handle: handle.clone(),
            registration: Cell::new(None),
            descriptor: Cell::new(std::ptr::null_mut()),
            remote: None,
            memory,
        };
        if needs_registration {
            let (registration, descriptor, remote) = register(handle, &inner.memory, access)?;
            inner.registration.set(Some(registration));
            inner.descriptor.set(descriptor);
            inner.remote = (access == Access::RemoteRead).then_some(remote);
        }
        let inner = Rc::new(inner);
        if needs_registration {
            let mut regions = handle.regions.borrow_mut();
            if regions.len() == regions.capacity() {
                regions.retain(|region| region.strong_count() > 0);
            }
            regions.push(Rc::downgrade(&inner));
        }
        Ok(Self(inner))
    }

    /// What a peer must know to read it; `None` if it was registered for local use.
    pub fn remote(&self) -> Option<RemoteRegion> {
        self.0.remote
    }

    /// The memory.
    pub fn memory(&self) -> &Memory {
        &self.0.memory
    }

    pub(crate) fn belongs_to(&self, handle: &Rc<Handle>) -> bool {
        Rc::ptr_eq(&self.0.handle, handle)
    }

    pub(crate) fn descriptor(&self) -> *mut c_void {
        self.0.descriptor.get()
    }
}

/// Registers under a random key, another one where the provider has that key already.
fn register(
    handle: &Handle,
    memory: &Memory,
    access: Access,
) -> Result<(NonNull<raw::Registration>, *mut c_void, RemoteRegion), FabricError> {
    const ATTEMPTS: usize = 4;
    let mut result = 0;
    for _ in 0..ATTEMPTS {
        let key = random_key()? & handle.key_mask;
        let mut registration = std::ptr::null_mut();
        let mut descriptor = std::ptr::null_mut();
        let mut remote = RemoteRegion {
            address: 0,
            key,
            length: memory.len() as u64,
        };
        // SAFETY: the memory outlives the registration (`Inner` owns both and ends the
        // registration first), and the other pointers are valid for the call.
        result = unsafe {
            raw::lfs_register(
                handle.raw(),
                memory.pointer().cast(),
                memory.len(),
                i32::from(access == Access::RemoteRead),
                key,
                &mut registration,
                &mut descriptor,
                &mut remote.key,
                &mut remote.address,
            )
        };
        if result == 0
            && let Some(registration) = NonNull::new(registration)
        {
            return Ok((registration, descriptor, remote));
        }
        if result != -NO_KEY {
            break;
        }
    }
    Err(FabricError::new("fi_mr_reg", result.into()))
}

/// libfabric's `FI_ENOKEY`: the key is taken.
const NO_KEY: i32 = 266;

fn random_key() -> Result<u64, FabricError> {
    getrandom::u64().map_err(|error| {
        FabricError::new(
            "getrandom",
            error.raw_os_error().unwrap_or(libc::EIO).into(),
        )
    })
}
