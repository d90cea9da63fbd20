//! How an endpoint is made, and which provider it is made with.

use std::ffi::CString;
use std::net::IpAddr;

use crate::error::OpenError;
use crate::library::{Hints, Library, ProviderInfo};

/// The providers tried, in this order, when none is named.
pub const PREFERRED_PROVIDERS: [&str; 4] = ["cxi", "verbs;ofi_rxm", "tcp", "tcp;ofi_rxm"];

/// How an endpoint is made.
#[derive(Debug, Clone)]
pub struct EndpointConfig {
    /// The provider, such as `tcp;ofi_rxm`; `None` takes the first of [`PREFERRED_PROVIDERS`]
    /// that this machine has.
    pub provider: Option<String>,
    /// Address of the interface to use. Needed by the providers over sockets.
    pub address: Option<IpAddr>,
    /// Port to listen on; 0 takes a free one.
    pub port: u16,
    /// The device, such as `cxi0`; `None` leaves it to the provider.
    pub device: Option<String>,
    /// The longest message in bytes.
    pub message_size: usize,
    /// Messages that may arrive before they are looked at. It costs this many times
    /// `message_size` bytes.
    pub receives: usize,
    /// Messages that may be under way. It costs this many times `message_size` bytes.
    pub sends: usize,
    /// Reads that may be under way.
    pub reads: usize,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            provider: None,
            address: None,
            port: 0,
            device: None,
            message_size: 16 << 10,
            receives: 64,
            sends: 64,
            reads: 64,
        }
    }
}

/// Whether the provider's addresses are socket addresses.
pub(crate) fn over_sockets(provider: &str) -> bool {
    matches!(
        provider.split(';').next(),
        Some("tcp" | "net" | "sockets" | "udp")
    )
}

/// Socket addresses start with their family, which decides how the provider reads the rest.
pub(crate) fn same_family(address: &[u8], own: &[u8], info: &ProviderInfo) -> bool {
    !over_sockets(&info.name) || address.get(..2) == own.get(..2)
}

/// Decides on the provider and says what to look for.
pub(crate) fn choose_provider(
    library: &Library,
    config: &EndpointConfig,
) -> Result<Hints, OpenError> {
    let wanted: Vec<&str> = match &config.provider {
        Some(provider) => vec![provider],
        None => PREFERRED_PROVIDERS.to_vec(),
    };
    for provider in &wanted {
        let hints = hints_for(provider, config)?;
        if config.provider.is_some() && over_sockets(provider) && config.address.is_none() {
            return Err(OpenError::AddressNeeded((*provider).to_owned()));
        }
        if over_sockets(provider) && config.address.is_none() {
            continue;
        }
        let usable = library.usable_for(&hints)?;
        if usable.first().is_some_and(|info| info.name == *provider) {
            return Ok(hints);
        }
    }
    Err(no_provider(library, config, &wanted))
}

fn hints_for(provider: &str, config: &EndpointConfig) -> Result<Hints, OpenError> {
    let name = |text: &str| {
        CString::new(text).map_err(|_| OpenError::BadName(text.escape_debug().to_string()))
    };
    let mut hints = Hints {
        provider: Some(name(provider)?),
        ..Hints::default()
    };
    if let Some(device) = &config.device {
        hints.device = Some(name(device)?);
    }
    // A Slingshot address is the card's: it is chosen by device.
    if !provider.starts_with("cxi") {
        if let Some(address) = config.address {
            hints.node = Some(name(&address.to_string())?);
        }
        if config.port != 0 || config.address.is_some() {
            hints.service = Some(name(&config.port.to_string())?);
        }
    }
    Ok(hints)
}

fn no_provider(library: &Library, config: &EndpointConfig, wanted: &[&str]) -> OpenError {
    let join = |mut names: Vec<String>| {
        names.dedup();
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        }
    };
    let anywhere = EndpointConfig {
        provider: None,
        ..config.clone()
    };
    let usable = hints_for("", &anywhere)
        .ok()
        .map(|hints| Hints {
            provider: None,
            ..hints
        })
        .and_then(|hints| library.usable_for(&hints).ok())
        .unwrap_or_default();
    let mut place = match (&config.device, config.address) {
        (Some(device), Some(address)) => format!("on device {device} with address {address}"),
        (Some(device), None) => format!("on device {device}"),
        (None, Some(address)) => format!("on the interface with address {address}"),
        (None, None) => "on this machine (name an interface's address to use sockets)".to_owned(),
    };
    if let Some(filter) = std::env::var_os("FI_PROVIDER") {
        place += &format!(" (the environment restricts it to {})", filter.display());
    }
    OpenError::NoProvider {
        version: library.version(),
        wanted: wanted.join(" or "),
        place,
        usable: join(usable.into_iter().map(|info| info.name).collect()),
        known: join(library.providers().unwrap_or_default()),
    }
}
