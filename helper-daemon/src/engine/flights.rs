//! Single flight: who waits for which object.
#![forbid(unsafe_code)]

use super::{Object, Token};
use copper_core::path::{is_within, split_last};
use std::collections::HashMap;

/// What is on its way from the origin.
#[derive(Default)]
pub(super) struct Flights {
    flying: HashMap<Object, Flight>,
}

#[derive(Default)]
struct Flight {
    waiting: Vec<Token>,
    /// Something about the object changed after it took off: what lands must not be believed.
    stale: bool,
}

impl Flights {
    /// Lets `token` wait for `object`; `true` where nobody sent for it yet.
    pub(super) fn join(&mut self, object: &Object, token: Token) -> bool {
        if let Some(flight) = self.flying.get_mut(object) {
            flight.waiting.push(token);
            return false;
        }
        let flight = Flight {
            waiting: vec![token],
            stale: false,
        };
        self.flying.insert(object.clone(), flight);
        true
    }

    /// Whether `object` is on its way.
    pub(super) fn has(&self, object: &Object) -> bool {
        self.flying.contains_key(object)
    }

    /// Whether what is on its way for `object` may be believed.
    pub(super) fn is_fresh(&self, object: &Object) -> bool {
        self.flying.get(object).is_some_and(|flight| !flight.stale)
    }

    /// Ends a flight; returns who waits for it.
    pub(super) fn land(&mut self, object: &Object) -> Vec<Token> {
        self.flying.remove(object).unwrap_or_default().waiting
    }

    /// Notes that `path`, and all below it, changed.
    pub(super) fn disturb(&mut self, path: &[u8]) {
        let (parent, _) = split_last(path);
        for (object, flight) in &mut self.flying {
            let (Object::Entry(at) | Object::Directory(at) | Object::Content(at)) = object else {
                continue;
            };
            flight.stale |= is_within(at, path) || **at == *parent;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &[u8]) -> Object {
        Object::Entry(path.into())
    }

    #[test]
    fn an_object_is_sent_for_once() {
        let mut flights = Flights::default();
        assert!(flights.join(&entry(b"/a"), 1));
        assert!(!flights.join(&entry(b"/a"), 2));
        assert!(flights.is_fresh(&entry(b"/a")));
        assert_eq!(flights.land(&entry(b"/a")), [1, 2]);
        assert!(flights.join(&entry(b"/a"), 3));
    }

    #[test]
    fn a_change_disturbs_the_path_its_directory_and_all_below() {
        let mut flights = Flights::default();
        let directory = Object::Directory(b"/a".as_slice().into());
        for object in [
            &entry(b"/a/b"),
            &entry(b"/a/b/c"),
            &directory,
            &entry(b"/a/x"),
        ] {
            flights.join(object, 1);
        }
        flights.disturb(b"/a/b");
        assert!(!flights.is_fresh(&entry(b"/a/b")));
        assert!(!flights.is_fresh(&entry(b"/a/b/c")));
        assert!(!flights.is_fresh(&directory));
        assert!(flights.is_fresh(&entry(b"/a/x")));
    }
}
