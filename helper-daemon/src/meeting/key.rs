//! The job's key: 32 random bytes, which travel only in the job's description (`crate::job`).
//!
//! It is never on a command line nor in an application's environment.

use std::fmt;

/// Bytes of a key.
const LENGTH: usize = 32;

/// A job's key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct JobKey([u8; LENGTH]);

impl JobKey {
    /// Draws a key.
    ///
    /// # Errors
    ///
    /// The system has no random bytes.
    pub(crate) fn draw() -> Result<Self, getrandom::Error> {
        let mut key = [0; LENGTH];
        getrandom::fill(&mut key)?;
        Ok(Self(key))
    }

    /// Reads what [`JobKey::digits`] wrote; `None` where it is no key.
    pub(crate) fn parse(digits: &str) -> Option<Self> {
        if digits.len() != 2 * LENGTH || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut key = [0; LENGTH];
        for (at, byte) in key.iter_mut().enumerate() {
            *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        Some(JobKey(key))
    }

    /// The key in hexadecimal digits, for the job's description and nothing else.
    pub(crate) fn digits(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The bytes, for keyed hashing.
    pub(crate) fn bytes(&self) -> &[u8; LENGTH] {
        &self.0
    }
}

impl fmt::Debug for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JobKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_back_and_no_two_are_alike() {
        let key = JobKey::draw().unwrap();
        assert!(JobKey::parse(&key.digits()) == Some(key.clone()));
        assert!(JobKey::draw().unwrap() != key);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in ["", "abc", &"g".repeat(64), &"0".repeat(63), &"0".repeat(66)] {
            assert!(JobKey::parse(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn a_key_is_not_printed() {
        assert_eq!(format!("{:?}", JobKey([0xab; 32])), "JobKey(..)");
    }
}
