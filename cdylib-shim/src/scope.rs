//! Which paths a walk may answer for, and which directories this user may search: the audit library
//! goes by the same.

use crate::session::Session;
use copper_core::attributes::Attributes;
use copper_core::catalog::resolve;
use copper_core::path;
use core::ffi::c_int;

/// How a covered path was named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Below the view: read-only.
    View,
    /// By its own name, below a covered prefix: writes reach the origin.
    Prefix,
}

/// Which canonical paths a walk may answer for.
pub(crate) struct Reach<'s> {
    pub(crate) session: &'s Session,
    pub(crate) scope: Scope,
}

impl<'s> Reach<'s> {
    fn parent_of_view(&self) -> &'s [u8] {
        path::split_last(self.session.view).0
    }
}

impl resolve::Scope for Reach<'_> {
    fn covers(&self, path: &[u8]) -> bool {
        match self.scope {
            Scope::View => !path::is_node_local(path) || self.session.covers(path),
            Scope::Prefix => self.session.covers(path),
        }
    }

    fn leads_inside(&self, path: &[u8]) -> bool {
        match self.scope {
            Scope::View => self.covers(path),
            Scope::Prefix => {
                self.covers(path) || self.session.prefixes().any(|p| path::is_within(p, path))
            }
        }
    }

    #[inline]
    fn may_search(&self, directory: &Attributes) -> bool {
        grants(self.session, directory, libc::X_OK) == Some(true)
    }

    fn above_root(&self) -> Option<&[u8]> {
        (self.scope == Scope::View).then(|| self.parent_of_view())
    }
}

/// Whether the mode bits grant `wanted` (`R_OK`, `W_OK`, `X_OK` together) to the session's user;
/// `None` where they do not settle it.
pub(crate) fn grants(session: &Session, attributes: &Attributes, wanted: c_int) -> Option<bool> {
    let wanted = wanted as u32;
    let class = |shift: u32| (attributes.mode >> shift) & wanted == wanted;
    if attributes.uid == session.catalog_uid {
        let granted = class(6);
        return (granted || session.uid != 0).then_some(granted);
    }
    // Whether the user is in the group need not be known where both classes grant it.
    (class(3) && class(0)).then_some(true)
}
