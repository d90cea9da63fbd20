//! Finding and loading libfabric, and listing its providers.

use std::ffi::{CString, c_int};
use std::fmt;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use crate::error::{FabricError, LoadError};
use crate::raw;
use crate::signals::SignalGuard;

/// The environment variable that names the libfabric to load.
pub const PATH_VARIABLE: &str = "COPPER_LIBFABRIC";

/// Variables that the environment of a process should hold before it loads libfabric: whoever
/// starts the process sets them where the user has not. They keep one provider's library from
/// installing signal handlers at all, so that there is not even a moment in which they are in
/// place ([`Library::load`] takes them out again in any case).
///
/// `ofi_rxm` holds memory ready for 4,096 messages unless told otherwise, which is 70 MiB of every node;
/// a few hundred are the most that is ever under way.
pub const RECOMMENDED_ENVIRONMENT: &[(&str, &str)] = &[
    ("IPATH_NO_BACKTRACE", "1"),
    ("FI_OFI_RXM_MSG_RX_SIZE", "512"),
];

/// Most providers reported by one listing.
const MAX_PROVIDERS: usize = 256;

/// A loaded libfabric. There is at most one in a process.
#[derive(Debug)]
pub struct Library {
    path: PathBuf,
    version: u32,
}

/// What one provider says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderInfo {
    /// Its name, such as `tcp;ofi_rxm`.
    pub name: String,
    /// The fabric that it would use, such as `10.0.0.0/24`.
    pub fabric: String,
    /// The device that it would use, such as `eth0` or `cxi0`.
    pub device: String,
    /// Length of its addresses in bytes.
    pub address_length: usize,
    /// The longest message or read in bytes.
    pub max_message_size: usize,
    /// Length of its memory keys in bytes.
    pub key_size: usize,
    /// Sends and reads that it takes at once.
    pub transmit_size: usize,
    /// Receives that it takes at once.
    pub receive_size: usize,
}

impl From<&raw::ProviderInfo> for ProviderInfo {
    fn from(info: &raw::ProviderInfo) -> Self {
        Self {
            name: raw::text(&info.provider),
            fabric: raw::text(&info.fabric),
            device: raw::text(&info.domain),
            address_length: info.address_length,
            max_message_size: info.max_message_size,
            key_size: info.key_size,
            transmit_size: info.transmit_size,
            receive_size: info.receive_size,
        }
    }
}

impl fmt::Display for ProviderInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {} ({})", self.name, self.device, self.fabric)
    }
}

/// The oldest libfabric that knows the API version asked for, 1.15.
const OLDEST_VERSION: u32 = 1 << 16 | 15;

fn version_text(version: u32) -> String {
    format!("{}.{}", version >> 16, version & 0xffff)
}

static LIBRARY: OnceLock<Library> = OnceLock::new();
static LOADING: Mutex<()> = Mutex::new(());

