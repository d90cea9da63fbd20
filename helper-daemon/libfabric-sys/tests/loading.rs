//! What users are told when something is missing, and what loading leaves behind.

use std::path::PathBuf;

use libfabric_sys::{Endpoint, EndpointConfig, Library, OpenError};

/// The signals for which this process has a handler (`SigCgt`).
fn caught_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("SigCgt:"))
        .unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

/// One test: the parts must run in this order, in a process that has no library yet.
#[test]
fn loading_reports_what_is_missing_and_leaves_no_signal_handler() {
    let error = Library::load_first(&[
        PathBuf::from("/nonexistent/libfabric.so.1"),
        PathBuf::from("libm.so.6"),
    ])
    .expect_err("neither is a libfabric");
    let text = error.to_string();
    for expected in [
        "/nonexistent/libfabric.so.1",
        "libm.so.6",
        "apt install libfabric1",
    ] {
        assert!(text.contains(expected), "{expected} is not in: {text}");
    }

    let before = caught_signals();
    let library =
        Library::load().unwrap_or_else(|error| panic!("these tests need libfabric: {error}"));
    assert!(library.path().is_absolute(), "{library:?}");
    let address = Some("127.0.0.1".parse().unwrap());
    let config = EndpointConfig {
        address,
        ..EndpointConfig::default()
    };
    let endpoint = Endpoint::open(&config).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        caught_signals(),
        before,
        "a provider's signal handlers are installed"
    );
    drop(endpoint);
    assert_eq!(caught_signals(), before);

    let provider = Some("carrierpigeon".to_owned());
    let error = Endpoint::open(&EndpointConfig {
        provider,
        ..config.clone()
    })
    .err()
    .unwrap();
    assert!(matches!(error, OpenError::NoProvider { .. }), "{error:?}");
    let text = error.to_string();
    for expected in ["carrierpigeon", "127.0.0.1", "tcp", "Known to the library"] {
        assert!(text.contains(expected), "{expected} is not in: {text}");
    }

    let provider = Some("tcp;ofi_rxm".to_owned());
    let error = Endpoint::open(&EndpointConfig {
        provider,
        address: None,
        ..config
    })
    .err()
    .unwrap();
    assert_eq!(error, OpenError::AddressNeeded("tcp;ofi_rxm".to_owned()));
}
