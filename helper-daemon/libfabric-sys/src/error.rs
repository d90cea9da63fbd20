//! What can go wrong, in words that say what to do.

use std::fmt;
use std::path::PathBuf;

use crate::raw;

/// A libfabric call that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {message} (error {code})")]
pub struct FabricError {
    /// The libfabric function.
    pub call: String,
    /// A positive errno; from 256 on, one of libfabric's own.
    pub code: i32,
    /// libfabric's words for it.
    pub message: String,
}

impl FabricError {
    /// `code` as libfabric returned it, negative or positive. The library must be loaded.
    pub(crate) fn new(call: &str, code: i64) -> Self {
        let code = i32::try_from(code.abs()).unwrap_or(i32::MAX);
        // SAFETY: the library is loaded, and its messages are static strings.
        let message = unsafe { raw::static_text(raw::lfs_strerror(code)) };
        Self {
            call: call.to_owned(),
            code,
            message,
        }
    }
}

/// No libfabric could be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadError {
    /// Every file tried, with what the loader said.
    pub tried: Vec<(PathBuf, String)>,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "no usable libfabric was found. Tried:")?;
        for (path, reason) in &self.tried {
            writeln!(f, "  {}: {reason}", path.display())?;
        }
        write!(
            f,
            "Install libfabric 1.15 or newer (Debian and Ubuntu: apt install libfabric1; \
             RHEL: dnf install libfabric; on a cluster: module load libfabric), or set \
             {} to the path of a libfabric.so.1.",
            crate::library::PATH_VARIABLE
        )
    }
}

impl std::error::Error for LoadError {}

/// An endpoint could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// There is no libfabric.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The provider was not found, or cannot make an endpoint on that interface.
    #[error(
        "libfabric {version} has no provider {wanted} that can be used {place}. Usable there: \
         {usable}. Known to the library: {known}"
    )]
    NoProvider {
        /// libfabric's version.
        version: String,
        /// The provider asked for.
        wanted: String,
        /// The address or device asked for.
        place: String,
        /// The providers that could make such an endpoint at that place.
        usable: String,
        /// All providers of the library.
        known: String,
    },
    /// Providers over sockets take any interface, in some versions, unless they are told one.
    #[error("provider {0} needs the IP address of the interface to use")]
    AddressNeeded(String),
    /// A name holds a zero byte.
    #[error("{0:?} cannot be the name of a provider or device")]
    BadName(String),
    /// Memory for messages could not be had.
    #[error("no memory for message buffers: {0}")]
    Memory(String),
    /// libfabric refused.
    #[error(transparent)]
    Fabric(#[from] FabricError),
}

/// An operation could not be posted. Nothing was started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// The provider or our own table of operations is full, or the peer is not connected yet.
    /// Drain the completions and post again, within a deadline: towards a peer that is gone some
    /// providers say this for ever.
    #[error("not possible now, post again")]
    Again,
    /// The peer was removed, or never inserted.
    #[error("unknown peer")]
    UnknownPeer,
    /// The range does not lie within the region, or is empty.
    #[error("{length} bytes at {offset} do not lie within a region of {region} bytes")]
    OutOfBounds {
        /// First byte.
        offset: usize,
        /// Bytes.
        length: usize,
        /// The region's size in bytes.
        region: usize,
    },
    /// The message is longer than the endpoint's message size.
    #[error("a message of {length} bytes does not fit into {limit}")]
    TooLong {
        /// The message's size in bytes.
        length: usize,
        /// The endpoint's message size in bytes.
        limit: usize,
    },
    /// The region is mapped read-only, or belongs to another endpoint.
    #[error("the region cannot be used for this operation")]
    WrongRegion,
    /// libfabric refused.
    #[error(transparent)]
    Fabric(#[from] FabricError),
}