impl Library {
    /// Loads libfabric, or returns the one loaded before.
    ///
    /// The file named by `COPPER_LIBFABRIC` is taken if that variable is set, else the first of:
    /// what the dynamic loader finds (`LD_LIBRARY_PATH`, which a module file sets, then the
    /// system's directories), and the usual places of vendors' packages. Signal handlers that
    /// the library and its providers install are taken out again. Call it early, before other
    /// threads change signal dispositions.
    ///
    /// # Errors
    ///
    /// No file tried is a usable libfabric; the error lists them and says what to install.
    pub fn load() -> Result<&'static Self, LoadError> {
        let candidates = match std::env::var_os(PATH_VARIABLE) {
            Some(path) if !path.is_empty() => vec![PathBuf::from(path)],
            _ => candidates(),
        };
        Self::load_first(&candidates)
    }

    /// Loads the first usable of `candidates`, or returns the library loaded before.
    ///
    /// # Errors
    ///
    /// As [`Library::load`].
    pub fn load_first(candidates: &[PathBuf]) -> Result<&'static Self, LoadError> {
        let _one_at_a_time = LOADING
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(library) = LIBRARY.get() {
            return Ok(library);
        }
        let _signals = SignalGuard::new();
        let mut tried = Vec::new();
        for path in candidates {
            match load_file(path) {
                Ok(library) => {
                    // The first query loads and initialises the providers.
                    let _ = library.providers();
                    return Ok(LIBRARY.get_or_init(|| library));
                }
                Err(reason) => tried.push((path.clone(), reason)),
            }
        }
        Err(LoadError { tried })
    }

    /// The file that was loaded.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// libfabric's API version, such as `1.17`.
    pub fn version(&self) -> String {
        version_text(self.version)
    }

    /// The names of all providers of this library, whether or not they can be used here.
    ///
    /// # Errors
    ///
    /// libfabric could not list them.
    pub fn providers(&self) -> Result<Vec<String>, FabricError> {
        let mut infos = vec![raw::ProviderInfo::EMPTY; MAX_PROVIDERS];
        // SAFETY: the library is loaded, and `infos` has room for the count given.
        let count = unsafe { raw::lfs_providers(infos.as_mut_ptr(), MAX_PROVIDERS as c_int) };
        let count =
            usize::try_from(count).map_err(|_| FabricError::new("fi_getinfo", count.into()))?;
        let mut names: Vec<String> = infos[..count]
            .iter()
            .map(|info| raw::text(&info.provider))
            .collect();
        names.retain(|name| !name.starts_with("ofi_hook_"));
        names.dedup();
        Ok(names)
    }

    /// Every way in which this machine can make an endpoint as Copper needs it (reliable
    /// datagrams, messages and remote reads), on the interface with that address if one is given,
    /// in libfabric's order.
    ///
    /// # Errors
    ///
    /// libfabric could not list them.
    pub fn usable(&self, address: Option<IpAddr>) -> Result<Vec<ProviderInfo>, FabricError> {
        let node = address.and_then(|address| CString::new(address.to_string()).ok());
        self.usable_for(&Hints {
            node,
            ..Hints::default()
        })
    }

    pub(crate) fn usable_for(&self, hints: &Hints) -> Result<Vec<ProviderInfo>, FabricError> {
        let mut infos = vec![raw::ProviderInfo::EMPTY; MAX_PROVIDERS];
        let count = hints.with_raw(|want| {
            // SAFETY: the library is loaded, `want` holds valid or null strings for the call,
            // and `infos` has room for the count given.
            unsafe { raw::lfs_usable(want, infos.as_mut_ptr(), MAX_PROVIDERS as c_int) }
        });
        if count == -libc::ENODATA {
            return Ok(Vec::new());
        }
        let count =
            usize::try_from(count).map_err(|_| FabricError::new("fi_getinfo", count.into()))?;
        Ok(infos[..count].iter().map(ProviderInfo::from).collect())
    }
}

/// What an endpoint is to be made of; `None` leaves it to libfabric.
#[derive(Default, Clone)]
pub(crate) struct Hints {
    pub(crate) provider: Option<CString>,
    pub(crate) device: Option<CString>,
    pub(crate) node: Option<CString>,
    pub(crate) service: Option<CString>,
}

impl Hints {
    /// Calls `body` with the C form, which is valid during the call only.
    pub(crate) fn with_raw<R>(&self, body: impl FnOnce(&raw::Hints) -> R) -> R {
        let pointer = |s: &Option<CString>| s.as_ref().map_or(std::ptr::null(), |s| s.as_ptr());
        body(&raw::Hints {
            provider: pointer(&self.provider),
            domain: pointer(&self.device),
            node: pointer(&self.node),
            service: pointer(&self.service),
        })
    }
}

/// Where libfabric may lie, in the order of preference.
fn candidates() -> Vec<PathBuf> {
    const FILE: &str = "libfabric.so.1";
    let mut paths = vec![PathBuf::from(FILE)];
    // HPE installs one directory per version; the newest is the site's default as a rule.
    if let Ok(entries) = std::fs::read_dir("/opt/cray/libfabric") {
        let mut versions: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        versions.sort();
        paths.extend(
            versions
                .into_iter()
                .rev()
                .map(|version| version.join("lib64").join(FILE)),
        );
    }
    for directory in [
        "/opt/amazon/efa/lib64",
        "/opt/amazon/efa/lib",
        "/usr/local/lib64",
        "/usr/local/lib",
    ] {
        paths.push(Path::new(directory).join(FILE));
    }
    paths
}

fn load_file(path: &Path) -> Result<Library, String> {
    let c_path = CString::new(path.as_os_str().as_bytes())
        .map_err(|_| "the path holds a zero byte".to_owned())?;
    let mut reason = [0; 512];
    // SAFETY: both strings are valid for the call, and `reason` is as long as stated. The
    // library's constructors run here: that is what loading a library means.
    let result = unsafe { raw::lfs_load(c_path.as_ptr(), reason.as_mut_ptr(), reason.len()) };
    if result != 0 {
        return Err(raw::text(&reason));
    }
    let mut loaded = [0; libc::PATH_MAX as usize];
    // SAFETY: `loaded` is as long as stated.
    unsafe { raw::lfs_library_path(loaded.as_mut_ptr(), loaded.len()) };
    let loaded = PathBuf::from(raw::text(&loaded));
    // SAFETY: the library has just been loaded.
    let version = unsafe { raw::lfs_version() };
    if version < OLDEST_VERSION {
        return Err(format!(
            "it is libfabric {} ({}); 1.15 or newer is needed",
            version_text(version),
            loaded.display()
        ));
    }
    Ok(Library {
        path: loaded,
        version,
    })
}
