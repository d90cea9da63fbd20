//! Binding to a libfabric found at run time, through a small C shim.
//!
//! # Building
//!
//! A C compiler is needed; libfabric and its headers are not. The shim declares by itself the
//! part of libfabric's binary interface that it uses (`shim/abi.h`: symbol version FABRIC_1.3,
//! API version 1.15), so the result depends on nothing but the source, and one binary serves
//! every site with that site's own library and providers. A test compares the declarations with
//! real headers.
//!
//! # Running
//!
//! `libfabric.so.1` is loaded when it is first needed ([`Library::load`] says from where), 1.15
//! or newer. All unsafe code that concerns libfabric is in this crate; its public interface is
//! safe.
//!
//! # Use
//!
//! ```no_run
//! use libfabric_sys::{Endpoint, EndpointConfig, Event};
//! use std::time::{Duration, Instant};
//!
//! let config =
//!     EndpointConfig { address: Some("127.0.0.1".parse()?), ..EndpointConfig::default() };
//! let mut endpoint = Endpoint::open(&config)?;
//! let peer = endpoint.insert(&endpoint.address().to_vec())?;
//! endpoint.send(peer, b"hello", 1, Instant::now() + Duration::from_secs(1))?;
//! loop {
//!     while let Some(event) = endpoint.next_event()? {
//!         if let Event::Message(bytes) = event {
//!             assert_eq!(bytes, b"hello");
//!             return Ok(());
//!         }
//!     }
//!     endpoint.wait(Duration::from_millis(100))?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod endpoint;
mod error;
mod library;
mod memory;
mod operations;
mod provider;
mod raw;
mod region;
mod signals;

pub use endpoint::{Closed, Endpoint, Event, Peer};
pub use error::{FabricError, LoadError, OpenError, PostError};
pub use library::{Library, PATH_VARIABLE, ProviderInfo, RECOMMENDED_ENVIRONMENT};
pub use memory::{Mapping, Memory};
pub use provider::{EndpointConfig, PREFERRED_PROVIDERS};
pub use region::{Access, Region, RemoteRegion};
