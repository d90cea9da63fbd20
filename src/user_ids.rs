//! User and group numbers as a user namespace has them.
//!
//! A program in a container may see other numbers for the same users than the helper outside, whose
//! numbers the catalog has. The helper reads the namespace's maps (`/proc/PID/uid_map`), as they look
//! from its own namespace, and gives them to the program with its memory.
#![forbid(unsafe_code)]

/// The number, inside, of whoever has none there: the kernel's own default (`overflowuid`).
pub const NOBODY: u32 = 65_534;

/// Most ranges of a map; a namespace with more is not served. (Apptainer makes one, Podman three.)
const RANGES: usize = 16;

/// Length of an encoded map, in bytes.
pub const MAP_LENGTH: usize = 4 + RANGES * 12;

/// Numbers in a row that are others in a row inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Range {
    inside: u32,
    outside: u32,
    count: u32,
}

/// What numbers of the helper's are in another namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMap {
    ranges: [Range; RANGES],
    used: usize,
}

impl IdMap {
    /// A map in which nobody has a number.
    pub const EMPTY: IdMap = IdMap {
        ranges: [Range {
            inside: 0,
            outside: 0,
            count: 0,
        }; RANGES],
        used: 0,
    };

    /// Reads a map of `/proc`: lines of the first number inside, the first outside, and how many.
    ///
    /// `None` where it is none, has too many lines, or is of a namespace that does not lie within
    /// the reader's (then there is no number outside).
    pub fn parse(text: &str) -> Option<IdMap> {
        let mut map = IdMap::EMPTY;
        for line in text.lines() {
            let mut numbers = line.split_ascii_whitespace().map(str::parse);
            let mut number = || numbers.next()?.ok();
            let range = Range {
                inside: number()?,
                outside: number()?,
                count: number()?,
            };
            map.add(range)?;
        }
        Some(map)
    }

    fn add(&mut self, range: Range) -> Option<()> {
        let Range {
            inside,
            outside,
            count,
        } = range;
        let sound = outside != u32::MAX
            && count > 0
            && inside.checked_add(count - 1).is_some()
            && outside.checked_add(count - 1).is_some();
        *self.ranges.get_mut(self.used).filter(|_| sound)? = range;
        self.used += 1;
        Some(())
    }

    /// The map's bytes.
    pub fn encode(&self) -> [u8; MAP_LENGTH] {
        let mut bytes = [0; MAP_LENGTH];
        let words = core::iter::once(self.used as u32).chain(
            self.ranges
                .iter()
                .flat_map(|range| [range.inside, range.outside, range.count]),
        );
        for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    /// Reads and checks a map's bytes.
    pub fn decode(bytes: &[u8; MAP_LENGTH]) -> Option<IdMap> {
        let word = |at: usize| {
            let bytes: [u8; 4] = core::array::from_fn(|i| bytes[4 * at + i]);
            u32::from_ne_bytes(bytes)
        };
        let used = usize::try_from(word(0))
            .ok()
            .filter(|&used| used <= RANGES)?;
        let mut map = IdMap::EMPTY;
        for number in 0..used {
            map.add(Range {
                inside: word(1 + 3 * number),
                outside: word(2 + 3 * number),
                count: word(3 + 3 * number),
            })?;
        }
        Some(map)
    }

    /// The number inside of whoever has `outside` in the helper's namespace.
    pub fn inside(&self, outside: u32) -> u32 {
        let found = self.ranges[..self.used].iter().find_map(|range| {
            let place = outside.checked_sub(range.outside)?;
            (place < range.count).then(|| range.inside + place)
        });
        found.unwrap_or(NOBODY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;

    #[test]
    fn numbers_are_those_of_the_namespace() {
        let podman = "         0       1000          1\n         1     100000      65536\n";
        let map = IdMap::parse(podman).expect("a map");
        let inside = [1000, 100_000, 165_535, 165_536, 0, 999].map(|outside| map.inside(outside));
        assert_eq!(inside, [0, 1, 65_536, NOBODY, NOBODY, NOBODY]);
        assert_eq!(IdMap::decode(&map.encode()), Some(map));
        let everybody = IdMap::parse("0 0 4294967295").expect("the first namespace's");
        assert_eq!(everybody.inside(4_294_967_294), 4_294_967_294);
        let nobody = IdMap::parse("").expect("a namespace without maps");
        assert_eq!(nobody, IdMap::EMPTY);
        assert_eq!(nobody.inside(0), NOBODY);
    }

    #[test]
    fn what_is_no_map_is_refused() {
        let long: String = (0..17).map(|n| std::format!("{n} {n} 1\n")).collect();
        for text in [
            "0 4294967295 1",
            "0 0 0",
            "0 0",
            "a b c",
            "4294967295 0 2",
            "-1 0 1",
            &long,
        ] {
            assert_eq!(IdMap::parse(text), None, "{text}");
        }
        let mut bytes = IdMap::EMPTY.encode();
        bytes[0] = 17;
        assert_eq!(IdMap::decode(&bytes), None);
        bytes[0] = 1;
        assert_eq!(IdMap::decode(&bytes), None, "a range of none");
    }
}
