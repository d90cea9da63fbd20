//! One path of the origin.
#![forbid(unsafe_code)]

use super::{Counters, Said, attributes_of, count};
use rustix::fs::CWD;
use rustix::io::Errno;
use std::os::fd::AsFd;

/// Asks the origin for one path, whose directories are free of links.
pub(crate) fn fetch(counters: &Counters, path: &[u8]) -> Said {
    fetch_at(counters, CWD, path)
}

/// Asks the origin for a name in an open directory.
pub(crate) fn fetch_at(counters: &Counters, directory: impl AsFd, name: &[u8]) -> Said {
    match attributes_of(counters, &directory, name) {
        Err(Errno::NOENT) => Said::Absent(Errno::NOENT.raw_os_error() as u16),
        Err(Errno::NOTDIR) => Said::Absent(Errno::NOTDIR.raw_os_error() as u16),
        Err(error) => {
            tracing::debug!(%error, name = %name.escape_ascii(), "the origin does not say");
            Said::Refused(error)
        }
        Ok(attributes) if attributes.is_link() => {
            count(&counters.readlinks, 1);
            match rustix::fs::readlinkat(&directory, name, Vec::new()) {
                Ok(target) => Said::Present(Box::new(attributes), target.into_bytes().into()),
                Err(error) => Said::Refused(error),
            }
        }
        Ok(attributes) => Said::Present(Box::new(attributes), Box::default()),
    }
}
