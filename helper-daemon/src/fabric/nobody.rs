//! The transport of a job of one node: there is nobody to reach, so it needs no libfabric.
#![forbid(unsafe_code)]

use super::{
    AdmitError, Counters, Event, Fetch, Offer, OfferId, PostError, Rank, Session, Transport,
};
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// What it is called where a provider is named.
pub(crate) const NAME: &str = "none, as there is one node";

/// It knows no peer.
#[derive(Debug)]
pub(crate) struct Nobody;

impl Transport for Nobody {
    fn addresses(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }

    fn admit(&mut self, _: Rank, _: Session) -> Result<(), AdmitError> {
        Err(AdmitError("the job has one node".to_owned()))
    }

    fn dismiss(&mut self, _: Rank) {}

    fn send(&mut self, _: Rank, _: &[u8], _: Instant) -> Result<(), PostError> {
        Err(PostError::Unknown)
    }

    fn offer(&mut self, _: &File, _: u64, _: usize) -> io::Result<Offer> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn withdraw(&mut self, _: OfferId) {}

    fn fetch(&mut self, _: Rank, _: Fetch) -> Result<(), PostError> {
        Err(PostError::Unknown)
    }

    fn post(&mut self, _: Instant) {}

    fn poll(&mut self, _: Instant, _: &mut Vec<Event>) {}

    fn wait_descriptors(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    fn may_sleep(&mut self) -> bool {
        true
    }

    fn next_deadline(&self) -> Option<Instant> {
        None
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }

    fn close(&mut self, _: Duration) {}
}
